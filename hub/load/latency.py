"""Durations in an HDR histogram, recorded at the price of a dictionary entry; and how late the loop runs."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

LONGEST = 2 * 3600 * 1_000_000
"""Two hours, in microseconds, which no run lasts: what is longer counts as that."""
LOOK_NS = 10_000_000
"""Nanoseconds from one look at the loop's lag to the next."""


class Spread(NamedTuple):
    """How durations are spread, in seconds."""

    p50: float
    p90: float
    p99: float
    max: float

    def as_ms(self) -> dict[str, float]:
        """Return the values in milliseconds by name."""
        return {name: round(value * 1000, 3) for name, value in self._asdict().items()}


class Latencies:
    """Any number of durations with three significant digits, in constant memory."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, LONGEST, 3)
        self._fresh: defaultdict[int, int] = defaultdict(int)

    def record(self, nanoseconds: int) -> None:
        """Add one duration; below zero (two clocks that differ by their grain) is zero."""
        microseconds = nanoseconds // 1000 if nanoseconds > 0 else 0
        # The histogram's own classes are 2,048 to the octave. Rounding into them first lets durations of one
        # class be counted in a dictionary: the histogram itself needs microseconds for each value.
        surplus = microseconds.bit_length() - 11
        self._fresh[microseconds if surplus <= 0 else microseconds >> surplus << surplus] += 1

    def record_stall(self, nanoseconds: int, every: int) -> None:
        """Add the delay of something due *every* so many nanoseconds, and the delays that it hid by being late."""
        self._histogram.record_corrected_value(min(max(nanoseconds // 1000, 0), LONGEST), every // 1000)

    def spread(self) -> Spread | None:
        """Return the spread of everything recorded so far, or None if that is nothing. Costs milliseconds."""
        for value, times in self._fresh.items():
            self._histogram.record_value(min(value, LONGEST), times)
        self._fresh.clear()
        if not self._histogram.total_count:
            return None
        ranks = self._histogram.get_percentile_to_value_dict([50, 90, 99, 100])
        return Spread(*(microseconds / 1e6 for microseconds in ranks.values()))


async def watch_lag(lags: Latencies) -> None:
    """Note in *lags*, a hundred times a second until cancelled, how late this loop comes to it.

    What the loop does is measured no finer than that. A long stall counts for each look that it hid.
    """
    while True:
        due = time.monotonic_ns() + LOOK_NS
        await asyncio.sleep(LOOK_NS / 1e9)
        lags.record_stall(time.monotonic_ns() - due, LOOK_NS)
