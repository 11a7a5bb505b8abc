"""The log in a file: a restart keeps what it had, and each publish is settled once, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hub.errors import LogUnavailable
from hub.log.receipt import Receipt
from hub.log.sqlite import log as sqlite_log
from hub.log.sqlite import process
from hub.log.sqlite.log import SQLiteLog
from hub.notification import Draft, Notification, Position
from tests.chance import examples, seeds
from tests.contracts.model import ListLog
from tests.contracts.test_log import (
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
from tests.log.sqlite.home import Home, data, numbered, settled
from tests.log.sqlite.processes import bytes_in, goes_on, kill, mended, pid, pipe, processes, stop, swept, workers
from tests.web.client import until

pytestmark = pytest.mark.slow


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


# ---- a writer that dies ----


@pytest.mark.parametrize("seed", seeds(2, 12))
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


# ---- the end ----


async def test_what_waits_when_the_log_is_closed_is_kept(home: Home):
    log = await home.open()
    receipts = [receipt for number in range(500) for receipt in log.append(numbered(number))]
    await log.aclose()
    assert [receipt.result().offset for receipt in receipts] == list(range(1, 501))
    again = await home.open()
    assert data(await read_all(again, 0, ["a"])) == list(range(500))


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


# Each step may start processes.
@settings(max_examples=examples(5, 100), phases=[Phase.explicit, Phase.generate])
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


# ---- where something begins that happens now ----


async def test_a_position_is_told_when_what_was_appended_before_is_settled(home: Home):
    log = await home.open()
    await append(log, "a")
    writer = workers(log)[0]
    stop(writer)
    (second,) = log.append(drafts("b"))
    await asyncio.sleep(0)  # the writer is asked for it
    asked = [log.given()]
    (third,) = log.append(drafts("c"))
    asked.append(log.given())
    assert not any(each.done() for each in asked)
    os.kill(pid(writer), signal.SIGCONT)
    assert [(await each).offset for each in asked] == [2, 3]
    assert [(await second).offset, (await third).offset] == [2, 3]


async def test_a_failed_position_is_not_told_for_it_is_given_out_again_after_a_restart(home: Home):
    log = await home.open()
    await append(log, "a", "a")
    receipts = log.append(drafts(*"bbb"))
    asked = log.given()
    writer = workers(log)[0]
    await kill(writer)
    assert all(isinstance(each, LogUnavailable) for each in await settled(receipts))
    assert await asked == await log.given() == Position(log.epoch, 2)
    log = await home.restart(log, "killed")
    (receipt,) = log.append(drafts("c"))
    assert await receipt > await asked
    assert await receipt == await log.given()


async def test_what_a_killed_writer_had_committed_stands_before_what_begins_now(home: Home):
    log = await home.open()
    announced: list[Notification] = []
    log.announce_to(announced.extend)
    await append(log, "a")
    writer = workers(log)[0]
    pipe(writer).pause_reading()
    receipts = log.append(numbered(1, 2))
    await until(lambda: home.ask("SELECT max(offset) FROM notification") == [(3,)])
    asked = log.given()
    await kill(writer)
    async with asyncio.timeout(30):
        assert await asked == Position(log.epoch, 3)
        assert offsets(announced) == [1, 2, 3]
        assert [each.offset for each in await asyncio.gather(*receipts)] == [2, 3]
        assert await log.given() == Position(log.epoch, 3)


@pytest.mark.usefixtures("impatient")
async def test_while_no_writer_can_be_started_nobody_knows_where_something_begins(home: Home):
    log = await home.open()
    await append(log, "a")
    real = home.path.with_suffix(".aside")
    home.path.rename(real)
    await kill(workers(log)[0])
    async with asyncio.timeout(30):
        with pytest.raises(LogUnavailable):
            await log.given()
    real.rename(home.path)
    assert await goes_on(log) == 2
    assert await log.given() == Position(log.epoch, 2)
