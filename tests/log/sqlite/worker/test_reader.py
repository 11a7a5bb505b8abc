"""The reader: a page tells the truth about one moment, and takes a bounded number of steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.log.search import FIND_STEPS, SEARCHED_BYTES, Search
from hub.log.sqlite.worker.reader import LOOK_UP_STEPS, LOOKED_UP, PAGE_WALK, Asked, Reader
from hub.log.sqlite.worker.writer import Writer
from hub.patterns import Patterns
from tests.chance import examples
from tests.contracts.model import ListLog
from tests.contracts.test_log import append, batches, drafts, limits, wishes
from tests.log.sqlite.home import Home, settled
from tests.log.sqlite.processes import pipe, workers
from tests.log.sqlite.worker.in_process import open_writer, rows
from tests.test_patterns import most_expensive
from tests.web.client import until

pytestmark = pytest.mark.slow


# ---- what a page says ----


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


def test_the_id_of_a_topic_that_is_given_to_another_one_meanwhile_finds_nothing_of_that(
    home: Home, write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    writer = write(**{"**": 1})
    writer.append(rows(1, "mine"), [], 0.0)
    reader = Reader(str(home.path), {"topics": []})
    looked_up = reader._begins

    def looks_up_and_is_overtaken(names: Iterable[str], asked: Asked) -> list[tuple[int, int]]:
        found = looked_up(names, asked)
        ask = writer._database.execute
        ask("DELETE FROM place")
        ask("DELETE FROM notification")
        ask("DELETE FROM topic")
        writer._topics.clear()
        writer.append(rows(2, "theirs"), [], 0.0)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(reader, "_begins", looks_up_and_is_overtaken)
        found = reader.read(0, 2, ["mine"], False)["rows"]
    assert [(row[0], row[2]) for row in found] == [(1, "mine")], "one state of the file"
    assert reader.read(0, 2, ["mine"], False)["rows"] == []
    reader.close()


# ---- what a page looks at ----


TOPICS, SENT = 3_000, 9_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with many topics, each used a few times."""
    path = tmp_path_factory.mktemp("wide") / "hub.db"
    writer = open_writer(path)
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


@settings(deadline=None, max_examples=examples(50, 1_000))
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
        path = Path(folder) / "hub.db"
        writer = open_writer(path, count=20, topics=bounds.items())
        reader = Reader(str(path), {"topics": list(bounds.items())})
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
