"""PageCache of the history as they go out, each read once for all who ask for it at the same time.

When a hub comes back, thousands of clients resume from the same few positions. What the first of them asks of the log
is shared by the others: one read, the same bytes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from hub.errors import LogUnavailable
from hub.fanout import Shape
from hub.log.log import Frames, Framing, Log, Page
from hub.patterns import compiled

SHARED_BYTES = 8 * 1024 * 1024
SHARED_SECONDS = 5.0
_OVERHEAD = 900  # what a page costs beside its bytes and the names of the topics that were asked for


class PageQuery(NamedTuple):
    """What is read: everything after an offset, for topics, in a shape.

    Attributes:
        until: nothing beyond this offset; 0: as far as there is something when the first one asks.
        latest: only the newest of each topic, as of *until*.
    """

    after: int
    topics: frozenset[str]
    shape: Shape
    until: int = 0
    latest: bool = False


class _Shared:
    """An answer, when it was asked for, and what keeping it costs, in bytes: its payload counts once it has come."""

    __slots__ = ("answer", "at", "size")

    def __init__(self, answer: asyncio.Future[Frames], at: float, size: int) -> None:
        self.answer, self.at, self.size = answer, at, size


class PageCache:
    """Reads the log for connections.

    What was read stays here for a few seconds and a few megabytes. It is never wrong: what the log holds between two
    offsets does not change, and what it has let go of since may still be sent.

    Args:
        log: where the pages come from.
        now: seconds of a monotonic clock.
    """

    def __init__(self, log: Log, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._framing = log if isinstance(log, Framing) else None
        self._now = now
        self._shared: OrderedDict[PageQuery, _Shared] = OrderedDict()
        self._size = 0

    def read(self, question: PageQuery, *, upto: int) -> asyncio.Future[Frames]:
        """Return a page of what *question* asks for; *upto* is the newest offset by now, or what it says itself.

        The future is shared: who loses interest takes the callback back, and never cancels it. It raises
        `LogUnavailable` if the log can't be read.
        """
        if upto <= question.after:  # nothing is there yet: that takes no read, and will not stay true
            return self._nothing(upto)
        if question in self._shared:
            return self._shared[question].answer
        answer = self._read(question, upto)
        size = _OVERHEAD + sys.getsizeof(question.topics) + sum(map(sys.getsizeof, question.topics))
        self._shared[question] = _Shared(answer, self._now(), size)
        self._size += size
        answer.add_done_callback(partial(self._came, question))
        return answer

    def _nothing(self, upto: int) -> asyncio.Future[Frames]:
        answer: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(Frames(b"", 0, 0, upto, hole=False, oldest=self._log.bounds().oldest.offset))
        except LogUnavailable as error:
            answer.set_exception(error)
        return answer

    def _came(self, question: PageQuery, answer: asyncio.Future[Frames]) -> None:
        """Count what came; what failed is asked for anew by the next."""
        shared = self._shared.get(question)
        if shared is None or shared.answer is not answer:
            return
        if answer.cancelled() or answer.exception() is not None:
            del self._shared[question]
            self._size -= shared.size
            return
        size = len(answer.result().payload)
        shared.size += size
        self._size += size
        while self._size > SHARED_BYTES and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        """Forget the page that was asked for first; tell whether it had come, or is still waited for."""
        question, shared = next(iter(self._shared.items()))
        if not shared.answer.done():
            return False
        del self._shared[question]
        self._size -= shared.size
        return True

    def trim(self) -> None:
        """Forget what has been here for a few seconds."""
        limit = self._now() - SHARED_SECONDS
        while self._shared and next(iter(self._shared.values())).at < limit and self._drop_oldest():
            pass

    def _read(self, question: PageQuery, upto: int) -> asyncio.Future[Frames]:
        after, topics, shape, _, latest = question
        if shape == Shape() and self._framing is not None:
            return self._framing.frames(after, topics, upto=upto, latest=latest)
        framed: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        reading = self._log.read(after, topics, upto=upto, latest=latest)
        if reading.done():
            _frame(question, framed, reading)
        else:
            reading.add_done_callback(partial(_frame, question, framed))
        return framed


def _frame(question: PageQuery, framed: asyncio.Future[Frames], reading: asyncio.Future[Page]) -> None:
    """Give the page that was read the shape that was asked for."""
    error = reading.exception()
    if error is not None:
        framed.set_exception(error)
        return
    page = reading.result()
    found = page.notifications
    wanted = compiled(question.topics).match
    payload = b"".join([question.shape.frame(each, next(filter(wanted, each.topics))) for each in found])
    framed.set_result(Frames(payload, len(found), found[0].position.offset if found else 0, *page[1:]))
