"""The homes of a log that the contract is tested on; a new one is one more parameter."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.log.log import Log, MovableLog
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import SQLiteLog
from tests.contracts.far import Elsewhere, FarLog

Make = Callable[..., Awaitable[Log]]
MakeMovable = Callable[..., Awaitable[MovableLog]]


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def maker(home: str, clock: Clock, folder: Path) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Return a maker of logs in *home*, closed in the end."""
    made: list[Log] = []

    async def one(**bounds: Any) -> Log:
        bounds = {"count": 10**6, "size": 10**9, "age": None, "clock": clock, **bounds}
        log: Log
        if home == "memory":
            log = MemoryLog(**bounds)
        elif home == "sqlite":
            log = SQLiteLog(folder / f"{len(made)}.db", **bounds)
        else:
            log = FarLog(Elsewhere(**bounds))
        await log.open()
        made.append(log)
        return log

    yield one
    for log in made:
        await log.aclose()


@pytest.fixture(params=["memory", "sqlite", "far"])
async def make(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[Make]:
    """Return a maker of logs, in every home there is."""
    async with maker(request.param, clock, tmp_path) as one:
        yield one


@pytest.fixture(params=["memory", "sqlite"])
async def make_movable(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[MakeMovable]:
    """Return a maker of logs whose history can move."""
    async with maker(request.param, clock, tmp_path) as one:
        yield one
