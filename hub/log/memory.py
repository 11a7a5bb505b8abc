"""The log in memory: the default, gone with the process.

One list in order, where the place of an offset is a subtraction, and per topic the offsets it was used at, so that
replay walks only what matches. What the retention lets go of leaves both from their old end.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import takewhile
from typing import Generic, TypeVar, cast

from hub.errors import LogUnavailable
from hub.log.gone import Gone
from hub.log.keys import Keys
from hub.log.log import Announce, Bounds, Page
from hub.log.receipt import Receipt
from hub.notification import Draft, Notification, Position, new_epoch
from hub.topics import TopicTree, is_pattern

PAGE_COUNT = 1_000
PAGE_BYTES = 256 * 1024
PAGE_WALK = 10_000

T = TypeVar("T")


class MemoryLog:
    """Keeps the newest notifications, bounded by count, bytes and age; confirms at once.

    Args:
        count: how many to keep.
        size: how many bytes to keep, everything counted; the newest notification stays whatever its size.
        age: how many seconds to keep; None for ever.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        *,
        count: int = 100_000,
        size: int = 48 * 1024 * 1024,
        age: float | None = None,
        clock: Callable[[], float] = time.time,
        epoch: str | None = None,
    ) -> None:
        self.epoch = epoch or new_epoch()
        self._max_count, self._max_size, self._max_age = count, size, age
        self._clock = clock
        self._announce: Announce = lambda notifications: None
        self._kept = _Window[Notification]()
        self._size = 0
        self._newest = 0
        self._by_topic: dict[str, _Window[int]] = {}
        self._topics = TopicTree()
        self._gone = Gone()
        self._keys = Keys(clock)
        self._closed = False

    async def open(self) -> None:
        pass

    def announce_to(self, announce: Announce) -> None:
        self._announce = announce

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._closed:
            raise LogUnavailable("it is closed")
        now = self._clock()
        receipts: list[Receipt] = []
        accepted: list[Notification] = []
        for draft in drafts:
            first = self._keys.get(draft.key) if draft.key is not None else None
            if first is not None:
                receipts.append(first.repeat())
                continue
            self._newest += 1
            position = Position(self.epoch, self._newest)
            notification = Notification.accept(draft, position, now)
            self._keep(notification)
            accepted.append(notification)
            receipt = Receipt(draft.topics, position)
            receipts.append(receipt)
            if draft.key is not None:
                self._keys.put(draft.key, receipt)
        self.trim()
        if accepted:
            self._announce(accepted)
        return receipts

    def _keep(self, notification: Notification) -> None:
        self._kept.push(notification)
        self._size += notification.size
        offset = notification.position.offset
        for topic in notification.topics:
            offsets = self._by_topic.get(topic)
            if offsets is None:
                offsets = self._by_topic[topic] = _Window()
                self._topics.add(topic)
            offsets.push(offset)

    def trim(self) -> None:
        kept = self._kept
        while len(kept) > self._max_count or (self._size > self._max_size and len(kept) > 1):
            self._let_go()
        if self._max_age is not None:
            limit = self._clock() - self._max_age
            while len(kept) and kept.oldest().at < limit:
                self._let_go()

    def _let_go(self) -> None:
        notification = self._kept.pop()
        self._size -= notification.size
        for topic in notification.topics:
            offsets = self._by_topic[topic]
            offsets.pop()
            if not len(offsets):
                del self._by_topic[topic]
                self._topics.remove(topic)
        self._gone.note(notification.topics, notification.position.offset)

    def bounds(self) -> Bounds:
        return Bounds(
            Position(self.epoch, self._oldest if len(self._kept) else self._newest),
            Position(self.epoch, self._newest),
            len(self._kept),
            self._size,
        )

    @property
    def _oldest(self) -> int:
        return self._newest - len(self._kept) + 1

    def trimmed(self, topics: Collection[str]) -> int:
        return self._gone.newest(topics)

    def read(self, after: int, topics: Collection[str], *, upto: int) -> asyncio.Future[Page]:
        page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        page.set_result(self._page(after, topics, upto))
        return page

    def _page(self, after: int, topics: Collection[str], upto: int) -> Page:
        chosen: list[Notification] = []
        size = 0
        matching, reached = self._matching(after, topics, upto)
        for notification in matching:
            if chosen and (len(chosen) == PAGE_COUNT or size + len(notification.chunk) > PAGE_BYTES):
                reached = chosen[-1].position.offset
                break
            chosen.append(notification)
            size += len(notification.chunk)
        return Page(chosen, reached, self.trimmed(topics) > after, self.bounds().oldest.offset)

    def _matching(self, after: int, topics: Collection[str], upto: int) -> tuple[Iterator[Notification], int]:
        """Return what matches, in order, each once, and how far it goes, by whichever way walks less."""
        named = {name for topic in topics for name in (self._topics.match(topic) if is_pattern(topic) else (topic,))}
        lists = [self._by_topic[topic] for topic in named if topic in self._by_topic]
        start = max(after - self._oldest + 1, 0)
        if len(lists) * 8 > len(self._kept) - start:
            # So many topics that merging their lists would cost more than walking all that is left, part by part.
            upto = min(upto, self._oldest + start + PAGE_WALK)
            offsets: Iterator[int] = (
                n.position.offset for n in self._kept.since(start) if not named.isdisjoint(n.topics)
            )
        elif len(lists) == 1:
            offsets = lists[0].since(lists[0].place_after(after))
        else:
            offsets = heapq.merge(*(each.since(each.place_after(after)) for each in lists))
        return self._at(takewhile(lambda offset: offset <= upto, offsets)), upto

    def _at(self, offsets: Iterator[int]) -> Iterator[Notification]:
        last = 0
        for offset in offsets:
            if offset != last:  # a notification with several topics stands in several lists
                last = offset
                yield self._kept.at(offset - self._oldest)

    async def aclose(self) -> None:
        self._closed = True


class _Window(Generic[T]):
    """A list that grows at its new end and shrinks at its old one; any place in O(1)."""

    __slots__ = ("_head", "_items")

    def __init__(self) -> None:
        self._items: list[T | None] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._items) - self._head

    def push(self, item: T) -> None:
        self._items.append(item)

    def pop(self) -> T:
        item = self._items[self._head]
        self._items[self._head] = None
        self._head += 1
        if self._head > 32 and self._head * 2 > len(self._items):
            del self._items[: self._head]
            self._head = 0
        return cast(T, item)

    def oldest(self) -> T:
        return cast(T, self._items[self._head])

    def at(self, place: int) -> T:
        return cast(T, self._items[self._head + place])

    def since(self, place: int) -> Iterator[T]:
        return map(cast(Callable[[int], T], self._items.__getitem__), range(self._head + place, len(self._items)))

    def place_after(self, offset: int) -> int:
        """Return the place of the first item greater than *offset*, in a window of ascending offsets."""
        return bisect_right(cast(list[int], self._items), offset, lo=self._head) - self._head
