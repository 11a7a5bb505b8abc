"""How late the driver's own loop runs: what the measurement cannot see below."""

from __future__ import annotations

import asyncio
import time

from hub.demo.load.latency import Latencies, Spread

EVERY = 10_000_000
"""Nanoseconds from one look to the next."""
WORTH_SAYING = 0.005
"""Seconds: a lag below this is the grain of timers and of one read, whatever the latency is."""


class LagProbe:
    """Wakes up a hundred times a second and notes how much too late; a long stall counts for each look it hid."""

    def __init__(self) -> None:
        self._lags = Latencies()

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            due = time.monotonic_ns() + EVERY
            await asyncio.sleep(EVERY / 1e9)
            late = time.monotonic_ns() - due
            self._lags.record(late)
            self._lags.record_stall(late - EVERY, EVERY)

    def spread(self) -> Spread | None:
        """Return the lags seen so far, in seconds."""
        return self._lags.spread()


def is_bottleneck(lag: Spread | None, latency: Spread | None) -> bool:
    """Tell whether the driver's lag is so large against the latency that it, not the hub, was measured."""
    return lag is not None and latency is not None and lag.p99 >= max(WORTH_SAYING, latency.p99 / 2)
