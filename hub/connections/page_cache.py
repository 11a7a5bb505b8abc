"""Pages of the history as they go out, each read once for all connections that ask for it at the same time.

When a hub comes back, thousands of clients resume from the same few positions. What the first of them asks of the log
is shared by the others: one read, the same bytes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from hub.access.visibility import EVERYTHING, Floors, Visibility, above
from hub.connections.stretches import Covered
from hub.encoding import SSE, Encoding
from hub.errors import LogUnavailable
from hub.log.log import Frames, Framing, Log, Page
from hub.notification import Notification
from hub.patterns import compiled

SHARED_BYTES = 8 * 1024 * 1024
SHARED_SECONDS = 5.0
_OVERHEAD = 900  # what a page costs beside its bytes and the names of the topics that were asked for


class PageQuery(NamedTuple):
    """What is read.

    Attributes:
        after: everything beyond this offset,
        topics: that matches these topics and patterns,
        encoding: as bytes of this encoding.
        visibility: which of it the reader may see.
        until: nothing beyond this offset; 0: as far as there is something when the first one asks.
        latest: only the newest of each topic, as of *until*.
        but: what is left out of that; None: nothing.
    """

    after: int
    topics: frozenset[str]
    encoding: Encoding = SSE()
    visibility: Visibility = EVERYTHING
    until: int = 0
    latest: bool = False
    but: Covered | None = None


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

    def read(self, query: PageQuery, *, upto: int) -> asyncio.Future[Frames]:
        """Return a page of what *query* asks for; *upto* is the newest offset by now, or what it says itself.

        The future is shared: a caller that loses interest takes its callback back, and never cancels the future. It
        raises `LogUnavailable` if the log can't be read.
        """
        if upto <= query.after:  # nothing is there yet: that takes no read, and will not stay true
            return self._nothing(upto)
        if query.visibility.since:  # so that readers share a page whose floors all lie behind it
            query = query._replace(visibility=query.visibility.beyond(self._log.epoch, query.after))
        if query in self._shared:
            return self._shared[query].answer
        answer = self._read(query, upto)
        size = _OVERHEAD + sys.getsizeof(query.topics) + sum(map(sys.getsizeof, query.topics))
        self._shared[query] = _Shared(answer, self._now(), size)
        self._size += size
        answer.add_done_callback(partial(self._came, query))
        return answer

    def _nothing(self, upto: int) -> asyncio.Future[Frames]:
        answer: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(Frames(b"", 0, 0, upto, hole=False, oldest=self._log.bounds().oldest.offset))
        except LogUnavailable as error:
            answer.set_exception(error)
        return answer

    def _came(self, query: PageQuery, answer: asyncio.Future[Frames]) -> None:
        """Count what came; what failed is asked for anew by the next."""
        shared = self._shared.get(query)
        failed = answer.cancelled() or answer.exception() is not None  # looked at, should all who waited be gone
        if shared is None or shared.answer is not answer:
            return
        if failed:
            del self._shared[query]
            self._size -= shared.size
            return
        size = len(answer.result().payload)
        shared.size += size
        self._size += size
        while self._size > SHARED_BYTES and self._drop_oldest():
            pass

    def _drop_oldest(self) -> bool:
        """Forget the page that was asked for first; tell whether it had come, or is still waited for."""
        query, shared = next(iter(self._shared.items()))
        if not shared.answer.done():
            return False
        del self._shared[query]
        self._size -= shared.size
        return True

    def trim(self) -> None:
        """Forget what has been here for a few seconds."""
        limit = self._now() - SHARED_SECONDS
        while self._shared and next(iter(self._shared.values())).at < limit and self._drop_oldest():
            pass

    def clear(self) -> None:
        """Forget all pages: the log has become another one."""
        self._shared.clear()
        self._size = 0

    def _read(self, query: PageQuery, upto: int) -> asyncio.Future[Frames]:
        after, topics, encoding, visibility, _, latest, but = query
        if encoding.takes_chunks and self._framing is not None and but is None:
            return self._framing.frames(after, topics, upto=upto, latest=latest, visibility=visibility)
        framed: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        reading = self._log.read(after, topics, upto=upto, latest=latest, visibility=visibility)
        frame = partial(_frame, query, self._log.epoch, framed)
        if reading.done():
            frame(reading)
        else:
            reading.add_done_callback(frame)
        return framed


def _frame(query: PageQuery, epoch: str, framed: asyncio.Future[Frames], reading: asyncio.Future[Page]) -> None:
    """Encode the page that was read, in *epoch*."""
    try:
        page = reading.result()
        found = _chosen(query, page.notifications)
        wanted, floors = compiled(query.topics).match, query.visibility.floors(epoch, query.after)
        if query.encoding.names_all_topics:
            topics = partial(_shown, wanted, floors, query.visibility)
        else:
            topics = partial(_first, wanted, floors)
        payload = b"".join([query.encoding.notification(each, topics(each)) for each in found])
    except asyncio.CancelledError:
        framed.set_exception(LogUnavailable("a page was given up"))
    except Exception as error:  # of the log or of the encoding: whoever waits for the page has to be told
        framed.set_exception(error)
    else:
        framed.set_result(Frames(payload, len(found), found[0].position.offset if found else 0, *page[1:]))


def _chosen(query: PageQuery, found: Sequence[Notification]) -> Sequence[Notification]:
    """Return those of *found* that *query* does not leave out."""
    if query.but is None:
        return found
    covers = query.but.judge()
    return [each for each in found if not covers(each)]


def _first(wanted: Callable[[str], bool], floors: Floors, notification: Notification) -> tuple[str, ...]:
    """Return the first topic of *notification* that is *wanted*, and through which it can be seen."""
    topics = _above(floors, notification)
    return (next((topic for topic in topics if wanted(topic)), topics[0]),)


def _shown(
    wanted: Callable[[str], bool], floors: Floors, visibility: Visibility, notification: Notification
) -> tuple[str, ...]:
    """Return all topics of *notification* that are *wanted*, and through which it is seen."""
    topics = filter(wanted, _above(floors, notification))
    return visibility.shown(topics, private=notification.private)


def _above(floors: Floors, notification: Notification) -> Sequence[str]:
    topics = notification.topics
    return (above(floors, topics, notification.position.offset) if floors else topics) or topics
