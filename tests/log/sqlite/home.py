"""A file, the logs that a test opens on it, and what it appends to them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub.errors import LogUnavailable
from hub.log.receipt import Receipt
from hub.log.sqlite.log import SQLiteLog
from hub.notification import Draft, Notification, Position
from tests.contracts.test_log import Clock, append
from tests.log.sqlite.processes import crash


class Home:
    """A file, and the logs that a test opens on it; they are closed with the test.

    Attributes:
        clock: seconds since 1970, for all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self._logs: list[SQLiteLog] = []

    async def open(self, path: Path | None = None, **bounds: Any) -> SQLiteLog:
        """Open the log on the file, or on *path*."""
        options: dict[str, Any] = {"count": 10**6, "size": 10**9, "age": None, "clock": self.clock, **bounds}
        log = SQLiteLog(path or self.path, **options)
        self._logs.append(log)
        await log.open()
        return log

    async def refused(self, path: Path | None = None) -> str:
        """Try to open the log and return why that is refused."""
        with pytest.raises(LogUnavailable) as refusal:
            await self.open(path)
        return str(refusal.value)

    async def restart(self, log: SQLiteLog, how: str, **bounds: Any) -> SQLiteLog:
        """End *log* and open it again; *how* is `closed` or `killed`."""
        await (crash(log) if how == "killed" else log.aclose())
        return await self.open(**bounds)

    @property
    def size(self) -> int:
        """The bytes on the disk, the write-ahead log included."""
        return sum(each.stat().st_size for each in self.path.parent.glob(self.path.name + "*"))

    def ask(self, query: str) -> list[Any]:
        """Ask the file itself."""
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            return list(database.execute(query))

    def put_aside(self) -> list[Path]:
        """The files that were found damaged, without what belongs to them."""
        return [each for each in self.path.parent.glob("*.damaged-*") if not each.name.endswith(("-wal", "-shm"))]

    async def aclose(self) -> None:
        for log in self._logs:
            await log.aclose()


async def outcome(receipt: Receipt) -> Position | LogUnavailable:
    try:
        return await receipt
    except LogUnavailable as error:
        return error


async def settled(receipts: Sequence[Receipt]) -> list[Position | LogUnavailable]:
    return list(await asyncio.gather(*map(outcome, receipts)))


def numbered(*numbers: int, topic: str = "a", **options: Any) -> list[Draft]:
    return [Draft.of(number, topic=topic, **options) for number in numbers]


def data(notifications: Sequence[Notification]) -> list[Any]:
    return [each.data for each in notifications]


async def fill(log: SQLiteLog, count: int, draft: Callable[[int], Draft]) -> None:
    """Append *count* drafts, a thousand at a time."""
    for start in range(0, count, 1_000):
        await log.append([draft(number) for number in range(start, min(start + 1_000, count))])[-1]


async def left(home: Home, *topics: str) -> str:
    """Leave a log with *topics*, closed, and return its epoch."""
    log = await home.open()
    await append(log, *topics)
    await log.aclose()
    return log.epoch


def change(path: Path, *statements: str) -> None:
    """Do something to the SQLite file at *path*, or make one with it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)
