"""Durations in a histogram: as exact as it says, and a stall for all that it hid."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.load.latency import LONGEST, Latencies


@settings(deadline=None)  # what else the machine does is none of its claims
@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=200))
def test_percentiles_are_within_a_thousandth_of_the_exact_ones(durations: list[int]) -> None:
    latencies = Latencies()
    for duration in durations:
        latencies.record(duration)
    spread = latencies.spread()
    assert spread is not None
    exact = sorted(duration // 1000 / 1e6 for duration in durations)
    for rank, value in ((50, spread.p50), (90, spread.p90), (99, spread.p99), (100, spread.max)):
        place = max(int(rank / 100 * len(exact) + 0.5), 1) - 1
        assert value == pytest.approx(exact[place], rel=0.001, abs=1e-6)


def test_nothing_recorded_has_no_spread() -> None:
    assert Latencies().spread() is None


def test_durations_out_of_range_count_as_the_nearest() -> None:
    latencies = Latencies()
    latencies.record(-5)
    latencies.record(LONGEST * 2000)
    spread = latencies.spread()
    assert spread is not None
    assert spread == pytest.approx((0, 7200, 7200, 7200), rel=0.001)


def test_a_stall_counts_for_every_look_that_it_hid() -> None:
    latencies = Latencies()
    latencies.record_stall(45_000_000, every=10_000_000)  # 45, 35, 25, 15 and 5 ms
    spread = latencies.spread()
    assert spread is not None
    assert (spread.p50, spread.p90, spread.max) == pytest.approx((0.025, 0.045, 0.045), rel=0.001)
