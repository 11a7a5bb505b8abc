"""A timer that starts anew whenever something is heard, for the price of a look at the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleTimeout:
    """Calls *lost* once nothing was heard for *seconds*. Made on the running loop; it begins at once.

    A timer of the loop would have to be moved each time; here one looks now and then how long ago it was.

    Attributes:
        seconds: for how long nothing may be heard, as of the last `heard`.
    """

    def __init__(self, seconds: float, lost: Callable[[], None]) -> None:
        self.seconds = seconds
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)

    def heard(self, seconds: float) -> None:
        """Hear something, and be patient for *seconds* from now on."""
        self._heard = self._loop.time()
        if seconds != self.seconds:
            self.seconds = seconds
            self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self._heard + self.seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._lost()

    def stop(self) -> None:
        """Be patient for ever."""
        self._timer.cancel()
