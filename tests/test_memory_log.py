"""What the log in memory counts against what it uses, and what it looks at for a page against what it should."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from hub.log.gone import REMEMBERED_BYTES, REMEMBERED_TOPICS, Gone
from hub.log.memory import PAGE_WALK, MemoryLog
from hub.log.worker.search import FIND_STEPS, REMEMBERED_FACTS, Search
from hub.notification import Draft
from hub.patterns import Patterns
from tests.test_patterns import most_expensive


def test_everything_is_counted_in_the_bound_of_bytes():
    log = MemoryLog(count=10**9, size=8 * 1024 * 1024)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(30_000):
            log.append(
                [Draft.of({"n": number, "text": "x" * (number % 300)}, topics=[f"user/{number % 5_000}", "all"])]
            )
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log.bounds().kept < 30_000
    # Beside what is kept: which topics had something that is gone, and the validity of topics, each bounded by itself.
    assert used < 8 * 1024 * 1024 + 3 * 1024 * 1024


def test_what_is_remembered_of_the_gone_is_bounded_in_bytes_however_deep_the_topics_are():
    gone = Gone()
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(REMEMBERED_TOPICS):
            gone.lose(["/".join([str(n), *(f"{n:015}",) * 15])], n + 1)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1_000 < len(gone.all().topics) < REMEMBERED_TOPICS
    assert REMEMBERED_BYTES / 2 < used < REMEMBERED_BYTES * 1.2
    assert gone._size == sum(map(gone_cost, gone.all().topics))


def gone_cost(topic: str) -> int:
    one = Gone()
    one.lose([topic], 1)
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
    assert full._searches._left == REMEMBERED_FACTS, "what came to its end is forgotten"


async def test_what_is_remembered_of_searches_is_bounded(full: MemoryLog, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.worker.search.REMEMBERED_FACTS", 5_000)
    log = MemoryLog()
    for n in range(SENT):
        log.append([Draft.of("x", topic=f"order/{n * 7 % TOPICS}/status")])
    for number in range(40):
        await log.frames(0, frozenset([f"**/{number}", "**/status"]), upto=SENT)
        known: list[Search] = list(log._searches._searches.values())
        assert sum(len(each.verdicts) for each in known) <= 5_000
        assert len(known) <= 8
    assert log._searches._left == 5_000 - sum(len(each.verdicts) for each in known)


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
