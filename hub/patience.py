"""A timeout that starts anew whenever something is heard, for the price of a look at the clock."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Patience:
    """Ends its block with `TimeoutError` when nothing was heard for *seconds*. Use as an asynchronous context, once.

    `asyncio.timeout` would have to be moved each time; here a timer looks now and then how long ago it was.

    Attributes:
        seconds: for how long nothing may be heard, as of the last `heard`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(self.seconds, self._look)
        return self

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
            self._timeout.reschedule(self._loop.time())

    @property
    def expired(self) -> bool:
        """Whether it was this that ended the block."""
        return self._timeout.expired()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)
