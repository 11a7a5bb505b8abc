"""The log in memory: the default, gone with the process.

Notifications by offset, and per topic the offsets it was used at, so that replay walks only what matches. What the
retention lets go of leaves both: from their old end, or from the old end of a topic that has a bound of its own.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile

from hub.errors import LogNotEmpty, LogUnavailable
from hub.log.gone import Gone, Lost
from hub.log.keys import Keys
from hub.log.limits import Limits
from hub.log.log import Announce, Bounds, Frames, Page
from hub.log.receipt import Receipt
from hub.notification import Draft, Notification, Position, made, new_epoch
from hub.topics import TopicTree, is_pattern

PAGE_COUNT = 1_000
PAGE_BYTES = 64 * 1024
PAGE_WALK = 10_000
HOLE_STEPS = 1_000


class MemoryLog:
    """Keeps the newest notifications, bounded by count, bytes and age; confirms at once.

    Args:
        count: how many to keep.
        size: how many bytes to keep, everything counted; the newest notification stays whatever its size.
        age: how many seconds to keep; None for ever.
        topics: by pattern, how many to keep of each topic that matches; what lost its place in all of its topics goes.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        *,
        count: int = 100_000,
        size: int = 48 * 1024 * 1024,
        age: float | None = None,
        topics: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.time,
        epoch: str | None = None,
    ) -> None:
        self.epoch = epoch or new_epoch()
        self._max_count, self._max_size, self._max_age = count, size, age
        self._limits = Limits(topics or {})
        self._clock = clock
        self._announce: Announce = lambda notifications: None
        self._keys = Keys(clock)
        self._closed = False
        self._newest = 0
        self._empty()

    def _empty(self) -> None:
        self._kept: dict[int, Notification] = {}
        self._oldest = 1  # no kept notification stands before it
        self._size = 0
        self._by_topic: dict[str, _Offsets] = {}
        self._topics = TopicTree()
        self._gone = Gone()
        self._newest_each: tuple[object, list[int]] = (None, [])  # the answer to the last question for the latest

    async def open(self) -> None:
        pass

    def announce_to(self, announce: Announce) -> None:
        self._announce = announce

    # ---- in ----

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._closed:
            raise LogUnavailable("it is closed")
        now = self._clock()
        receipts: list[Receipt] = []
        accepted: list[Notification] = []
        for draft in drafts:
            first = self._keys.get(draft.key, self.epoch) if draft.key is not None else None
            if first is not None:
                receipts.append(first.repeat())
                continue
            self._newest += 1
            position = made(Position, (self.epoch, self._newest))
            notification = Notification.accept(draft, position, now)
            self._keep(notification)
            accepted.append(notification)
            receipt = Receipt(draft.topics, position)
            receipts.append(receipt)
            if draft.key is not None:
                self._keys.put(draft.key, draft.topics, position.offset)
        self.trim()
        if accepted:
            self._announce(accepted)
        return receipts

    def _keep(self, notification: Notification) -> None:
        offset = notification.position.offset
        self._kept[offset] = notification
        self._size += notification.size
        for topic in notification.topics:
            offsets = self._by_topic.get(topic)
            if offsets is None:
                offsets = self._by_topic[topic] = _Offsets()
                self._topics.add(topic)
            offsets.push(offset)
            if self._limits and len(offsets) > self._limits.of(topic):
                self._lose(topic, offsets)

    # ---- retention ----

    def trim(self) -> None:
        kept = self._kept
        while len(kept) > self._max_count or (self._size > self._max_size and len(kept) > 1):
            self._let_go(self._first())
        if self._max_age is not None:
            limit = self._clock() - self._max_age
            while kept and self._first().at < limit:
                self._let_go(self._first())

    def _first(self) -> Notification:
        first = self._kept.get(self._oldest)
        for _ in range(HOLE_STEPS):
            if first is not None:
                return first
            self._oldest += 1
            first = self._kept.get(self._oldest)
        # A wide hole: they stand in order, and to look past what has gone costs no more than what was kept.
        self._oldest = next(iter(self._kept))
        return self._kept[self._oldest]

    def _let_go(self, notification: Notification) -> None:
        """Let go of the oldest there is, in all of its topics."""
        offset = notification.position.offset
        del self._kept[offset]
        self._oldest = offset + 1
        self._size -= notification.size
        for topic in notification.topics:
            offsets = self._by_topic.get(topic)
            if offsets is not None and offsets.oldest <= offset:
                self._pop(topic, offsets)
        self._gone.sweep(notification.topics, offset)

    def _lose(self, topic: str, offsets: _Offsets) -> None:
        """Let *topic* lose its oldest; the notification goes when that was its last place."""
        offset = offsets.oldest
        notification = self._kept[offset]
        self._pop(topic, offsets)
        self._gone.lose((topic,), offset)
        places = (self._by_topic.get(each) for each in notification.topics)
        # A topic loses its oldest first: the notification stands in it as long as nothing older does not.
        if not any(place is not None and place.oldest <= offset for place in places):
            del self._kept[offset]
            self._size -= notification.size

    def _pop(self, topic: str, offsets: _Offsets) -> None:
        offsets.pop()
        if not len(offsets):
            del self._by_topic[topic]
            self._topics.remove(topic)

    def bounds(self) -> Bounds:
        return Bounds(
            Position(self.epoch, self._first().position.offset if self._kept else self._newest),
            Position(self.epoch, self._newest),
            len(self._kept),
            self._size,
        )

    def trimmed(self, topics: Collection[str], after: int = 0) -> int:
        return self._gone.newest(topics, after)

    def lost(self) -> Lost:
        return self._gone.all()

    async def adopt(self, epoch: str, newest: int, lost: Lost, history: AsyncIterator[Sequence[Notification]]) -> None:
        if self._closed:
            raise LogUnavailable("it is closed")
        if self._newest:
            raise LogNotEmpty
        # Kept aside until all of it is there, under the same bounds: a larger history needs no more room than this log.
        heir = MemoryLog(count=self._max_count, size=self._max_size, age=self._max_age, clock=self._clock, epoch=epoch)
        heir._limits = self._limits
        heir._gone.restore(lost)
        async for part in history:
            for notification in part:
                heir._keep(notification)
            heir.trim()
        if self._newest:
            raise LogNotEmpty
        self._empty()
        self.epoch, self._newest = epoch, newest
        self._kept, self._oldest, self._size = heir._kept, heir._oldest, heir._size
        self._by_topic, self._topics, self._gone = heir._by_topic, heir._topics, heir._gone

    # ---- out ----

    def read(self, after: int, topics: Collection[str], *, upto: int, latest: bool = False) -> asyncio.Future[Page]:
        page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        page.set_result(self._page(after, topics, upto, latest))
        return page

    def frames(self, after: int, topics: Collection[str], *, upto: int, latest: bool = False) -> asyncio.Future[Frames]:
        frames: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        page = self._page(after, topics, upto, latest)
        found = page.notifications
        first = found[0].position.offset if found else 0
        frames.set_result(Frames(b"".join([each.chunk for each in found]), len(found), first, *page[1:]))
        return frames

    def _page(self, after: int, topics: Collection[str], upto: int, latest: bool) -> Page:
        chosen: list[Notification] = []
        size = 0
        offsets, reached = self._latest(after, topics, upto) if latest else self._matching(after, topics, upto)
        last = 0
        for offset in offsets:
            if offset == last:  # a notification with several topics stands in several lists
                continue
            last = offset
            notification = self._kept[offset]
            if chosen and (len(chosen) == PAGE_COUNT or size + len(notification.chunk) > PAGE_BYTES):
                reached = chosen[-1].position.offset
                break
            chosen.append(notification)
            size += len(notification.chunk)
        return Page(chosen, reached, self.trimmed(topics, after) > 0, self.bounds().oldest.offset)

    def _named(self, topics: Collection[str]) -> set[str]:
        """Return *topics*, with the existing ones that match instead of each pattern."""
        return {name for topic in topics for name in (self._topics.match(topic) if is_pattern(topic) else (topic,))}

    def _matching(self, after: int, topics: Collection[str], upto: int) -> tuple[Iterator[int], int]:
        """Return the offsets that match, in order, and how far they go, by whichever way walks less."""
        after = max(after, self._oldest - 1)
        if "**" in topics:
            return self._walk(after, upto, lambda offset: offset in self._kept)
        named = self._named(topics)
        lists = [self._by_topic[topic] for topic in named if topic in self._by_topic]
        if len(lists) * 8 > min(upto - after, len(self._kept)):
            # So many topics that merging their lists would cost more than walking all that is left, part by part.
            return self._walk(after, upto, lambda offset: self._stands(offset, named))
        offsets = lists[0].after(after) if len(lists) == 1 else heapq.merge(*(each.after(after) for each in lists))
        return takewhile(lambda offset: offset <= upto, offsets), upto

    def _walk(self, after: int, upto: int, wanted: Callable[[int], bool]) -> tuple[Iterator[int], int]:
        """Return the offsets that are *wanted*, of a part of what is left."""
        if upto - after > len(self._kept):  # mostly holes, which topics with bounds of their own leave
            return (offset for offset in self._kept if after < offset <= upto and wanted(offset)), upto
        upto = min(upto, after + PAGE_WALK)
        return filter(wanted, range(after + 1, upto + 1)), upto

    def _stands(self, offset: int, named: set[str]) -> bool:
        """Tell whether something stands at *offset* that still has its place in one of the topics *named*."""
        notification = self._kept.get(offset)
        if notification is None or named.isdisjoint(notification.topics):
            return False
        if len(notification.topics) == 1:
            return True
        places = (self._by_topic.get(each) for each in notification.topics if each in named)
        return any(place is not None and place.oldest <= offset for place in places)

    def _latest(self, after: int, topics: Collection[str], upto: int) -> tuple[Iterator[int], int]:
        """Return the newest offset of each topic, as of *upto*, in order."""
        question = (frozenset(topics), upto)
        if self._newest_each[0] != question:
            newest = {self._by_topic[name].newest(upto) for name in self._named(topics) if name in self._by_topic}
            self._newest_each = (question, sorted(newest))
        offsets = self._newest_each[1]
        # One that went meanwhile gave way to a newer one of its topic, which follows.
        return (each for each in offsets[bisect_right(offsets, after) :] if each in self._kept), upto

    async def aclose(self) -> None:
        self._closed = True


class _Offsets:
    """The offsets of one topic: grows at its new end and shrinks at its old one; any place in O(1)."""

    __slots__ = ("_head", "_items")

    def __init__(self) -> None:
        self._items: list[int] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._items) - self._head

    @property
    def oldest(self) -> int:
        return self._items[self._head]

    def push(self, offset: int) -> None:
        self._items.append(offset)

    def pop(self) -> None:
        self._head += 1
        if self._head * 2 >= len(self._items):  # what has gone costs no more than what is there
            del self._items[: self._head]
            self._head = 0

    def newest(self, upto: int) -> int:
        """Return the newest that is at most *upto*; 0 if there is none."""
        place = bisect_right(self._items, upto, lo=self._head)
        return self._items[place - 1] if place > self._head else 0

    def after(self, offset: int) -> Iterator[int]:
        """Return those greater than *offset*, in order."""
        return map(self._items.__getitem__, range(bisect_right(self._items, offset, lo=self._head), len(self._items)))
