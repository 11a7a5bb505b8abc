"""Durations in an HDR histogram, each recorded in a dictionary first, which is cheap; and the lag of the loop."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

LONGEST = 2 * 3600 * 1_000_000
"""Two hours, in microseconds, longer than any run: a longer duration is recorded as this."""
LOOK_NS = 10_000_000
"""Nanoseconds from one measurement of the loop's lag to the next."""


class Spread(NamedTuple):
    """Percentiles and maximum of durations, in seconds."""

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
        """Record one duration; a negative one (clocks differ by their resolution) counts as zero."""
        microseconds = nanoseconds // 1000 if nanoseconds > 0 else 0
        # The histogram has 2,048 classes per octave. Durations are rounded to their class here and counted in a
        # dictionary, because recording a value in the histogram itself takes microseconds.
        surplus = microseconds.bit_length() - 11
        self._fresh[microseconds if surplus <= 0 else microseconds >> surplus << surplus] += 1

    def record_stall(self, nanoseconds: int, every: int) -> None:
        """Record the delay of something due *every* so many nanoseconds, and the shorter delays that it hid."""
        self._histogram.record_corrected_value(min(max(nanoseconds // 1000, 0), LONGEST), every // 1000)

    def spread(self) -> Spread | None:
        """Return the spread of everything recorded so far; None if nothing was recorded. Takes milliseconds."""
        for value, times in self._fresh.items():
            self._histogram.record_value(min(value, LONGEST), times)
        self._fresh.clear()
        if not self._histogram.total_count:
            return None
        ranks = self._histogram.get_percentile_to_value_dict([50, 90, 99, 100])
        return Spread(*(microseconds / 1e6 for microseconds in ranks.values()))


async def watch_lag(lags: Latencies) -> None:
    """Record in *lags* how late the running loop is, a hundred times a second, until cancelled.

    Shorter delays of the loop are not seen. A long stall is counted once for each measurement that it delayed.
    """
    while True:
        due = time.monotonic_ns() + LOOK_NS
        await asyncio.sleep(LOOK_NS / 1e9)
        lags.record_stall(time.monotonic_ns() - due, LOOK_NS)
