"""The log in a file: what the processes, the file and the disk under it can do, it survives or says."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from hub.errors import LogUnavailable
from hub.eventstream import block, chunk, data_of, unchunk
from hub.log.receipt import Receipt
from hub.log.search import FIND_STEPS, SEARCHED_BYTES, Search, topic_size
from hub.log.sqlite import log as sqlite_log
from hub.log.sqlite.log import SQLiteLog
from hub.log.sqlite.process import WorkerProcess
from hub.log.sqlite.worker.file import APPLICATION_ID, MIGRATIONS, opened
from hub.log.sqlite.worker.pipe import COLUMNS, Row
from hub.log.sqlite.worker.place import Place
from hub.log.sqlite.worker.reader import LOOK_UP_STEPS, LOOKED_UP, PAGE_WALK, Reader
from hub.log.sqlite.worker.writer import Writer
from hub.log.trimmed import TrimmedState
from hub.notification import MAX_OFFSET, Draft, Notification, Position
from hub.patterns import Patterns
from tests.conftest import Disk
from tests.contracts.model import ListLog
from tests.contracts.test_log import (
    Clock,
    adopt,
    another,
    append,
    batches,
    check_against,
    check_counts,
    drafts,
    limits,
    offsets,
    read_all,
    wishes,
)
from tests.test_patterns import most_expensive
from tests.torture import children
from tests.web.client import until
from tests.web.process import ROOT, ServeProcess

pytestmark = pytest.mark.slow

LOCK_SECONDS = 0.3  # instead of the 5 s that a predecessor gets, where a test waits for them to pass


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


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home(tmp_path / "hub.db")
    yield home
    await home.aclose()


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever dies, the event loop has nothing to complain about."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers wait for a predecessor no longer than a test likes to."""
    monkeypatch.setattr(sqlite_log, "LOCK_SECONDS", LOCK_SECONDS)


def workers(log: SQLiteLog) -> list[WorkerProcess]:
    """The writer and the reader of *log*."""
    return [each.process for each in (log._writer, log._reader) if each.process is not None]


def pid(process: WorkerProcess) -> int:
    assert process._transport is not None
    return process._transport.get_pid()


async def kill(*processes: WorkerProcess) -> None:
    """End *processes* the way a machine out of memory does, and return when that was noticed."""
    for process in processes:
        os.kill(pid(process), signal.SIGKILL)
    await until(lambda: all(process.dead for process in processes))


async def crash(log: SQLiteLog) -> None:
    """End the processes of *log* and its watch over them, as a crash of the whole hub does: nobody replaces them."""
    assert log._timer is not None
    log._timer.cancel()
    for process in workers(log):
        process.on_end = lambda: None
    await kill(*workers(log))
    await log.aclose()


async def outcome(receipt: Receipt) -> Position | LogUnavailable:
    try:
        return await receipt
    except LogUnavailable as error:
        return error


async def settled(receipts: Sequence[Receipt]) -> list[Position | LogUnavailable]:
    return list(await asyncio.gather(*map(outcome, receipts)))


async def goes_on(log: SQLiteLog) -> int:
    """Append until one is kept; between the tries do what the hub's sweep does. Return its offset."""
    async with asyncio.timeout(10):
        while True:
            try:
                position = await log.append(drafts("on"))[0]
                break
            except LogUnavailable:
                log.trim()
                await asyncio.sleep(0.01)
    await mended(log)
    return position.offset


async def mended(log: SQLiteLog) -> None:
    """Do what the hub's sweep does until both processes run and have nothing to do."""
    async with asyncio.timeout(10):
        while len(workers(log)) < 2 or any(each.dead for each in workers(log)):
            log.trim()
            await asyncio.sleep(0.005)
    await until(lambda: log._committing is None)


async def swept(log: SQLiteLog) -> None:
    """Do what the hub's sweep does, once, and wait until everything is trimmed that is due."""
    await until(lambda: log._committing is None)
    log.trim()
    await until(lambda: log._committing is None)


def numbered(*numbers: int, topic: str = "a", **options: Any) -> list[Draft]:
    return [Draft.of(number, topic=topic, **options) for number in numbers]


def data(notifications: Sequence[Notification]) -> list[Any]:
    return [each.data for each in notifications]


# ---- a restart ----


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_restart_keeps_epoch_positions_and_history(home: Home, how: str):
    log = await home.open()
    written = Draft.of({"ü": ["\0", "\r\n", "𝄞"]}, topics=["a", "b"], type="t", retry=7, private=True, tags={"k": 1})
    await log.append([written, Draft.of("two\nlines", topic="b")])[-1]
    before = [await read_all(log, 0, [topic]) for topic in ("a", "b", "**")]
    bounds = log.bounds()
    again = await home.restart(log, how)
    assert (again.epoch, again.bounds()) == (log.epoch, bounds)
    assert [await read_all(again, 0, [topic]) for topic in ("a", "b", "**")] == before
    assert await append(again, "a", "b") == [3, 4]
    assert offsets(await read_all(again, 0, ["b"])) == [1, 2, 4]


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_restart_keeps_the_idempotency_keys_for_their_five_minutes(home: Home, how: str):
    log = await home.open()
    (first,) = log.append(drafts("a,b", key="k"))
    position = await first
    home.clock.now += 200
    log = await home.restart(log, how)
    home.clock.now += 99
    (again,) = log.append(drafts("c", key="k"))
    assert (await again, again.repeated, again.topics) == (position, True, ("a", "b"))
    log = await home.restart(log, how)
    home.clock.now += 2
    (late,) = log.append(drafts("c", key="k"))
    assert ((await late).offset, late.repeated) == (2, False)


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_restart_keeps_what_is_gone_per_topic(home: Home, how: str):
    log = await home.open(count=2)
    await append(log, "quiet", *["busy"] * 9)
    log = await home.restart(log, how, count=2)
    assert [log.trimmed([topic]) for topic in ("quiet", "busy", "never", "*")] == [1, 8, 0, 8]
    assert (await log.read(7, ["busy"], upto=10)).hole
    assert not (await log.read(7, ["quiet"], upto=10)).hole


async def test_a_restart_keeps_the_oldest_bound_of_topics_that_are_no_longer_remembered(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.sqlite.log.REMEMBERED_TOPICS", 10)
    monkeypatch.setattr("hub.log.trimmed.REMEMBERED_TOPICS", 10)
    log = await home.open(count=1)
    await append(log, *(f"t/{number}" for number in range(1, 22)))
    before = [log.trimmed([topic]) for topic in ("t/1", "never", "t/11", "t/20", "t/21")]
    log = await home.restart(log, "killed", count=1)
    assert [log.trimmed([topic]) for topic in ("t/1", "never", "t/11", "t/20", "t/21")] == before
    assert before == [10, 10, 11, 20, 10]


async def test_an_emptied_log_gives_no_position_twice_after_a_restart(home: Home):
    log = await home.open(age=60)
    await append(log, *"aaa")
    home.clock.now += 61
    log.trim()
    await until(lambda: log.bounds().kept == 0)
    log = await home.restart(log, "closed", age=60)
    assert (log.bounds().oldest, log.bounds().newest.offset, log.bounds().kept) == (log.bounds().newest, 3, 0)
    assert await append(log, "a") == [4]


async def test_what_waits_when_the_log_is_closed_is_kept(home: Home):
    log = await home.open()
    receipts = [receipt for number in range(500) for receipt in log.append(numbered(number))]
    await log.aclose()
    assert [receipt.result().offset for receipt in receipts] == list(range(1, 501))
    again = await home.open()
    assert data(await read_all(again, 0, ["a"])) == list(range(500))


async def test_a_closed_log_leaves_one_file_without_a_write_ahead_log(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    assert not home.path.with_name("hub.db-wal").exists()
    assert home.ask("SELECT count(*) FROM notification") == [(3,)]


async def test_the_write_ahead_log_of_a_killed_writer_is_replayed(home: Home):
    log = await home.open()
    await append(log, *["a"] * 100)
    await kill(*workers(log))
    wal = home.path.with_name("hub.db-wal")
    assert wal.stat().st_size > 0, "nothing has been folded into the file yet"
    # A commit that the power cut off at its last byte: it was never confirmed, and everything before it counts.
    with wal.open("ab") as file:
        file.write(os.urandom(4096))
    log = await home.restart(log, "closed")
    assert offsets(await read_all(log, 0, ["a"])) == list(range(1, 101))
    assert await append(log, "a") == [101]


# ---- a process that dies ----


@pytest.mark.parametrize("seed", range(6))
async def test_a_writer_killed_in_mid_append_confirms_or_fails_each_publish(home: Home, seed: int):
    chance = random.Random(seed)
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    taken: list[Receipt] = []
    for number in range(0, 600, 3):
        # Not awaited in between: one commit is on its way, and the next one gathers.
        with contextlib.suppress(LogUnavailable):
            taken += log.append(numbered(number, number + 1, number + 2))
        if number == 300:
            writer = workers(log)[0]
            await until(lambda: len(announced) >= chance.randint(0, 200))
            os.kill(pid(writer), signal.SIGKILL)
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    outcomes = await settled(taken)
    confirmed = [each.offset for each in outcomes if isinstance(each, Position)]
    assert confirmed == sorted(set(confirmed))
    assert announced == confirmed
    assert offsets(await read_all(log, 0, ["a"])) == confirmed
    for start in range(0, len(outcomes), 3):
        kinds = {type(each) for each in outcomes[start : start + 3]}
        assert len(kinds) == 1, "a list is one transaction"
    last = await goes_on(log)
    assert last > max(confirmed, default=0)
    log = await home.restart(log, "closed")
    assert offsets(await read_all(log, 0, ["**"])) == [*confirmed, last]
    assert await append(log, "a") == [last + 1]


async def test_what_a_killed_writer_had_not_begun_has_failed(home: Home, caplog: pytest.LogCaptureFixture):
    log = await home.open()
    await append(log, "a")
    writer = workers(log)[0]
    os.kill(pid(writer), signal.SIGSTOP)
    lost = log.append(drafts("a", "a", key="k"))
    await asyncio.sleep(0)
    await kill(writer)
    assert all(isinstance(each, LogUnavailable) for each in await settled(lost))
    (retried,) = log.append(drafts("a", key="k"))
    assert ((await retried).offset, retried.repeated) == (3, False), "a failed position is not used again"
    assert offsets(await read_all(log, 0, ["a"])) == [1, 3]
    assert "is started anew" in caplog.text


async def test_what_a_killed_writer_had_committed_is_confirmed_though_it_could_not_say_so(home: Home):
    log = await home.open(count=3)
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    # What this lets go of makes an answer that does not fit into a pipe: the writer is killed in the middle of it.
    many = drafts(*(f"{number:0200}" for number in range(1_000)))
    await log.append(many)[-1]
    answers = pipe(workers(log)[0])
    answers.pause_reading()
    receipts = log.append([*many, *drafts("a", key="k")])
    await until(lambda: home.ask("SELECT value FROM meta WHERE name = 'newest'") == [(2_001,)])
    os.kill(pid(workers(log)[0]), signal.SIGKILL)
    answers.resume_reading()
    assert [each.offset for each in await settled(receipts) if isinstance(each, Position)] == list(range(1_001, 2_002))
    assert announced[:1_000] == list(range(1, 1_001))
    assert announced[1_000:] == offsets(await read_all(log, 1_000, ["**"])), "what is kept of it"
    assert log.append(drafts("b", key="k"))[0].repeated
    assert await append(log, "a") == [2_002]


async def test_of_what_is_known_nothing_is_learned_again_when_a_writer_is_replaced(
    home: Home, monkeypatch: pytest.MonkeyPatch
):
    log = await home.open(topics={"state/**": 1})
    for turn in range(2):
        sent = [Draft.of(turn, topic=f"state/{number}", key=f"{turn}-{number}") for number in range(1_000)]
        await log.append(sent)[-1]
    lost = log.trimmed_state()
    assert len(lost.topics) == 1_000
    learned: list[str] = []
    put, lose = log._keys.put, log._trimmed.trim_topic

    def noted_put(key: str, *rest: Any, **more: Any) -> float:
        learned.append(key)
        return put(key, *rest, **more)

    def noted_lose(topics: list[str], offset: int) -> None:
        learned.extend(topics)
        lose(topics, offset)

    # It is committed that this takes the place of another one, and the writer is killed before it can say so.
    answers = pipe(workers(log)[0])
    answers.pause_reading()
    receipts = log.append([Draft.of("new", topic="state/7", key="new")])
    descriptor = answers.get_extra_info("pipe").fileno()
    await until(lambda: bytes_in(descriptor))
    monkeypatch.setattr(log._keys, "put", noted_put)
    monkeypatch.setattr(log._trimmed, "trim_topic", noted_lose)
    os.kill(pid(workers(log)[0]), signal.SIGKILL)
    os.read(descriptor, 65_536)
    answers.resume_reading()
    assert (await receipts[0]).offset == 2_001
    assert sorted(learned) == ["new", "state/7"]
    assert log.trimmed_state() == lost._replace(topics={**lost.topics, "state/7": 1_008})
    monkeypatch.undo()
    for key in ("new", "0-0", "1-999"):
        assert log.append([Draft.of("x", topic="state/7", key=key)])[0].repeated


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("broken", ["the file can't be opened", "what was found can't be read"])
async def test_a_key_whose_publish_failed_although_it_was_kept_is_not_used_twice(
    home: Home, monkeypatch: pytest.MonkeyPatch, broken: str
):
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    answers = pipe(workers(log)[0])
    answers.pause_reading()
    receipts = log.append(drafts("a", key="k"))
    descriptor = answers.get_extra_info("pipe").fileno()
    await until(lambda: bytes_in(descriptor))
    with home.path.with_name("hub.db.lock").open("r+b") as lock, monkeypatch.context() as patched:
        os.kill(pid(workers(log)[0]), signal.SIGKILL)
        if broken == "what was found can't be read":
            patched.setattr(log, "read", unreadable)
        else:
            fcntl.lockf(lock, fcntl.LOCK_EX)  # as soon as the writer has ended
        os.read(descriptor, 65_536)  # so nobody ever hears of the commit
        answers.resume_reading()
        (failed,) = await settled(receipts)
        assert isinstance(failed, LogUnavailable)
    (retried,) = log.append(drafts("a", key="k"))
    (fresh,) = log.append(drafts("b"))
    assert ((await retried).offset, retried.repeated) == (1, True)
    await fresh
    assert announced == offsets(await read_all(log, 0, ["**"])) == [1, (await fresh).offset]


def unreadable(*asked: Any, **options: Any) -> asyncio.Future[Any]:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    answer.set_exception(LogUnavailable("the process that reads it died"))
    return answer


async def test_the_bounds_never_run_ahead_of_what_was_announced(home: Home):
    # A stream that goes live at the bounds would hear what is announced after that a second time.
    log = await home.open(count=3)
    announced: list[int] = [0]
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    ahead: list[tuple[int, int]] = []

    async def watch() -> None:
        while True:
            with contextlib.suppress(LogUnavailable):
                ahead.extend(
                    (newest, announced[-1]) for newest in [log.bounds().newest.offset] if newest > announced[-1]
                )
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    many = drafts(*(f"{number:0200}" for number in range(1_000)))
    await log.append(many)[-1]
    answers = pipe(workers(log)[0])
    answers.pause_reading()
    receipts = log.append(many)
    await until(lambda: home.ask("SELECT value FROM meta WHERE name = 'newest'") == [(2_000,)])
    os.kill(pid(workers(log)[0]), signal.SIGKILL)
    answers.resume_reading()
    await settled(receipts)
    watching.cancel()
    await asyncio.wait([watching])
    assert announced[-1] == 2_000
    assert ahead == []


def pipe(process: WorkerProcess) -> Any:
    """The transport that *process* answers on."""
    return cast(Any, process._transport).get_pipe_transport(1)


@pytest.mark.parametrize("topics", [["a"], ["**"], ["*", "b"]])
async def test_a_page_tells_of_a_hole_that_the_writer_has_not_told_of_yet(home: Home, topics: list[str]):
    log = await home.open(count=3)
    await append(log, *"aaa")
    answers = pipe(workers(log)[0])
    answers.pause_reading()  # what the writer says from here on is read late
    receipts = log.append(drafts(*"aaa"))
    await until(lambda: home.ask("SELECT value FROM meta WHERE name = 'trimmed'") == [(3,)])
    assert not log.trimmed(topics), "nothing is known of it here"
    page = await log.read(1, topics, upto=3)
    assert (page.notifications, bool(page.hole), page.oldest) == ([], True, 4)
    assert (await log.frames(1, topics, upto=3)).hole
    assert not (await log.read(3, topics, upto=3)).hole
    answers.resume_reading()
    await settled(receipts)
    assert log.trimmed(topics) == 3


async def test_an_answer_that_is_read_after_the_end_of_its_process_counts(home: Home):
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    log = await home.open()
    writer = workers(log)[0]
    answers = pipe(writer)
    answers.pause_reading()
    receipts = log.append(drafts("a"))
    await until(lambda: bytes_in(answers.get_extra_info("pipe").fileno()))
    os.kill(pid(writer), signal.SIGKILL)
    await until(lambda: cast(Any, writer._transport).get_returncode() is not None)
    answers.resume_reading()
    assert await settled(receipts) == [(log.epoch, 1)]
    assert await goes_on(log) == 2
    assert complaints == []


def bytes_in(pipe: int) -> int:
    """How many bytes wait in *pipe*."""
    return cast(int, struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


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


@pytest.mark.parametrize(
    "module",
    ["asyncio", "uvloop"],
)
def test_an_append_to_a_process_whose_input_is_closed_is_settled(tmp_path: Path, module: str):
    # The loop notices that the input is closed before it notices that the process has ended.
    if not os.environ.get("CI"):
        pytest.importorskip(module)

    async def append_to_it() -> None:
        home = Home(tmp_path / "hub.db")
        log = await home.open()
        writer = workers(log)[0]
        assert writer._stdin is not None
        writer._stdin.close()
        async with asyncio.timeout(10):
            outcomes = await settled(log.append(drafts("a")))
        assert isinstance(outcomes[0], LogUnavailable | Position)
        await goes_on(log)
        await home.aclose()

    with asyncio.Runner(loop_factory=importlib.import_module(module).new_event_loop) as runner:
        runner.run(append_to_it())


async def test_a_killed_reader_fails_what_was_asked_and_the_log_goes_on(home: Home):
    log = await home.open()
    await append(log, *"aaa")
    reader = workers(log)[1]
    os.kill(pid(reader), signal.SIGSTOP)
    page = log.read(0, ["a"], upto=3)
    await kill(reader)
    with pytest.raises(LogUnavailable):
        await page
    with pytest.raises(LogUnavailable):
        await log.read(0, ["a"], upto=3)
    await mended(log)
    assert offsets(await read_all(log, 0, ["a"])) == [1, 2, 3]
    assert await append(log, "a") == [4]


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


# ---- what a file can be ----


@pytest.mark.usefixtures("impatient")
async def test_a_second_hub_on_the_same_file_is_refused_after_it_has_waited(home: Home):
    log = await home.open()
    assert "another process has had it open for 0.3 s" in await home.refused()
    assert await append(log, "a") == [1], "the first one has not noticed"


async def test_a_second_hub_gets_the_file_when_the_first_one_lets_go_of_it(home: Home):
    log = await home.open()
    await append(log, "a")
    opening = asyncio.create_task(home.open())
    writer = await started(home.path)
    assert not opening.done()
    await log.aclose()
    again = await opening
    assert pid(workers(again)[0]) == writer
    assert offsets(await read_all(again, 0, ["a"])) == [1]


async def started(path: Path) -> int:
    """Return the process id of the second writer of *path* as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        found[:] = sorted(processes("writer", path))
        return len(found) == 2

    await until(look)
    return found[1]


def processes(role: str, path: Path) -> list[int]:
    """The processes that were started on *path* to be its writer or reader (Linux)."""
    wanted = [role, str(path)]
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if each.read_text().split("\0")[-3:-1] == wanted:
                found.append(int(each.parent.name))
    return found


def sqlite_file(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


async def test_a_file_of_a_newer_hub_is_refused_and_left_alone(home: Home):
    await (await home.open()).aclose()
    sqlite_file(home.path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = home.path.read_bytes()
    refusal = await home.refused()
    assert str(home.path) in refusal
    assert f"version {len(MIGRATIONS) + 1}" in refusal
    assert home.path.read_bytes() == before


async def test_a_start_that_was_refused_forgets_nothing_of_how_far_the_log_went(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    lock = home.path.with_name("hub.db.lock")
    before = lock.read_text()
    sqlite_file(home.path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    await home.refused()
    assert lock.read_text() == before


async def test_a_file_whose_positions_no_id_can_name_is_refused(home: Home):
    log = await home.open()
    await append(log, "a")
    await log.aclose()
    set_newest(home.path, MAX_OFFSET)
    log = await home.open()
    with pytest.raises(LogUnavailable, match="no position left"):
        log.append(drafts("a"))
    await log.aclose()
    set_newest(home.path, MAX_OFFSET + 1)
    with pytest.raises(LogUnavailable, match="newest position is beyond"):
        await home.open()


def set_newest(path: Path, offset: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'newest'", (offset,))


async def test_another_sqlite_file_is_refused_and_left_alone(home: Home):
    sqlite_file(home.path, "CREATE TABLE customer (name TEXT)", "INSERT INTO customer VALUES ('x')")
    before = home.ask("SELECT * FROM customer")
    refusal = await home.refused()
    assert str(home.path) in refusal
    assert "not the log of a hub" in refusal
    assert home.ask("SELECT * FROM customer") == before
    assert home.ask("SELECT count(*) FROM sqlite_master") == [(1,)]


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 1_000, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(home: Home, content: bytes):
    home.path.write_bytes(content)
    refusal = await home.refused()
    assert str(home.path) in refusal
    assert "not a SQLite file" in refusal
    assert home.path.read_bytes() == content


async def test_a_folder_is_refused(home: Home):
    home.path.mkdir()
    assert str(home.path) in await home.refused()
    assert home.path.is_dir()


async def test_a_file_where_its_folder_should_be_is_refused(home: Home):
    home.path.write_text("not a folder")
    assert str(home.path) in await home.refused(home.path / "hub.db")


async def test_a_folder_that_can_not_be_made_is_refused(home: Home):
    folder = Path("/proc/no-such-folder")  # where not even root can make one
    assert str(folder) in await home.refused(folder / "hub.db")


async def test_its_folder_is_made_if_it_is_not_there(home: Home, tmp_path: Path):
    log = await home.open(tmp_path / "var" / "lib" / "hub.db")
    assert await append(log, "a") == [1]


def overwrite_the_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 8)
        file.write(b"\xa5" * (size * 3 // 4))


def overwrite_a_page_with_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(bytes(4096))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_in_mid_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1_000)


def cut_off_a_few_bytes(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


@pytest.mark.parametrize(
    "damage",
    [overwrite_the_middle, overwrite_a_page_with_zeros, cut_in_half, cut_in_mid_page, cut_off_a_few_bytes],
)
async def test_a_damaged_file_is_put_aside_and_a_new_log_begins(
    home: Home, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
):
    log = await home.open()
    for start in range(0, 3_000, 100):
        await log.append(numbered(*range(start, start + 100)))[-1]
    await log.aclose()
    damage(home.path)
    damaged = home.path.read_bytes()
    again = await home.open()
    assert again.epoch != log.epoch
    assert (again.bounds().newest.offset, again.bounds().kept) == (0, 0)
    (aside,) = home.put_aside()
    assert aside.read_bytes() == damaged
    assert str(aside) in capfd.readouterr().err
    # The new one is a log like any other: what it keeps outlives its processes, and the old one takes nothing with it.
    assert await append(again, *"abc") == [1, 2, 3]
    third = await home.restart(again, "killed")
    assert third.epoch == again.epoch
    assert offsets(await read_all(third, 0, ["**"])) == [1, 2, 3]
    assert home.put_aside() == [aside]


async def test_a_file_damaged_beside_its_write_ahead_log_is_put_aside_with_it(home: Home):
    log = await home.open()
    await append(log, *["a"] * 100)
    await kill(*workers(log))
    assert home.path.with_name("hub.db-wal").stat().st_size > 0
    home.path.write_bytes(home.path.read_bytes()[:100] + os.urandom(8_000))
    home.path.with_name("hub.db-wal").write_bytes(b"")
    await log.aclose()
    again = await home.open()
    assert again.epoch != log.epoch
    assert await append(again, "a") == [1]
    assert len(home.put_aside()) == 1


@pytest.mark.parametrize("seed", range(24))
async def test_a_write_ahead_log_that_lost_its_end_is_noticed(home: Home, seed: int, capfd: pytest.CaptureFixture[str]):
    # What was confirmed is gone and its offsets will be given again: nobody may resume as if they were the same.
    chance = random.Random(seed)
    log = await home.open()
    for number in range(chance.choice([2, 10, 30])):
        await log.append(numbered(*range(chance.choice([1, 1, 20])), topic=f"t/{number % 7}"))[-1]
    before, bounds = await read_all(log, 0, ["**"]), log.bounds()
    await crash(log)
    damage_the_end(home.path.with_name("hub.db-wal"), chance)
    again = await home.open()
    after = await read_all(again, 0, ["**"])
    if again.epoch == log.epoch:
        assert (after, again.bounds()) == (before, bounds)
    elif after:
        assert "it goes on under a new epoch" in capfd.readouterr().err
        assert offsets(after) == list(range(1, again.bounds().newest.offset + 1))
        assert [without_id(each) for each in after] == [without_id(each) for each in before[: len(after)]]
        assert all(f"id: {again.epoch}-" in each.frame.decode() for each in after)
    assert await append(again, "a") == [len(after) + 1]
    bounds = again.bounds()
    third = await home.restart(again, "killed")
    assert (third.epoch, third.bounds()) == (again.epoch, bounds)


def damage_the_end(path: Path, chance: random.Random) -> None:
    """Cut, overwrite or remove what stands at the end of the file at *path*."""
    size = path.stat().st_size
    amount = min(size, chance.choice([1, 10, 1_000, 4_096, 8_192, chance.randint(1, size)]))
    match chance.choice(["cut", "noise", "zeros", "remove"]):
        case "cut":
            os.truncate(path, size - amount)
        case "remove":
            path.unlink()
        case how:
            with path.open("r+b") as file:
                file.seek(size - amount)
                file.write(chance.randbytes(amount) if how == "noise" else bytes(amount))


def without_id(notification: Notification) -> tuple[Any, ...]:
    return (notification.position.offset, notification.at, notification.topics, notification.data)


@pytest.mark.parametrize("seed", range(12))
async def test_a_file_that_was_cut_anywhere_is_put_aside(home: Home, seed: int):
    chance = random.Random(seed)
    log = await home.open()
    for _ in range(chance.choice([1, 20])):
        await log.append(drafts(*["a"] * chance.choice([1, 20]), size=chance.choice([10, 5_000])))[-1]
    await log.aclose()
    os.truncate(home.path, chance.randint(1, home.path.stat().st_size - 1))
    again = await home.open()
    assert again.epoch != log.epoch
    assert len(home.put_aside()) == 1
    assert await append(again, "a") == [1]


async def test_an_older_copy_put_in_the_place_of_the_file_begins_a_new_epoch(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    backup = home.path.read_bytes()
    log = await home.restart(log, "closed")
    await append(log, *"de")
    await log.aclose()
    with home.path.open("r+b") as file:  # the same file still, as `cp` leaves it
        file.truncate()
        file.write(backup)
    again = await home.open()
    assert again.epoch != log.epoch
    assert [each.position for each in await read_all(again, 0, ["**"])] == [(again.epoch, n) for n in (1, 2, 3)]
    assert await append(again, "f") == [4]
    assert (await home.restart(again, "killed")).epoch == again.epoch


async def test_a_commit_that_was_never_confirmed_is_no_loss(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    lock = home.path.with_name("hub.db.lock")
    assert lock.read_text().split()[:2] == [log.epoch, f"{3:020}"]
    lock.write_text(f"{log.epoch:32} {1:020}\n")  # as if it had been killed right after a commit
    again = await home.restart(log, "closed")
    assert (again.epoch, again.bounds().newest.offset) == (log.epoch, 3)
    lock.write_text("")
    assert (await home.restart(again, "closed")).epoch == log.epoch


async def test_an_emptied_file_begins_a_new_epoch(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    os.truncate(home.path, 0)
    again = await home.open()
    assert again.epoch != log.epoch
    assert await append(again, "a") == [1]


async def test_a_removed_file_begins_a_new_epoch(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    home.path.unlink()
    again = await home.open()
    assert again.epoch != log.epoch
    assert await append(again, "a") == [1]


async def test_a_copy_keeps_the_history_under_an_epoch_of_its_own(home: Home, tmp_path: Path):
    log = await home.open()
    (receipt,) = log.append(drafts("a", key="k"))
    await receipt
    await append(log, "b")
    await log.aclose()
    copied = tmp_path / "copy.db"
    shutil.copy2(home.path, copied)
    copy = await home.open(copied)
    assert copy.epoch != log.epoch
    assert [each.position for each in await read_all(copy, 0, ["**"])] == [(copy.epoch, 1), (copy.epoch, 2)]
    assert copy.append(drafts("a", key="k"))[0].repeated
    await copy.aclose()
    assert (await home.open(copied)).epoch == copy.epoch, "from now on it is its own"
    assert (await home.open()).epoch == log.epoch, "the original has not changed"


@pytest.mark.parametrize("epoch", ["e", "e" * 32])
async def test_all_frames_of_a_copy_carry_its_own_epoch(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
):
    log = await home.open()
    written = [*(Draft.of(text, topics=["a", f"t/{n}"]) for n, text in enumerate(TEXTS)), *dressed()]
    await log.append(written)[-1]
    await log.aclose()
    copied = tmp_path / "copy.db"
    shutil.copy2(home.path, copied)
    monkeypatch.setattr("hub.log.sqlite.log.new_epoch", lambda: epoch)
    copy = await home.open(copied)
    assert copy.epoch == epoch
    await copy.append(written)[-1]
    expected = [
        Notification.accept(draft, Position(epoch, offset), home.clock.now)
        for offset, draft in enumerate(written * 2, 1)
    ]
    assert await read_all(copy, 0, ["**"]) == expected
    assert [each.text for each in await read_all(copy, 0, ["**"])] == [each.text for each in expected]
    assert await read_all(copy, 0, ["a"], latest=True) == [each for each in expected if "a" in each.topics][-1:]
    await copy.aclose()
    copy = await home.open(copied.rename(tmp_path / "moved.db"))
    assert [each.chunk for each in await read_all(copy, 0, ["**"])] == [each.chunk for each in expected]


async def test_a_file_that_was_moved_stays_the_same_log(home: Home, tmp_path: Path):
    log = await home.open()
    await append(log, "a")
    await log.aclose()
    moved = home.path.rename(tmp_path / "moved.db")
    assert (await home.open(moved)).epoch == log.epoch


# ---- a file of an older hub ----

TEXTS = [
    *["", "plain", "two\nlines", "\r", "\n", "\r\n", "a\rb\nc\r\nd\n\re", "ends\r\n", "\n\n", "data: x", ": x", " x "],
    *["id: e-1\nevent: x", "é 两行 𝄞", "nul\0inside", "\u2028\x85\x0b", "x" * 20_000, "é\r\n" * 3_000],
]


def dressed() -> list[Draft]:
    """Drafts with everything a draft can have."""
    return [
        Draft.of(
            {"ü": ["\0", "\r\n", 1.5, None]}, topics=["a", "b/c"], type="t", retry=0, private=True, tags={"k": "é\n"}
        ),
        Draft.of([], topic="b", type="id: x", retry=86_400_000),
        Draft.of("typed\r\n", topics=["b", "a", "c"], type="é: x", tags={"n": 1, "t": True, "none": None}),
        Draft.of("last", topic="b"),
    ]


def old_file(path: Path, drafts: Sequence[Draft], epoch: str = "old0epoch0") -> list[Notification]:
    """Make the file that a hub of version 1 left, and return what it kept."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(
            f"BEGIN; {MIGRATIONS[0]} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
        )
        kept: list[Notification] = []
        topics: dict[str, int] = {}
        for offset, draft in enumerate(drafts, 11):
            each = Notification.accept(draft, Position(epoch, offset), 1_700_000_000.0 + offset)
            kept.append(each)
            tags = json.dumps(each.tags, ensure_ascii=False) if each.tags else None
            row = (
                offset,
                each.at,
                "\n".join(each.topics),
                each.text,
                each.is_json,
                each.type,
                each.retry,
                each.private,
            )
            database.execute("INSERT INTO notification VALUES (?,?,?,?,?,?,?,?,?,?)", (*row, tags, each.size))
            for topic in each.topics:
                id = topics.setdefault(topic, len(topics) + 1)
                database.execute("INSERT OR IGNORE INTO topic VALUES (?, ?)", (id, topic))
                database.execute("INSERT INTO place VALUES (?, ?)", (id, offset))
        newest = kept[-1].position.offset
        facts = {"epoch": epoch, "newest": newest, "kept": len(kept), "size": sum(each.size for each in kept)}
        status = path.stat()
        facts |= {"trimmed": 10, "forgotten": 2, "home": f"{status.st_dev}:{status.st_ino}"}
        database.executemany("UPDATE meta SET value = ? WHERE name = ?", [(v, n) for n, v in facts.items()])
        database.executemany("INSERT INTO gone VALUES (?, ?)", [("a", 10), ("gone", 4)])
        database.execute("INSERT INTO key VALUES ('k', ?, 'a\nb/c', 1700000250.0)", (newest,))
        database.execute("COMMIT")
    return kept


async def check_migrated(home: Home, log: SQLiteLog, kept: list[Notification]) -> None:
    """Check that *log* has all that the hub of version 1 had *kept*."""
    topics = {topic for each in kept for topic in each.topics}
    size = sum(each.size for each in kept) + sum(map(topic_size, topics))
    assert log.bounds() == (kept[0].position, kept[-1].position, len(kept), size)
    found = await read_all(log, 0, ["**"])
    assert found == kept
    assert [each.chunk for each in found] == [each.chunk for each in kept], "byte for byte"
    assert [each.text for each in found] == [each.text for each in kept], "with the line ends it had"
    for topic in ("a", "b/c", "t/3"):
        assert await read_all(log, 0, [topic]) == [each for each in kept if topic in each.topics]
    assert log.trimmed_state() == TrimmedState(10, {"gone": 4, "a": 10}, 2)
    assert home.ask("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert home.ask("SELECT count(*) FROM sqlite_master WHERE name = 'old'") == [(0,)]


async def test_a_file_of_version_1_keeps_all_it_had(home: Home):
    written = [*(Draft.of(text, topics=["a", f"t/{n}"]) for n, text in enumerate(TEXTS)), *dressed()]
    kept = old_file(home.path, written)
    log = await home.open()
    assert log.epoch == "old0epoch0"
    await check_migrated(home, log, kept)
    (again,) = log.append(drafts("x", key="k"))
    assert (await again, again.repeated, again.topics) == (kept[-1].position, True, ("a", "b/c"))
    log = await home.restart(log, "killed")
    await check_migrated(home, log, kept)
    assert await append(log, "a") == [kept[-1].position.offset + 1]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("\r\n\0 ab:é𝄞"), max_size=30) | st.text(st.characters(exclude_categories=["Cs"])),
    type=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10),
    retry=st.none() | st.integers(0, 86_400_000),
)
def test_a_frame_is_migrated_to_what_it_would_be_now(text: str, type: str | None, retry: int | None):
    assume(type != "error" and not (type or "").startswith("hub."))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        (kept,) = old_file(path, [Draft.of(text, type=type, retry=retry)])
        place = Place(str(path), 1.0)
        with contextlib.closing(opened(place, "new")) as database:
            (row,) = database.execute(f"SELECT {COLUMNS} FROM notification")
        place.close()
        assert row[-1] == kept.chunk
        assert (row[-2] if "\r" in text else data_of(unchunk(row[-1]))) == text


@pytest.mark.parametrize("pages", [1, 300, 2_000])
async def test_a_migration_that_was_killed_is_completed_by_the_next_start(home: Home, pages: int):
    kept = old_file(home.path, [Draft.of("x" * 300, topics=["a", f"t/{n % 10}"]) for n in range(30_000)])
    before = home.path.stat().st_size
    opening = asyncio.create_task(home.open())
    ahead = home.path.with_name("hub.db-wal")
    await until(lambda: opening.done() or (ahead.exists() and ahead.stat().st_size >= pages * 4_096))
    assert not opening.done(), "the migration was over before it could be killed"
    (writer,) = processes("writer", home.path)
    os.kill(writer, signal.SIGKILL)
    with pytest.raises(LogUnavailable):
        await opening
    assert home.path.stat().st_size == before
    log = await home.open()
    await check_migrated(home, log, kept)
    assert await append(log, "a") == [kept[-1].position.offset + 1]


async def test_an_old_file_that_was_copied_gets_an_epoch_of_its_own_as_well(home: Home, tmp_path: Path):
    kept = old_file(home.path, dressed())
    copied = tmp_path / "copy.db"
    shutil.copy2(home.path, copied)
    copy = await home.open(copied)
    assert copy.epoch != "old0epoch0"
    expected = [each.chunk.replace(b"old0epoch0", copy.epoch.encode()) for each in kept]
    assert [each.chunk for each in await read_all(copy, 0, ["**"])] == expected


# ---- taking over another log ----


async def test_what_was_taken_over_outlives_a_restart(home: Home):
    other = await another("a", "a,b", "state/x", "state/x", "c/d", "b", bounds={"c/*": 1})
    log = await home.open(topics={"state/*": 1})
    await adopt(log, other)
    facts = (log.epoch, log.bounds(), log.trimmed_state(), await read_all(log, 0, ["**"]))
    assert log.trimmed(["state/x"]) == log.trimmed(["state/*"]) == 3
    log = await home.restart(log, "killed", topics={"state/*": 1})
    assert (log.epoch, log.bounds(), log.trimmed_state(), await read_all(log, 0, ["**"])) == facts
    assert await append(log, "a") == [7]
    await check_counts(log)


async def test_a_writer_killed_while_it_takes_over_another_log_leaves_the_log_as_it_was(home: Home):
    other = await another(*"abc")
    everything = await read_all(other, 0, ["**"])
    log = await home.open()
    epoch = log.epoch

    async def broken() -> AsyncIterator[Sequence[Notification]]:
        yield everything
        await kill(workers(log)[0])
        yield everything

    with pytest.raises(LogUnavailable):
        await log.adopt(other.epoch, 3, other.trimmed_state(), broken())
    assert (log.epoch, log.bounds().kept) == (epoch, 0)
    await adopt(log, other)
    assert await read_all(log, 0, ["**"]) == everything


# ---- the retention ----


async def fill(log: SQLiteLog, count: int, draft: Callable[[int], Draft]) -> None:
    """Append *count* drafts, a thousand at a time."""
    for start in range(0, count, 1_000):
        await log.append([draft(number) for number in range(start, min(start + 1_000, count))])[-1]


@pytest.mark.parametrize(
    ("bounds", "age"),
    [({"count": 5_000}, 0), ({"size": 2_500_000}, 0), ({"age": 5.0}, 1)],
    ids=["count", "bytes", "age"],
)
async def test_the_retention_bounds_the_file(home: Home, bounds: dict[str, Any], age: int):
    log = await home.open(**bounds)

    def draft(number: int) -> Draft:
        home.clock.now += age / 1_000
        return Draft.of(f"{number:0100}", topic=f"user/{number % 100}")

    await fill(log, 200_000, draft)
    assert log.bounds().newest.offset == 200_000
    assert 1_000 <= log.bounds().kept <= 6_500
    assert home.size < 8_000_000
    first = log.bounds().oldest.offset
    assert offsets(await read_all(log, 0, ["**"])) == list(range(first, 200_001))


async def test_the_file_is_bounded_with_ever_new_topics_too(home: Home):
    log = await home.open(count=5_000)
    await fill(log, 200_000, lambda number: Draft.of("x", topic=f"session/{number:032}"))
    assert home.size < 24_000_000, "5,000 notifications, what is remembered of topics, and the write-ahead log"
    assert home.ask("SELECT count(*) FROM topic")[0][0] == 5_000


async def test_the_file_remembers_no_more_keys_than_count(home: Home):
    log = await home.open(count=5_000)
    await fill(log, 150_000, lambda number: Draft.of("x", key=str(number)))
    assert home.ask("SELECT count(*) FROM key")[0][0] <= 110_000, "100,000 count, the rest is on its way out"


async def test_the_file_remembers_no_more_keys_than_fit(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.sqlite.log.KEY_BYTES", 2_000_000)
    log = await home.open(count=1_000)
    topics = [f"{place}".ljust(200, "t") for place in range(4)]
    for start in range(0, 12_000, 1_000):
        home.clock.now += 1
        drafts = [Draft.of("x", key=f"{n:05}".ljust(256, "k"), topics=topics) for n in range(start, start + 1_000)]
        await log.append(drafts)[-1]
    assert 1_000_000 < home.ask("SELECT total(length(key) + length(topics)) FROM key")[0][0] < 2_000_000
    log = await home.restart(log, "closed", count=1_000)
    newest, oldest = (Draft.of("x", key=f"{n:05}".ljust(256, "k")) for n in (11_999, 0))
    assert [receipt.repeated for receipt in log.append([newest, oldest])] == [True, False]


async def test_a_lower_bound_takes_effect_after_a_restart(home: Home):
    log = await home.open()
    await fill(log, 3_000, Draft.of)
    log = await home.restart(log, "closed", count=10)
    async with asyncio.timeout(10):
        while log.bounds().kept > 10:
            log.trim()
            await asyncio.sleep(0)
    assert offsets(await read_all(log, 0, ["**"])) == list(range(2_991, 3_001))
    assert log.trimmed(["notifications"]) == 2_990


async def test_the_file_levels_off(home: Home):
    log = await home.open(count=500)
    sizes: list[int] = []

    def draft(number: int) -> Draft:
        if number % 1_000 == 0:
            sizes.append(home.size)
        return Draft.of(f"{number:0300}", topics=["all", f"user/{number % 100}"])

    for number in range(30_000):
        receipt = log.append([draft(number)])[0]
        if number % 50 == 0:  # commits of many sizes
            await receipt
    await receipt
    assert log.bounds().kept == 500
    assert max(sizes[15:]) < max(sizes[:15]) * 1.1 < 24_000_000, "the write-ahead log is most of it"
    assert home.path.stat().st_size < 3_000_000
    await log.aclose()
    assert home.size < 3_000_000


async def test_a_file_with_new_smaller_bounds_gives_space_back_step_by_step_while_publishes_are_confirmed(home: Home):
    log = await home.open()
    await fill(log, 30_000, lambda number: Draft.of("x" * 500, topics=["all", f"user/{number % 100}"]))
    await log.aclose()
    big = home.path.stat().st_size
    assert big > 15_000_000
    log = await home.open(count=500)
    assert log.bounds().kept == 30_000, "opening waits for nothing of it"
    steps: list[int] = []
    published = 0
    async with asyncio.timeout(60):
        while log.bounds().kept > 500 or free_pages(home) > 300:
            before = log.bounds().kept
            log.trim()
            await asyncio.sleep(0)  # the sweep comes first, and goes no further than a step once there is a publish
            (position,) = await settled(log.append(drafts("all", size=500)))
            assert isinstance(position, Position)
            steps.append(before - log.bounds().kept)
            published += 1
    assert published > 20
    assert max(steps) < 2_000
    await log.aclose()
    assert home.path.stat().st_size < big / 5
    log = await home.open(count=500)
    assert offsets(await read_all(log, 0, ["all"])) == list(range(30_000 + published - 499, 30_000 + published + 1))


def free_pages(home: Home) -> int:
    return int(home.ask("PRAGMA freelist_count")[0][0])


async def test_bounds_of_topics_apply_to_what_an_old_file_has_of_them(home: Home):
    log = await home.open()
    await fill(log, 9_000, lambda number: Draft.of(number, topics=[f"state/{number % 700}", f"room/{number % 3}"]))
    await fill(log, 900, lambda number: Draft.of(number, topic=f"state/{number % 300}"))
    log = await home.restart(log, "closed", topics={"state/*": 1})
    assert log.bounds().kept == 9_900, "opening waits for nothing of it"
    outcomes: list[Position | LogUnavailable] = []
    while log.bounds().kept > 9_301:
        log.trim()
        outcomes += await settled(log.append(drafts("state/299")))
    assert all(isinstance(each, Position) for each in outcomes)
    await swept(log)
    newest = {f"state/{n}": 8_400 + n + 1 if n < 600 else 7_700 + n + 1 for n in range(700)}
    newest |= {f"state/{n}": 9_600 + n + 1 for n in range(299)} | {"state/299": log.bounds().newest.offset}
    for topic in ("state/0", "state/298", "state/299", "state/300", "state/599", "state/600", "state/699"):
        assert offsets(await read_all(log, 0, [topic])) == [newest[topic]], topic
    assert offsets(await read_all(log, 0, ["state/*"])) == sorted(newest.values())
    assert len(await read_all(log, 0, ["room/0"])) == 3_000
    assert log.trimmed(["state/*"]) == log.bounds().newest.offset - 1
    assert log.trimmed(["state/300"]) == 8_001
    assert log.trimmed(["room/*"]) == 0
    await check_counts(log)


async def test_bounds_of_topics_that_are_gone_leave_no_place_behind(home: Home):
    log = await home.open(topics={"state/*": 1})
    await append(log, "state/a,room", "state/a")
    await append(log, *(f"more/{number}" for number in range(300)))
    log = await home.restart(log, "closed")
    for wanted in (["state/a"], ["state/*"], ["state/a", "more/*"]):
        found = offsets(await read_all(log, 0, wanted))
        assert found[:1] == [2], "by index and when walking"
    assert offsets(await read_all(log, 0, ["room", "more/*"]))[:1] == [1]


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_restart_keeps_what_topics_lost_to_bounds_of_their_own(home: Home, how: str):
    bounds = {"state/**": 1}
    log = await home.open(topics=bounds)
    (first, *_) = log.append(drafts("state/a", key="k") + drafts("state/a", "state/b", "state/b/c"))
    await first
    await append(log, "state/b")
    log = await home.restart(log, how, topics=bounds)
    assert [log.trimmed([each]) for each in ("state/a", "state/*", "state/**", "state/b/*", "**")] == [1, 3, 3, 0, 3]
    (again,) = log.append(drafts("state/a", key="k"))
    assert (again.repeated, (await again).offset) == (True, 1), "the key outlives what it was used for"
    await append(log, "state/a", "state/b/c")
    assert offsets(await read_all(log, 0, ["**"])) == [5, 6, 7]
    assert offsets(await read_all(log, 0, ["state/**"], latest=True)) == [5, 6, 7]
    assert [log.trimmed([each]) for each in ("state/a", "state/b", "state/b/c", "**")] == [2, 3, 4, 4]
    await check_counts(log)


# ---- what the writer and the reader know, one step at a time ----


@pytest.fixture
def write(home: Home) -> Iterator[Callable[..., Writer]]:
    """Return a maker of writers in this process."""
    made: list[Writer] = []

    def write(**topics: int) -> Writer:
        options = {"epoch": "e", "count": 10**6, "size": 10**9, "age": None, "topics": list(topics.items())}
        bounds = {"last": 10**9, "remembered": 10**4, "keys": 10**4, "key_bytes": 10**6}
        made.append(Writer(str(home.path), {**options, **bounds, "patience": 1.0}))
        return made[-1]

    yield write
    for each in made:
        each.close()


def rows(first: int, *topics: str) -> list[Row]:
    frame = chunk(block("x"))
    return [(n, 0.0, topic, False, None, None, False, None, 1, None, frame) for n, topic in enumerate(topics, first)]


def test_topics_that_were_to_be_held_to_a_new_bound_still_are_after_a_commit_that_failed(
    write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    before = write()
    before.append(rows(1, "a", "a", "a"), [], 0.0)
    before.close()
    writer = write(**{"*": 1})

    def full(now: float) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(writer, "_forget", full)
        with pytest.raises(sqlite3.OperationalError):
            writer.append([], [], 0.0)
    assert writer.state()["kept"] == 3
    answer = writer.append([], [], 0.0)
    assert (answer["kept"], answer["topics"]) == (1, [("a", 2)])


def test_a_topic_keeps_its_bound_when_the_writer_meets_more_topics_than_it_remembers(
    write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.sqlite.worker.writer.KNOWN_TOPICS", 3)
    writer = write(**{"*": 2})
    writer.append(rows(1, "a", "a"), [], 0.0)
    answer = writer.append(rows(3, "a", "b", "c", "d", "a", "e", "f", "a"), [], 0.0)
    assert dict(answer["topics"]) == {"a": 3}
    assert answer["kept"] == 7
    assert writer.append(rows(11, "a"), [], 0.0)["kept"] == 7


def test_the_id_of_a_topic_that_is_given_to_another_one_meanwhile_finds_nothing_of_that(
    home: Home, write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    writer = write(**{"**": 1})
    writer.append(rows(1, "mine"), [], 0.0)
    reader = Reader(str(home.path), {"topics": []})
    looked_up = reader._ids

    def looks_up_and_is_overtaken(names: Iterable[str]) -> list[int]:
        found = looked_up(names)
        ask = writer._database.execute
        ask("DELETE FROM place")
        ask("DELETE FROM notification")
        ask("DELETE FROM topic")
        writer._topics.clear()
        writer.append(rows(2, "theirs"), [], 0.0)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(reader, "_ids", looks_up_and_is_overtaken)
        found = reader.read(0, 2, ["mine"], False)["rows"]
    assert [(row[0], row[2]) for row in found] == [(1, "mine")], "one state of the file"
    assert reader.read(0, 2, ["mine"], False)["rows"] == []
    reader.close()


# ---- what a page of the reader looks at ----

TOPICS, SENT = 3_000, 9_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with many topics, each used a few times."""
    path = tmp_path_factory.mktemp("wide") / "hub.db"
    options = {"epoch": "e", "count": 10**6, "size": 10**9, "age": None, "topics": [], "last": 10**9}
    writer = Writer(str(path), {**options, "remembered": 10**4, "keys": 10**4, "key_bytes": 10**6, "patience": 1.0})
    writer.append(rows(1, *(f"order/{n * 7 % TOPICS}/status" for n in range(SENT))), [], 0.0)
    writer.close()
    return path


PATTERNS = {each: [each] for each in ("**", "order/*/status", "order/**", "**/status", "*/*/*", "**/never", "*/7/**")}


@pytest.mark.parametrize("latest", [False, True], ids=["all", "latest"])
@pytest.mark.parametrize("asked", [*PATTERNS, *most_expensive()])
def test_a_page_takes_a_bounded_number_of_steps_and_nothing_is_judged_twice(
    wide: Path, asked: str, latest: bool, monkeypatch: pytest.MonkeyPatch
):
    reader = Reader(str(wide), {"topics": []})
    judged = looked_up = 0
    match, newest = Patterns.match, reader._newest

    def counted_match(patterns: Patterns, name: str) -> bool:
        nonlocal judged
        judged += 1
        return match(patterns, name)

    def counted_newest(name: str, upto: int, search: Search) -> int:
        nonlocal looked_up
        looked_up += 1
        return newest(name, upto, search)

    monkeypatch.setattr(Patterns, "match", counted_match)
    monkeypatch.setattr(reader, "_newest", counted_newest)
    wanted = (PATTERNS | most_expensive())[asked]
    after = pages = found = all_judged = all_looked_up = 0
    while after < SENT:
        judged = looked_up = 0
        page = reader.frames(after, SENT, wanted, latest)
        assert judged * 4 <= FIND_STEPS + PAGE_WALK + 4 * len(wanted)
        assert looked_up <= LOOKED_UP + PAGE_WALK / LOOK_UP_STEPS
        all_judged += judged
        all_looked_up += looked_up
        after, pages, found = page["reached"], pages + 1, found + page["number"]
    matching = sum(match(Patterns(wanted), f"order/{n}/status") for n in range(TOPICS))
    assert found == matching * (1 if latest else SENT // TOPICS)
    assert all_judged <= 2 * TOPICS + len(wanted)
    assert all_looked_up <= (TOPICS if latest else 0)
    assert pages <= 40
    assert reader._searches._left == SEARCHED_BYTES, "what came to its end is forgotten"
    reader.close()


def test_what_is_thick_at_first_and_rare_then_is_not_walked_to_its_end(
    home: Home, write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    writer = write()
    writer.append(rows(1, *("thick/a", "thick/b") * 1_500), [], 0.0)
    writer.append(rows(3_001, *["other"] * 40_000), [], 0.0)
    writer.append(rows(43_001, "thick/a"), [], 0.0)
    reader = Reader(str(home.path), {"topics": []})
    ways: list[str] = []
    walk = reader._walk

    def noted_walk(*asked: Any) -> tuple[list[Any], int]:
        ways.append("walked")
        return walk(*asked)

    monkeypatch.setattr(reader, "_walk", noted_walk)
    reached = [reader.frames(0, 43_001, ["thick/*"], False)["reached"]]
    while reached[-1] < 43_001:
        reached.append(reader.frames(reached[-1], 43_001, ["thick/*"], False)["reached"])
    reader.close()
    assert reached[:2] == [1_000, 2_000]
    assert len(ways) <= 4, "while it is thick, and once to see that it is not"
    assert len(reached) <= 6


def test_a_page_of_an_expensive_question_is_short_so_that_another_one_has_its_turn(wide: Path):
    reader = Reader(str(wide), {"topics": []})
    for patterns in most_expensive().values():
        page = reader.frames(0, SENT, patterns, False)
        assert page["reached"] < SENT
        assert reader.frames(0, SENT, ["order/7/status"], False)["number"] == SENT // TOPICS
    reader.close()


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.fixed_dictionaries(
        {
            "log.sqlite.worker.reader.FEW": st.sampled_from([0, 2]),
            "log.sqlite.worker.reader.PAGE_COUNT": st.integers(1, 3),
            "log.sqlite.worker.reader.PAGE_WALK": st.integers(1, 8),
            "log.sqlite.worker.reader.MERGED_TOPICS": st.sampled_from([1, 3, 200]),
            "log.sqlite.worker.reader.DENSE": st.sampled_from([0, 2]),
            "log.sqlite.worker.reader.LOOKED_UP": st.integers(1, 3),
            "log.sqlite.worker.reader.ROWS_BY_OFFSET": st.integers(1, 3),
            "log.search.FIND_STEPS": st.sampled_from([0, 6, 1_000]),
            "log.search.SEARCHED_BYTES": st.sampled_from([0, 500, 10**6]),
        }
    ),
    bounds=limits,
    plan=st.lists(st.tuples(batches, wishes, st.integers(0, 40)), max_size=8),
)
def test_the_ways_to_find_in_a_file_hold_what_a_plain_list_would(
    sizes: dict[str, int], bounds: dict[str, int], plan: list[tuple[list[Any], list[str], int]]
):
    """Each way is taken by a few notifications already, begins where another ended, and is cut anywhere."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            patched.setattr(f"hub.{name}", value)
        path = f"{folder}/hub.db"
        options = {"epoch": "e", "count": 20, "size": 10**9, "age": None, "topics": list(bounds.items())}
        writer = Writer(
            path, {**options, "last": 10**9, "remembered": 10**4, "keys": 10**4, "key_bytes": 10**6, "patience": 1.0}
        )
        reader = Reader(path, {"topics": list(bounds.items())})
        model = ListLog(20, topics=bounds)
        for several, wanted, after in plan:
            first = model.newest + 1
            model.append([(topics, None) for topics, _ in several], 0.0)
            writer.append(rows(first, *("\n".join(topics) for topics, _ in several)), [], 0.0)
            end = model.newest
            assert [*pages_of(reader, after, end, wanted, latest=False)] == model.read(after, wanted, end)
            assert [*pages_of(reader, after, end, wanted, latest=True)] == model.latest(after, wanted, end)
            assert bool(reader.read(after, end, wanted, False)["hole"]) == (model.trimmed(wanted, after) > 0)
        reader.close()
        writer.close()


def pages_of(reader: Reader, after: int, upto: int, topics: list[str], *, latest: bool) -> Iterator[int]:
    """Yield the offsets of all that is read, page after page."""
    while after < upto:
        page = reader.read(after, upto, topics, latest)
        yield from (row[0] for row in page["rows"])
        assert page["reached"] > after, "each page gets nearer to the end"
        after = page["reached"]


# ---- a full disk ----


async def test_a_full_disk_fails_what_has_no_room_and_the_log_goes_on_when_there_is_some(disk: Disk, home: Home):
    home.path = disk.path / "hub.db"
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    outcomes: list[Position | LogUnavailable] = []
    while sum(isinstance(each, LogUnavailable) for each in outcomes) < 100:
        outcomes += await settled(log.append(drafts(*["a"] * 5, size=2_000)))
    confirmed = [each.offset for each in outcomes if isinstance(each, Position)]
    assert len(confirmed) > 100
    assert any("full" in each.why for each in outcomes if isinstance(each, LogUnavailable))
    assert offsets(await read_all(log, 0, ["a"])) == announced == confirmed
    disk.grow(20)
    confirmed.append(await goes_on(log))
    confirmed += await append(log, *["a"] * 100, size=2_000)
    assert offsets(await read_all(log, 0, ["**"])) == announced == confirmed == sorted(set(confirmed))
    log = await home.restart(log, "killed")
    assert offsets(await read_all(log, 0, ["**"])) == confirmed
    await log.aclose()


async def test_a_hub_may_be_started_anew_on_a_full_disk_and_goes_on_when_there_is_room(disk: Disk, home: Home):
    home.path = disk.path / "hub.db"
    log = await home.open()
    while not any(isinstance(each, LogUnavailable) for each in await settled(log.append(drafts("a", size=20_000)))):
        pass
    disk.fill()
    kept = offsets(await read_all(log, 0, ["a"]))
    assert kept
    await crash(log)
    try:
        log = await home.open()
    except LogUnavailable as error:
        assert "full" in str(error) or "No space" in str(error)  # noqa: PT017 - both are right, a crash is not
    disk.grow(20)
    log = await home.restart(log, "closed")
    assert offsets(await read_all(log, 0, ["a"])) == kept
    assert (await goes_on(log)) == kept[-1] + 1
    await log.aclose()


# ---- the processes beside their parent ----

PARENT = """
import asyncio, sys, time
from pathlib import Path
from hub.log.sqlite.log import SQLiteLog
from hub.notification import Draft

async def main():
    log = SQLiteLog(Path(sys.argv[1]), count=10, size=10**6, age=None, clock=time.time)
    await log.open()
    await log.append([Draft.of("x")])[0]
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_processes_end_with_a_parent_that_was_killed(home: Home):
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(home.path)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        assert await parent.stdout.readline() == b"open\n"
        started = children(parent.pid)
        assert len(started) == 2
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not any(Path(f"/proc/{each}").exists() for each in started))
    log = await home.open()
    assert log.bounds().newest.offset == 1


@pytest.fixture
async def hub(home: Home) -> AsyncIterator[ServeProcess]:
    """`hub serve` on the file, in a process group of its own, the way a terminal starts it."""
    hub = ServeProcess(
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hub", "serve", "--port", "0", "--drain", "0.2", "--log", f"sqlite:///{home.path}"),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    yield await hub.listening()
    await hub.aclose()


async def test_the_processes_inherit_no_socket_of_the_hub(hub: ServeProcess):
    await hub.site.subscribe()
    first = children(hub._process.pid)
    for each in first:
        os.kill(each, signal.SIGKILL)
    # What is started now, while the hub listens and a stream is open, could inherit something.
    async with asyncio.timeout(20):
        while (await hub.site.publish({"data": 1})).status != 201:
            pass
    again = children(hub._process.pid)
    assert len(again) == 2
    assert not set(again) & set(first)
    for each in again:
        assert not sockets(each) & sockets(hub._process.pid)
        its_own = [each for number, each in open_files(each).items() if number <= 2]
        assert sockets(each) <= {*its_own}, "its pipes, and with uvloop another name for each of them"


def open_files(process: int) -> dict[int, str]:
    """What a process has open, by descriptor (Linux)."""
    found: dict[int, str] = {}
    for each in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(each.name)] = str(each.readlink())
    return found


def sockets(process: int) -> set[str]:
    return {each for each in open_files(process).values() if each.startswith("socket:")}


async def test_a_ctrl_c_ends_the_hub_and_only_then_the_log(hub: ServeProcess, home: Home):
    stream = await hub.site.subscribe()
    for number in range(20):
        assert (await hub.site.publish({"data": number})).status == 201
    os.killpg(hub._process.pid, signal.SIGINT)
    assert await hub.end() == 0
    hub.check_tidy()
    assert "died" not in hub.err
    assert len([event for event in await stream.rest() if event.type == "message"]) == 20
    assert not home.path.with_name("hub.db-wal").exists(), "the writer has closed the file"
    assert home.ask("SELECT count(*) FROM notification") == [(20,)]


# ---- against a list ----

steps = st.one_of(
    st.tuples(st.just("append"), batches),
    st.tuples(st.just("append"), batches),
    st.tuples(st.just("wait"), st.integers(1, 15)),
    st.tuples(st.just("lose"), batches),
    st.tuples(st.just("kill"), st.sampled_from([0, 1])),
    st.tuples(st.just("closed"), limits),
    st.tuples(st.just("killed"), limits),
)


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])  # each step may start processes
@given(
    count=st.integers(1, 12),
    age=st.none() | st.integers(5, 60),
    bounds=limits,
    plan=st.lists(st.tuples(steps, wishes, st.integers(0, 20)), min_size=3, max_size=15),
)
def test_it_holds_what_a_plain_list_would(
    count: int, age: float | None, bounds: dict[str, int], plan: list[tuple[tuple[str, Any], list[str], int]]
):
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        runner.run(compare(Home(Path(folder) / "hub.db"), count, age, bounds, plan))


async def compare(
    home: Home,
    count: int,
    age: float | None,
    bounds: dict[str, int],
    plan: list[tuple[tuple[str, Any], list[str], int]],
) -> None:
    """Do what *plan* says to a log and to a list, and compare them after each step."""
    log = await home.open(count=count, age=age, topics=bounds)
    model = ListLog(count, age=age, topics=bounds)
    epoch = log.epoch
    try:
        for (step, how), wanted, after in plan:
            match step:
                case "append":
                    receipts = log.append([Draft.of("x", topics=topics, key=key) for topics, key in how])
                    kept = model.append(how, home.clock.now)
                    assert await settled(receipts) == [(epoch, offset) for offset in kept]
                case "wait":
                    home.clock.now += how
                case "lose":
                    await lose(log, model, how)
                case "kill":
                    await kill(workers(log)[how])
                    await mended(log)
                case _:
                    log = await home.restart(log, step, count=count, age=age, topics=how)
                    model.restart(how)
            model.trim(home.clock.now)
            await swept(log)
            assert log.epoch == epoch
            await check_against(model, log, wanted, after)
            await check_counts(log)
    finally:
        await home.aclose()


async def lose(log: SQLiteLog, model: ListLog, wanted: Sequence[tuple[list[str], str | None]]) -> None:
    """Append while the writer stands still, and let it die before it begins."""
    writer = workers(log)[0]
    os.kill(pid(writer), signal.SIGSTOP)
    receipts = log.append([Draft.of("x", topics=topics, key=key) for topics, key in wanted])
    await asyncio.sleep(0)
    await kill(writer)
    for each, offset in zip(await settled(receipts), model.lose(wanted), strict=True):
        assert isinstance(each, LogUnavailable) if offset is None else each == (log.epoch, offset)
    await mended(log)
