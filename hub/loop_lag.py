"""A probe of the event loop: how late it runs what is due."""

from __future__ import annotations

import asyncio

from hub.histogram import Histogram

PROBE_SECONDS = 1.0


class LoopLag:
    """Measures once a second by how much the running loop is late.

    Args:
        lag: is given the seconds of each delay.
    """

    def __init__(self, lag: Histogram) -> None:
        self._lag = lag
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Probe from now on, on the running loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + PROBE_SECONDS
        self._timer = loop.call_at(due, self._probe, loop, due)

    def _probe(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._lag.observe(max(loop.time() - due, 0.0))
        self.start()

    def stop(self) -> None:
        """Probe no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
