"""Histograms: what is in which bucket, and what follows from that."""

from __future__ import annotations

import bisect
import math

from hypothesis import given
from hypothesis import strategies as st

from hub.histogram import BEYOND, COUNTS, LONG_SECONDS, SECONDS, Histogram, difference, names, quantile

sizes = st.lists(st.floats(0, 100, allow_nan=False), min_size=1)


def filled(*values: float, bounds: tuple[float, ...] = (1, 2, 5)) -> Histogram:
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    return histogram


def test_a_value_is_in_the_first_bucket_whose_bound_is_not_below_it() -> None:
    assert filled(0, 1, 1.5, 2, 5, 5.1, math.inf).figures()["buckets"] == {"1": 2, "2": 2, "5": 1, BEYOND: 2}


def test_the_figures_have_the_number_and_the_sum_of_all_values() -> None:
    figures = filled(0.5, 1.5, 7).figures()
    assert (figures["count"], figures["sum"]) == (3, 9)


def test_the_names_of_the_buckets_are_their_bounds() -> None:
    for bounds in (SECONDS, LONG_SECONDS, COUNTS):
        assert [float(name) for name in names(bounds)] == [*bounds, math.inf]


def test_without_values_there_is_no_quantile() -> None:
    assert quantile(0.5, filled().figures()) is None


def test_values_are_taken_to_be_spread_evenly_over_their_bucket() -> None:
    assert quantile(0.5, filled(1.9, 1.9).figures()) == 1.5
    assert quantile(1, filled(0.1).figures()) == 1


def test_beyond_the_last_bound_that_bound_is_the_answer() -> None:
    assert quantile(0.99, filled(0.5, 900, 1000).figures()) == 5


@given(sizes, st.floats(0.01, 1))
def test_an_estimate_is_in_the_same_bucket_as_the_value_itself(values: list[float], q: float) -> None:
    exact = sorted(values)[math.ceil(q * len(values)) - 1]
    estimate = quantile(q, filled(*values, bounds=SECONDS).figures())
    assert estimate is not None
    place = bisect.bisect_left(SECONDS, exact)
    if place == len(SECONDS):
        assert estimate == SECONDS[-1]
    else:
        assert (SECONDS[place - 1] if place else 0) <= estimate <= SECONDS[place]


@given(sizes, sizes)
def test_a_difference_is_what_came_between(first: list[float], then: list[float]) -> None:
    histogram = filled(*first)
    before = histogram.figures()
    for value in then:
        histogram.observe(value)
    between, alone = difference(histogram.figures(), before), filled(*then).figures()
    assert (between["count"], between["buckets"]) == (alone["count"], alone["buckets"])
    assert math.isclose(between["sum"], alone["sum"], abs_tol=1e-6)


def test_after_a_restart_the_difference_is_what_is_counted_now() -> None:
    now = filled(0.5).figures()
    assert difference(now, filled(0.5, 0.5, 3).figures()) == now
    assert difference(now, None) == now
