"""What every log must do; a new home of the log is one more parameter of the fixture."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import LogUnavailable
from hub.log import Log, MemoryLog, SQLiteLog
from hub.notification import Draft, Notification
from tests.test_topics import matches

Make = Callable[..., Awaitable[Log]]


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def make(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[Make]:
    """Return a maker of logs, closed in the end."""
    made: list[Log] = []

    async def one(**bounds: Any) -> Log:
        bounds = {"count": 10**6, "size": 10**9, "age": None, "clock": clock, **bounds}
        log: Log = (
            MemoryLog(**bounds) if request.param == "memory" else SQLiteLog(tmp_path / f"{len(made)}.db", **bounds)
        )
        await log.open()
        made.append(log)
        return log

    yield one
    for log in made:
        await log.aclose()


def drafts(*topics: str, size: int = 1, **options: Any) -> list[Draft]:
    return [Draft.of("x" * size, topics=each.split(","), **options) for each in topics]


async def append(log: Log, *topics: str, **options: Any) -> list[int]:
    return [(await receipt).offset for receipt in log.append(drafts(*topics, **options))]


async def read_all(log: Log, after: int, topics: Sequence[str], upto: int | None = None) -> list[Notification]:
    """Read page after page, the way a connection does."""
    end = log.bounds().newest.offset if upto is None else upto
    found: list[Notification] = []
    while True:
        page = await log.read(after, topics, upto=end)
        found += page.notifications
        if page.reached >= end:
            return found
        assert page.reached > after, "each page gets nearer to the end"
        after = page.reached


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
    assert announced == [1, 2, 3, 4, 5, 6]


async def _position(receipt: Any) -> Any:
    return await receipt


async def test_a_notification_keeps_all_of_its_draft(make: Make):
    log = await make()
    draft = Draft.of({"ü": [1]}, topics=["a", "b"], type="t", retry=7, private=True, tags={"k": 1})
    await log.append([draft])[0]
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
    assert log.append(drafts("a", key="k"))[0].repeated
    clock.now += 2
    (late,) = log.append(drafts("a", key="k"))
    assert (await late, late.repeated) == ((log.epoch, 2), False)
    assert announced == [1, 2]


async def test_a_key_twice_in_one_list_is_one_notification(make: Make):
    log = await make()
    receipts = log.append([*drafts("a", key="k"), *drafts("b"), *drafts("c", key="k")])
    assert [(await receipt).offset for receipt in receipts] == [1, 2, 1]
    assert [receipt.repeated for receipt in receipts] == [False, False, True]


async def test_only_so_many_keys_are_remembered(make: Make):
    log = await make(count=10)
    for start in range(0, 100_001, 1_000):
        log.append([Draft.of("x", key=str(n)) for n in range(start, min(start + 1_000, 100_001))])
    assert not log.append(drafts("a", key="0"))[0].repeated
    assert log.append(drafts("a", key="100000"))[0].repeated


async def test_a_closed_log_takes_nothing(make: Make):
    log = await make()
    await log.aclose()
    with pytest.raises(LogUnavailable):
        log.append(drafts("a"))


names = st.sampled_from(["a", "b", "a/b", "a/c", "b/c", "a/b/c"])
wishes = st.lists(names | st.sampled_from(["*", "a/*", "**", "**/c", "a/**"]), min_size=1, max_size=3)


@settings(deadline=None)
@given(
    history=st.lists(st.lists(names, min_size=1, max_size=3, unique=True), max_size=40),
    wanted=wishes,
    after=st.integers(0, 45),
    count=st.integers(1, 40),
)
def test_reading_by_index_finds_what_a_plain_list_would(
    history: list[list[str]], wanted: list[str], after: int, count: int
):
    async def compare() -> None:
        log = MemoryLog(count=count)
        for topics in history:
            log.append([Draft.of("x", topics=topics)])
        kept = list(enumerate(history, 1))[-count:]
        expected = [
            offset
            for offset, topics in kept
            if offset > after and any(matches(pattern, topic) for pattern in wanted for topic in topics)
        ]
        assert offsets(await read_all(log, after, wanted)) == expected
        gone = [
            offset
            for offset, topics in list(enumerate(history, 1))[: len(history) - len(kept)]
            if any("*" in pattern for pattern in wanted) or not set(topics).isdisjoint(wanted)
        ]
        assert log.trimmed(wanted) == max(gone, default=0)

    asyncio.run(compare())
