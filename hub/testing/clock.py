"""A clock that a test can put forward."""

from __future__ import annotations

import time


class Clock:
    """The time of a hub in seconds since 1970: that of the machine, and as much later as the test says."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Put the clock forward.

        Raises:
            ValueError: *seconds* is negative: a hub's time never goes back.
        """
        if seconds < 0:
            raise ValueError("a clock can only be put forward")
        self._ahead += seconds
