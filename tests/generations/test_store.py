"""What of the generations survives a restart, and what happens while the log is slow or broken."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hub.errors import (
    GenerationExpired,
    HubError,
    KeyReused,
    LogUnavailable,
    TooManyGenerations,
    UnknownGeneration,
)
from hub.generations.generation import Generation, Phase
from hub.generations.providers.provider import Delta
from hub.generations.store import GenerationLog
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import SQLiteLog
from hub.state.peers import Alone
from tests.generations.support import Clock, HeldLog, Make, Source, log_file, over
from tests.web.client import until

pytestmark = pytest.mark.slow


async def test_a_key_leads_to_its_generation_after_a_restart_too(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=log_file(tmp_path, clock))
    source = Source("a", None)
    stream, _ = await before.start(source, owner="ann", key="k", asked="one")
    await over(stream)
    await before.aclose()
    after = await make(log=log_file(tmp_path, clock), keep=300)
    answers = await asyncio.gather(*(after.start(source, owner="ann", key="k", asked="one") for _ in range(3)))
    assert {(again.id, again.text(), new) for again, new in answers} == {(stream.id, "a", False)}
    with pytest.raises(KeyReused):
        await after.start(source, owner="ann", key="k", asked="two")
    assert source.begun == 1
    for owner in ("bob", None):
        assert (await after.start(source, owner=owner, key="k", asked="one"))[1]
    clock.now += 300
    after.sweep()
    assert (await after.start(source, owner="ann", key="k", asked="two"))[1]


async def test_two_at_once_with_one_key_are_one_generation_while_the_log_is_being_opened(make: Make, tmp_path: Path):
    generations = await make(log=log_file(tmp_path))
    source = Source()
    answers = await asyncio.gather(*(generations.start(source, key="k") for _ in range(5)))
    assert source.begun == 1
    assert len({stream.id for stream, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1


async def test_nothing_is_seen_before_the_log_has_it(make: Make):
    log = HeldLog()
    generations = await make(log=log)
    stream = await generations.begin()
    stream.append("a")
    stream.finish()
    assert (stream.text(), stream.phase) == ("", Phase.STREAMING)
    log.confirm()
    assert (stream.text(), stream.phase) == ("a", Phase.DONE)


async def test_whoever_gives_up_while_the_log_opens_spoils_it_for_nobody(make: Make, tmp_path: Path):
    generations = await make(log=log_file(tmp_path))
    impatient = asyncio.create_task(generations.find("nobody"))
    patient = asyncio.create_task(generations.start(Source("a", None)))
    await asyncio.sleep(0)
    impatient.cancel()
    stream, _ = await patient
    assert (await over(stream))["phase"] == "done"


async def test_a_log_whose_opening_is_cancelled_can_be_opened_again(tmp_path: Path):
    log = log_file(tmp_path)
    for seconds in (0.0, 0.01, 0.05, 0.1):
        with suppress(TimeoutError):
            await asyncio.wait_for(log.open(), seconds)
            await log.aclose()
            break
        log = log_file(tmp_path)
    again = log_file(tmp_path)
    await again.open()
    await again.aclose()


async def test_what_has_lost_its_beginning_is_gone_and_not_unknown(make: Make):
    log = MemoryLog(count=2, clock=Clock())
    stream = await (await make(log=log)).begin()
    for piece in "ab":  # with which the beginning goes
        stream.append(piece)
    after = await make(log=log)
    with pytest.raises(GenerationExpired):
        await after.find(stream.id)


async def test_what_was_restored_counts_among_what_is_kept(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=log_file(tmp_path, clock))
    ids = []
    for _ in range(3):
        stream, _ = await before.start(Source("x" * 30_000, None))
        await over(stream)
        ids.append(stream.id)
        clock.now += 1
    await before.aclose()
    after = await make(log=log_file(tmp_path, clock), kept_size=65_000)
    for id in ids:
        assert 30_000 < (await after.find(id)).cost < 32_000
    after.sweep()
    with pytest.raises(GenerationExpired):
        await after.find(ids[0])
    assert len(after) == 2


async def test_a_large_piece_is_kept_in_a_log_too(make: Make, tmp_path: Path):
    text = "\x01" * 600_000  # of which JSON makes six times as much
    stream, _ = await (await make(log=log_file(tmp_path))).start(Source(text, None))
    assert (await over(stream))["phase"] == "done"
    assert stream.text() == text


async def test_nothing_has_begun_before_the_log_has_it(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log, total=1)
    source = Source()
    starting = asyncio.create_task(generations.start(source))
    await until(lambda: log.waiting)
    assert (source.begun, generations.streaming) == (0, 1)
    with pytest.raises(TooManyGenerations):
        await generations.begin()
    log.confirm()
    stream, _ = await starting
    await until(lambda: source.begun)
    assert await generations.find(stream.id) is stream


async def test_what_could_not_begin_leaves_nothing(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log, total=1)
    source = Source()
    for _ in range(2):
        starting = asyncio.create_task(generations.start(source, key="k"))
        await until(lambda: log.waiting)
        log.fail()
        with pytest.raises(LogUnavailable):
            await starting
        assert (source.begun, generations.streaming, len(generations)) == (0, 0, 0)


async def test_what_has_begun_goes_on_without_the_caller(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log)
    source = Source("a")
    starting = asyncio.create_task(generations.start(source, key="k"))
    await until(lambda: log.waiting)
    starting.cancel()
    await asyncio.wait([starting])
    log.holds = False
    log.confirm()
    stream, new = await generations.start(source, key="k")
    assert (source.begun, new) == (1, False)
    assert stream.phase is Phase.STREAMING


async def test_what_began_for_a_caller_who_left_has_a_lease(make: Make):
    log = HeldLog(holds=True)
    generations = await make(log=log, lease=0)
    beginning = asyncio.create_task(generations.begin())
    await until(lambda: log.waiting)
    beginning.cancel()
    await asyncio.wait([beginning])
    log.confirm()
    await until(lambda: len(generations) == 1)
    log.holds = False
    generations.sweep()
    log.confirm()
    await until(lambda: generations.streaming == 0)


@pytest.mark.parametrize("how", ["start", "begin"])
async def test_a_shutdown_in_the_middle_of_a_beginning_waits_for_it(make: Make, how: str):
    log = HeldLog(holds=True)
    generations = await make(log=log)

    async def begin() -> Generation:
        stream: Generation
        if how == "begin":
            stream = await generations.begin()
        else:
            stream, _ = await generations.start(Source("a"))
        return stream

    starting = asyncio.create_task(begin())
    await until(lambda: log.waiting)
    closing = asyncio.create_task(generations.aclose())
    await asyncio.sleep(0)
    log.holds = False
    log.confirm()
    stream = await starting
    await closing
    assert (await over(stream))["reason"] == "producer_lost"


async def test_what_was_done_is_done_after_a_restart(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=log_file(tmp_path, clock))
    source = Source("两", "\nb", Delta("", "stop", {"total_tokens": 2}))
    stream, _ = await before.start(source, owner="ann", model="m")
    source.say(None)
    facts = await over(stream)
    await before.aclose()
    after = await make(log=log_file(tmp_path, clock))
    again = await after.find(stream.id, "ann")
    assert (again.text(), again.newest, again.head) == ("两\nb", 2, stream.head)
    assert await over(again) == facts
    assert await after.find(stream.id, "ann") is again
    with pytest.raises(UnknownGeneration):
        await after.find(stream.id, "bob")


async def test_what_was_streaming_has_lost_its_producer_after_a_restart(make: Make, tmp_path: Path, clock: Clock):
    log = log_file(tmp_path, clock)
    before = await make(log=log)
    stream = await before.begin()
    stream.append("a")
    stream.append("b")
    await until(lambda: stream.text() == "ab")
    await log.aclose()  # as if it had been killed: no end is kept
    after = await make(log=log_file(tmp_path, clock))
    again, other = await asyncio.gather(after.find(stream.id), after.find(stream.id))
    assert again is other
    assert (again.text(), (await over(again))["reason"]) == ("ab", "producer_lost")


async def test_what_expired_while_the_hub_was_down_is_known_to_be_gone(make: Make, tmp_path: Path, clock: Clock):
    before = await make(log=log_file(tmp_path, clock), keep=300)
    stream = await before.begin()
    stream.finish()
    await over(stream)
    await before.aclose()
    clock.now += 300
    after = await make(log=log_file(tmp_path, clock), keep=300)
    for _ in range(2):
        with pytest.raises(GenerationExpired):
            await after.find(stream.id)


@pytest.mark.parametrize("id", ["*", "**", "", "nobody", "a b", "a/b", "*?", "x" * 1_000, "a\0b"])
async def test_what_is_no_id_finds_nothing_also_in_a_log(make: Make, tmp_path: Path, clock: Clock, id: str):
    before = await make(log=log_file(tmp_path, clock))
    stream = await before.begin()
    stream.append("somebody's")
    await until(stream.text)
    await before.aclose()
    after = await make(log=log_file(tmp_path, clock))
    with pytest.raises(UnknownGeneration):
        await after.find(id)


async def test_when_the_log_fails_the_generation_fails_and_viewers_are_told(
    make: Make, caplog: pytest.LogCaptureFixture
):
    log = HeldLog()
    source = Source("a")
    generations = await make(log=log)
    stream, _ = await generations.start(source)
    await until(lambda: log.waiting)
    log.confirm()
    source.say("b")
    await until(lambda: log.waiting)
    log.fail()
    assert await over(stream) == {
        "phase": "failed",
        "reason": "unavailable",
        "message": "the answer could not be kept",
    }
    assert stream.text() == "a"
    await until(lambda: source.closed)
    assert generations.streaming == 0


async def test_no_text_with_a_hole_is_delivered(make: Make, caplog: pytest.LogCaptureFixture):
    log = HeldLog()
    generations = await make(log=log)
    stream = await generations.begin()
    for piece in "abc":
        stream.append(piece)
    stream.finish()
    log.confirm(1)
    log.fail(1)
    log.confirm()
    assert stream.text() == "a"
    assert (await over(stream))["reason"] == "unavailable"
    again = await (await make(log=log)).find(stream.id)
    assert (again.text(), (await over(again))["reason"]) == ("a", "unavailable")


async def test_nothing_is_added_by_a_process_that_others_may_take_for_gone(make: Make, monkeypatch: pytest.MonkeyPatch):
    log = MemoryLog(clock=Clock())
    stream = await (await make(log=log)).begin()
    stream.append("a")
    monkeypatch.setattr(Alone, "sure", False)
    stream.append("b")
    stream.finish()
    assert (stream.text(), (await over(stream))["reason"]) == ("a", "producer_lost")
    again = await (await make(log=log)).find(stream.id)
    assert (again.text(), (await over(again))["reason"]) == ("a", "producer_lost")
    assert log.bounds().newest.offset == 3, "its start, a part, its end"


@pytest.mark.parametrize("window", [0.0, 3600.0])
async def test_when_the_log_refuses_the_generation_fails(make: Make, window: float, caplog: pytest.LogCaptureFixture):
    log = HeldLog()
    generations = await make(log=log, window=window)
    stream = await generations.begin()
    log.confirm()
    log.refuses = True
    stream.append("a")
    stream.finish()
    assert (await over(stream))["reason"] == "unavailable"
    with pytest.raises(HubError):
        await generations.begin()


async def test_a_log_that_can_not_be_opened_is_said_to_whoever_begins(make: Make, tmp_path: Path):
    (tmp_path / "ai.db").mkdir()
    generations = await make(log=log_file(tmp_path))
    source = Source()
    with pytest.raises(LogUnavailable):
        await generations.start(source)
    assert source.begun == 0


class NeverOpen(MemoryLog):
    """A log whose opening takes for ever."""

    async def open(self) -> None:
        await asyncio.Event().wait()


async def test_a_log_that_is_still_being_opened_does_not_hold_the_end_up():
    log = GenerationLog(
        NeverOpen(count=1, size=1, age=None, topics={}, clock=lambda: 0.0), lambda stream, error: None, Alone()
    )
    waiting = asyncio.create_task(log.open())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await log.aclose()
    with pytest.raises(LogUnavailable):
        await waiting


async def test_a_beginning_that_waits_for_an_opening_is_told_that_there_will_be_no_log(make: Make):
    generations = await make(log=NeverOpen(count=1, size=1, age=None, topics={}, clock=lambda: 0.0))
    starting = [asyncio.create_task(each) for each in (generations.begin(), generations.start(Source(), key="k"))]
    await until(lambda: generations._log._opening is not None)
    await generations.aclose()
    for each in starting:
        with pytest.raises(LogUnavailable):
            await each


class NeverGivesUp(NeverOpen):
    """A log whose opening takes as long as it likes, whatever it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def open(self) -> None:
        while not self.free.is_set():
            with suppress(asyncio.CancelledError):
                await self.free.wait()


async def test_an_opening_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.generations.store.CLOSE_SECONDS", 0.01)
    home = NeverGivesUp()
    log = GenerationLog(home, lambda stream, error: None, Alone())
    waiting = asyncio.create_task(log.open())
    await until(lambda: log._opening is not None)
    async with asyncio.timeout(10):
        await log.aclose()
    home.free.set()
    await waiting


async def test_what_fails_at_the_end_does_not_keep_the_log_from_being_closed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = log_file(tmp_path)
    generations = await make(log=log)
    await generations.begin()

    def fails(*arguments: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Generation, "fail", fails)
        with pytest.raises(ZeroDivisionError):
            await generations.aclose()
    with pytest.raises(LogUnavailable):
        log.append([])


# ---- what an earlier process left ----


def records(folder: Path) -> int:
    """Count what is in the file, by asking the file itself."""
    with closing(sqlite3.connect(folder / "ai.db")) as file:
        return int(file.execute("SELECT count(*) FROM notification").fetchone()[0])


def files(folder: Path) -> list[str]:
    """Return the names of what is in *folder*."""
    return [each.name for each in folder.iterdir()]


async def leave_some(make: Make, folder: Path, clock: Clock) -> None:
    """Have an earlier hub keep some answers in a file."""
    before = await make(log=log_file(folder, clock, age=900))
    for _ in range(3):
        await over((await before.start(Source("a", "b", None)))[0])
    await before.aclose()
    assert records(folder) == 12


async def test_what_is_too_old_goes_at_the_start_without_anybody_asking(make: Make, tmp_path: Path, clock: Clock):
    await leave_some(make, tmp_path, clock)
    clock.now += 901
    log = log_file(tmp_path, clock, age=900)
    generations = await make(log=log)
    await until(lambda: records(tmp_path) == 0)
    await until(lambda: generations._log._looking is None)
    generations.sweep()
    assert isinstance(log, SQLiteLog)
    assert (log._writer.process, log._reader.process) == (None, None), "no process goes on for nothing"
    assert (await over((await generations.start(Source("a", None)))[0]))["phase"] == "done"


async def test_what_is_not_too_old_yet_goes_in_its_time_without_anybody_asking(
    make: Make, tmp_path: Path, clock: Clock
):
    await leave_some(make, tmp_path, clock)
    generations = await make(log=log_file(tmp_path, clock, age=900))
    await until(lambda: generations._log._opened)
    assert records(tmp_path) == 12
    clock.now += 901
    generations.sweep()
    await until(lambda: records(tmp_path) == 0)


async def test_whoever_asks_while_it_is_looked_gets_an_answer(make: Make, tmp_path: Path, clock: Clock):
    await leave_some(make, tmp_path, clock)
    generations = await make(log=log_file(tmp_path, clock, age=900))
    assert generations._log._looking is not None
    answers = await asyncio.gather(*(generations.start(Source("a", None)) for _ in range(3)))
    assert [(await over(stream))["phase"] for stream, _ in answers] == ["done"] * 3


async def test_a_hub_that_ends_while_it_looks_leaves_the_file_to_the_next(make: Make, tmp_path: Path, clock: Clock):
    await leave_some(make, tmp_path, clock)
    clock.now += 901
    for _ in range(3):
        await (await make(log=log_file(tmp_path, clock, age=900))).aclose()
    generations = await make(log=log_file(tmp_path, clock, age=900))
    await until(lambda: records(tmp_path) == 0)
    await generations.aclose()


async def test_what_can_not_be_looked_at_is_looked_at_again_later(
    make: Make, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    await leave_some(make, tmp_path, clock)
    clock.now += 901
    monkeypatch.setattr("hub.log.sqlite.log.LOCK_SECONDS", 0.0)
    monkeypatch.setattr("hub.generations.store.LOOK_SECONDS", 0.0)
    predecessor = log_file(tmp_path, clock)
    await predecessor.open()
    generations = await make(log=log_file(tmp_path, clock, age=900))
    await until(lambda: "can't be looked at" in caplog.text)
    assert records(tmp_path) == 12
    await predecessor.aclose()
    await until(lambda: generations._log._looking is None)
    generations.sweep()
    await until(lambda: records(tmp_path) == 0)


async def test_no_file_is_made_before_an_answer_needs_one(make: Make, tmp_path: Path):
    generations = await make(log=log_file(tmp_path))
    await until(lambda: generations._log._looking is None)
    generations.sweep()
    assert files(tmp_path) == []
