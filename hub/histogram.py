"""Histograms with fixed buckets: cheap to fill, and easy to add up over processes and to subtract over time.

The figures of a histogram are a mapping of sums (`{"count": 3, "sum": 0.2, "buckets": {"0.1": 2, "+Inf": 1}}`): each
bucket counts what is in it and in no other one, under its upper bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import TypedDict

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds for what should take milliseconds."""
LONG_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
"""Upper bounds for what a client holds open."""
COUNTS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
"""Upper bounds for how many there are of something."""

BEYOND = "+Inf"
"""The name of the bucket beyond the last bound."""


class HistogramFigures(TypedDict):
    """The figures of a histogram.

    Attributes:
        count: how many values were observed.
        sum: their sum.
        buckets: by upper bound, how many of them are beyond the bound before it and not beyond this one.
    """

    count: int
    sum: float
    buckets: dict[str, int]


class Histogram:
    """Counts values by size. To observe one costs about as much as two calls of a function.

    Args:
        bounds: the upper bounds of the buckets, in order; one more bucket holds what is beyond the last one.
    """

    __slots__ = ("_bounds", "_counts", "_names", "_sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._names = names(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count *value*."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def figures(self) -> HistogramFigures:
        """Return what was counted until now."""
        return {
            "count": sum(self._counts),
            "sum": self._sum,
            "buckets": dict(zip(self._names, self._counts, strict=True)),
        }


def names(bounds: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the buckets with these upper *bounds*, the last one included."""
    return (*(f"{bound:.12g}" for bound in bounds), BEYOND)


def difference(now: HistogramFigures, before: HistogramFigures | None) -> HistogramFigures:
    """Return what was observed between *before* (None: the start) and *now*.

    Where less is counted now than before, a process was restarted: then it is what is counted now.
    """
    if before is None:
        return now
    buckets = {name: number - before["buckets"].get(name, 0) for name, number in now["buckets"].items()}
    if any(number < 0 for number in buckets.values()):
        return now
    return {"count": now["count"] - before["count"], "sum": now["sum"] - before["sum"], "buckets": buckets}


def quantile(q: float, figures: HistogramFigures) -> float | None:
    """Return below what the share *q* (0 to 1) of the values is; None if there are none.

    It is estimated as Prometheus does it: values are taken to be spread evenly over their bucket, and for those beyond
    the last bound it is that bound.
    """
    buckets = figures["buckets"]
    counts = list(buckets.values())
    total = sum(counts)
    if not total:
        return None
    bounds = [float(name) for name in buckets if name != BEYOND]
    rank = q * total
    reached = list(accumulate(counts))
    place = next((place for place, number in enumerate(reached) if number >= rank and counts[place]), len(bounds))
    if place >= len(bounds):
        return bounds[-1]
    lower = bounds[place - 1] if place else 0.0
    return lower + (bounds[place] - lower) * (rank - (reached[place] - counts[place])) / counts[place]
