import gc
import tracemalloc

import pytest

from hub.log.gone import REMEMBERED_TOPICS
from hub.log.memory import MemoryLog
from hub.notification import Draft


@pytest.mark.slow
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
    assert sorted(log._topics.match("**")) == ["t/98", "t/99"]
