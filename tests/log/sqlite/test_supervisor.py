"""A process of the log that dies or hangs: it is noticed, ended and replaced; what was asked is settled once."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from hub.errors import LogUnavailable
from hub.log.sqlite import log as sqlite_log
from hub.log.sqlite import supervisor
from hub.log.sqlite.process import ANSWER_TICKS, DOUBT_TICKS, PROBE_TICKS, SILENT_TICKS, WorkerProcess
from hub.log.sqlite.supervisor import Supervisor
from hub.log.sqlite.worker.pipe import BEAT
from hub.notification import Position
from tests.contracts.test_log import append, drafts, offsets, read_all
from tests.log.sqlite.home import Home, settled
from tests.log.sqlite.processes import bytes_in, ended, goes_on, kill, mended, pid, pipe, processes, stop, workers
from tests.web.client import until

pytestmark = pytest.mark.slow


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test tick: nothing depends on how fast this machine is."""
    monkeypatch.setattr(sqlite_log, "TICK_SECONDS", 3_600.0)


def tick(supervised: Supervisor, times: int) -> None:
    for _ in range(times):
        supervised.tick()


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


async def test_a_writer_that_dies_while_two_commits_wait_is_started_anew_once(
    home: Home, caplog: pytest.LogCaptureFixture
):
    log = await home.open()
    writer = workers(log)[0]
    answers = pipe(writer)
    answers.pause_reading()
    log.trim()
    await until(lambda: bytes_in(answers.get_extra_info("pipe").fileno()))
    os.kill(pid(writer), signal.SIGSTOP)
    lost = log.append(drafts("a"))
    answers.resume_reading()
    await until(lambda: not log._waiting)
    lost += log.append(drafts("a"))
    await asyncio.sleep(0)
    await kill(writer)
    assert all(isinstance(each, LogUnavailable) for each in await settled(lost[:1]))
    await settled(lost)
    last = await goes_on(log)
    assert (await read_all(log, 0, ["on"]))[-1].position.offset == last
    assert caplog.text.count("is started anew") == 1
    assert [len(processes(role, home.path)) for role in ("writer", "reader")] == [1, 1]


async def test_the_log_goes_on_after_its_processes_died_again_and_again(home: Home):
    log = await home.open()
    kept: list[int] = []
    for turn in range(5):
        await kill(*workers(log)[turn % 2 :])
        kept.append(await goes_on(log))
    assert offsets(await read_all(log, 0, ["on"])) == kept
    assert kept == sorted(set(kept))


@pytest.mark.usefixtures("impatient")
async def test_the_log_goes_on_when_its_file_could_not_be_opened_for_a_while(home: Home):
    log = await home.open()
    await append(log, *"aaa")
    await kill(*workers(log))
    with home.path.with_name("hub.db.lock").open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        (failed,) = await settled(log.append(drafts("a")))
        assert isinstance(failed, LogUnavailable)
    last = await goes_on(log)
    assert offsets(await read_all(log, 0, ["**"])) == [1, 2, 3, last]


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
