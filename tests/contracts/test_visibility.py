"""What every log must keep from a reader who may not see it; live ones are judged by the same rule elsewhere."""

import asyncio
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hub.access.visibility import EVERYTHING, Visibility
from hub.errors import LogUnavailable
from hub.log.log import Framing, Log
from hub.log.memory import MemoryLog
from hub.log.redis.log import RedisLog
from hub.log.sqlite.log import _row
from hub.log.sqlite.worker.reader import Reader
from hub.log.sqlite.worker.writer import Writer
from hub.notification import Draft, Notification, Position
from hub.redis_url import RedisURL
from tests.chance import examples
from tests.contracts.conftest import Make, nothing
from tests.contracts.model import ListLog
from tests.contracts.test_log import hole, limits, names, offsets, pages, read_all, send, several, wishes
from tests.redis_server import RedisServer

NOTHING_PRIVATE = Visibility(frozenset())


def through(*topics: str) -> Visibility:
    return Visibility(frozenset(topics))


def since(log: Log, private: frozenset[str] | None = None, **floors: int) -> Visibility:
    """Return the visibility of somebody who sees through these topics only what stands after those offsets."""
    return Visibility(private, frozenset((topic, Position(log.epoch, offset)) for topic, offset in floors.items()))


async def publish(log: Log, *wanted: str) -> None:
    """Send one to the topics of each; those that begin with `!` are private."""
    drafts = [Draft.of("x", topics=each.removeprefix("!").split(","), private=each.startswith("!")) for each in wanted]
    await send(log, drafts)


async def test_a_private_one_reaches_who_is_granted_one_of_its_topics(make: Make):
    log = await make()
    await publish(log, "a", "!a", "!a,user/7", "a,user/7", "!b")

    async def seen(visibility: Visibility, *topics: str) -> list[int]:
        return offsets(await read_all(log, 0, topics, visibility=visibility))

    assert await seen(EVERYTHING, "a") == [1, 2, 3, 4]
    assert await seen(NOTHING_PRIVATE, "a") == [1, 4]
    assert await seen(through("user/7"), "a") == await seen(through("user/*"), "a", "b") == [1, 3, 4]
    assert await seen(through("user/8"), "a", "user/7") == [1, 4]
    assert await seen(through("a"), "**") == [1, 2, 3, 4]
    assert await seen(through("**"), "a", "b") == await seen(EVERYTHING, "**") == [1, 2, 3, 4, 5]
    assert await seen(through("b"), "**") == [1, 4, 5]


async def test_a_page_without_anything_that_can_be_seen_goes_on_all_the_same(make: Make):
    log = await make()
    await publish(log, *["!a"] * 3_000, "a")
    found = [page async for page in pages(log, 0, ["a"], visibility=NOTHING_PRIVATE)]
    assert [len(page.notifications) for page in found if page.notifications] == [1]
    assert [page.reached for page in found][-1] == 3_001
    assert 1 < len(found) <= 10, "each was bounded, and reached further"


async def test_a_hole_is_judged_by_the_topics(make: Make):
    log = await make(count=2)
    await publish(log, "!a", "b", "b")
    page = await log.read(0, ["a"], upto=3, visibility=NOTHING_PRIVATE)
    assert page.hole == await hole(log, 0, ["a"])
    assert page.hole
    assert log.trimmed(["a"]) == 1


async def test_the_latest_is_the_newest_that_can_be_seen(make: Make):
    log = await make(topics={"state/*": 1})
    await publish(log, "a", "b", "!a", "!b,user/7", "!a", "state/x", "!state/x", "!state/y")

    async def latest(visibility: Visibility, *topics: str, upto: int = 8) -> list[int]:
        return offsets(await read_all(log, 0, topics, upto, latest=True, visibility=visibility))

    assert await latest(EVERYTHING, "a", "b") == [4, 5]
    assert await latest(NOTHING_PRIVATE, "a", "b") == [1, 2]
    assert await latest(NOTHING_PRIVATE, "a", "b", "state/*") == await latest(NOTHING_PRIVATE, "**") == [1, 2]
    assert await latest(through("user/7"), "a", "b") == await latest(through("b"), "a", "*") == [1, 4]
    assert await latest(through("a"), "a", "b", upto=4) == [2, 3]
    assert await latest(through("state/y"), "state/*") == [8]
    assert await latest(NOTHING_PRIVATE, "never") == []


async def test_the_newest_that_can_be_seen_is_found_behind_thousands_that_can_not(make: Make):
    log = await make()
    await publish(log, "t/7", "t/7", "t/8", *["!t/7"] * 12_000, "!t/8")
    for wanted, newest in ((["t/7"], [2]), (["t/*"], [2, 3]), (["t/7", "**"], [2, 3])):
        seen = await read_only(log, 0, wanted, latest=True, visibility=NOTHING_PRIVATE)
        assert [offset for offset in seen if offset > 1] == newest, wanted


# ---- floors ----


async def test_through_a_topic_with_a_floor_comes_only_what_stands_after_it(make: Make):
    log = await make()
    await publish(log, "hall", "a", "a,hall", "hall,b", "hall", "!hall", "a")

    async def seen(visibility: Visibility, *topics: str) -> list[int]:
        return offsets(await read_all(log, 0, topics, visibility=visibility))

    assert await seen(since(log, hall=4), "hall") == [5, 6]
    assert await seen(since(log, hall=4), "hall", "a") == [2, 3, 5, 6, 7]
    assert await seen(since(log, hall=4, a=2), "hall", "a") == [3, 5, 6, 7]
    assert await seen(since(log, hall=7), "hall") == []
    assert await seen(since(log, hall=0), "hall") == [1, 3, 4, 5, 6]
    assert await seen(since(log, frozenset({"a"}), hall=4), "hall", "a") == [2, 3, 5, 7]
    assert await seen(since(log, hall=4), "**") == [2, 3, 4, 5, 6, 7], "by its other topic, or above the floor"


async def test_a_private_one_comes_through_no_topic_below_its_floor(make: Make):
    log = await make()
    await publish(log, "!hall,a", "!hall,a", "!hall,a")
    visibility = since(log, frozenset({"hall"}), hall=2)
    assert offsets(await read_all(log, 0, ["hall", "a"], visibility=visibility)) == [3]


async def test_a_cursor_beyond_a_floor_goes_on_where_it_is(make: Make):
    log = await make()
    await publish(log, *["hall"] * 5)
    assert offsets(await read_all(log, 3, ["hall"], visibility=since(log, hall=2))) == [4, 5]
    assert offsets(await read_all(log, 1, ["hall"], visibility=since(log, hall=2))) == [3, 4, 5]


async def test_what_is_below_a_floor_takes_no_pages(make: Make):
    log = await make()
    await publish(log, *["hall"] * 12_000, "a", "hall")
    found = [page async for page in pages(log, 0, ["hall"], visibility=since(log, hall=12_000))]
    assert [offsets(page.notifications) for page in found] == [[12_002]]
    found = [page async for page in pages(log, 0, ["hall", "other"], visibility=since(log, hall=12_000, other=11_000))]
    assert [offsets(page.notifications) for page in found] == [[12_002]]


async def test_the_latest_of_a_topic_is_above_its_floor_or_there_is_none(make: Make):
    log = await make()
    await publish(log, "hall", "a,hall", "a", "hall", "!a", "!hall,a")

    async def latest(visibility: Visibility, *topics: str, upto: int = 6) -> list[int]:
        return offsets(await read_all(log, 0, topics, upto, latest=True, visibility=visibility))

    assert await latest(since(log, hall=1), "hall", "a", upto=3) == [2, 3]
    assert await latest(since(log, hall=2), "hall", "a", upto=3) == [3]
    assert await latest(since(log, hall=4), "hall", upto=5) == []
    assert await latest(since(log, frozenset({"hall"}), hall=6), "hall", "a") == [3]
    assert await latest(since(log, frozenset({"hall"}), hall=5), "hall", "a") == [6]
    assert (
        await latest(since(log, frozenset(), hall=3), "hall") == await latest(since(log, hall=3), "hall", upto=5) == [4]
    )


async def test_what_was_trimmed_below_a_floor_is_no_gap(make: Make):
    log = await make(count=2)
    await publish(log, "hall", "hall", "a", "hall", "x", "x")
    assert log.trimmed(["hall"]) == 4

    async def lost(after: int, *topics: str, **floors: int) -> tuple[int, bool]:
        visibility = since(log, None, **floors)
        page = await log.read(after, topics, upto=6, visibility=visibility)
        return log.trimmed(topics, after, visibility), bool(page.hole)

    assert await lost(0, "hall", hall=3) == (4, True)
    assert await lost(0, "hall", hall=4) == await lost(0, "hall", hall=6) == (0, False)
    assert await lost(4, "hall", hall=1) == (0, False)
    assert await lost(0, "hall", "a", hall=4) == (3, True)
    assert await lost(3, "hall", "a", hall=4) == (0, False)
    assert await lost(0, "hall", "a", hall=4, a=3) == (0, False)
    assert await lost(0, "hall", "**", hall=6) == (4, True), "a pattern knows of no floor"


async def test_a_hole_above_the_floor_is_told_once_whatever_goes_below_other_floors(make: Make):
    log = await make(topics={"a": 1, "hall": 1})
    await publish(log, "a", "a", "hall")
    visibility = since(log, hall=10)

    async def mark() -> Any:
        return (await log.read(0, ["a", "hall"], upto=log.bounds().newest.offset, visibility=visibility)).hole

    before = await mark()
    assert before
    await publish(log, "hall", "hall")
    assert await mark() == before
    await publish(log, "a")
    assert await mark() != before


async def test_floors_of_another_epoch_are_not_compared(make: Make):
    log, other = await make(), await make()
    await publish(log, "hall", "a")
    visibility = Visibility(None, frozenset({("hall", Position(other.epoch, 0))}))
    with pytest.raises(LogUnavailable, match="its history has just changed"):
        await log.read(0, ["hall"], upto=2, visibility=visibility)
    with pytest.raises(LogUnavailable, match="its history has just changed"):
        log.trimmed(["hall"], 0, visibility)
    if isinstance(log, Framing):
        with pytest.raises(LogUnavailable, match="its history has just changed"):
            await log.frames(0, ["hall"], upto=2, visibility=visibility)
    assert offsets(await read_all(log, 0, ["hall"])) == [1]


async def test_frames_are_those_of_the_page_that_floors_leave(make: Make):
    log = await make()
    if not isinstance(log, Framing):
        return
    await publish(log, "hall", "a", "hall", "!hall", "a")
    for latest in (False, True):
        for visibility in (since(log, hall=1), since(log, frozenset({"a"}), hall=1), since(log, hall=4)):
            options: dict[str, Any] = {"upto": 5, "latest": latest, "visibility": visibility}
            page = await log.read(0, ["hall", "a"], **options)
            frames = await log.frames(0, ["hall", "a"], **options)
            assert frames.payload == b"".join([each.chunk for each in page.notifications])
            assert (frames.number, frames.first) == (len(page.notifications), page.notifications[0].position.offset)


# ---- against a list ----

privates = st.booleans()
steps = st.lists(
    st.tuples(
        st.lists(st.tuples(several, st.none(), privates), min_size=1, max_size=5),
        wishes,
        st.lists(names | st.sampled_from(["*", "a/*", "**", "user/*"]), max_size=2).map(frozenset) | st.none(),
        st.dictionaries(names, st.integers(0, 40), max_size=3),
        st.integers(0, 40),
    ),
    max_size=12,
)
SIZES = {
    "PAGE_COUNT": st.integers(1, 3),
    "PAGE_WALK": st.integers(1, 8),
    "FEW": st.sampled_from([0, 2]),
    "LOOK_BACK": st.sampled_from([1, 8, 10**6]),
    "FIND_STEPS": st.sampled_from([0, 6, 1_000]),
    "SEARCHED_BYTES": st.sampled_from([0, 10**6]),
}


def check_latest(found: list[int], wanted: list[int], among: list[int], *, exact: bool) -> None:
    """Check the latest that were *found*; where it took too long to look, older ones may come before them."""
    assert found == sorted(set(found))
    if exact:
        assert found == wanted
    assert set(wanted) <= set(found) <= set(among)


async def read_only(log: Log, after: int, wanted: Sequence[str], **options: Any) -> list[int]:
    """Read page after page, and ask nothing between, from which the next page would learn."""
    found: list[int] = []
    while after < log.bounds().newest.offset:
        page = await log.read(after, wanted, upto=log.bounds().newest.offset, **options)
        assert page.reached > after, "each page gets nearer to the end"
        found += offsets(page.notifications)
        after = page.reached
    return found


@settings(deadline=None, max_examples=examples(100, 3_000))
@given(sizes=st.fixed_dictionaries(SIZES), bounds=limits, plan=steps)
def test_a_log_in_memory_shows_what_a_plain_list_would(sizes: dict[str, int], bounds: dict[str, int], plan: list[Any]):
    async def follow() -> None:
        log, model = MemoryLog(count=20, topics=bounds), ListLog(20, topics=bounds)
        for batch, wanted, granted, floors, after in plan:
            log.append([Draft.of("x", topics=topics, private=private) for topics, _, private in batch])
            model.append(batch, 0.0)
            end, visibility = model.newest, since(log, granted, **floors)
            found = await read_all(log, after, wanted, visibility=visibility)
            among = model.read(after, wanted, end, granted, floors)
            assert offsets(found) == among
            latest = await read_only(log, after, wanted, latest=True, visibility=visibility)
            newest = model.latest(after, wanted, end, granted, floors)
            check_latest(latest, newest, among, exact=sizes["LOOK_BACK"] == 10**6)
            assert log.trimmed(wanted, after, visibility) == model.trimmed(wanted, after, floors)
            page = await log.read(after, wanted, upto=end, visibility=visibility)
            assert bool(page.hole) == bool(model.trimmed(wanted, after, floors))

    with pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            home = "search" if name in {"FIND_STEPS", "SEARCHED_BYTES"} else "memory"
            patched.setattr(f"hub.log.{home}.{name}", value)
        asyncio.run(follow())


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(20, 300), phases=[Phase.explicit, Phase.generate])
@given(
    sizes=st.fixed_dictionaries(
        {
            "PAGE_COUNT": st.integers(1, 3),
            "WALK": st.integers(1, 8),
            "FEW": st.sampled_from([0, 2]),
            "LOOK_BACK": st.sampled_from([1, 8, 10**6]),
            "BACK_PLACES": st.integers(1, 3),
            "FOUND_NAMES": st.sampled_from([0, 2, 1_000]),
        }
    ),
    bounds=limits,
    plan=steps,
)
def test_a_log_in_redis_shows_what_a_plain_list_would(
    redis_servers: Callable[[str], RedisServer], sizes: dict[str, int], bounds: dict[str, int], plan: list[Any]
):
    async def follow() -> None:
        url = RedisURL.parse(redis_servers("redis").url)
        log = RedisLog(url, prefix=secrets.token_hex(4), count=20, size=10**9, age=None, topics=bounds)
        log._ring.has = nothing  # type: ignore[method-assign,assignment]
        model = ListLog(20, topics=bounds)
        await log.open()
        for batch, wanted, granted, floors, after in plan:
            await send(log, [Draft.of("x", topics=topics, private=private) for topics, _, private in batch])
            model.append(batch, 0.0)
            end, visibility = model.newest, since(log, granted, **floors)
            found = await read_all(log, after, wanted, visibility=visibility)
            among = model.read(after, wanted, end, granted, floors)
            assert offsets(found) == among
            latest = await read_only(log, after, wanted, latest=True, visibility=visibility)
            newest = model.latest(after, wanted, end, granted, floors)
            check_latest(latest, newest, among, exact=sizes["LOOK_BACK"] == 10**6)
            assert log.trimmed(wanted, after, visibility) == model.trimmed(wanted, after, floors)
        await log.aclose()

    with pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            patched.setattr(f"hub.log.redis.pages.{name}", value)
        asyncio.run(follow())


def beyond(after: int, floors: Mapping[str, int]) -> dict[str, int]:
    """Return the *floors* that the reader of a file is told of."""
    return {topic: offset for topic, offset in floors.items() if offset > after}


def row(offset: int, topics: Sequence[str], *, private: bool) -> Any:
    draft = Draft.of("x", topics=topics, private=private)
    return _row(Notification.accept(draft, Position("e", offset), 0.0), 500)


def pages_of(
    reader: Reader, *asked: Any, latest: bool, granted: frozenset[str] | None, floors: Mapping[str, int]
) -> Iterator[int]:
    """Yield the offsets of all that is read, page after page."""
    after, upto, topics = asked
    while after < upto:
        page = reader.read(after, upto, topics, latest, granted, beyond(after, floors))
        yield from (each[0] for each in page["rows"])
        assert page["reached"] > after, "each page gets nearer to the end"
        after = page["reached"]


def file_with(path: str, **bounds: Any) -> Writer:
    """Return a writer of a new file."""
    many = 10**6
    options = {"epoch": "e", "count": 20, "size": 10**9, "age": None, "topics": [], **bounds}
    return Writer(
        path, {**options, "last": 10**9, "remembered": many, "keys": many, "key_bytes": many, "patience": 1.0}
    )


async def test_what_one_reader_learned_of_private_ones_is_not_what_another_one_with_a_floor_may_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.memory.PAGE_COUNT", 1)
    monkeypatch.setattr("hub.log.sqlite.worker.reader.PAGE_COUNT", 1)
    private = frozenset({"c"})
    log = MemoryLog()
    await publish(log, "b", "a", "!a,c")
    writer = file_with(str(tmp_path / "hub.db"))
    rows = [row(1, ["b"], private=False), row(2, ["a"], private=False), row(3, ["a", "c"], private=True)]
    writer.append(rows, [], 0.0)
    reader = Reader(str(tmp_path / "hub.db"), {"topics": []})
    # Each reads the newest of each topic, page by page, while the other one does: there is more to read for both.
    turns: list[tuple[int, dict[str, int], list[int]]] = [
        *[(0, {}, [1]), (0, {"c": 3}, [1]), (1, {"c": 3}, [2])],
        *[(0, {}, [1]), (0, {"c": 2}, [1]), (1, {"c": 2}, [3]), (1, {}, [3])],
    ]
    for after, floors, found in turns:
        page = await log.read(after, ["a", "b"], upto=3, latest=True, visibility=since(log, private, **floors))
        assert offsets(page.notifications) == found
        assert [each[0] for each in reader.read(after, 3, ["a", "b"], True, private, floors)["rows"]] == found
    reader.close()
    writer.close()


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(80, 2_000))
@given(sizes=st.fixed_dictionaries(SIZES), bounds=limits, plan=steps)
def test_the_reader_of_a_file_shows_what_a_plain_list_would(
    sizes: dict[str, int], bounds: dict[str, int], plan: list[Any]
):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            home = "search" if name in {"FIND_STEPS", "SEARCHED_BYTES"} else "sqlite.worker.reader"
            patched.setattr(f"hub.log.{home}.{name}", value)
        path, many = str(Path(folder) / "hub.db"), 10**6
        writer, model = file_with(path, topics=list(bounds.items())), ListLog(20, topics=bounds)
        reader = Reader(path, {"topics": list(bounds.items())})
        for batch, wanted, granted, floors, after in plan:
            first = model.newest + 1
            model.append(batch, 0.0)
            rows = [row(first + n, topics, private=private) for n, (topics, _, private) in enumerate(batch)]
            writer.append(rows, [], 0.0)
            end = model.newest
            who: dict[str, Any] = {"granted": granted, "floors": floors}
            among = model.read(after, wanted, end, granted, floors)
            assert [*pages_of(reader, after, end, wanted, latest=False, **who)] == among
            latest = [*pages_of(reader, after, end, wanted, latest=True, **who)]
            newest = model.latest(after, wanted, end, granted, floors)
            check_latest(latest, newest, among, exact=sizes["LOOK_BACK"] == many)
            hole = reader.read(after, end, wanted, False, granted, beyond(after, floors))["hole"]
            assert hole or not model.trimmed(wanted, after, floors, exactly=True)
            assert not hole or model.trimmed(wanted, after, floors)
        reader.close()
        writer.close()
