"""The log in memory: the default. It ends with its process.

It holds notifications by offset, and per topic the offsets at which it was used, so that a replay looks only at what
matches. Retention trims both at their old end, or at the old end of a topic that has a bound of its own.

A page looks at so much and no more. Where a pattern names few topics, their offsets are merged; where it names many, or
it takes long to find them, the notifications themselves are walked over and each topic is judged.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from hub.access.visibility import EVERYTHING, NO_FLOORS, Floors, Visibility, above
from hub.errors import LogNotEmpty, LogUnavailable
from hub.log.index import Names, Offsets, Topic
from hub.log.keys import Keys
from hub.log.log import Announce, Bounds, Frames, Located, Page, Renewed, ignore_renewal, located
from hub.log.receipt import Receipt
from hub.log.search import Search, Searches, cost, judging, topic_size
from hub.log.topic_limits import TopicLimits
from hub.log.trimmed import Trimmed, TrimmedState
from hub.notification import MAX_OFFSET, Draft, Notification, Position, made, new_epoch
from hub.patterns import Patterns

PAGE_COUNT = 1_000
PAGE_BYTES = 64 * 1024
PAGE_WALK = 5_000  # notifications; or steps to judge topics that were not seen before, if those are more
LOOK_UP_STEPS = 2
FEW = 1_000  # notifications that are walked over sooner than looking for the topics of a pattern
HOLE_STEPS = 1_000
MERGE_STEPS = 4  # that it takes to get one offset out of several lists in order
LOOK_BACK = 20_000  # steps, to find the newest that a reader may see of each topic

_Sees = Callable[..., bool]
_Stands = Callable[..., bool]
_Part = tuple[list[Notification], int]
"""Notifications in order, and the offset up to which they are all that matches."""


class MemoryLog:
    """Keeps the newest notifications, bounded by count, bytes and age; confirms at once.

    Args:
        count: how many to keep.
        size: how many bytes to keep, everything counted; the newest notification stays whatever its size.
        age: how many seconds to keep; None for ever.
        topics: by pattern, how many to keep of each topic that matches; a notification is trimmed when none of its
            topics keeps it.
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
        self._limits = TopicLimits(topics or {})
        self._clock = clock
        self._announce: Announce = lambda notifications: None
        self._renewed: Renewed = ignore_renewal
        self._keys = Keys(clock)
        self._closed = False
        self._newest = 0
        self._empty()

    def _empty(self) -> None:
        self._kept: dict[int, Notification] = {}
        self._order = Offsets()  # of all that is kept, with holes where something went before its time
        self._size = 0
        self._by_topic: dict[str, Topic] = {}
        self._names = Names()
        self._trimmed = Trimmed()
        self._searches = Searches()

    async def open(self) -> None:
        pass

    def announce_to(self, announce: Announce, renewed: Renewed = ignore_renewal) -> None:
        self._announce, self._renewed = announce, renewed

    # ---- in ----

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._closed:
            raise LogUnavailable("it is closed")
        if self._newest + len(drafts) > MAX_OFFSET:
            raise LogUnavailable("it has no position left to give")
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
            notification = Notification.accept(draft, position, now, self._shared(draft.topics))
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

    def _shared(self, topics: tuple[str, ...]) -> tuple[str, ...]:
        """Return *topics*, made of the strings that the index has already: each client brings some of its own."""
        by_topic = self._by_topic
        if len(topics) == 1:
            known = by_topic.get(topics[0])
            return topics if known is None else known.alone
        return tuple([by_topic[topic].alone[0] if topic in by_topic else topic for topic in topics])

    def _keep(self, notification: Notification) -> None:
        offset = notification.position.offset
        self._kept[offset] = notification
        self._order.push(offset)
        self._size += notification.size
        for topic in notification.topics:
            offsets = self._by_topic.get(topic)
            if offsets is None:
                offsets = self._begin(topic, notification.topics)
            offsets.push(offset)
            if len(offsets) > offsets.limit:
                self._trim_topic(topic, offsets)

    def _begin(self, topic: str, topics: tuple[str, ...]) -> Topic:
        alone: tuple[str] = topics if len(topics) == 1 else (topic,)
        offsets = self._by_topic[topic] = Topic(alone, self._limits.of(topic))
        self._names.add(topic)
        self._size += topic_size(topic)
        return offsets

    # ---- retention ----

    def trim(self) -> None:
        kept = self._kept
        while len(kept) > self._max_count or (self._size > self._max_size and len(kept) > 1):
            self._trim_oldest(self._first())
        if self._max_age is not None:
            limit = self._clock() - self._max_age
            while kept and self._first().at < limit:
                self._trim_oldest(self._first())

    def _first(self) -> Notification:
        """Return the oldest that is kept; there must be one."""
        first = self._kept.get(self._order.oldest)
        if first is None:
            self._close_holes()
            first = self._kept[self._order.oldest]
        return first

    def _close_holes(self) -> None:
        """Remove from the order what was trimmed: at its old end, or everywhere if there is much of it."""
        order, kept = self._order, self._kept
        for _ in range(HOLE_STEPS):
            order.pop()
            if order.oldest in kept:
                return
        self._order = Offsets(kept)

    def _trim_oldest(self, notification: Notification) -> None:
        """Trim *notification*, the oldest there is, in all of its topics."""
        offset = notification.position.offset
        del self._kept[offset]
        self._order.pop()
        self._size -= notification.size
        for topic in notification.topics:
            offsets = self._by_topic.get(topic)
            if offsets is not None and offsets.oldest <= offset:
                self._pop(topic, offsets)
        self._trimmed.trim_oldest(notification.topics, offset)

    def _trim_topic(self, topic: str, offsets: Topic) -> None:
        """Trim the oldest of *topic*; the notification is removed when none of its topics keeps it."""
        offset = offsets.oldest
        notification = self._kept[offset]
        self._pop(topic, offsets)
        self._trimmed.trim_topic((topic,), offset)
        places = (self._by_topic.get(each) for each in notification.topics)
        # A topic trims its oldest first: it keeps the notification as long as its oldest offset is not greater.
        if not any(place is not None and place.oldest <= offset for place in places):
            del self._kept[offset]
            self._size -= notification.size
            if len(self._order) > 2 * len(self._kept) + HOLE_STEPS:
                self._order = Offsets(self._kept)

    def _pop(self, topic: str, offsets: Topic) -> None:
        offsets.pop()
        if not len(offsets):
            del self._by_topic[topic]
            self._names.remove(topic)
            self._size -= topic_size(topic)

    def bounds(self) -> Bounds:
        return Bounds(
            Position(self.epoch, self._first().position.offset if self._kept else self._newest),
            Position(self.epoch, self._newest),
            len(self._kept),
            self._size,
        )

    def given(self) -> asyncio.Future[Position]:
        answer: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_exception(LogUnavailable("it is closed"))
        else:
            answer.set_result(Position(self.epoch, self._newest))
        return answer

    def locate(self, position: Position) -> asyncio.Future[Located]:
        answer: asyncio.Future[Located] = asyncio.get_running_loop().create_future()
        answer.set_result(located(position, Position(self.epoch, self._newest), {}))
        return answer

    def trimmed(self, topics: Collection[str], after: int = 0, visibility: Visibility = EVERYTHING) -> int:
        return self._trimmed.newest(topics, after, visibility.floors(self.epoch, after))

    def trimmed_state(self) -> TrimmedState:
        return self._trimmed.state()

    async def adopt(
        self, epoch: str, newest: int, trimmed: TrimmedState, history: AsyncIterator[Sequence[Notification]]
    ) -> None:
        if self._closed:
            raise LogUnavailable("it is closed")
        if self._newest:
            raise LogNotEmpty
        # Kept aside until all of it is there, under the same bounds: a larger history needs no more room than this log.
        heir = MemoryLog(count=self._max_count, size=self._max_size, age=self._max_age, clock=self._clock, epoch=epoch)
        heir._limits = self._limits
        heir._trimmed.restore(trimmed)
        async for part in history:
            for notification in part:
                heir._keep(notification._replace(topics=heir._shared(notification.topics)))
            heir.trim()
        if self._newest:
            raise LogNotEmpty
        self._empty()
        self.epoch, self._newest = epoch, newest
        self._kept, self._order, self._size = heir._kept, heir._order, heir._size
        self._by_topic, self._names, self._trimmed = heir._by_topic, heir._names, heir._trimmed
        self._renewed(self.bounds().newest)

    # ---- out ----

    def read(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Page]:
        page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        try:
            page.set_result(self._page(after, topics, upto, latest, visibility))
        except LogUnavailable as error:
            page.set_exception(error)
        return page

    def frames(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Frames]:
        frames: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        try:
            page = self._page(after, topics, upto, latest, visibility)
        except LogUnavailable as error:
            frames.set_exception(error)
            return frames
        found = page.notifications
        first = found[0].position.offset if found else 0
        frames.set_result(Frames(b"".join([each.chunk for each in found]), len(found), first, *page[1:]))
        return frames

    def _page(self, after: int, topics: Collection[str], upto: int, latest: bool, visibility: Visibility) -> Page:
        floors = visibility.floors(self.epoch, after) if visibility.since else NO_FLOORS
        sees = None if visibility.private is None else visibility.sees
        own = (upto, visibility) if latest and sees is not None else ()
        search = self._searches.of(topics, *own)
        look_back = _LookBack(search, upto, self._kept, sees, floors) if latest and sees is not None else None
        begin = search.begin(after, floors) if floors else after
        if latest:
            chosen, reached = self._latest(begin, search, upto, look_back, floors)
        else:
            chosen, reached = self._matching(begin, search, upto, floors)
        if reached >= upto:
            self._searches.end(topics, *own)
        if sees is not None:  # of a page, so that what can't be seen is bounded work as well
            chosen = visible(chosen, sees, floors)
        return Page(chosen, reached, self._trimmed.hole(topics, after, floors), self.bounds().oldest.offset)

    def _matching(self, after: int, search: Search, upto: int, floors: Floors) -> _Part:
        """Return what matches above *floors*, or the first part of it, by whichever way looks at less."""
        left = self._order.count(after, upto)
        if search.known <= after and not floors and self._all_match(search.patterns):
            return self._walk(after, search, upto, everything=True)
        if search.known <= after and left > FEW:
            search.find(self._names.between, self._newest)
        if search.known <= after or search.names is None:
            return self._walk(after, search, upto, floors=floors)
        # What was found may be incomplete beyond that; then the next page looks again.
        upto = min(upto, search.known)
        names = [name for name in search.names if name in self._by_topic]
        lists = [self._by_topic[name] for name in names]
        if len(lists) == 1:
            return self._take(lists[0].after(max(after, floors.get(names[0], 0)) if floors else after), upto)
        begins = [max(after, floors.get(name, 0)) for name in names] if floors else [after] * len(names)
        found = sum(map(Topic.count, lists, begins, repeat(upto)))
        # Each page begins with all lists, however little it takes of them.
        if MERGE_STEPS * (found + len(lists) * (found // PAGE_COUNT + 1)) > left:
            return self._walk(after, search, upto, floors=floors)
        return self._take(heapq.merge(*map(Topic.after, lists, begins)), upto)

    def _all_match(self, patterns: Patterns) -> bool:
        """Tell whether everything that is kept matches, as far as that is known without a search."""
        but = patterns.everything_but
        return but is not None and not any(map(self._has_topics_of, but))

    def _has_topics_of(self, first: str) -> bool:
        """Tell whether there is a topic that begins with the segment *first*."""
        return first in self._by_topic or next(self._names.between(f"{first}/", f"{first}0"), None) is not None

    def _latest(self, after: int, search: Search, upto: int, look_back: _LookBack | None, floors: Floors) -> _Part:
        """Return what is the newest of one of its topics, as of *upto*, in order; or the first part of it.

        A topic has only what is above its floor. Where a reader may not see everything private, *look_back* finds the
        newest that it may.
        """
        if search.known < upto and self._order.count(after, upto) > FEW:
            search.find(self._names.between, self._newest)
        if search.known < upto or search.names is None:
            return self._walk(after, search, upto, latest=True, look_back=look_back, floors=floors)
        # One that went meanwhile gave way to a newer one of its topic, which follows.
        places = [(name, self._by_topic[name]) for name in search.names if name in self._by_topic]
        if look_back is None:
            if floors:
                places = [(name, place) for name, place in places if place.newest(upto) > floors.get(name, 0)]
            offsets = sorted({place.newest(upto) for _, place in places})
        else:
            newest = {look_back.newest(name, place) for name, place in places}
            if any(offset < 0 for offset in newest):
                return self._walk(after, search, upto, latest=True, look_back=look_back, floors=floors)
            offsets = sorted(filter(self._kept.__contains__, newest))
        return self._take(offsets[bisect_right(offsets, after) :], upto)

    def _take(self, offsets: Iterable[int], upto: int) -> _Part:
        """Return what stands at the first of *offsets*, as much as makes a page."""
        chosen: list[Notification] = []
        size = last = 0
        for offset in offsets:
            if offset == last:  # a notification with several topics stands in several lists
                continue
            if offset > upto:
                break
            notification = self._kept[offset]
            size += len(notification.chunk)
            if chosen and (len(chosen) == PAGE_COUNT or size > PAGE_BYTES):
                return chosen, last
            last = offset
            chosen.append(notification)
        return chosen, upto

    def _walk(
        self,
        after: int,
        search: Search,
        upto: int,
        *,
        everything: bool = False,
        latest: bool = False,
        look_back: _LookBack | None = None,
        floors: Floors = NO_FLOORS,
    ) -> _Part:
        """Return what matches of all that is kept, as much as makes a page, or as can be looked at for one.

        With *everything*, nothing is compared.
        """
        chosen: list[Notification] = []
        kept, verdicts = self._kept.get, search.verdicts.get
        place = self._by_topic.get if latest or self._limits or floors else None
        stands = _standing(look_back, floors)
        size, steps = 0, PAGE_WALK
        offsets = self._order.part(after, upto, PAGE_WALK)
        for offset in offsets:
            notification = kept(offset)
            if notification is None:
                continue
            if not everything:
                for topic in notification[1]:
                    verdict = verdicts(topic)
                    if verdict is None:
                        verdict = search.judge(topic)
                        steps -= cost(topic)
                    if not verdict:
                        continue
                    if place is None:
                        break
                    steps -= LOOK_UP_STEPS
                    if stands(offset, topic, place(topic), upto, latest):
                        break
                else:
                    if steps <= 0:
                        return chosen, offset
                    continue
            size += len(notification[4])
            if chosen and (len(chosen) == PAGE_COUNT or size > PAGE_BYTES):
                return chosen, offset - 1
            chosen.append(notification)
            if steps <= 0:
                return chosen, offset
        return chosen, offsets[-1] if len(offsets) == PAGE_WALK else upto

    async def aclose(self) -> None:
        self._closed = True


def visible(chosen: Iterable[Notification], sees: _Sees, floors: Floors) -> list[Notification]:
    """Return those of *chosen* that can be seen; they match by a topic above its floor."""
    if not floors:
        return [each for each in chosen if not each.private or sees(each.topics, private=True)]
    return [
        each
        for each in chosen
        if not each.private or sees(above(floors, each.topics, each.position.offset), private=True)
    ]


def _stands(offset: int, topic: str, place: Topic | None, upto: int, latest: bool) -> bool:
    """Tell whether *topic*, which is at *place*, still has what stands at *offset*; as its newest, for the *latest*."""
    if place is None:
        return False
    return place.newest(upto) == offset if latest else place.oldest <= offset


def _standing(look_back: _LookBack | None, floors: Floors) -> _Stands:
    """Return what tells whether a topic still has what stands at an offset, and that can be seen."""
    stands = _stands if look_back is None else look_back.stands
    return partial(_stands_above, floors, stands) if floors else stands


def _stands_above(floors: Floors, stands: _Stands, offset: int, topic: str, *rest: Any) -> bool:
    """Tell what *stands* does, of a topic that has nothing up to its floor."""
    return offset > floors.get(topic, 0) and stands(offset, topic, *rest)


class _LookBack:
    """Finds, for a page, the newest notification of a topic that a reader may see; never in more than so many steps.

    What it learns the search keeps for the next page.
    """

    __slots__ = ("_floors", "_kept", "_search", "_sees", "_steps", "_upto")

    def __init__(
        self, search: Search, upto: int, kept: Mapping[int, Notification], sees: _Sees, floors: Floors
    ) -> None:
        self._search, self._upto, self._kept, self._sees, self._floors = search, upto, kept, sees, floors
        self._steps = LOOK_BACK

    def newest(self, name: str, place: Topic) -> int:
        """Return its offset for the topic at *place*; see `Search.newest`."""
        known = self._search.newest.get(name, ~self._upto)
        if known >= 0 or self._steps <= 0:
            return known
        known = self._found(place.upto(~known, self._floors.get(name, 0)))
        self._search.note(name, known)
        return known

    def _found(self, offsets: Iterable[int]) -> int:
        for offset in offsets:
            notification = self._kept[offset]
            if not notification.private:
                return offset
            self._steps -= judging(notification.topics)
            topics = above(self._floors, notification.topics, offset) if self._floors else notification.topics
            if self._sees(topics, private=True):
                return offset
            if self._steps <= 0:
                return ~(offset - 1)
        return 0

    def stands(self, offset: int, topic: str, place: Topic | None, upto: int, latest: bool) -> bool:
        """Tell whether *topic*, which is at *place*, has what stands at *offset* as that one, or may have."""
        if place is None or place.oldest > offset:
            return False
        newest = self.newest(topic, place)
        return offset == newest if newest >= 0 else offset <= ~newest
