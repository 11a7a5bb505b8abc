"""Topics that change on an open stream: one change after the other, each complete or not made at all.

Whatever takes time comes first (the rights, the position, the first notification after a gap); the stream is as it was
until then. The change itself is one step (`Connection.change`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.client_stream import CloseReason
from hub.connections.connection import NO_ROOMS, Change, Connection, Wiring
from hub.connections.resume import position_asked, start
from hub.encoding import Gap
from hub.errors import InvalidInput, LogUnavailable, NotASubscription, NotThere
from hub.notification import Position
from hub.state.memberships import MOST_OF_A_USER
from hub.topics import MAX_TOPICS_PER_SUBSCRIPTION, check_pattern

CHANGE_SECONDS = 10.0
_BEGIN_SECONDS = 0.02

Sees = Callable[[Collection[str]], Visibility]
"""Returns what the reader of a stream may see of topics now; raises if it may not read one of them any more."""

Readable = Callable[[Connection, Sequence[str], Sequence[str]], Awaitable[Sees]]
"""Asks what the reader of a stream may see of topics, the third argument of which are new; raises if it may not.

What it returns is called in the step in which the topics change: rights may end while somebody is asked.
"""


async def everything(stream: Connection, topics: Sequence[str], added: Sequence[str]) -> Sees:
    """Let the reader see everything: for a hub that asks nobody."""
    return lambda topics: EVERYTHING


class TopicsChanged(NamedTuple):
    """The topics of a stream after a change.

    Attributes:
        topics: all of them, sorted.
        position: everything after it follows, of the topics that were added.
    """

    topics: tuple[str, ...]
    position: Position


class _Place(NamedTuple):
    """Where added topics begin to count; see `Change`."""

    after: int | None = None
    gap: Gap | None = None
    hole: Hashable = None
    latest: bool = False


class TopicChanges:
    """Changes the topics of open subscriptions.

    Args:
        wiring: what they share.

    Attributes:
        readable: says what the holder of a stream may see of other topics.
    """

    def __init__(self, wiring: Wiring) -> None:
        self.readable: Readable = everything
        self._wiring = wiring
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def change(
        self, id: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), after: str | None = None
    ) -> TopicsChanged:
        """Add and remove topics of the stream with this *id*; return when the stream has been told.

        Args:
            id: that of an open subscription.
            add: topics and patterns; those that the stream has already stay as they are.
            remove: topics and patterns, as they were asked for; those that the stream does not have are ignored.
            after: an id after which those that are added count, `earliest`, or `latest` for the newest of
                each topic; None: only what is new.

        Raises:
            InvalidInput: something breaks a rule, or no topic would stay, or there would be more than 128.
            NotThere: no such stream is open, or no longer.
            NotASubscription: it has no topics.
            Unauthorized, Forbidden: its holder may not read one of the topics.
            AuthUnavailable, LogUnavailable: that, or where they begin to count, can't be told now. The stream is as it
                was, or has ended.
        """
        adding, removing = check_changed(add, "add"), check_changed(remove, "remove")
        if both := next(filter(adding.__contains__, removing), None):
            raise InvalidInput("remove", f"{both!r} is added by the same request")
        try:
            async with asyncio.timeout(CHANGE_SECONDS):
                self._open(id)
                lock = self._locks.setdefault(id, asyncio.Lock())
                async with lock:
                    return await self._change(await self._begun(id), adding, removing, after)
        except TimeoutError:
            raise LogUnavailable(f"the topics could not be changed within {CHANGE_SECONDS:g} s") from None

    def _open(self, id: str) -> Connection:
        stream = self._wiring.streams.get(id)
        if stream is None or stream.closed_because is not None:
            raise NotThere("connection")
        if not isinstance(stream, Connection):
            raise NotASubscription(stream.kind)
        return stream

    async def _begun(self, id: str) -> Connection:
        """Return the stream when it has begun."""
        stream = self._open(id)
        # Its client learns the id when it begins, so hardly anybody asks sooner: that is looked for, not announced.
        while not stream.has_begun:
            await asyncio.sleep(_BEGIN_SECONDS)
            self._open(id)
        return stream

    async def _change(
        self, stream: Connection, add: Sequence[str], remove: Sequence[str], after: str | None
    ) -> TopicsChanged:
        while True:
            present = frozenset(stream.topics)
            new = frozenset(each for each in add if each not in present)
            topics = (present - frozenset(remove)) | new
            _check(topics, stream)
            if topics == present:
                return TopicsChanged(tuple(sorted(topics)), self._wiring.fanout.newest)
            sees = await self.readable(stream, sorted(topics), [each for each in add if each in new])
            # While something is waited for, the stream may end: with its rights, too, or with its log. And the rooms
            # of its user may become others: then it is another question.
            self._open(stream.id)
            if frozenset(stream.topics) != present:
                continue
            place = await self._place(new, sees(topics).through(new), after) if new and after else _Place()
            self._open(stream.id)
            if frozenset(stream.topics) == present:
                break
        position = stream.change(Change(topics, sees(topics), new, *place))
        stream.name(new, remove)
        if stream.closed_because is CloseReason.LOG_UNAVAILABLE:
            raise LogUnavailable("the history can't be read now, and the stream has ended")
        self._open(stream.id)
        return TopicsChanged(tuple(sorted(topics)), position)

    async def _place(self, added: frozenset[str], visibility: Visibility, after: str) -> _Place:
        """Return where *added* topics begin to count that are asked for *after* an id."""
        log = self._wiring.log
        asked = position_asked(after)
        located = await log.locate(asked) if asked is not None else None
        begin = start(after, located=located, trimmed=lambda offset: log.trimmed(added, offset, visibility))
        if begin.known and begin.after is not None:  # nothing is seen before the first of the floors
            floors = visibility.floors(log.epoch, begin.after)
            return _Place(max(begin.after, min(floors.get(each, 0) for each in added)))
        if begin.after is None:
            return _Place()
        # As when a stream begins: right before the first one that follows.
        cursor, hole = begin.after, None
        while True:
            newest = self._wiring.fanout.newest
            page = await log.read(cursor, added, upto=newest.offset, latest=begin.latest, visibility=visibility)
            hole = page.hole or hole
            cursor = page.reached
            if page.notifications or cursor >= newest.offset:
                break
            await asyncio.sleep(
                0
            )  # a page a turn: a long history would keep everybody waiting, and outlast any timeout
        first = page.notifications[0].position.offset - 1 if page.notifications else newest.offset
        gap = None if begin.gap is None else Gap(begin.gap, Position(newest.epoch, page.oldest))
        return _Place(first, gap, None if begin.latest else hole, begin.latest)


def _check(topics: Collection[str], stream: Connection) -> None:
    """Raise if *stream* can't have *topics*."""
    if not (topics or stream.rooms.follow or stream.rests):
        raise InvalidInput("remove", "leaves the stream without a topic: end it instead")
    most = MAX_TOPICS_PER_SUBSCRIPTION + (MOST_OF_A_USER if stream.rooms != NO_ROOMS else 0)
    if len(topics) > most:
        raise InvalidInput("add", f"makes more than {most:,} topics")


def check_changed(topics: Iterable[str], field: str) -> tuple[str, ...]:
    """Return *topics* (patterns too), each once, if one change may add or remove them; *field* is named in errors.

    Raises:
        InvalidInput: one breaks the grammar, there are more than 128, or it is a text.
    """
    if isinstance(topics, str):
        raise InvalidInput(field, "is a text, not a list of topics and patterns")
    checked: dict[str, None] = {}
    for each in topics:
        checked[check_pattern(each, field)] = None
        if len(checked) > MAX_TOPICS_PER_SUBSCRIPTION:  # before the next one: a megabyte has very many
            raise InvalidInput(field, f"has more than {MAX_TOPICS_PER_SUBSCRIPTION} topics")
    return tuple(checked)
