"""A process of the log that dies or hangs: it is noticed, ended and replaced; what was asked is settled once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from hub.errors import LogUnavailable
from hub.log.sqlite import log as sqlite_log
from hub.log.sqlite import process, supervisor
from hub.log.sqlite.process import ANSWER_TICKS, DOUBT_TICKS, PROBE_TICKS, SILENT_TICKS, WorkerProcess
from hub.log.sqlite.supervisor import Supervisor
from hub.log.sqlite.worker.pipe import BEAT, pack
from hub.log.sqlite.worker.pulse import Pulse
from hub.notification import Position
from tests.contracts.test_log import append, drafts, offsets, read_all
from tests.log.test_sqlite import Home, goes_on, kill, mended, pid, pipe, processes, settled, workers
from tests.web.client import until
from tests.web.process import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home(tmp_path / "hub.db")
    yield home
    await home.aclose()


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test tick: nothing depends on how fast this machine is."""
    monkeypatch.setattr(sqlite_log, "TICK_SECONDS", 3_600.0)


def tick(supervised: Supervisor, times: int) -> None:
    for _ in range(times):
        supervised.tick()


def stop(worker: WorkerProcess) -> None:
    os.kill(pid(worker), signal.SIGSTOP)


# ---- one that stands still ----


@pytest.mark.usefixtures("by_hand")
async def test_a_publish_to_a_stopped_writer_fails_and_the_writer_is_replaced(home: Home):
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    await append(log, "a")
    writer, reader = workers(log)
    stop(writer)
    hung = log.append(drafts("a", "a", key="k"))
    await asyncio.sleep(0)
    tick(log._writer, SILENT_TICKS - 1)
    assert not writer.dead
    tick(log._writer, 1)
    assert writer.dead
    with pytest.raises(LogUnavailable):
        log.bounds()
    assert all(isinstance(each, LogUnavailable) for each in await settled(hung))
    (retried,) = log.append(drafts("a", key="k"))
    assert ((await retried).offset, retried.repeated) == (3, False)
    assert offsets(await read_all(log, 0, ["**"])) == announced == [1, 3]
    assert workers(log)[1] is reader, "the other process has nothing to do with it"
    assert ended(pid(writer))
    assert [len(processes(role, home.path)) for role in ("writer", "reader")] == [1, 1]


@pytest.mark.usefixtures("by_hand")
async def test_what_a_writer_had_committed_before_it_was_stopped_is_confirmed_once(home: Home):
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    writer = workers(log)[0]
    pipe(writer).pause_reading()  # its answer is not read
    receipts = log.append(drafts("a", key="k"))
    await until(lambda: home.ask("SELECT value FROM meta WHERE name = 'newest'") == [(1,)])
    stop(writer)
    tick(log._writer, SILENT_TICKS)
    await until(lambda: not log._writer.dead)  # what it said is given up after a while
    assert await settled(receipts) == [Position(log.epoch, 1)]
    (again,) = log.append(drafts("b", key="k"))
    assert ((await again).offset, again.repeated) == (1, True)
    assert announced == offsets(await read_all(log, 0, ["**"])) == [1]


@pytest.mark.usefixtures("by_hand")
async def test_a_stopped_reader_fails_what_it_was_asked_and_the_writer_goes_on(home: Home):
    log = await home.open()
    await append(log, *"aaa")
    writer, reader = workers(log)
    stop(reader)
    page = log.read(0, ["a"], upto=3)
    tick(log._reader, SILENT_TICKS - 1)
    assert await append(log, "a") == [4], "nobody waits for the reader"
    assert not page.done()
    tick(log._reader, 1)
    with pytest.raises(LogUnavailable):
        await page
    await mended(log)
    assert workers(log)[0] is writer
    assert workers(log)[1] is not reader
    assert offsets(await read_all(log, 0, ["a"])) == [1, 2, 3, 4]


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("which", [0, 1], ids=["writer", "reader"])
async def test_a_process_that_nobody_asks_anything_is_missed_too(home: Home, which: int):
    log = await home.open()
    worker = workers(log)[which]
    stop(worker)
    tick((log._writer, log._reader)[which], PROBE_TICKS + SILENT_TICKS)
    with pytest.raises(LogUnavailable):
        log.bounds()
    await mended(log)
    assert worker not in workers(log)
    assert await append(log, "a") == [1]
    assert offsets(await read_all(log, 0, ["a"])) == [1]


@pytest.mark.usefixtures("by_hand")
async def test_a_writer_that_is_slow_but_alive_is_not_killed_for_a_while_and_nobody_else_waits_for_it(home: Home):
    log = await home.open()
    writer = workers(log)[0]
    stop(writer)  # for the disk that it waits for
    slow = log.append(drafts("a"))
    await asyncio.sleep(0)
    behind = log.append(drafts("b"))
    for _ in range(ANSWER_TICKS - 2):
        tick(log._writer, 1)
        writer.pipe_data_received(1, BEAT)
    assert not writer.dead
    with pytest.raises(LogUnavailable, match="does not answer"):
        log.append(drafts("c"))
    with pytest.raises(LogUnavailable, match="does not answer"):
        log.bounds()
    log._tick()
    assert [type(each) for each in await settled(behind)] == [LogUnavailable], "it has gone nowhere"
    os.kill(pid(writer), signal.SIGCONT)
    assert await settled(slow) == [Position(log.epoch, 1)]
    assert workers(log)[0] is writer
    assert offsets(await read_all(log, 0, ["**"])) == [1]
    assert await append(log, "a") == [3]


@pytest.mark.usefixtures("by_hand")
async def test_a_process_that_never_answers_is_killed_though_it_lives(home: Home):
    log = await home.open()
    writer = workers(log)[0]
    stop(writer)
    log.append(drafts("a"))[0].tell(lambda: None, lambda error: None)
    await asyncio.sleep(0)
    for _ in range(ANSWER_TICKS):
        tick(log._writer, 1)
        writer.pipe_data_received(1, BEAT)
    assert writer.dead
    assert await goes_on(log) == 2


@pytest.mark.usefixtures("by_hand")
async def test_a_long_queue_is_no_hang_as_long_as_answers_come(home: Home):
    log = await home.open()
    await append(log, "a")
    reader = workers(log)[1]
    pages = []
    for _ in range(3 * SILENT_TICKS):
        pages.append(log.read(0, ["a"], upto=1))
        pages.append(log.read(0, ["a"], upto=1))
        tick(log._reader, 1)
        await pages[-2]
    await asyncio.gather(*pages)
    assert workers(log)[1] is reader


@pytest.mark.usefixtures("by_hand")
async def test_one_that_can_not_be_ended_is_waited_for_no_longer_and_never_joined_by_a_second(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor, "KILL_SECONDS", 0.05)
    log = await home.open()
    writer = workers(log)[0]
    stop(writer)
    with monkeypatch.context() as patched:
        patched.setattr(cast(Any, writer._transport), "kill", lambda: None)  # as in a wait for a disk
        lost = log.append(drafts("a", key="k"))
        await asyncio.sleep(0)
        tick(log._writer, SILENT_TICKS)
        assert [type(each) for each in await settled(lost)] == [LogUnavailable]
        assert processes("writer", home.path) == [pid(writer)]
    os.kill(pid(writer), signal.SIGCONT)  # the disk is back: it commits what it was asked, ignore_renewal, and ends
    assert writer._stdin is not None
    writer._stdin.close()
    await mended(log)
    (again,) = log.append(drafts("b", key="k"))
    assert ((await again).offset, again.repeated) == (1, True)
    assert offsets(await read_all(log, 0, ["**"])) == [1]


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("which", [0, 1], ids=["writer", "reader"])
async def test_a_log_is_not_ready_before_a_process_that_hangs_is_replaced_and_is_again_if_it_goes_on(
    home: Home, which: int
):
    log = await home.open()
    supervised, worker = (log._writer, log._reader)[which], workers(log)[which]
    stop(worker)
    tick(supervised, PROBE_TICKS - 1)  # `open` has done the first one
    tick(supervised, DOUBT_TICKS - 1)
    assert log.bounds().kept == 0
    tick(supervised, 1)
    with pytest.raises(LogUnavailable, match="does not answer"):
        log.bounds()
    os.kill(pid(worker), signal.SIGCONT)
    await until(lambda: supervised.up)
    assert log.bounds().kept == 0
    assert workers(log)[which] is worker


# ---- one that dies ----


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("which", [0, 1], ids=["writer", "reader"])
async def test_a_dead_process_is_replaced_without_a_sweep_and_without_the_other(home: Home, which: int):
    log = await home.open()
    before = workers(log)
    await kill(before[which])
    await until(lambda: log._writer.up and log._reader.up)
    after = workers(log)
    assert [each is other for each, other in zip(before, after, strict=True)] == [which == 1, which == 0]


class Dead:
    """A process that has died."""

    dead, late, why = True, False, "died"

    def tick(self) -> None:
        pass

    async def ended(self, seconds: float) -> bool:
        return True

    async def aclose(self) -> None:
        pass


async def test_one_that_can_not_be_started_is_tried_less_and_less_often_and_nobody_waits_for_that(
    caplog: pytest.LogCaptureFixture,
):
    pauses: list[float] = []

    async def counted(seconds: float) -> None:
        pauses.append(seconds)
        await (asyncio.Event().wait() if len(pauses) > 10 else asyncio.sleep(0))

    async def start(again: bool) -> tuple[WorkerProcess, dict[str, Any]]:
        if again:
            raise LogUnavailable("/secret/hub.db: no room")
        return cast(WorkerProcess, Dead()), {}

    supervised = Supervisor("writes", Path("/secret/hub.db"), start, lambda answer: None, counted)
    await supervised.begin()
    supervised.tick()
    await until(lambda: len(pauses) > 10)
    assert pauses == [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    with pytest.raises(LogUnavailable) as refusal:
        await supervised.get()
    assert "/secret" not in str(refusal.value), "no path for who asks over the network"
    assert caplog.text.count("no room") == 1
    await supervised.aclose()


# ---- the end ----


@pytest.mark.parametrize("pending", [False, True])
async def test_a_log_whose_processes_are_stopped_can_be_closed(
    home: Home, monkeypatch: pytest.MonkeyPatch, pending: bool
):
    monkeypatch.setattr(sqlite_log, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(process, "END_SECONDS", 0.2)
    log = await home.open()
    for each in workers(log):
        stop(each)
    receipts = log.append(drafts("a")) if pending else []
    log.trim()
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await log.aclose()
    assert all(isinstance(each, LogUnavailable) for each in await settled(receipts))
    assert processes("writer", home.path) == processes("reader", home.path) == []
    again = await home.open()
    assert (await read_all(again, 0, ["**"])) == []


async def test_the_end_of_a_log_waits_for_no_more_than_a_step_of_trimming(home: Home):
    log = await home.open()
    for start in range(0, 20_000, 1_000):
        await log.append(drafts(*[f"t/{number}" for number in range(start, start + 1_000)]))[-1]
    await log.aclose()
    log = await home.open(count=10)
    log.trim()
    await asyncio.sleep(0)
    await log.aclose()
    assert log._bounds.kept > 15_000


FORKING = """
import asyncio, os, signal, sys, time
from pathlib import Path
from hub.log.sqlite.log import SQLiteLog
from hub.notification import Draft

async def main():
    path, how = sys.argv[1:]
    log = SQLiteLog(Path(path), count=10, size=10**6, age=None, clock=time.time)
    await log.open()
    await log.append([Draft.of("x")])[0]
    workers = [each.process for each in (log._writer, log._reader)]
    child = os.fork()
    if not child:
        os.close(1)
        signal.pause()
    print(child, *(each._transport.get_pid() for each in workers), flush=True)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    await log.aclose()
    print(*(each._transport.get_returncode() for each in workers), flush=True)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def forking(home: Home, how: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """Yield a process with a log, and its workers; a child that it has forked outlives it."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKING, str(home.path), how),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    child = 0
    try:
        assert parent.stdout is not None
        child, *started = map(int, (await parent.stdout.readline()).split())
        yield parent, started
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        await parent.wait()


async def test_a_forked_child_does_not_keep_the_processes_from_ending_with_the_log(home: Home):
    async with forking(home, "closed") as (parent, _):
        assert parent.stdout is not None
        async with asyncio.timeout(60):
            assert await parent.stdout.readline() == b"0 0\n", "both ended by themselves"
    assert not home.path.with_name("hub.db-wal").exists()


async def test_a_forked_child_does_not_keep_the_processes_of_a_killed_parent(home: Home):
    async with forking(home, "killed") as (_, started):
        await until(lambda: all(ended(each) for each in started))
        log = await home.open()
        assert log.bounds().newest.offset == 1


async def test_a_stopped_process_ends_with_a_parent_that_was_killed(home: Home):
    async with forking(home, "closed") as (parent, started):
        for each in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        parent.kill()
        await until(lambda: all(ended(each) for each in started))


def ended(process: int) -> bool:
    """Whether *process* is gone, or is only waited for by whoever inherited it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# ---- signs of life ----


class Sink(io.BytesIO):
    """Holds what was said, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes] = []

    def write(self, data: Any) -> int:
        self.said.append(bytes(data))
        return len(data)


async def test_a_worker_beats_while_it_works_and_at_no_other_time():
    asked = threading.Semaphore(0)
    rested = threading.Semaphore(0)

    def rest(seconds: float) -> None:
        rested.release()
        asked.acquire()

    def beat() -> list[bytes]:
        """Let the thread come round once, and return what was said."""
        asked.release()
        assert rested.acquire(timeout=30)
        return sink.said

    sink = Sink()
    worker = Pulse(sink, os.getppid(), rest)
    worker.start()
    assert rested.acquire(timeout=30)
    assert beat() == [BEAT], "its start is work, too"
    worker.answer({"a": 1})
    assert beat() == [BEAT, pack({"a": 1})]
    worker.begin()
    assert beat() == [BEAT, pack({"a": 1}), BEAT]
