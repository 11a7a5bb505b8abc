"""Entries: what goes when the bounds are reached, and what they cost."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.state.entries import Entries, Entry
from tests.contracts.conftest import Clock


def entry(clock: Clock, value: str = "v", *, owner: str = "o", seconds: float = 30, lasting: bool = True) -> Entry:
    return Entry(value, clock.now + seconds, owner, lasting)


def kept(entries: Entries, number: int) -> list[int]:
    return [each for each in range(number) if entries.get(f"{each}")]


def test_beyond_their_number_the_oldest_goes(clock: Clock):
    entries = Entries(clock, most=3)
    gone = [entries.put(f"{each}", entry(clock, owner=f"{each}", lasting=each != 1)) for each in range(6)]
    assert gone == [[], [], [], ["0"], [], ["2"]]  # only lasting ones are told
    assert kept(entries, 6) == [3, 4, 5]


def test_beyond_their_bytes_the_oldest_go(clock: Clock):
    entries = Entries(clock, most_bytes=10_000)
    for each in range(5):
        entries.put(f"{each}", entry(clock, owner=f"{each}"))
    assert kept(entries, 5) == [0, 1, 2, 3, 4]
    entries.put("5", entry(clock, "v" * 7_000, owner="5"))
    assert kept(entries, 6) == [3, 4, 5]
    assert entries.size <= 10_000


def test_an_owner_loses_only_what_is_his(clock: Clock):
    entries = Entries(clock, most_of_an_owner=2)
    entries.put("0", entry(clock, owner="other"))
    assert [entries.put(f"{each}", entry(clock)) for each in range(1, 5)] == [[], [], ["1"], ["2"]]
    assert kept(entries, 5) == [0, 3, 4]


def test_what_has_expired_goes_with_the_next_one_and_is_told(clock: Clock):
    entries = Entries(clock)
    for each in range(4):
        entries.put(f"{each}", entry(clock, seconds=10 * (4 - each), lasting=each != 3))
    clock.now += 20
    assert entries.put("4", entry(clock)) == ["2"]
    assert kept(entries, 5) == [0, 1, 4]
    assert len(entries) == 3


def test_nothing_that_has_gone_costs_anything(clock: Clock):
    entries = Entries(clock)
    for each in range(100):
        entries.put(f"{each}", entry(clock, owner=f"{each % 7}", seconds=each + 1))
    for each in range(0, 100, 2):
        entries.take(f"{each}")
    clock.now += 1_000
    entries.put("last", entry(clock))
    assert len(entries) == 1
    entries.take("last")
    assert (len(entries), entries.size) == (0, 0)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "take"]), st.integers(0, 9), st.integers(0, 2), st.integers(-3, 9)), max_size=60
)


@given(OPERATIONS)
def test_the_bounds_hold_whatever_is_done(operations: list[tuple[str, int, int, int]]):
    clock = Clock()
    entries = Entries(clock, most=6, most_of_an_owner=3)
    for what, key, owner, seconds in operations:
        if what == "put":
            entries.put(f"{key}", entry(clock, owner=f"{owner}", seconds=seconds))
            assert (entries.get(f"{key}") is not None) == (seconds > 0)
        else:
            entries.take(f"{key}")
        clock.now += 1
        there = [found for found in (entries.get(f"{each}") for each in range(10)) if found is not None]
        assert len(there) <= len(entries) <= 6
        assert all(sum(each.owner == f"{owner}" for each in there) <= 3 for owner in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("owners", [200, 20_000])
@pytest.mark.parametrize("length", [10, 500])
def test_what_is_counted_is_what_is_used(clock: Clock, owners: int, length: int):
    gc.collect()
    tracemalloc.start()
    try:
        entries = Entries(clock)
        for time in range(2):
            for each in range(20_000):
                value = f"{each:010}" * (length // 10)
                seconds = 1_000.0 + time + each
                entries.put(f"return/{each:012}", entry(clock, value, owner=f"{each % owners:07}", seconds=seconds))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.65 * entries.size < used < 1.05 * entries.size
