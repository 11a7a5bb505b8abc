"""What every log must do; a new home of the log is one more parameter of the fixture."""

import asyncio
import hashlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hub.errors import LogNotEmpty, LogUnavailable
from hub.log.log import Framing, Log, MovableLog, Page
from hub.log.memory import MemoryLog
from hub.log.redis.entry import Keys, facts, size_of
from hub.log.redis.log import RedisLog
from hub.log.redis.script import Script
from hub.log.search import topic_size
from hub.log.sqlite.log import SQLiteLog
from hub.log.trimmed import TrimmedState
from hub.notification import MAX_OFFSET, Draft, Notification, Position
from hub.redis_url import RedisURL
from hub.topics import EVERY_TOPIC
from tests.chance import examples
from tests.contracts.conftest import Clock as Clock  # noqa: PLC0414 - said to mypy: others take it from here
from tests.contracts.conftest import Make, MakeMovable, nothing
from tests.contracts.far import Elsewhere, FarLog, turns
from tests.contracts.model import ListLog
from tests.redis_server import RedisServer


def drafts(*topics: str, size: int = 1, **options: Any) -> list[Draft]:
    return [Draft.of("x" * size, topics=each.split(","), **options) for each in topics]


async def append(log: Log, *topics: str, **options: Any) -> list[int]:
    return await send(log, drafts(*topics, **options))


async def send(log: Log, drafts: Sequence[Draft]) -> list[int]:
    """Append *drafts*, and wait until they are confirmed and announced."""
    found = [(await receipt).offset for receipt in log.append(drafts)]
    if isinstance(log, FarLog | RedisLog):  # they confirm before they announce; of the others that can be counted on
        await until(lambda: log.bounds().newest.offset >= max(found, default=0))
    return found


async def until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until *done*, in a bounded time."""
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110 - a state of the log, which has no event
            await asyncio.sleep(0.001)


async def read_all(
    log: Log, after: int, topics: Sequence[str], upto: int | None = None, **options: Any
) -> list[Notification]:
    """Read page after page, the way a connection does."""
    found = [page async for page in pages(log, after, topics, upto, **options)]
    return [notification for page in found for notification in page.notifications]


async def pages(
    log: Log, after: int, topics: Sequence[str], upto: int | None = None, **options: Any
) -> AsyncIterator[Page]:
    """Yield page after page, the way a connection reads; `frames` has to say the same, as far as both have come.

    A page may be cut where it took long to find out what matches; the next one to ask knows more, and comes further.
    """
    end = log.bounds().newest.offset if upto is None else upto
    while True:
        page = await log.read(after, topics, upto=end, **options)
        if isinstance(log, Framing):
            frames = await log.frames(after, topics, upto=end, **options)
            same = [each.chunk for each in page.notifications if each.position.offset <= frames.reached]
            assert frames.payload.startswith(b"".join(same))
            assert frames[4:] == page[2:]
            if same:
                assert frames.first == page.notifications[0].position.offset
            if frames.reached <= page.reached:
                assert (frames.payload, frames.number) == (b"".join(same), len(same))
        yield page
        if page.reached >= end:
            return
        assert page.reached > after, "each page gets nearer to the end"
        after = page.reached


async def hole(log: Log, after: int, wanted: Sequence[str]) -> Any:
    """Return the mark of a hole that a page bears; `frames` has to bear the same."""
    newest = log.bounds().newest.offset
    page = await log.read(after, wanted, upto=newest)
    if isinstance(log, Framing):
        assert (await log.frames(after, wanted, upto=newest)).hole == page.hole
    return page.hole


def offsets(notifications: Sequence[Notification]) -> list[int]:
    return [each.position.offset for each in notifications]


async def test_a_new_log_holds_nothing(make: Make):
    log = await make()
    bounds = log.bounds()
    assert (bounds.oldest, bounds.newest, bounds.kept, bounds.size) == (bounds.newest, (log.epoch, 0), 0, 0)
    assert await read_all(log, 0, ["**"]) == []


async def test_two_logs_have_two_epochs(make: Make):
    assert (await make()).epoch != (await make()).epoch


async def test_positions_only_grow_and_a_list_is_neighbours(make: Make):
    log = await make()
    assert await append(log, "a") == [1]
    assert await append(log, "a", "b", "c") == [2, 3, 4]
    assert log.bounds().newest == (log.epoch, 4)


async def test_what_is_confirmed_is_announced_once_in_order(make: Make):
    log = await make()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    receipts = [receipt for topic in "abc" for receipt in log.append(drafts(topic, topic))]
    await asyncio.gather(*(asyncio.ensure_future(_position(receipt)) for receipt in receipts))
    await until(lambda: len(announced) >= 6)
    assert announced == [1, 2, 3, 4, 5, 6]
    await append(log, "a")
    assert announced == [1, 2, 3, 4, 5, 6, 7]


async def _position(receipt: Any) -> Any:
    return await receipt


async def test_a_notification_keeps_all_of_its_draft(make: Make):
    log = await make()
    draft = Draft.of({"ü": [1]}, topics=["a", "b"], type="t", retry=7, private=True, tags={"k": 1})
    await send(log, [draft])
    (kept,) = await read_all(log, 0, ["b"])
    assert (kept.data, kept.topics, kept.type, kept.retry, kept.private, kept.tags) == (
        *({"ü": [1]}, ("a", "b"), "t", 7, True, {"k": 1}),
    )
    assert kept.frame == f'retry: 7\nevent: t\nid: {log.epoch}-1\ndata: {{"ü":[1]}}\n\n'.encode()


async def test_reading_begins_after_and_ends_where_it_was_asked(make: Make):
    log = await make()
    await append(log, *"abababab")
    assert offsets(await read_all(log, 2, ["a"], upto=6)) == [3, 5]
    assert offsets(await read_all(log, 2, ["a", "b"], upto=6)) == [3, 4, 5, 6]
    assert await read_all(log, 8, ["a", "b"]) == []
    assert await read_all(log, 0, ["c"]) == []


async def test_several_topics_of_one_notification_are_one_notification(make: Make):
    log = await make()
    await append(log, "a,b", "b", "a,b,c")
    assert offsets(await read_all(log, 0, ["a", "b", "*", "**"])) == [1, 2, 3]


async def test_pages_are_bounded_in_count_and_in_bytes(make: Make):
    log = await make(size=10**9)
    await append(log, *["a"] * 3_000)
    await append(log, *["b"] * 3, size=400_000)
    assert len((await log.read(0, ["a"], upto=3_003)).notifications) < 3_000
    assert len((await log.read(0, ["b"], upto=3_003)).notifications) == 1, "one that alone is large is a page"
    assert offsets(await read_all(log, 0, ["**"])) == list(range(1, 3_004))


async def test_a_pattern_for_all_finds_every_topic_there_can_be(make: Make):
    log = await make()
    last = chr(0x10FFFF)
    await append(log, "!", "0", "~", "é", last, f"{last}/{last}")
    assert offsets(await read_all(log, 0, ["**"])) == offsets(await read_all(log, 0, ["**", "*"])) == [1, 2, 3, 4, 5, 6]
    assert offsets(await read_all(log, 0, ["*"])) == [1, 2, 3, 4, 5]
    assert offsets(await read_all(log, 0, [f"{last}/*"])) == [6]
    assert len(await read_all(log, 0, ["**"], latest=True)) == 6


@pytest.mark.parametrize("others", [0, 1_200], ids=["a few", "many"])
async def test_a_wildcard_in_the_first_segment_reaches_nothing_reserved(make: Make, others: int):
    log = await make()
    await append(log, *(f"t/{number}" for number in range(others)))
    topics = ["user", "user!", "user!/7", "user/7", "user0", "use", "x/user/7", "ai/7", "room/7/8", "ro", "user/8,a"]
    await append(log, *topics)

    async def found(*wanted: str, **options: Any) -> list[str]:
        numbers = offsets(await read_all(log, others, wanted, **options))
        return [topics[number - others - 1] for number in numbers]

    free = ["user!", "user!/7", "user0", "use", "x/user/7", "ro", "user/8,a"]
    assert await found("**") == await found("**", "*/**") == await found("**", latest=True) == free
    assert await found("*/7") == ["user!/7"]
    assert await found("**/7") == ["user!/7", "x/user/7"]
    assert await found("**/user/7", "*/7/*") == ["x/user/7"]
    assert await found("user/*", "*/7") == ["user!/7", "user/7", "user/8,a"]
    assert await found("**/7", "user/**") == ["user", "user!/7", "user/7", "x/user/7", "user/8,a"]
    assert await found("**", "room/**", "ai/*") == [each for each in topics if each not in {"user", "user/7"}]
    assert await found(*EVERY_TOPIC) == await found(*EVERY_TOPIC, latest=True) == topics


async def test_a_loss_of_a_reserved_topic_is_a_gap_only_for_those_who_name_it(make: Make):
    log = await make(topics={"**": 1})
    await append(log, *["user/7"] * 3, "a", "room/x", "room/x")
    assert [log.trimmed([each]) for each in ("**", "*/7", "user/7", "user/*", "room/**")] == [0, 0, 2, 2, 5]
    assert [bool(await hole(log, 0, [each])) for each in ("**", "*/7", "user/*", "room/**")] == [
        False,
        False,
        True,
        True,
    ]
    assert log.trimmed(EVERY_TOPIC) == 5
    await append(log, "a")
    mark = await hole(log, 0, ["**"])
    assert (log.trimmed(["**"]), bool(mark)) == (4, True)
    await append(log, "user/7", "room/x")
    assert await hole(log, 0, ["**"]) == mark, "nothing more that matches is gone"
    await append(log, "a")
    assert await hole(log, 0, ["**"]) not in ("", 0, mark)


async def test_the_retention_keeps_the_newest_by_count(make: Make):
    log = await make(count=3)
    await append(log, *"aaaaa")
    bounds = log.bounds()
    assert (bounds.oldest.offset, bounds.newest.offset, bounds.kept) == (3, 5, 3)
    assert offsets(await read_all(log, 0, ["a"])) == [3, 4, 5]


async def test_the_retention_keeps_the_newest_by_bytes(make: Make):
    log = await make(size=100_000)
    await append(log, *["a"] * 50, size=10_000)
    assert log.bounds().size <= 100_000
    assert log.bounds().newest.offset == 50
    await append(log, "a", size=900_000)
    assert log.bounds().kept == 1, "the newest stays whatever its size"


async def test_the_retention_keeps_the_newest_by_age(make: Make, clock: Clock):
    log = await make(age=60)
    await append(log, "a")
    clock.now += 59
    await append(log, "a")
    assert log.bounds().kept == 2
    clock.now += 2
    await trimmed(log, lambda: log.bounds().oldest.offset == 2)
    clock.now += 60
    await trimmed(log, lambda: log.bounds().kept == 0)
    assert (log.bounds().kept, log.bounds().oldest) == (0, log.bounds().newest)


async def trimmed(log: Log, done: Callable[[], bool]) -> None:
    """Trim as the sweep does, now and then, until *done*."""
    async with asyncio.timeout(10):
        while not done():
            log.trim()
            await asyncio.sleep(0)


async def forget(log: Log) -> None:
    """Have a log forget what it no longer remembers; one in a file does so beside a trim."""
    for _ in range(2):  # the first time it may still be at work
        log.trim()
        if isinstance(log, SQLiteLog) and log._committing is not None:
            await asyncio.wait_for(log._committing, 10)


async def test_what_is_gone_is_known_per_topic(make: Make):
    log = await make(count=2)
    await append(log, "quiet", *["busy"] * 9)
    assert log.trimmed(["quiet"]) == 1
    assert log.trimmed(["busy"]) == 8
    assert log.trimmed(["never"]) == 0
    assert log.trimmed(["quiet", "busy"]) == 8
    assert log.trimmed(["*"]) == 8


async def test_a_page_tells_of_a_hole_before_it(make: Make):
    log = await make(count=2)
    await append(log, *"aaaab")
    assert (await log.read(2, ["a"], upto=5)).hole
    assert not (await log.read(3, ["a"], upto=5)).hole
    assert not (await log.read(0, ["b"], upto=5)).hole


async def test_a_key_answers_the_first_position_for_five_minutes(make: Make, clock: Clock):
    log = await make()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    (first,) = log.append(drafts("a", key="k"))
    (again,) = log.append(drafts("b", key="k"))
    assert (await first, first.repeated) == (await again, False)
    assert (again.repeated, again.topics) == (True, ("a",))
    clock.now += 299
    (third,) = log.append(drafts("a", key="k"))
    assert (await third, third.repeated) == (await first, True)
    clock.now += 2
    (late,) = log.append(drafts("a", key="k"))
    assert (await late, late.repeated) == ((log.epoch, 2), False)
    await until(lambda: len(announced) >= 2)
    assert announced == [1, 2]


async def test_a_key_twice_in_one_list_is_one_notification(make: Make):
    log = await make()
    receipts = log.append([*drafts("a", key="k"), *drafts("b"), *drafts("c", key="k")])
    assert [(await receipt).offset for receipt in receipts] == [1, 2, 1]
    assert [receipt.repeated for receipt in receipts] == [False, False, True]


@pytest.mark.slow
async def test_only_so_many_keys_are_remembered(make: Make, monkeypatch: pytest.MonkeyPatch):
    for module in ("hub.log.keys", "hub.log.sqlite.log", "hub.log.redis.sender"):
        monkeypatch.setattr(f"{module}.KEY_COUNT", 5_000)
    log = await make(count=10)
    for start in range(0, 5_001, 1_000):
        # Not all of them at once: each call waits for those before it, and there is a limit to how long.
        await log.append([Draft.of("x", key=str(n)) for n in range(start, min(start + 1_000, 5_001))])[-1]
    (oldest, newest) = log.append([*drafts("a", key="0"), *drafts("a", key="5000")])
    await oldest, await newest
    assert (oldest.repeated, newest.repeated) == (False, True)


async def test_a_closed_log_takes_nothing(make: Make):
    log = await make()
    await log.aclose()
    with pytest.raises(LogUnavailable):
        log.append(drafts("a"))


# ---- bounds of single topics ----


def size_in_redis(notification: Notification) -> int:
    _, topics, text, is_json, _, _, type, retry, private, tags = notification
    more = facts(Draft(topics, text, is_json, type, retry, private, tags))
    return size_of(topics, "\n".join(topics).encode(), text.encode(), more)


async def check_counts(log: Log) -> None:
    """Check what the log says of itself against all that it holds."""
    everything = await read_all(log, 0, EVERY_TOPIC)
    bounds = log.bounds()
    topics = {topic for each in everything for topic in each.topics}
    existing = [topic for topic in topics if await read_all(log, 0, [topic])]
    assert bounds.kept == len(everything)
    if isinstance(log, RedisLog):  # what it needs there
        assert bounds.size == sum(map(size_in_redis, everything))
    else:
        assert bounds.size == sum(each.size for each in everything) + sum(map(topic_size, existing))
    assert bounds.oldest == (everything[0].position if everything else bounds.newest)


async def test_a_topic_with_a_bound_of_its_own_keeps_its_newest(make: Make):
    log = await make(topics={"state/**": 1, "stock/*": 3, "one": 2})
    turn = ["state", "state/a", "state/a/b", "stock/x", "stock/y", "stock/x/y", "one", "free"]
    await append(log, *turn * 5)
    kept = {topic: offsets(await read_all(log, 0, [topic])) for topic in turn}
    assert {topic: len(found) for topic, found in kept.items()} == {
        "state": 1,
        "state/a": 1,
        "state/a/b": 1,
        "stock/x": 3,
        "stock/y": 3,
        "stock/x/y": 5,
        "one": 2,
        "free": 5,
    }
    assert kept["stock/x"] == [20, 28, 36]
    assert offsets(await read_all(log, 0, ["**"])) == sorted(offset for found in kept.values() for offset in found)
    await check_counts(log)


async def test_where_several_patterns_match_the_smallest_bound_counts(make: Make):
    log = await make(topics={"a/**": 4, "a/*": 2, "a/b": 3, "**/b": 5})
    await append(log, *["a/b", "a/c", "a/b/c", "x/b"] * 9)
    found = {topic: len(await read_all(log, 0, [topic])) for topic in ("a/b", "a/c", "a/b/c", "x/b")}
    assert found == {"a/b": 2, "a/c": 2, "a/b/c": 4, "x/b": 5}


@pytest.mark.parametrize("others", [0, 300], ids=["by index", "walking"])
async def test_a_notification_stays_while_one_of_its_topics_has_it_and_is_found_by_that_one_only(
    make: Make, others: int
):
    log = await make(topics={"state/**": 1})
    more = [f"more/{number}" for number in range(others)]
    await append(log, *more)
    begin = others
    await append(log, "state/a,state/b,all", "state/a", "state/b,x")
    first, second, third = begin + 1, begin + 2, begin + 3
    # With so many patterns and topics that match nothing else, both ways to find are taken.
    beside = ["more/*"] if others else []

    async def found(*topics: str) -> list[int]:
        return offsets(await read_all(log, 0, [*topics, *beside]))[others:]

    assert await found("state/a") == [second]
    assert await found("state/b") == await found("*/b") == [third]
    assert await found("state/*") == await found("state/**") == [second, third]
    assert await found("all") == [first]
    assert await found("all", "state/a") == [first, second]
    assert await found("**") == [first, second, third]
    assert log.bounds().kept == others + 3
    await append(log, "state/a,state/b")
    assert await found("**") == [first, third, third + 1], "the second one had no other place"
    assert await found("state/**") == [third + 1]
    assert await found("x") == [third]
    await check_counts(log)


async def test_a_notification_with_many_bounded_topics_goes_with_its_last_place(make: Make):
    log = await make(topics={"*": 2})
    await append(log, *["a,b,c"] * 4)
    assert offsets(await read_all(log, 0, ["a"])) == offsets(await read_all(log, 0, ["**"])) == [3, 4]
    await append(log, "a", "b", "a", "b")
    assert offsets(await read_all(log, 0, ["c"])) == [3, 4]
    assert offsets(await read_all(log, 0, ["a", "b"])) == [5, 6, 7, 8]
    await append(log, "c", "c")
    assert offsets(await read_all(log, 0, ["**"])) == [5, 6, 7, 8, 9, 10]
    await check_counts(log)


async def test_what_went_for_a_topics_own_bound_is_known_exactly_for_patterns_too(make: Make):
    log = await make(topics={"state/**": 1})
    await append(log, "state/a", "state/a", "state/b/c", "state/b/c", "quiet", "state/x")
    assert [log.trimmed([topic]) for topic in ("state/a", "state/b/c", "quiet", "state/x", "never")] == [1, 3, 0, 0, 0]
    assert [log.trimmed([each]) for each in ("state/*", "state/**", "**", "*", "quiet/**", "**/c")] == [
        1,
        3,
        3,
        0,
        0,
        3,
    ]
    assert [log.trimmed(["state/**"], after) for after in range(5)] == [3, 3, 3, 0, 0]
    assert [log.trimmed(["state/*"], after) for after in range(3)] == [1, 0, 0]


async def test_what_the_log_as_a_whole_let_go_of_counts_for_every_pattern(make: Make):
    log = await make(count=4, topics={"state/**": 1})
    await append(log, "quiet", "state/a", "state/a", "busy", "busy", "state/b", "state/b")
    # The log as a whole has let go of 1, state/a of 2 and state/b of 6.
    assert log.bounds().kept == 4
    assert [log.trimmed([each]) for each in ("nothing/*", "state/*", "quiet", "busy", "state/a")] == [1, 6, 1, 0, 2]
    await append(log, "busy", "busy")
    assert [log.trimmed([each]) for each in ("nothing/*", "state/*", "quiet", "busy", "state/a")] == [4, 6, 1, 4, 3]
    await check_counts(log)


@pytest.mark.parametrize(
    "wanted",
    [["state/a", "state/b", "z"], ["state/*"], ["state/**", "z"], ["**"], ["**/a", "**/b"], ["*/a", "state/b"]],
)
async def test_the_mark_of_a_hole_is_another_one_when_something_more_is_lost_and_only_then(
    make: Make, wanted: list[str]
):
    async def mark(after: int) -> Any:
        return await hole(log, after, wanted)

    log = await make(topics={"state/*": 2})
    await append(log, *["state/b"] * 3, *["z"] * 5, *["state/a"] * 9)
    before = await mark(0)
    assert before, "1 and up to 15 are gone"
    assert [await mark(after) for after in (1, 4, 14)] == [before] * 3
    assert not await mark(15)
    await append(log, "z", "z")
    assert await mark(4) == before
    await append(log, "state/b")  # loses 2: not the newest that is gone
    then = await mark(1)
    assert then not in ("", 0, before)
    assert await mark(14) == then
    await append(log, "state/a")
    assert await mark(14) not in ("", 0, before, then)


async def test_the_mark_of_a_hole_is_another_one_when_a_forgotten_topic_loses_something(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.sqlite.log.REMEMBERED_TOPICS", 2)
    monkeypatch.setattr("hub.log.trimmed.REMEMBERED_TOPICS", 2)
    log = await make(topics={"state/*": 4})
    await append(log, *["state/me"] * 4, *["state/a", "state/b", "state/c"] * 5)
    await forget(log)  # by now one of those that lost something is forgotten
    for wanted in (["state/me"], ["state/*"], ["**/me"]):
        marks = []
        for _ in range(3):
            marks.append((await log.read(0, wanted, upto=4)).hole)
            await append(log, "state/me")  # loses something older than what is forgotten
        assert all(marks)
        assert len(set(marks)) == 3, wanted


async def test_what_a_forgotten_topic_lost_is_not_denied_when_it_loses_something_older(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.sqlite.log.REMEMBERED_TOPICS", 2)
    monkeypatch.setattr("hub.log.trimmed.REMEMBERED_TOPICS", 2)
    log = await make(count=5, topics={"state/*": 1})
    await append(log, "state/me,other", *["state/me"] * 2, *["state/a"] * 2, *["state/b"] * 2, *["state/c"] * 2)
    await forget(log)  # by now state/me, which lost 2, is forgotten
    await append(log, "busy")  # what stood at 1 goes, there as well
    assert log.bounds().oldest.offset > 1
    assert log.trimmed(["state/me"], 1) >= 2
    assert await hole(log, 1, ["state/me"])


async def test_a_page_tells_of_a_hole_where_a_topic_lost_something_to_its_own_bound(make: Make):
    log = await make(topics={"state/**": 1})
    await append(log, "state/a", "b", "state/a", "b")
    wanted = ("state/a", "b", "state/*")
    holes = {topic: [bool(await hole(log, after, [topic])) for after in (0, 1)] for topic in wanted}
    assert holes == {"state/a": [True, False], "b": [False, False], "state/*": [True, False]}


async def test_topics_that_change_often_leave_nothing_to_walk_over(make: Make):
    log = await make(topics={"state/*": 1})
    await append(log, "first")
    for _ in range(25):
        await send(log, [Draft.of("x", topic=f"state/{number}") for number in range(1_000)])
    sizes = [len(page.notifications) async for page in pages(log, 0, ["**"])]
    assert sum(sizes) == 1_001
    assert len(sizes) <= 2, "25,000 positions, but only so much to send"


# ---- the newest of each topic ----


async def test_the_latest_is_the_newest_of_each_topic_in_order(make: Make):
    log = await make()
    await append(log, *["a/x", "a/y", "b", "a/x", "c", "b", "a/x,b"])

    async def latest(*topics: str, after: int = 0, upto: int = 7) -> list[int]:
        return offsets(await read_all(log, after, topics, upto, latest=True))

    assert await latest("a/x") == [7]
    assert await latest("c", "a/y") == [2, 5]
    assert await latest("a/*") == await latest("a/*", "a/x") == [2, 7]
    assert await latest("**") == await latest("a/x", "a/y", "b", "c", "never") == [2, 5, 7]
    assert await latest("never") == await latest("never/*") == []
    assert await latest("**", upto=6) == [2, 4, 5, 6]
    assert await latest("**", upto=3) == [1, 2, 3]
    assert await latest("**", after=4) == [5, 7]
    assert await latest("**", upto=0) == []


async def test_the_latest_of_a_bounded_topic_is_what_it_has(make: Make):
    log = await make(topics={"state/**": 1})
    await append(log, "state/a,room", "state/a", "state/b", "state/b")
    assert offsets(await read_all(log, 0, ["state/**"], latest=True)) == [2, 4]
    assert offsets(await read_all(log, 0, ["room", "state/a"], latest=True)) == [1, 2]
    assert offsets(await read_all(log, 0, ["state/b"], 3, latest=True)) == [], "it has gone, and a newer one follows"


@pytest.mark.parametrize("bounds", [{}, {"topics": {"state/*": 1}}], ids=["unbounded", "bounded"])
async def test_what_is_overwritten_while_the_latest_are_paged_comes_in_its_old_form_or_follows(
    make: Make, bounds: dict[str, Any]
):
    log = await make(**bounds)
    await append(log, *(f"state/{number}" for number in range(3_500)))
    seen: list[Notification] = []
    sizes = []
    async for page in pages(log, 0, ["state/*"], 3_500, latest=True):
        sizes.append(len(page.notifications))
        seen += page.notifications
        await append(log, "state/0", "state/2500", "state/3499")
    assert len(sizes) > 3
    assert offsets(seen) == sorted(set(offsets(seen)))
    kept = 3_500 if not bounds else 3_498
    assert len({each.topics for each in seen}) == len(seen) == kept
    seen += await read_all(log, 3_500, ["state/*"])
    assert len({each.topics for each in seen}) == 3_500, "each topic has come in the end"
    newest = {each.topics: each.position.offset for each in seen}
    assert [newest[f"state/{number}",] for number in (0, 2_500, 3_499)] == [
        log.bounds().newest.offset - n for n in (2, 1, 0)
    ]


# ---- taking over another log ----


async def told(*parts: Sequence[Notification], then: Exception | None = None) -> AsyncIterator[Sequence[Notification]]:
    """Tell a history in *parts*, and raise *then* at its end."""
    for part in parts:
        yield part
    if then is not None:
        raise then


async def another(*topics: str, count: int = 10**6, bounds: dict[str, int] | None = None) -> MemoryLog:
    """Return a log with a history of its own."""
    log = MemoryLog(count=count, topics=bounds)
    for number, each in enumerate(topics):
        await log.append([Draft.of({"n": number}, topics=each.split(","), type="t")])[0]
    return log


async def adopt(log: MovableLog, other: MovableLog) -> None:
    everything = await read_all(other, 0, EVERY_TOPIC)
    half = len(everything) // 2
    await log.adopt(
        other.epoch, other.bounds().newest.offset, other.trimmed_state(), told(everything[:half], everything[half:])
    )


async def test_a_history_taken_over_is_the_same_history(make_movable: MakeMovable):
    other = await another("a", "a,b", "c/d", "b", "a", "c/d", count=5, bounds={"c/*": 1})
    log = await make_movable()
    announced: list[Notification] = []
    renewed: list[Position] = []
    log.announce_to(announced.extend, renewed.append)
    await adopt(log, other)
    assert (log.epoch, log.bounds()) == (other.epoch, other.bounds())
    assert log.trimmed_state()[::2] == other.trimmed_state()[::2]
    assert dict(log.trimmed_state().topics) == dict(other.trimmed_state().topics)
    for wanted in (["a"], ["b"], ["c/*"], ["**"]):
        assert await read_all(log, 0, wanted) == await read_all(other, 0, wanted)
        assert [log.trimmed(wanted, after) for after in range(6)] == [
            other.trimmed(wanted, after) for after in range(6)
        ]
    assert not announced
    assert renewed == [log.bounds().newest]
    assert await append(log, "a") == [7]
    assert offsets(announced) == [7]
    await check_counts(log)


async def test_an_empty_history_hands_on_its_epoch_and_its_newest_position(make_movable: MakeMovable):
    log = await make_movable()
    await log.adopt("e0", 41, TrimmedState(40, {"a": 40}, 7), told())
    bounds = log.bounds()
    assert (log.epoch, bounds.oldest, bounds.newest, bounds.kept) == ("e0", ("e0", 41), ("e0", 41), 0)
    assert (log.trimmed(["a"]), log.trimmed(["b"]), log.trimmed(["**"])) == (40, 7, 40)
    assert await append(log, "a") == [42]


async def test_a_history_that_begins_late_is_found_at_once(make_movable: MakeMovable):
    log = await make_movable()
    other = MemoryLog()
    await other.adopt("e0", 10**12, TrimmedState(10**12, {}, 0), told())
    await append(other, "a", "b")
    await adopt(log, other)
    assert log.bounds().oldest == ("e0", 10**12 + 1)
    assert offsets(await read_all(log, 10**12, ["b"])) == [10**12 + 2]
    assert log.trimmed(["**"]) == 10**12


async def test_every_position_that_is_given_can_be_read_back_and_beyond_the_last_one_nothing_is_taken(
    make_movable: MakeMovable,
):
    log = await make_movable()
    await log.adopt("e0", MAX_OFFSET - 2, TrimmedState(0, {}, 0), told())
    (given,) = log.append(drafts("a"))
    assert Position.parse(str(await given)) == ("e0", MAX_OFFSET - 1)
    with pytest.raises(LogUnavailable, match="no position left"):
        log.append(drafts("a", "a"))
    (last,) = log.append(drafts("a"))
    assert Position.parse(str(await last)) == ("e0", MAX_OFFSET)
    with pytest.raises(LogUnavailable, match="no position left"):
        log.append(drafts("a"))
    assert offsets(await read_all(log, 0, ["a"])) == [MAX_OFFSET - 1, MAX_OFFSET]
    assert Position.parse(str(Position("e0", MAX_OFFSET + 1))) is None


async def test_only_a_log_that_never_held_anything_takes_over_another(make_movable: MakeMovable, clock: Clock):
    other = await another("a", "b")
    log = await make_movable(age=60)
    await append(log, "x")
    clock.now += 100
    await trimmed(log, lambda: log.bounds().kept == 0)
    before = log.bounds()
    with pytest.raises(LogNotEmpty):
        await adopt(log, other)
    assert log.bounds() == before
    assert await append(log, "y") == [2]
    taken = await make_movable()
    await adopt(taken, other)
    with pytest.raises(LogNotEmpty):
        await adopt(taken, other)
    assert offsets(await read_all(taken, 0, ["**"])) == [1, 2]


async def test_a_closed_log_takes_over_nothing(make_movable: MakeMovable):
    log = await make_movable()
    await log.aclose()
    with pytest.raises(LogUnavailable):
        await adopt(log, await another("a"))


async def test_a_history_that_breaks_off_leaves_the_log_as_it_was(make_movable: MakeMovable):
    other = await another(*"abc")
    everything = await read_all(other, 0, ["**"])
    log = await make_movable()
    epoch, before = log.epoch, log.bounds()
    with pytest.raises(ZeroDivisionError):
        await log.adopt(other.epoch, 3, TrimmedState(9, {"a": 9}, 9), told(everything, then=ZeroDivisionError()))
    assert (log.epoch, log.bounds(), log.trimmed_state()) == (epoch, before, TrimmedState(0, {}, 0))
    assert await read_all(log, 0, ["**"]) == []
    await adopt(log, other)
    assert await read_all(log, 0, ["**"]) == everything
    assert await append(log, "d") == [4]


async def test_taking_over_can_be_cancelled(make_movable: MakeMovable):
    other = await another(*"abc")
    everything = await read_all(other, 0, ["**"])
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[Sequence[Notification]]:
        yield everything
        begun.set()
        await asyncio.Event().wait()

    log = await make_movable()
    epoch = log.epoch
    adopting = asyncio.create_task(log.adopt(other.epoch, 3, other.trimmed_state(), endless()))
    await begun.wait()
    adopting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adopting
    assert (log.epoch, log.bounds().kept) == (epoch, 0)
    assert await append(log, "a") == [1]


@pytest.mark.parametrize("count", [3, 100])
async def test_the_retention_applies_to_what_was_taken_over(make_movable: MakeMovable, count: int):
    other = await another(*["state/a", "state/b", "state/a,x", "y", "state/a", "y"])
    log = await make_movable(count=count, topics={"state/**": 1})
    await adopt(log, other)
    await trimmed(log, lambda: log.bounds().kept == min(count, 5))
    model = ListLog(count, topics={"state/**": 1})
    model.append([(each.topics, None) for each in await read_all(other, 0, ["**"])], 0.0)
    assert offsets(await read_all(log, 0, ["**"])) == model.kept
    for wanted in (["state/*"], ["state/a"], ["state/b"], ["x"], ["y"], ["**"]):
        assert offsets(await read_all(log, 0, wanted)) == model.read(0, wanted, 6)
        assert log.trimmed(wanted) == model.trimmed(wanted), wanted
    await check_counts(log)


# ---- against a list ----

names = st.sampled_from(["a", "b", "a/b", "a/c", "b/c", "a/b/c", "user/b", "user", "ai/b/c"])
several = st.lists(names, min_size=1, max_size=3, unique=True)
keys = st.none() | st.none() | st.sampled_from("xyz")
wild = st.sampled_from(["*", "a/*", "**", "**/c", "a/**", "user/*", "user/**", "ai/**/c", "room/**", "**/b"])
wishes = st.lists(names | wild, min_size=1, max_size=3) | st.just(list(EVERY_TOPIC))
limits = st.dictionaries(names | wild, st.integers(1, 3), max_size=2)
batches = st.lists(st.tuples(several, keys), min_size=1, max_size=5)
plans = st.lists(
    st.tuples(
        st.tuples(st.just("append"), batches) | st.tuples(st.just("wait"), st.integers(1, 15)),
        wishes,
        st.integers(0, 45),
    ),
    max_size=15,
)


async def check_against(model: ListLog, log: Log, wanted: Sequence[str], after: int) -> None:
    """Ask *log* and *model* the same."""
    newest = log.bounds().newest.offset
    assert [each.offset for each in log.bounds()[:2]] == [model.oldest, model.newest]
    assert log.bounds().kept == len(model.kept)
    assert offsets(await read_all(log, after, wanted)) == model.read(after, wanted, newest)
    assert offsets(await read_all(log, after, wanted, latest=True)) == model.latest(after, wanted, newest)
    assert [log.trimmed(wanted, each) for each in (0, after)] == [model.trimmed(wanted, each) for each in (0, after)]


async def follow(
    log: Log, clock: Clock, model: ListLog, plan: Iterable[tuple[tuple[str, Any], list[str], int]]
) -> None:
    """Do what *plan* says to a log and to a list, and compare them after each step."""
    try:
        await log.open()
        for (step, value), wanted, after in plan:
            if step == "append":
                found = await send(log, [Draft.of("x", topics=topics, key=key) for topics, key in value])
                assert found == model.append(value, clock.now)
            else:
                clock.now += value
                model.trim(clock.now)
                await trimmed(log, lambda: log.bounds().kept == len(model.kept))
            await check_against(model, log, wanted, after)
        await check_counts(log)
    finally:
        await log.aclose()


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(150, 3_000))
@given(count=st.integers(1, 20), age=st.none() | st.integers(5, 60), bounds=limits, plan=plans)
def test_a_log_in_memory_holds_what_a_plain_list_would(
    count: int, age: float | None, bounds: dict[str, int], plan: list[Any]
):
    clock = Clock()
    log = MemoryLog(count=count, age=age, topics=bounds, clock=clock)
    asyncio.run(follow(log, clock, ListLog(count, age=age, topics=bounds), plan))


@settings(deadline=None, max_examples=examples(150, 3_000))
@given(
    sizes=st.fixed_dictionaries(
        {
            "memory.FEW": st.sampled_from([0, 2]),
            "memory.PAGE_COUNT": st.integers(1, 3),
            "memory.PAGE_WALK": st.integers(1, 8),
            "memory.MERGE_STEPS": st.sampled_from([0, 1]),
            "memory.HOLE_STEPS": st.sampled_from([1, 3]),
            "search.FIND_STEPS": st.sampled_from([0, 6, 1_000]),
            "search.SEARCHED_BYTES": st.sampled_from([0, 500, 10**6]),
            "index.BLOCK": st.integers(1, 3),
        }
    ),
    bounds=limits,
    plan=plans,
)
def test_the_ways_to_find_in_memory_hold_what_a_plain_list_would(
    sizes: dict[str, int], bounds: dict[str, int], plan: list[Any]
):
    """Each way is taken by a few notifications already, begins where another ended, and is cut anywhere."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            patched.setattr(f"hub.log.{name}", value)
        log = MemoryLog(count=20, topics=bounds, clock=clock)
        asyncio.run(follow(log, clock, ListLog(20, topics=bounds), plan))


@pytest.mark.slow
# Each starts two processes.
@settings(max_examples=examples(20, 400), phases=[Phase.explicit, Phase.generate])
@given(count=st.integers(1, 20), age=st.none() | st.integers(5, 60), bounds=limits, plan=plans)
def test_a_log_in_a_file_holds_what_a_plain_list_would(
    count: int, age: float | None, bounds: dict[str, int], plan: list[Any]
):
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        log = SQLiteLog(Path(folder) / "hub.db", count=count, size=10**9, age=age, topics=bounds, clock=clock)
        asyncio.run(follow(log, clock, ListLog(count, age=age, topics=bounds), plan))


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(30, 500), phases=[Phase.explicit, Phase.generate])
@given(
    sizes=st.fixed_dictionaries(
        {
            "PAGE_COUNT": st.integers(1, 3),
            "WALK": st.integers(1, 8),
            "FEW": st.sampled_from([0, 2]),
            "FOUND_NAMES": st.sampled_from([0, 2, 1_000]),
            "MERGED_NAMES": st.sampled_from([1, 200]),
            "LATEST_NAMES": st.sampled_from([1, 500]),
        }
    ),
    paged=st.booleans(),
    count=st.integers(1, 20),
    age=st.none() | st.integers(5, 60),
    bounds=limits,
    plan=plans,
)
def test_a_log_in_redis_holds_what_a_plain_list_would(
    redis_servers: Callable[[str], RedisServer],
    *,
    sizes: dict[str, int],
    paged: bool,
    count: int,
    age: float | None,
    bounds: dict[str, int],
    plan: list[Any],
):
    """Each way to read is taken by a few notifications already."""
    clock, url = Clock(), RedisURL.parse(redis_servers("redis").url)
    prefix = secrets.token_hex(4)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            patched.setattr(f"hub.log.redis.pages.{name}", value)
        log = RedisLog(url, prefix=prefix, count=count, size=10**9, age=age, topics=bounds, clock=clock)
        if paged:
            log._ring.has = nothing  # type: ignore[method-assign,assignment]
        asyncio.run(follow(log, clock, ListLog(count, age=age, topics=bounds), plan))


class Runs(Script):
    """A script whose runs have *length* notifications, instead of 32."""

    def __init__(self, length: int) -> None:
        super().__init__("append.lua")
        usual = b"local RUN = 32 "
        assert usual in self.text
        self.text = self.text.replace(usual, b"local RUN = %d " % length)
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


async def caught_up(log: Log, model: ListLog) -> None:
    await log.given()
    await until(lambda: log.bounds().kept == len(model.kept))


async def check_runs(server: RedisServer, prefix: str, model: ListLog) -> None:
    """Check that what Redis holds for trimming is all that is kept, and what it counts as no longer kept."""
    keys = Keys.of(prefix, "")
    runs = await server.ask("XRANGE", keys.dir, "-", "+")
    oldest, *counts = map(int, await server.ask("HMGET", keys.meta, "oldest", "runs", "holes", "places"))
    lines = [int(id.split(b"-")[0]) + number for id, fields in runs for number in range(fields[3].count(b"\0"))]
    held = [offset for offset in lines if offset >= oldest]
    assert held == sorted(set(held))
    assert set(model.kept) <= set(held)
    assert counts == [len(runs), len(held) - len(model.kept), await server.ask("ZCARD", keys.places)]
    assert not model.kept or held[0] == model.oldest
    assert all(int(id.split(b"-")[0]) + fields[3].count(b"\0") > oldest for id, fields in runs), "no run is left behind"


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(30, 500), phases=[Phase.explicit, Phase.generate])
@given(
    length=st.integers(1, 5),
    steps=st.integers(1, 8),
    count=st.integers(1, 20),
    age=st.none() | st.integers(5, 60),
    bounds=st.tuples(st.just({}) | limits, st.dictionaries(names | wild, st.integers(1, 3), min_size=1, max_size=3)),
    plan=st.lists(st.tuples(st.integers(0, 1), plans), min_size=2, max_size=6),
)
def test_processes_with_other_bounds_of_topics_share_a_log_in_redis(
    redis_servers: Callable[[str], RedisServer],
    *,
    length: int,
    steps: int,
    count: int,
    age: float | None,
    bounds: tuple[dict[str, int], dict[str, int]],
    plan: list[tuple[int, list[Any]]],
):
    """What the one keeps in runs the other may thin out."""
    clock, server = Clock(), redis_servers("redis")
    prefix = secrets.token_hex(4)

    async def share() -> None:
        options: dict[str, Any] = {"count": count, "size": 10**9, "age": age, "clock": clock}
        logs = [RedisLog(RedisURL.parse(server.url), prefix=prefix, topics=each, **options) for each in bounds]
        logs[1]._ring.has = nothing  # type: ignore[method-assign,assignment]
        model = ListLog(count, age=age)
        try:
            for log in logs:
                await log.open()
            for number, part in plan:
                model._limits = bounds[number]
                for (step, value), wanted, after in part:
                    if step == "append":
                        drafts = [Draft.of("x", topics=topics, key=key) for topics, key in value]
                        assert await send(logs[number], drafts) == model.append(value, clock.now)
                    else:
                        clock.now += value
                        model.trim(clock.now)
                        logs[number].trim()
                    for log in logs:
                        await caught_up(log, model)
                        await check_against(model, log, wanted, after)
                    await check_runs(server, prefix, model)
        finally:
            for log in logs:
                await log.aclose()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hub.log.redis.sender.APPEND", Runs(length))
        patched.setattr("hub.log.redis.pages.WALK", steps)
        asyncio.run(share())


@settings(deadline=None, max_examples=examples(50, 500))
@given(
    delays=st.lists(st.integers(0, 5), min_size=1, max_size=7),
    count=st.integers(1, 20),
    age=st.none() | st.integers(5, 60),
    bounds=limits,
    plan=plans,
)
def test_a_log_elsewhere_holds_what_a_plain_list_would(
    delays: list[int], count: int, age: float | None, bounds: dict[str, int], plan: list[Any]
):
    clock, each = Clock(), cycle(delays)
    log = FarLog(Elsewhere(count=count, age=age, topics=bounds, clock=clock), later=turns(lambda: next(each)))
    asyncio.run(follow(log, clock, ListLog(count, age=age, topics=bounds), plan))
