"""The producer: appends what one source yields to one generation, until it ends, fails, or takes too long.

In each case the generation ends first, so that viewers are told at once; then the source is cleaned up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from hub.errors import GenerationEnded, TooLarge
from hub.generations.generation import Generation
from hub.generations.idle_timeout import IdleTimeout
from hub.generations.providers.provider import Delta, ProviderError

logger = logging.getLogger("hub.generations")

AT_ONCE = 64  # pieces taken from a source that never waits, before the loop runs other tasks


class Producer:
    """Appends what a source yields to *stream*, until the source ends or `stop` is called.

    Args:
        stream: the generation; it ends when the source ends, in whatever way.
        first: maximum silence before the first piece of text, in seconds.
        gap: maximum silence after it, in seconds.
        whole: maximum time for the whole answer, in seconds.
    """

    def __init__(self, stream: Generation, *, first: float, gap: float, whole: float) -> None:
        self._stream = stream
        self._first, self._gap, self._whole = first, gap, whole
        self._last = Delta()  # the finish reason and usage received so far
        self._reading: asyncio.Task[Any] | None = None  # the task of `run`, while it may be cancelled

    async def run(self, make: Callable[[], AsyncIterator[str | Delta]]) -> None:
        """Append what the source returned by *make* yields; at the end close it, if it has `aclose`."""
        stream = self._stream
        too_long = f"the answer was not complete after {self._whole:g} s"
        whole = asyncio.get_running_loop().call_later(self._whole, stream.fail, "timeout", too_long)
        self._idle = IdleTimeout(self._first, self._on_idle)
        self._reading = asyncio.current_task()
        try:
            async with aclosing(_closable(make)) as deltas:
                try:
                    await self._read(deltas)
                finally:
                    self._reading = None
                    self._idle.stop()
                    whole.cancel()
        except asyncio.CancelledError:
            stream.fail("producer_lost", "who made the answer was stopped")  # no effect if the generation has ended
            raise

    def stop(self) -> None:
        """Cancel the reading, and let the source clean up.

        This does nothing before `run` has begun, at a second call, and while the source cleans up: a cancelled cleanup
        might leave the connection to the provider open, and the model generating.
        """
        if self._reading is not None:
            reading, self._reading = self._reading, None
            reading.cancel()

    async def _read(self, deltas: AsyncIterator[Delta]) -> None:
        stream = self._stream
        try:
            taken = 0
            async for delta in deltas:
                if not await self._take(delta):
                    return
                taken += 1
                if taken % AT_ONCE == 0:
                    await asyncio.sleep(0)
        except ProviderError as error:
            logger.warning("generation %s: %s", stream.id[:6], error)
            self._end(error.reason, error.message)
        except TimeoutError:
            logger.warning("generation %s: the provider gave up waiting", stream.id[:6])
            self._end("timeout", "the provider did not answer in time")
        except Exception:
            logger.exception("the provider of generation %s failed", stream.id[:6])
            self._end("provider_failed", "the provider failed")
        else:
            self._end()

    async def _take(self, delta: Delta) -> bool:
        """Append *delta*; return whether to go on reading."""
        stream = self._stream
        if delta.text:
            try:
                stream.append(delta.text)
            except TooLarge as error:
                self._end("too_large", str(error))
                return False
            except GenerationEnded:
                return False
            if stream.full:
                self._idle.stop()  # the time that the log takes is not silence of the source
                await stream.room()
                self._idle = IdleTimeout(self._gap, self._on_idle)
        self._idle.restart(self._gap if stream.size else self._first)
        if delta.finish_reason or delta.usage:
            self._last = Delta("", delta.finish_reason or self._last.finish_reason, delta.usage or self._last.usage)
        return True

    def _on_idle(self) -> None:
        if self._last.finish_reason:  # the answer is complete; only the connection stays open
            self._stream.finish(self._last.finish_reason, self._last.usage)
        else:
            what = "nothing more" if self._stream.size else "nothing"
            self._stream.fail("timeout", f"the provider said {what} for {self._idle.seconds:g} s")

    def _end(self, reason: str = "", message: str = "") -> None:
        """End the generation: as failed if there is a *reason*, else as done."""
        if reason:
            self._stream.fail(reason, message)
        else:
            self._stream.finish(self._last.finish_reason or "stop", self._last.usage)


async def _closable(make: Callable[[], AsyncIterator[str | Delta]]) -> AsyncGenerator[Delta, None]:
    """Yield what the source returned by *make* yields, as `Delta`s; closing this generator closes the source."""
    source = make()
    try:
        async for piece in source:
            yield piece if isinstance(piece, Delta) else Delta(piece)
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception:
                logger.exception("a provider failed to clean up")  # the answer itself is not affected
