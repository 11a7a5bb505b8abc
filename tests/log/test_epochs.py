"""The epochs that a log in a file has had: who comes back with an id of one of them goes on, if that is the truth."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from hub.log.log import Located
from hub.log.sqlite.log import SQLiteLog
from hub.log.sqlite.worker.file import EPOCHS
from hub.notification import Position
from tests.contracts.conftest import Clock
from tests.contracts.test_log import another, append, told

pytestmark = pytest.mark.slow

Open = Callable[[Path], Awaitable[SQLiteLog]]
GAP = Located(None, "epoch")


@pytest.fixture
async def open_log(clock: Clock) -> AsyncIterator[Open]:
    """Open the log of a file, and close it in the end if the test has not."""
    opened: list[SQLiteLog] = []

    async def one(path: Path) -> SQLiteLog:
        log = SQLiteLog(path, count=10**6, size=10**9, age=None, clock=clock)
        await log.open()
        opened.append(log)
        return log

    yield one
    for log in opened:
        await log.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def left(open_log: Open, path: Path, *topics: str) -> str:
    """Leave a log with *topics* more, closed, and return its epoch."""
    log = await open_log(path)
    await append(log, *topics)
    await log.aclose()
    return log.epoch


def copied(path: Path, to: Path) -> Path:
    """Copy the file, but not its lock."""
    to.parent.mkdir(exist_ok=True)
    return Path(shutil.copy2(path, to))


def beyond(end: int) -> Located:
    """Return what is said of a position behind the *end* of its epoch."""
    return Located(None, "epoch", end)


async def located(log: SQLiteLog, epoch: str, *offsets: int) -> list[Located]:
    return [await log.locate(Position(epoch, offset)) for offset in offsets]


async def test_a_copy_knows_how_far_the_original_went_then(open_log: Open, tmp_path: Path):
    path = tmp_path / "hub.db"
    epoch = await left(open_log, path, "a", "b")
    copy = copied(path, tmp_path / "elsewhere" / "hub.db")
    await left(open_log, path, "only", "in", "the", "original")
    log = await open_log(copy)
    assert log.epoch != epoch
    assert await located(log, epoch, 0, 2, 3) == [Located(0), Located(2), beyond(2)]
    await append(log, "c", "d")
    assert await located(log, epoch, 2, 3, 4) == [Located(2), beyond(2), beyond(2)], (
        "what is there now is something else"
    )
    assert await located(log, log.epoch, 2, 4) == [Located(2), Located(4)]


async def test_a_restart_knows_it_as_well(open_log: Open, tmp_path: Path):
    first = await left(open_log, tmp_path / "hub.db", "a")
    copy = copied(tmp_path / "hub.db", tmp_path / "elsewhere" / "hub.db")
    second = await left(open_log, copy, "b")
    log = await open_log(copy)
    assert log.epoch == second
    assert await located(log, first, 1, 2) == [Located(1), beyond(1)]


async def test_a_backup_of_a_copy_knows_both_epochs_before_it(open_log: Open, tmp_path: Path):
    first = await left(open_log, tmp_path / "hub.db", "a")
    copy = copied(tmp_path / "hub.db", tmp_path / "b" / "hub.db")
    second = await left(open_log, copy, "b")
    log = await open_log(copied(copy, tmp_path / "c" / "hub.db"))
    await append(log, "c")
    assert len({first, second, log.epoch}) == 3
    assert await located(log, first, 1, 2) == [Located(1), beyond(1)]
    assert await located(log, second, 1, 2, 3) == [Located(1), Located(2), beyond(2)]


async def test_a_file_that_lost_what_it_had_confirmed_ended_where_it_stands(open_log: Open, tmp_path: Path):
    path = tmp_path / "hub.db"
    epoch = await left(open_log, path, *"abcde")
    older = copied(path, tmp_path / "older")
    await left(open_log, path, "f", "g")
    older.replace(path)  # as if the write-ahead log had been lost with its newest commits
    log = await open_log(path)
    assert log.epoch != epoch
    assert await located(log, epoch, 5, 6, 7) == [Located(5), beyond(5), beyond(5)]


async def test_a_new_log_in_the_place_of_another_one_knows_nothing_of_that(open_log: Open, tmp_path: Path):
    epoch = await left(open_log, tmp_path / "hub.db", "a")
    (tmp_path / "hub.db").unlink()
    log = await open_log(tmp_path / "hub.db")
    assert await located(log, epoch, 0, 1) == [GAP, GAP]


async def test_a_history_taken_over_comes_without_the_past_of_the_file(open_log: Open, tmp_path: Path):
    epoch = await left(open_log, tmp_path / "hub.db")
    log = await open_log(copied(tmp_path / "hub.db", tmp_path / "copy" / "hub.db"))
    assert await located(log, epoch, 0) == [Located(0)]
    other = await another("a", "b")
    await log.adopt(
        other.epoch, 2, other.trimmed_state(), told(list((await other.read(0, ["**"], upto=2)).notifications))
    )
    assert await located(log, epoch, 0) == [GAP]
    assert await located(log, other.epoch, 2, 3) == [Located(2), Located(None, "unknown")]


async def test_only_so_many_epochs_are_remembered(open_log: Open, tmp_path: Path):
    path = tmp_path / "hub.db"
    epoch = await left(open_log, path, "a")
    with closing(sqlite3.connect(path)) as database, database:
        many = [(f"e{number}", number) for number in range(2 * EPOCHS)]
        database.executemany("INSERT INTO epoch (name, ended) VALUES (?, ?)", many)
    log = await open_log(copied(path, tmp_path / "copy" / "hub.db"))
    assert await located(log, epoch, 1) == [Located(1)]
    assert len(log._ended) == EPOCHS
    assert list(log._ended)[-2:] == [f"e{2 * EPOCHS - 1}", epoch]
