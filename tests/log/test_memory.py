"""What the log in memory counts against what it uses, and what it looks at for a page against what it should."""

from __future__ import annotations

import gc
import json
import random
import sys
import tracemalloc
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from hub.log.memory import PAGE_WALK, MemoryLog
from hub.log.search import FIND_STEPS, REMEMBERED_SEARCHES, SEARCHED_BYTES, Search, size_of
from hub.log.trimmed import REMEMBERED_BYTES, REMEMBERED_TOPICS, Trimmed
from hub.names import _fault
from hub.notification import Draft
from hub.patterns import Patterns
from tests.test_patterns import most_expensive

Fields = dict[str, Any]

chance = random.Random(3)


def some_id() -> str:
    return str(uuid.UUID(int=chance.getrandbits(128)))


def deep(n: int) -> Fields:
    return {"topics": ["/".join([str(n), str(k), *[f"segment-{k}"] * 14]) for k in range(16)], "data": "x"}


def tagged(n: int) -> Fields:
    return {"topic": "t", "data": "x", "tags": {f"tag number {k}": f"value {n} {k}" for k in range(20)}}


SHAPES: dict[str, tuple[int, Callable[[int], Fields]]] = {
    "one topic for all": (4_000, lambda n: {"topic": "orders", "data": {"n": n}}),
    "some topics": (4_000, lambda n: {"topic": f"stock/{n % 400}", "data": "x" * 80}),
    "a topic for each": (4_000, lambda n: {"topic": f"order/{n}", "data": "x" * 20}),
    "a long topic for each": (3_000, lambda n: {"topic": f"user/{some_id()}/order/{some_id()}", "data": "x" * 20}),
    "many deep topics for each": (500, deep),
    "a shared prefix": (3_000, lambda n: {"topic": "/".join(["a long segment"] * 14 + [str(n)]), "data": "x"}),
    "many topics for all": (3_000, lambda n: {"topics": [f"room/{(n + k) % 100}" for k in range(16)], "data": "x"}),
    "large data": (200, lambda n: {"topic": f"t/{n % 50}", "data": "x" * 20_000}),
    "two-byte text": (200, lambda n: {"topic": f"t/{n % 50}", "data": "汉字" * 5_000}),
    "one-byte text": (200, lambda n: {"topic": f"t/{n % 50}", "data": "é" * 5_000}),
    "four-byte text": (200, lambda n: {"topic": f"t/{n % 50}", "data": "😀" * 5_000}),
    "tags": (1_500, tagged),
    "tags with numbers": (3_000, lambda n: {"data": "x", "tags": {f"t{k}": 1_000_000 + n + k for k in range(5)}}),
    "a type for each": (3_000, lambda n: {"data": {"a": n}, "type": f"order.created.{n}", "retry": 1_000 + n}),
    "topics that are not ASCII": (3_000, lambda n: {"topic": f"房间/{n}/大厅", "data": "你好"}),
    "topics with bounds": (8_000, lambda n: {"topic": f"state/{n * 7 % 2_000}", "data": "x" * 30}),
    "topics with bounds, and one without": (
        4_000,
        lambda n: {"topics": [f"state/{n * 7 % 1_000}", f"state/{n * 11 % 1_000}/x", "all"], "data": "x" * 30},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_counted_is_what_is_used(shape: str):
    number, fields = SHAPES[shape]
    log = MemoryLog(count=10**9, size=10**12, topics={"state/**": 2})
    bodies = [json.dumps(fields(n)) for n in range(number)]
    counted, used = fill(log, bodies)
    assert used / 1.5 < counted < used * 1.5


def fill(log: MemoryLog, bodies: list[str]) -> tuple[int, int]:
    """Publish *bodies* the way clients do, each with strings of its own; return the bytes counted and used.

    What is remembered of the gone is bounded by itself, and left out.
    """
    _fault.cache_clear()  # which names are valid is remembered, too; bounded by itself
    gc.collect()
    tracemalloc.start()
    try:
        for body in bodies:
            log.append([Draft.from_json(json.loads(body))])
        _fault.cache_clear()
        log._trimmed = Trimmed()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return log.bounds().size, used


def test_a_log_that_is_full_uses_no_more_than_its_bound():
    log = MemoryLog(count=10**9, size=2 * 1024 * 1024)
    bodies = [json.dumps(deep(n)) for n in range(600)]
    counted, used = fill(log, bodies)
    assert log.bounds().kept < 600
    assert counted <= 2 * 1024 * 1024
    assert used < 2.5 * 1024 * 1024


def test_what_is_remembered_of_the_gone_is_bounded_in_bytes_however_deep_the_topics_are():
    trimmed = Trimmed()
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(REMEMBERED_TOPICS):
            trimmed.trim_topic(["/".join([str(n), *(f"{n:015}",) * 15])], n + 1)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1_000 < len(trimmed.state().topics) < REMEMBERED_TOPICS
    assert REMEMBERED_BYTES / 2 < used < REMEMBERED_BYTES * 1.2
    assert trimmed._size == sum(map(gone_cost, trimmed.state().topics))


def gone_cost(topic: str) -> int:
    one = Trimmed()
    one.trim_topic([topic], 1)
    return one._size


# ---- what a page looks at ----

TOPICS = 6_000
SENT = 18_000
STEPS = FIND_STEPS + 2 * PAGE_WALK  # of a page: to find names, to look at notifications, and to judge theirs


class Steps:
    """Counts what is done for each page: names that are judged, and notifications that are looked at."""

    def __init__(self, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.judged = self.looked_at = 0
        match, part = Patterns.match, log._order.part

        def counted(patterns: Patterns, name: str) -> bool:
            self.judged += 1
            return match(patterns, name)

        def counted_part(*asked: int) -> list[int]:
            offsets = part(*asked)
            self.looked_at += len(offsets)
            return offsets

        monkeypatch.setattr(Patterns, "match", counted)
        monkeypatch.setattr(type(log._order), "part", lambda _, *asked: counted_part(*asked))


@pytest.fixture(scope="module")
def full() -> MemoryLog:
    log = MemoryLog()
    for n in range(SENT):
        log.append([Draft.of("x", topic=f"order/{n * 7 % TOPICS}/status")])
    return log


PATTERNS = {each: [each] for each in ("**", "order/*/status", "order/**", "**/status", "*/*/*", "**/never", "*/7/**")}


@pytest.mark.parametrize("latest", [False, True], ids=["all", "latest"])
@pytest.mark.parametrize("asked", [*PATTERNS, *most_expensive()])
async def test_a_page_takes_a_bounded_number_of_steps_and_nothing_is_judged_twice(
    full: MemoryLog, asked: str, latest: bool, monkeypatch: pytest.MonkeyPatch
):
    steps = Steps(full, monkeypatch)
    after = pages = found = judged = looked_at = 0
    wanted = frozenset((PATTERNS | most_expensive())[asked])
    while after < SENT:
        steps.judged = steps.looked_at = 0
        page = await full.frames(after, wanted, upto=SENT, latest=latest)
        assert steps.judged * 4 + steps.looked_at <= STEPS + len(wanted)
        judged += steps.judged
        looked_at += steps.looked_at
        after, pages, found = page.reached, pages + 1, found + page.number
    match = Patterns(wanted).match
    matching = sum(match(f"order/{n}/status") for n in range(TOPICS))
    assert found == matching * (1 if latest else SENT // TOPICS)
    assert judged <= 2 * TOPICS + len(wanted), "each topic once to find them all, once when they are too many"
    assert pages <= SENT // 1_000 + 10
    assert full._searches._left == SEARCHED_BYTES, "what came to its end is forgotten"


def held_by(search: Search) -> int:
    """Return the bytes of all the names that *search* remembers."""
    return sum(map(size_of, [*search.verdicts, *search.newest, *(search.names or ())]))


async def test_searches_that_were_given_up_hold_few_bytes_of_names_that_are_gone():
    log = MemoryLog(count=5_000)
    after = 0
    for turn in range(20):
        log.append([Draft.of("x", topic=f"{'é' * 110}/{turn}/{number}") for number in range(5_000)])
        end = after + 5_000
        for _ in range(2):
            after = (await log.frames(after, frozenset(["**/nothing"]), upto=end + 1)).reached
        after = end
    known = log._searches._searches.values()
    names = {id(name): name for each in known for name in [*each.verdicts, *each.newest, *(each.names or ())]}
    assert 0 < sum(map(sys.getsizeof, names.values())) <= 8 * 1024 * 1024


async def test_what_is_remembered_of_searches_is_bounded(full: MemoryLog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.search.SEARCHED_BYTES", 500_000)
    log = MemoryLog()
    for n in range(SENT):
        log.append([Draft.of("x", topic=f"order/{n * 7 % TOPICS}/status")])
    for number in range(40):
        await log.frames(0, frozenset([f"**/{number}", "**/status"]), upto=SENT)
        known: list[Search] = list(log._searches._searches.values())
        assert 0 < sum(map(held_by, known)) <= 500_000
        assert len(known) <= REMEMBERED_SEARCHES
    assert log._searches._left == 500_000 - sum(map(held_by, known))
    assert log._searches.of(["**/status", "**/39"]) in known


async def test_a_search_that_is_under_way_keeps_what_it_learned_while_others_ask(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.search.SEARCHED_BYTES", TOPICS * size_of(f"order/{TOPICS}/status"))
    log = MemoryLog()
    for n in range(SENT):
        log.append([Draft.of("x", topic=f"order/{n * 7 % TOPICS}/status")])
    steps = Steps(log, monkeypatch)
    after = 0
    while after < SENT:
        after = (await log.frames(after, frozenset(["**/status"]), upto=SENT)).reached
        mine, steps.judged = steps.judged, 0
        await log.frames(SENT - 10, frozenset(["*/7/status"]), upto=SENT)
        await log.frames(0, frozenset(["order/7/status", "order/8/status"]), upto=SENT)
        steps.judged = mine
    assert steps.judged <= 2 * TOPICS


async def test_a_wide_hole_is_passed_without_a_step_for_each_that_has_gone(monkeypatch: pytest.MonkeyPatch):
    log = MemoryLog(topics={"state/*": 1})
    log.append([Draft.of("x", topic="first")])
    for n in range(50_000):
        log.append([Draft.of("x", topic=f"state/{n % 500}")])
    assert len(log._order) <= 2 * log.bounds().kept + 1_001
    steps = Steps(log, monkeypatch)
    page = await log.read(0, ["**"], upto=50_001)
    assert (len(page.notifications), page.reached) == (501, 50_001)
    assert steps.looked_at <= 2_005


def test_a_topic_that_is_not_remembered_counts_as_gone_up_to_the_oldest_that_is():
    log = MemoryLog(count=1)
    for number in range(REMEMBERED_TOPICS + 10):
        log.append([Draft.of("x", topic=f"t/{number}")])
    assert log.trimmed(["t/0"]) == log.trimmed(["never"]) == 9
    assert log.trimmed([f"t/{REMEMBERED_TOPICS}"]) == REMEMBERED_TOPICS + 1


def test_an_emptied_topic_leaves_nothing_behind():
    log = MemoryLog(count=2)
    for number in range(100):
        log.append([Draft.of("x", topic=f"t/{number}")])
    assert len(log._by_topic) == 2
    assert list(log._names.between("", None)) == ["t/98", "t/99"]
