"""The figures of the hub, taken once a second for all who look at them, and never while nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from hub.eventstream import MessageEvent, compact_json

logger = logging.getLogger("hub.dashboard")

SECONDS = 1.0
KEPT = 300
"""Samples that whoever begins to look is shown at first."""

Look = Callable[[], Awaitable[dict[str, Any]]]


class Feed:
    """The samples, for any number of viewers: each is taken, and encoded, once.

    Args:
        look: returns a sample.
        begin: called when the first viewer begins to look.
        end: called when the last one has left.
        seconds: the time between two samples.
    """

    def __init__(
        self, look: Look, *, begin: Callable[[], object], end: Callable[[], object], seconds: float = SECONDS
    ) -> None:
        self._look, self._begin, self._end, self._seconds = look, begin, end, seconds
        self._viewers = 0
        self._kept: deque[str] = deque(maxlen=KEPT)
        self._next: asyncio.Future[str] | None = None
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def viewers(self) -> int:
        """How many look."""
        return self._viewers

    @property
    def latest(self) -> str | None:
        """The last sample, as JSON; None: nobody looks, or there is none that is new."""
        return self._kept[-1] if self._kept and not self._failing else None

    async def watch(self) -> AsyncGenerator[MessageEvent, None]:
        """Yield `samples`, a list of those that are known already, then each new one as a `sample`.

        A viewer that is too slow for a sample a second gets fewer.
        """
        self._viewers += 1
        try:
            if self._task is None:
                self._begin()
                self._next = asyncio.get_running_loop().create_future()
                self._task = asyncio.create_task(self._sample())
            yield MessageEvent(f"[{','.join(self._kept)}]", type="samples")
            while self._next is not None:
                yield MessageEvent(await asyncio.shield(self._next), type="sample")
        finally:
            self._viewers -= 1
            if not self._viewers:
                await self.aclose()

    async def aclose(self) -> None:
        """Take no more samples."""
        task, self._task, self._next = self._task, None, None
        if task is not None:
            self._kept.clear()
            self._end()
            task.cancel()
            await asyncio.wait([task])

    async def _sample(self) -> None:
        while True:
            began = time.monotonic()
            try:
                sample = compact_json(await self._look())
                self._failing = False
            except Exception:
                if not self._failing:  # once, not every second
                    logger.exception("the figures of the dashboard can't be taken")
                self._failing = True
            else:
                self._kept.append(sample)
                news, self._next = self._next, asyncio.get_running_loop().create_future()
                if news is not None:
                    news.set_result(sample)
            await asyncio.sleep(max(self._seconds - (time.monotonic() - began), self._seconds / 10))
