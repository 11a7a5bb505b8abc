"""The thread that writes: what it does while the disk, or whoever waits, does something else."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from hub.errors import StateUnavailable
from hub.state import journal as module
from hub.state.journal import File, Journal, Statement

INSERT = "INSERT INTO bucket VALUES (?, ?)"


def row(number: int) -> Statement:
    return (INSERT, (number, 1.0))


def numbers(path: Path) -> list[int]:
    database = sqlite3.connect(path)
    try:
        return [number for (number,) in database.execute("SELECT number FROM bucket ORDER BY number")]
    finally:
        database.close()


class Gate(File):
    """A file whose commits wait until they may go on."""

    may = threading.Event()
    begun = threading.Semaphore(0)

    def commit(self, statements: Sequence[Statement]) -> None:
        self.begun.release()
        assert self.may.wait(60)
        super().commit(statements)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> type[Gate]:
    monkeypatch.setattr(module, "File", Gate)
    Gate.may, Gate.begun = threading.Event(), threading.Semaphore(0)
    return Gate


async def begun(gate: type[Gate]) -> None:
    """Wait until a commit has begun."""
    assert await asyncio.to_thread(gate.begun.acquire, timeout=60)


async def test_what_comes_during_a_commit_shares_the_next_one(tmp_path: Path, gate: type[Gate]):
    path = tmp_path / "state.db"
    journal = Journal(path, patience=60)
    await journal.open()
    writes = [journal.write(row(0))]
    await begun(gate)
    writes += [journal.write(row(each)) for each in range(1, 100)]
    gate.may.set()
    await asyncio.gather(*writes)
    assert gate.begun.acquire(blocking=False)
    assert not gate.begun.acquire(blocking=False)
    await journal.aclose()
    assert numbers(path) == list(range(100))


async def test_a_commit_that_fails_takes_all_of_its_batch_with_it_and_nothing_else(tmp_path: Path, gate: type[Gate]):
    path = tmp_path / "state.db"
    journal = Journal(path, patience=60)
    await journal.open()
    writes = [journal.write(row(0))]
    await begun(gate)
    writes += [journal.write(row(1)), journal.write(row(2), ("NONSENSE", ())), journal.write(row(3))]
    gate.may.set()
    said = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in said] == [type(None)] + [StateUnavailable] * 3
    assert journal.up
    await journal.keep(row(4))
    await journal.aclose()
    assert numbers(path) == [0, 4]


async def test_whoever_is_cancelled_takes_nothing_with_him(tmp_path: Path, gate: type[Gate]):
    path = tmp_path / "state.db"
    journal = Journal(path, patience=60)
    await journal.open()
    task = asyncio.ensure_future(journal.keep(row(1)))
    await begun(gate)
    task.cancel()
    abandoned = journal.write(row(2))
    abandoned.cancel()
    gate.may.set()
    await journal.keep(row(3))
    await journal.aclose()
    assert task.cancelled()
    assert numbers(path) == [1, 2, 3]


async def test_a_disk_that_does_not_answer_is_waited_for_once(tmp_path: Path, gate: type[Gate]):
    path = tmp_path / "state.db"
    journal = Journal(path, patience=0.05)
    await journal.open()
    with pytest.raises(StateUnavailable, match="does not answer"):
        await journal.keep(row(1))
    assert not journal.up
    refused = journal.write(row(2))
    assert isinstance(refused.exception(), StateUnavailable)
    gate.may.set()
    while not journal.up:  # noqa: ASYNC110 - a state of a thread, which has no event
        await asyncio.sleep(0.01)
    await journal.aclose()
    assert numbers(path) == [1]


async def test_too_much_does_not_wait(tmp_path: Path, gate: type[Gate], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "WAITING", 3)
    journal = Journal(tmp_path / "state.db", patience=60)
    await journal.open()
    writes = [journal.write(row(each)) for each in range(4)]
    assert isinstance(writes[3].exception(), StateUnavailable)
    gate.may.set()
    await asyncio.gather(*writes[:3])
    await journal.keep(row(4))
    await journal.aclose()


async def test_an_end_does_not_wait_for_a_disk_that_does_not_answer(
    tmp_path: Path, gate: type[Gate], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    journal = Journal(tmp_path / "state.db")
    await journal.open()
    journal.write(row(1))
    await begun(gate)
    await journal.aclose()
    assert "can't be closed: its disk does not answer" in caplog.text
    gate.may.set()
    await journal.aclose()


async def test_a_start_that_is_cancelled_leaves_no_thread(tmp_path: Path):
    journal = Journal(tmp_path / "state.db")
    task = asyncio.ensure_future(journal.open())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await journal.aclose()
    for thread in threading.enumerate():
        if thread.name == "hub-state":
            thread.join(60)  # it has said that it ends
            assert not thread.is_alive()


async def test_a_disk_that_does_not_answer_at_the_start_is_waited_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    may = threading.Event()

    class Slow(File):
        def __init__(self, path: Path) -> None:
            assert may.wait(60)
            super().__init__(path)

    monkeypatch.setattr(module, "File", Slow)
    monkeypatch.setattr(module, "OPEN_SECONDS", 0.05)
    journal = Journal(tmp_path / "state.db")
    with pytest.raises(StateUnavailable, match="does not answer"):
        await journal.open()
    may.set()
    await journal.aclose()
