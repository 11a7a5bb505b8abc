"""The process that writes the file: what happens while it dies, hangs, or does something else."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from hub.errors import StateUnavailable
from hub.log.sqlite.process import WorkerProcess
from hub.state import journal as module
from hub.state.journal import Journal, Statement
from tests.log.sqlite.processes import ended, kill, pid, processes, stop
from tests.web.client import until

Make = Callable[..., Awaitable[Journal]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Return a maker of open journals of one file, closed in the end."""
    made: list[Journal] = []

    async def one(patience: float = 60.0) -> Journal:
        journal = Journal(tmp_path / "state.db", patience)
        await journal.open()
        made.append(journal)
        return journal

    yield one
    for journal in made:
        await journal.aclose()


def worker(journal: Journal) -> WorkerProcess:
    assert journal._worker.process is not None
    return journal._worker.process


def go_on(journal: Journal) -> None:
    os.kill(pid(worker(journal)), signal.SIGCONT)


def row(number: int) -> Statement:
    return ("INSERT INTO bucket VALUES (?, ?)", (number, 1.0))


async def numbers(journal: Journal, path: Path) -> list[int]:
    """Close *journal*, and return what is in its file."""
    await journal.aclose()
    database = sqlite3.connect(path / "state.db")
    try:
        return [number for (number,) in database.execute("SELECT number FROM bucket ORDER BY number")]
    finally:
        database.close()


def requests(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the number of statements of each commit is added."""
    asked: list[int] = []
    ask = worker(journal).ask

    async def counted(call: str, statements: list[Statement]) -> dict[str, object]:
        asked.append(len(statements))
        return await ask(call, statements)

    monkeypatch.setattr(worker(journal), "ask", counted)
    return asked


async def test_what_comes_during_a_commit_shares_the_next_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = await make()
    asked = requests(journal, monkeypatch)
    stop(worker(journal))
    writes = [journal.write(row(0))]
    await until(lambda: asked == [1])
    writes += [journal.write(row(each)) for each in range(1, 100)]
    go_on(journal)
    await asyncio.gather(*writes)
    assert asked == [1, 99]
    assert await numbers(journal, tmp_path) == list(range(100))


async def test_a_commit_that_fails_takes_all_of_its_batch_with_it_and_nothing_else(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = await make()
    asked = requests(journal, monkeypatch)
    stop(worker(journal))
    writes = [journal.write(row(0))]
    await until(lambda: asked == [1])
    writes += [journal.write(row(1)), journal.write(row(2), ("NONSENSE", ())), journal.write(row(3))]
    go_on(journal)
    said = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) for each in said] == [type(None)] + [StateUnavailable] * 3
    assert journal.up
    await journal.keep(row(4))
    assert await numbers(journal, tmp_path) == [0, 4]


async def test_whoever_is_cancelled_takes_nothing_with_him(make: Make, tmp_path: Path):
    journal = await make()
    stop(worker(journal))
    task = asyncio.ensure_future(journal.keep(row(1)))
    await asyncio.sleep(0)
    task.cancel()
    journal.write(row(2)).cancel()
    go_on(journal)
    await journal.keep(row(3))
    assert task.cancelled()
    assert await numbers(journal, tmp_path) == [1, 2, 3]


async def test_a_process_that_does_not_answer_is_waited_for_a_bounded_time(make: Make, tmp_path: Path):
    journal = await make(patience=0.05)
    stop(worker(journal))
    with pytest.raises(StateUnavailable, match="does not answer"):
        await journal.keep(row(1))
    go_on(journal)
    await until(lambda: journal._committing is None)
    assert await numbers(journal, tmp_path) == [1]


@pytest.mark.slow
async def test_a_process_that_hangs_is_replaced_and_nobody_waits_for_it_meanwhile(make: Make, tmp_path: Path):
    journal = await make(patience=60)
    await journal.keep(row(1))
    old = worker(journal)
    stop(old)
    hung = journal.write(row(2))
    async with asyncio.timeout(60):
        while journal.up:  # noqa: ASYNC110 - a state that has no event
            await asyncio.sleep(0.01)
        while not hung.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert isinstance(hung.exception(), StateUnavailable)
    await until(lambda: journal.up)
    await journal.keep(row(3))
    assert worker(journal) is not old
    assert await numbers(journal, tmp_path) == [1, 3]


async def test_a_process_that_is_killed_is_replaced_and_what_was_confirmed_is_there(make: Make, tmp_path: Path):
    journal = await make()
    for each in range(5):
        await journal.keep(row(each))
        await kill(worker(journal))
    await journal.keep(row(5))
    assert await numbers(journal, tmp_path) == list(range(6))


async def test_a_file_that_is_another_one_by_now_is_not_written(make: Make, tmp_path: Path):
    journal = await make()
    await journal.keep(row(1))
    (tmp_path / "state.db").rename(tmp_path / "moved.db")
    (tmp_path / "state.db").touch()
    await kill(worker(journal))
    with pytest.raises(StateUnavailable):
        await journal.keep(row(2))
    assert not (tmp_path / "state.db").stat().st_size


async def test_too_much_does_not_wait(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "WAITING", 3)
    journal = await make()
    writes = [journal.write(row(each)) for each in range(4)]
    assert isinstance(writes[3].exception(), StateUnavailable)
    await asyncio.gather(*writes[:3])
    await journal.keep(row(4))
    assert await numbers(journal, tmp_path) == [0, 1, 2, 4]


async def test_an_end_writes_what_waits_and_leaves_no_process(make: Make, tmp_path: Path):
    journal = await make()
    (process,) = processes("state", tmp_path / "state.db")
    writes = [journal.write(row(each)) for each in range(100)]
    assert await numbers(journal, tmp_path) == list(range(100))
    await asyncio.gather(*writes)
    assert ended(process)
    with pytest.raises(StateUnavailable):
        await journal.keep(row(100))


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path):
    journal = Journal(tmp_path / "state.db")
    task = asyncio.ensure_future(journal.open())
    await until(lambda: bool(processes("state", tmp_path / "state.db")))
    task.cancel()
    await asyncio.wait([task])
    await journal.aclose()
    assert not [each for each in processes("state", tmp_path / "state.db") if not ended(each)]
