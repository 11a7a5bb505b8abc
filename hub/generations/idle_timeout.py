"""An idle timeout that can be restarted very often: a restart only reads the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleTimeout:
    """A timer that calls *lost* when it was not restarted for *seconds*. It needs a running loop and starts at once.

    A restart does not create a new timer of the loop: when the old one fires too early, it is set again for the rest.

    Attributes:
        seconds: the timeout in seconds, as of the last `restart`.
    """

    def __init__(self, seconds: float, lost: Callable[[], None]) -> None:
        self.seconds = seconds
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._fire)

    def restart(self, seconds: float) -> None:
        """Start the timeout again, with *seconds* from now."""
        self._started = self._loop.time()
        if seconds != self.seconds:
            self.seconds = seconds
            self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        left = self._started + self.seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._fire)
        else:
            self._lost()

    def stop(self) -> None:
        """Cancel the timeout; *lost* is not called any more."""
        self._timer.cancel()
