"""Durations in an HDR histogram, recorded at the price of a dictionary entry."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

LONGEST = 3600 * 1_000_000
"""An hour, in microseconds: what is longer counts as an hour."""


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
        self.count = 0
        self._histogram = HdrHistogram(1, LONGEST, 3)
        self._fresh: defaultdict[int, int] = defaultdict(int)
        self._longest = 0

    def record(self, nanoseconds: int) -> None:
        """Add one duration; below zero (two clocks that differ by their grain) is zero."""
        microseconds = nanoseconds // 1000 if nanoseconds > 0 else 0
        # The histogram's own classes are 2,048 to the octave. Rounding into them first lets durations of one
        # class be counted in a dictionary: the histogram itself needs microseconds for each value.
        surplus = microseconds.bit_length() - 11
        self._fresh[microseconds if surplus <= 0 else microseconds >> surplus << surplus] += 1
        if microseconds > self._longest:  # noqa: PLR1730  # max() is a call, on the hot path
            self._longest = microseconds

    def record_stall(self, nanoseconds: int, every: int) -> None:
        """Add a delay of something due *every* so many nanoseconds, and the delays it hid by being late."""
        while nanoseconds > 0:
            self.record(nanoseconds)
            nanoseconds -= every

    def spread(self) -> Spread | None:
        """Return the spread of everything recorded so far, or None if that is nothing. Costs milliseconds."""
        for value, times in self._fresh.items():
            self._histogram.record_value(min(value, LONGEST), times)
            self.count += times
        self._fresh.clear()
        if not self.count:
            return None
        values = self._histogram.get_percentile_to_value_dict([50, 90, 99])
        p50, p90, p99 = (min(values[rank], self._longest) / 1e6 for rank in (50, 90, 99))
        return Spread(p50, p90, p99, self._longest / 1e6)
