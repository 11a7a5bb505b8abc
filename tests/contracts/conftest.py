"""The homes of a log that the contract is tested on; a new one is one more parameter."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.log.log import Log, MovableLog
from hub.log.memory import MemoryLog
from hub.log.redis.log import RedisLog
from hub.log.sqlite.log import SQLiteLog
from hub.redis_url import RedisURL
from tests.contracts.far import Elsewhere, FarLog
from tests.redis_server import KINDS, RedisServer, servers

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


Servers = dict[str, RedisServer]


@pytest.fixture(scope="session")
def redis_servers() -> Iterator[Callable[[str], RedisServer]]:
    """Return what returns the running server of a kind: each is started once, and shared by hubs of other names."""
    running: Servers = {}
    with servers() as make:

        def of(kind: str) -> RedisServer:
            if kind not in running:
                running[kind] = make(kind)
                running[kind].start_now()
            return running[kind]

        yield of


@asynccontextmanager
async def maker(
    home: str, clock: Clock, folder: Path, server: RedisServer | None = None
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Return a maker of logs in *home*, closed in the end."""
    made: list[Log] = []

    async def one(**bounds: Any) -> Log:
        bounds = {"count": 10**6, "size": 10**9, "age": None, "clock": clock, **bounds}
        log: Log
        if home == "memory":
            log = MemoryLog(**bounds)
        elif home == "sqlite":
            log = SQLiteLog(folder / f"{len(made)}.db", **bounds)
        elif server is not None:
            log = RedisLog(RedisURL.parse(server.url), prefix=secrets.token_hex(4), **bounds)
            if "paged" in home:
                log._ring.has = nothing  # type: ignore[method-assign,assignment]
        else:
            log = FarLog(Elsewhere(**bounds))
        await log.open()
        made.append(log)
        return log

    yield one
    for log in made:
        await log.aclose()


def nothing(*asked: Any) -> bool:
    """Say that a process does not hold what is asked for: all is read in Redis."""
    return False


@pytest.fixture(params=["memory", "sqlite", "far", *(f"{kind}{way}" for kind in KINDS for way in ("", " paged"))])
async def make(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path, redis_servers: Callable[[str], RedisServer]
) -> AsyncIterator[Make]:
    """Return a maker of logs, in every home there is; in Redis, read from this process's own memory, or in pages."""
    kind = request.param.removesuffix(" paged")
    async with maker(request.param, clock, tmp_path, redis_servers(kind) if kind in KINDS else None) as one:
        yield one


@pytest.fixture(params=["memory", "sqlite"])
async def make_movable(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[MakeMovable]:
    """Return a maker of logs whose history can move."""
    async with maker(request.param, clock, tmp_path) as one:
        yield one
