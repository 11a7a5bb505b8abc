"""What every log must keep from a reader who may not see it; live ones are judged by the same rule elsewhere."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.access.visibility import EVERYTHING, Visibility
from hub.log.log import Log
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import _row
from hub.log.sqlite.worker.reader import Reader
from hub.log.sqlite.worker.writer import Writer
from hub.notification import Draft, Notification, Position
from tests.contracts.conftest import Make
from tests.contracts.model import ListLog
from tests.contracts.test_log import hole, limits, names, offsets, pages, read_all, send, several, wishes

NOTHING_PRIVATE = Visibility(frozenset())


def through(*topics: str) -> Visibility:
    return Visibility(frozenset(topics))


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


@pytest.mark.parametrize("wanted", [["t/7"], ["t/*"], ["t/7", "**"]])
async def test_the_newest_that_can_be_seen_is_found_behind_thousands_that_can_not(make: Make, wanted: list[str]):
    log = await make()
    await publish(log, "t/7", "t/7", "t/8", *["!t/7"] * 12_000, "!t/8")
    seen = await read_only(log, 0, wanted, latest=True, visibility=NOTHING_PRIVATE)
    newest = [2] if wanted == ["t/7"] else [2, 3]
    assert [offset for offset in seen if offset > 1] == newest


# ---- against a list ----

privates = st.booleans()
steps = st.lists(
    st.tuples(
        st.lists(st.tuples(several, st.none(), privates), min_size=1, max_size=5),
        wishes,
        st.lists(names | st.sampled_from(["*", "a/*", "**", "user/*"]), max_size=2).map(frozenset),
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


@settings(deadline=None, max_examples=300)
@given(sizes=st.fixed_dictionaries(SIZES), bounds=limits, plan=steps)
def test_a_log_in_memory_shows_what_a_plain_list_would(sizes: dict[str, int], bounds: dict[str, int], plan: list[Any]):
    async def follow() -> None:
        log, model = MemoryLog(count=20, topics=bounds), ListLog(20, topics=bounds)
        for batch, wanted, granted, after in plan:
            log.append([Draft.of("x", topics=topics, private=private) for topics, _, private in batch])
            model.append(batch, 0.0)
            end, visibility = model.newest, Visibility(granted)
            found = await read_all(log, after, wanted, visibility=visibility)
            assert offsets(found) == model.read(after, wanted, end, granted)
            latest = await read_only(log, after, wanted, latest=True, visibility=visibility)
            newest, among = model.latest(after, wanted, end, granted), model.read(after, wanted, end, granted)
            check_latest(latest, newest, among, exact=sizes["LOOK_BACK"] == 10**6)

    with pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            home = "search" if name in {"FIND_STEPS", "SEARCHED_BYTES"} else "memory"
            patched.setattr(f"hub.log.{home}.{name}", value)
        asyncio.run(follow())


def row(offset: int, topics: Sequence[str], *, private: bool) -> Any:
    draft = Draft.of("x", topics=topics, private=private)
    return _row(Notification.accept(draft, Position("e", offset), 0.0), 500)


def pages_of(reader: Reader, *asked: Any, latest: bool, granted: frozenset[str]) -> Iterator[int]:
    """Yield the offsets of all that is read, page after page."""
    after, upto, topics = asked
    while after < upto:
        page = reader.read(after, upto, topics, latest, granted)
        yield from (each[0] for each in page["rows"])
        assert page["reached"] > after, "each page gets nearer to the end"
        after = page["reached"]


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(sizes=st.fixed_dictionaries(SIZES), bounds=limits, plan=steps)
def test_the_reader_of_a_file_shows_what_a_plain_list_would(
    sizes: dict[str, int], bounds: dict[str, int], plan: list[Any]
):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        for name, value in sizes.items():
            home = "search" if name in {"FIND_STEPS", "SEARCHED_BYTES"} else "sqlite.worker.reader"
            patched.setattr(f"hub.log.{home}.{name}", value)
        path, many = str(Path(folder) / "hub.db"), 10**6
        options = {"epoch": "e", "count": 20, "size": 10**9, "age": None, "topics": list(bounds.items())}
        kept = {"last": 10**9, "remembered": many, "keys": many, "key_bytes": many, "patience": 1.0}
        writer, model = Writer(path, {**options, **kept}), ListLog(20, topics=bounds)
        reader = Reader(path, {"topics": list(bounds.items())})
        for batch, wanted, granted, after in plan:
            first = model.newest + 1
            model.append(batch, 0.0)
            rows = [row(first + n, topics, private=private) for n, (topics, _, private) in enumerate(batch)]
            writer.append(rows, [], 0.0)
            end = model.newest
            among = model.read(after, wanted, end, granted)
            assert [*pages_of(reader, after, end, wanted, latest=False, granted=granted)] == among
            latest = [*pages_of(reader, after, end, wanted, latest=True, granted=granted)]
            newest = model.latest(after, wanted, end, granted)
            check_latest(latest, newest, among, exact=sizes["LOOK_BACK"] == many)
        reader.close()
        writer.close()
