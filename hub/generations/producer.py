"""One producer at work: what it says goes into one generation, until it ends, fails, or takes too long.

Whatever becomes of it, viewers hear of it at once: the cleanup of the producer comes after that.
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

AT_ONCE = 64  # pieces that are taken from a producer that never waits, before everybody else has a turn


class Producer:
    """Reads a source into *stream*, until that ends or `stop` is called.

    Args:
        stream: ends with the source, however that ends.
        first: seconds of silence before the first piece of text.
        gap: seconds of silence after it.
        whole: seconds for everything.
    """

    def __init__(self, stream: Generation, *, first: float, gap: float, whole: float) -> None:
        self._stream = stream
        self._first, self._gap, self._whole = first, gap, whole
        self._last = Delta()  # what was said of the end so far
        self._reading: asyncio.Task[Any] | None = None  # the task of `run`, as long as it may be cancelled

    async def run(self, make: Callable[[], AsyncIterator[str | Delta]]) -> None:
        """Append what the source that *make* makes yields; close it in the end, if it can be closed."""
        stream = self._stream
        too_long = f"the answer was not complete after {self._whole:g} s"
        whole = asyncio.get_running_loop().call_later(self._whole, stream.fail, "timeout", too_long)
        self._patience = IdleTimeout(self._first, self._lose_patience)
        self._reading = asyncio.current_task()
        try:
            async with aclosing(_closable(make)) as deltas:
                try:
                    await self._read(deltas)
                finally:
                    self._reading = None
                    self._patience.stop()
                    whole.cancel()
        except asyncio.CancelledError:
            stream.fail("producer_lost", "who made the answer was stopped")  # unless that was by an ending
            raise

    def stop(self) -> None:
        """Stop reading, and let the source clean up.

        Nothing happens before `run` has begun, nor a second time, nor once it cleans up: whoever is cancelled while
        closing a connection may leave it open, and at its other end a model that goes on.
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
        """Append *delta*; tell whether more is welcome."""
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
                self._patience.stop()  # whatever the log takes, it is not the producer who is silent
                await stream.room()
                self._patience = IdleTimeout(self._gap, self._lose_patience)
        self._patience.heard(self._gap if stream.size else self._first)
        if delta.finish_reason or delta.usage:
            self._last = Delta("", delta.finish_reason or self._last.finish_reason, delta.usage or self._last.usage)
        return True

    def _lose_patience(self) -> None:
        if self._last.finish_reason:  # it said all it had to say; only the line stays open
            self._stream.finish(self._last.finish_reason, self._last.usage)
        else:
            what = "nothing more" if self._stream.size else "nothing"
            self._stream.fail("timeout", f"the provider said {what} for {self._patience.seconds:g} s")

    def _end(self, reason: str = "", message: str = "") -> None:
        """End the generation: badly, for *reason*, or well."""
        if reason:
            self._stream.fail(reason, message)
        else:
            self._stream.finish(self._last.finish_reason or "stop", self._last.usage)


async def _closable(make: Callable[[], AsyncIterator[str | Delta]]) -> AsyncGenerator[Delta, None]:
    """Yield what the source that *make* makes does, as `Delta`s; closing this closes it."""
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
                logger.exception("a provider failed to clean up")  # what it has said is said
