"""Rooms: who belongs to them, and what that means for open streams.

A membership is kept in the state, beside the log. It gives a user the right to read the topic of the room: what stands
after the newest position that was given out when it began. Streams of the user take part at once: when this learns of a
change, from whatever process, the streams here change in the same step.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from hub.access.grants import covers
from hub.access.identity import Identity
from hub.connections.client_stream import ClientStream, CloseReason
from hub.connections.connection import Connection
from hub.connections.registry import StreamRegistry
from hub.encoding import retry_between
from hub.errors import (
    AuthUnavailable,
    Forbidden,
    InvalidInput,
    LogUnavailable,
    NotASubscription,
    NotThere,
    StateUnavailable,
    TooManyMemberships,
    Unauthorized,
)
from hub.log.log import Log
from hub.notification import Position
from hub.presence.lifecycle import Lifecycle
from hub.state.epochs import carry_all
from hub.state.memberships import MOST_OF_A_USER
from hub.state.peers import Alone, Peers
from hub.state.state import Membership, State
from hub.topics import name_of, room_of, topic_of

logger = logging.getLogger("hub.presence")

NOBODY_IS_KNOWN = "nobody is known here: the hub has neither a login (authenticate) nor keys for tokens"
MOST_MEMBERS = 10_000
"""Members that `members` returns at once."""
_TRIES = 3

Floors = Mapping[str, Position]
"""By topic of a room, the position after which it may be read."""

Ask = Callable[[Identity | None, Sequence[str]], Awaitable[None]]
"""Asks the application whether the identity may read topics; raises if not."""


class _Watch:
    """What has happened to the memberships of one user while somebody looks at them.

    Attributes:
        number: how much has happened.
        asked: how often the application was asked for the rooms of the user.
        answered: which of these questions was the last one whose answer counts.
    """

    __slots__ = ("__weakref__", "_changes", "_left", "answered", "asked", "number")

    def __init__(self) -> None:
        self.number = self.asked = self.answered = 0
        self._changes: dict[str, tuple[int, Membership | None]] = {}
        self._left: dict[str, int] = {}

    def joined(self, membership: Membership) -> None:
        """Note a membership that has begun."""
        self.number += 1
        self._changes[membership.room] = self.number, membership

    def left(self, room: str, *, on_purpose: bool) -> None:
        """Note a membership that has ended; *on_purpose*: not because the application does not name it any more."""
        self.number += 1
        self._changes[room] = self.number, None
        if on_purpose:
            self._left[room] = self.number

    def since(self, number: int) -> Iterator[tuple[str, Membership | None]]:
        """Return the rooms in which something has happened after *number*, each with what there is now."""
        return ((room, now) for room, (when, now) in self._changes.items() if when > number)

    def was_left(self, room: str, number: int) -> bool:
        """Return whether the user has left *room* on purpose after *number*."""
        return self._left.get(room, 0) > number


class Held:
    """The memberships of one user, as they are now, for as long as this is held."""

    __slots__ = ("_known", "_number", "_watch")

    def __init__(self, watch: _Watch) -> None:
        self._watch, self._number = watch, watch.number
        self._known: dict[str, Membership] = {}

    def know(self, memberships: Iterable[Membership]) -> None:
        """Begin with what the state says that there is."""
        self._known = {each.room: each for each in memberships}

    @property
    def number(self) -> int:
        """How much has happened: as long as it stays the same, so do the memberships."""
        return self._watch.number

    def now(self) -> dict[str, Membership]:
        """Return the memberships by room."""
        if self._number != self.number:
            for room, membership in self._watch.since(self._number):
                if membership is None:
                    self._known.pop(room, None)
                else:
                    self._known[room] = membership
            self._number = self._watch.number
        return self._known

    def joined_after(self, number: int) -> list[Membership]:
        """Return the memberships that began when more than *number* had happened."""
        return [membership for _, membership in self._watch.since(number) if membership is not None]

    def topics(self) -> list[str]:
        """Return the topics of the rooms, sorted."""
        return sorted(topic_of("room", room) for room in self.now())

    def floors(self, topics: Iterable[str]) -> dict[str, Position]:
        """Return those of *topics* that are rooms of the user, each with its floor."""
        memberships = self.now()
        if not memberships:
            return {}
        found = ((topic, memberships.get(room_of(topic) or "")) for topic in topics)
        return {topic: membership.since for topic, membership in found if membership is not None}


@dataclass(frozen=True, slots=True)
class Rights:
    """What is asked about a reader before a stream has a room's topic, beside the membership.

    Attributes:
        granted: whether a grant covers a topic: then it is read without a floor.
        ask: asks the application; None: it is not asked.
    """

    granted: Callable[[Identity | None, str], bool] = lambda identity, topic: False
    ask: Ask | None = None


class Rooms:
    """The members of rooms. Call it on the loop's thread.

    Args:
        state: keeps the memberships; None: nobody is known, and only single streams can join.
        log: gives the positions.
        streams: all open streams.
        lifecycle: emits `room.joined` and `room.left`.
        clock: seconds since 1970.
        peers: the other processes of the hub.

    Attributes:
        rights: what else is asked about readers.
    """

    def __init__(
        self,
        state: State | None,
        log: Log,
        streams: StreamRegistry,
        lifecycle: Lifecycle,
        *,
        clock: Callable[[], float] = time.time,
        peers: Peers | None = None,
    ) -> None:
        self.rights = Rights()
        self._peers = Alone() if peers is None else peers
        self._kept, self._log, self._streams = state, log, streams
        self._lifecycle, self._clock = lifecycle, clock
        self._newest: Position | None = None  # as the present epoch began here
        self._carrying: asyncio.Task[None] | None = None
        self._watches: WeakValueDictionary[str, _Watch] = WeakValueDictionary()
        self._unloading: set[tuple[str, str]] = set()  # rooms and users that the application does not name any more
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}  # by stream and topic
        self._tasks: set[asyncio.Task[None]] = set()
        if state is not None:
            state.announce_members_to(self._joined, self._left)

    # ---- for the application ----

    async def join(
        self, who: str | int | UUID | ClientStream, room: str | int | UUID, *, publish: bool = False
    ) -> Position:
        """Make a user, or one open subscription, a member of *room*; return the position after which it is seen.

        What was sent before this call is not seen, what is sent after it is. Who is a member already stays it since
        then, and only *publish* becomes what is said. The membership of a user is kept when this returns. That of a
        subscription ends with it, is no membership of its user, and is not kept.

        Args:
            who: the id of a user; or a subscription (`hub.connections.get(id)`).
            room: the id of the room; its topic is `room/{id}`.
            publish: the user may publish to the room, too.

        Raises:
            InvalidTopic: an id can't be in a topic.
            InvalidInput: a subscription can't publish.
            TooManyMemberships: the user has 1,000, or all users together have 1,000,000.
            NotThere: the subscription has ended; or nobody is known here, and so no user.
            NotASubscription: the stream has no topics.
            StateUnavailable: the membership is not confirmed; it counts until this process ends.
            LogUnavailable: it can't be told now where it begins.
        """
        topic, name = topic_of("room", room), name_of("room", room)
        if isinstance(who, ClientStream):
            return await self._join_stream(who, topic, publish=publish)
        state, user = self._state, name_of("user", who)
        watch = self._watch(user)
        number = watch.number
        since = await self._given()
        if watch.was_left(name, number):  # in the meantime: it has ended already
            return since
        (membership,) = await state.join([Membership(name, user, publish, since, self._clock())])
        if membership.since.epoch != since.epoch:  # it began in another history, from which it is being carried over
            found = await self._present(lambda: self._found(user, [name]))
            return found[0].since if found else since
        return membership.since

    async def leave(self, who: str | int | UUID | ClientStream, room: str | int | UUID) -> bool:
        """End the membership of a user, or of one subscription, in *room*; return whether there was one.

        Nothing that was sent to the room is written to the streams of the user from the moment of this call on, except
        to those that may read it by a grant.

        Raises:
            InvalidTopic: an id can't be in a topic.
            NotThere: nobody is known here, and so no user.
            StateUnavailable: that is not confirmed. It has ended until this process ends; try again.
        """
        topic, name = topic_of("room", room), name_of("room", room)
        if isinstance(who, ClientStream):
            return await self._leave_stream(who, topic)
        state, user = self._state, name_of("user", who)
        watch = self._watches.get(user)
        if watch is not None:
            watch.left(name, on_purpose=True)  # also for a join that is under way
        return bool(await state.leave(user, [name]))

    async def members(self, room: str | int | UUID, *, after: str = "", limit: int = 100) -> list[Membership]:
        """Return the first *limit* memberships of *room*, of the users behind *after*, by user; at most 10,000.

        Raises:
            InvalidTopic: the id can't be in a topic.
            NotThere: nobody is known here.
            StateUnavailable, LogUnavailable: that can't be told now.
        """
        topic_of("room", room)
        name, most = name_of("room", room), max(0, min(limit, MOST_MEMBERS))
        return await self._present(lambda: self._state.members(name, after=after, limit=most))

    async def rooms_of(self, user: str | int | UUID) -> list[Membership]:
        """Return the memberships of *user*, by room.

        Raises:
            NotThere: nobody is known here.
            StateUnavailable, LogUnavailable: that can't be told now.
        """
        name = name_of("user", user)
        return await self._present(lambda: self._state.rooms_of(name))

    @property
    def _state(self) -> State:
        if self._kept is None:
            raise NotThere("user", NOBODY_IS_KNOWN)
        return self._kept

    async def _given(self) -> Position:
        """Return where something begins that happens now, in the present epoch."""
        while True:
            since = await self._log.given()
            if since.epoch == self._log.epoch:
                return since

    async def _present(self, read: Callable[[], Awaitable[list[Membership]]]) -> list[Membership]:
        """Return what *read* does, all of it in the present epoch.

        Raises:
            StateUnavailable, LogUnavailable: that can't be told now.
        """
        for _ in range(_TRIES):
            found = await read()
            if all(each.since.epoch == self._log.epoch for each in found):
                return found
            await self._carry()
        raise LogUnavailable("its history has just changed")

    # ---- one stream ----

    async def _join_stream(self, stream: ClientStream, topic: str, *, publish: bool) -> Position:
        if publish:
            raise InvalidInput("publish", "is for users: a subscription that joins a room may read it")
        since = await self._given()
        if not isinstance(stream, Connection):
            raise NotASubscription(stream.kind)
        if stream.closed_because is not None or self._streams.get(stream.id) is not stream:
            raise NotThere("connection")
        own, alone = stream.rooms.own, stream.rooms.alone
        if topic in own and topic in stream.topics:  # else it was removed from the stream since
            return own[topic]
        if topic not in own and len(own) >= MOST_OF_A_USER:
            raise TooManyMemberships(stream.holder.user, MOST_OF_A_USER)
        own = MappingProxyType({**own, topic: since})
        if topic in stream.topics:
            stream.rooms = stream.rooms._replace(own=own)
        else:
            stream.rooms = stream.rooms._replace(own=own, alone=alone | {topic})
            self._gain(stream, topic, since)
        return since

    async def _leave_stream(self, stream: ClientStream, topic: str) -> bool:
        if not isinstance(stream, Connection) or topic not in stream.rooms.own:
            return False
        rooms = stream.rooms
        own = MappingProxyType({each: since for each, since in rooms.own.items() if each != topic})
        stream.rooms = rooms._replace(own=own, alone=rooms.alone - {topic})
        asked = rooms.follow or topic not in rooms.alone
        if topic in rooms.alone or not self._granted(stream, topic):
            held = None
            try:
                held = await self._held_by_user(stream, topic) if asked else None
            finally:
                self._let_go(stream, topic, held)
        return True

    async def _held_by_user(self, stream: Connection, topic: str) -> Held | None:
        """Return the membership of the user of *stream* in the room of *topic*; None: there is no such user or room."""
        user, room = stream.holder.user, room_of(topic)
        return None if self._kept is None or user is None or room is None else await self.held(user, [room])

    def _let_go(self, stream: Connection, topic: str, held: Held | None = None) -> None:
        """Leave *stream* what it may read of *topic* still: by its own membership, or by what is *held* by its user."""
        if stream.closed_because is not None or topic not in stream.topics:
            return
        since = self.floors(stream, held, [topic]).get(topic)
        if since is None:
            stream.lose(topic)
            self._end_if_empty(stream)
        elif since.epoch == self._log.epoch:  # else the streams of the former history are ending
            stream.restrict(topic, since)

    # ---- what happens ----

    def _joined(self, membership: Membership) -> None:
        """Add the room to the streams of its new member that have the rooms of their user."""
        room, user = membership.room, membership.user
        watch = self._watches.get(user)
        if watch is not None:
            watch.joined(membership)
        facts = {"room": room, "user": user, "publish": membership.publish, "since": str(membership.since)}
        if self._peers.first:  # of all processes, which all hear it, one says so
            self._lifecycle.note("room.joined", lambda: facts)
        for stream in self._streams.of(user):
            if isinstance(stream, Connection) and stream.rooms.follow:
                self._follow(stream, membership)

    def _left(self, room: str, user: str) -> None:
        """Remove the room from the streams of a member no more, but from those that may read it by a grant."""
        watch = self._watches.get(user)
        if watch is not None:
            watch.left(room, on_purpose=(room, user) not in self._unloading)
        if self._peers.first:
            self._lifecycle.note("room.left", lambda: {"room": room, "user": user})
        topic = topic_of("room", room)
        for stream in self._streams.of(user):
            asking = self._asking.pop((stream.id, topic), None)
            if asking is not None:
                asking.cancel()
            if isinstance(stream, Connection) and topic in stream.topics:
                _guarded(partial(self._take_away, topic), stream)

    def _take_away(self, topic: str, stream: Connection) -> None:
        rooms = stream.rooms
        if topic in rooms.own:
            if rooms.follow and topic not in rooms.named:
                stream.rooms = rooms._replace(alone=rooms.alone | {topic})
            self._let_go(stream, topic)
        elif stream.visibility.floor(topic) is not None or (
            rooms.follow and not (topic in rooms.named and self._granted(stream, topic))
        ):
            stream.lose(topic)
            self._end_if_empty(stream)

    def _end_if_empty(self, stream: Connection) -> None:
        """End *stream* if it has no topic any more, and none can come."""
        if not (stream.topics or stream.rooms.follow or stream.rests) and stream.closed_because is None:
            stream.end(CloseReason.REVOKED, retry_between(10, 60))

    def _follow(self, stream: Connection, membership: Membership) -> None:
        """Add the room of *membership* to *stream*, as far as its ticket and the application allow."""
        topic, within = topic_of("room", membership.room), stream.holder.within
        if topic in stream.topics or (within is not None and not any(covers(each, topic) for each in within)):
            return
        since = membership.since
        if self.rights.ask is None and not self._is_ahead(since):
            _guarded(partial(self._gain_since, topic, since), stream)
        elif (stream.id, topic) not in self._asking:
            key = (stream.id, topic)
            task = self._asking[key] = asyncio.create_task(self._ask_and_gain(stream, topic, since))
            self._tasks.add(task)
            task.add_done_callback(partial(self._asked, key))

    def _is_ahead(self, since: Position) -> bool:
        """Return whether *since*, a position that another process was given, has not come here yet."""
        try:
            newest = self._log.bounds().newest
        except LogUnavailable:
            return True
        return newest.epoch == since.epoch and newest.offset < since.offset

    def _asked(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a stream could not follow a room", exc_info=error)

    async def _ask_and_gain(self, stream: Connection, topic: str, since: Position) -> None:
        try:
            if self.rights.ask is not None:
                await self.rights.ask(stream.holder.identity, [topic])
            if self._is_ahead(since):
                await self._log.locate(since)
        except LogUnavailable:
            stream.end(CloseReason.LOG_UNAVAILABLE, retry_between(1, 6))
            return
        except (Unauthorized, Forbidden):
            return
        except AuthUnavailable:  # the stream would lack a room: when it comes back, somebody can tell
            stream.end(CloseReason.AUTH_UNAVAILABLE, retry_between(2, 10))
            return
        if stream.closed_because is None and topic not in stream.topics:
            _guarded(partial(self._gain_since, topic, since), stream)

    def _gain_since(self, topic: str, since: Position, stream: Connection) -> None:
        self._gain(stream, topic, since)

    def _gain(self, stream: Connection, topic: str, since: Position) -> None:
        """Add *topic* to *stream* in this very step; what stands after *since* follows."""
        if since.epoch != self._log.epoch:  # the streams of the former history are ending
            stream.end(CloseReason.LOG_UNAVAILABLE, retry_between(1, 6))
            return
        floor = None if self._granted(stream, topic) else since
        stream.gain(topic, stream.visibility.granting(topic, floor), since.offset)

    def _granted(self, stream: Connection, topic: str) -> bool:
        return self.rights.granted(stream.holder.identity, topic)

    # ---- for the edge ----

    async def held(self, user: str, rooms: Collection[str] | None = None) -> Held:
        """Return the memberships of *user* in *rooms* (None: in all): they stay up to date as long as they are held.

        Raises:
            StateUnavailable, LogUnavailable: that can't be told now.
        """
        held = Held(self._watch(user))
        held.know(await self._present(lambda: self._found(user, rooms)))
        return held

    async def _found(self, user: str, rooms: Collection[str] | None) -> list[Membership]:
        if rooms is None:
            return await self._state.rooms_of(user)
        found = [await self._state.membership(room, user) for room in rooms]
        return [each for each in found if each is not None]

    def floors(self, stream: ClientStream, held: Held | None, topics: Collection[str]) -> Floors:
        """Return those of *topics* that *stream* has by a membership, its own or that of its user, with the floors."""
        floors = {} if held is None else held.floors(topics)
        if isinstance(stream, Connection):
            for topic, since in stream.rooms.own.items():
                if topic in topics:
                    either = (since, floors.get(topic, since))
                    present = stream.visibility.floor(topic)
                    floors[topic] = next((each for each in either if each == present), min(either))
        return floors

    async def publishable(self, user: str, topics: Iterable[str]) -> frozenset[str]:
        """Return those of *topics* to which *user* may publish as a member.

        Raises:
            StateUnavailable: that can't be told now.
        """
        named = ((topic, room_of(topic)) for topic in topics)
        found = [(topic, await self._state.membership(room, user)) for topic, room in named if room is not None]
        return frozenset(topic for topic, membership in found if membership is not None and membership.publish)

    def _watch(self, user: str) -> _Watch:
        watch = self._watches.get(user)
        if watch is None:
            watch = self._watches[user] = _Watch()
        return watch

    def asking(self, user: str) -> Question:
        """Return a question for the rooms of *user*, which the application is about to be asked."""
        watch = self._watch(user)
        watch.asked += 1
        return Question(watch, watch.asked, watch.number)

    async def load(self, user: str, question: Question, rooms: Mapping[str, bool]) -> None:
        """Have *user* belong to *rooms*, as the application has answered *question*; the values say who may publish.

        Those that are missing are joined; those that an earlier answer brought, and this one does not, are left.
        Memberships that `join` has made stay. An answer that comes behind that to a later question does not count, nor
        what it says of a room that was left since it was asked for.

        Raises:
            InvalidTopic, TooManyMemberships: nothing, or not all, has changed.
            StateUnavailable, LogUnavailable: that can't be told, or is not confirmed.
        """
        watch, number, began = question.watch, question.number, question.began
        wanted = {room: publish for room, publish in rooms.items() if not watch.was_left(room, began)}
        if await self._missing(user, wanted):
            since = await self._given()
            if number > watch.answered:
                missing = await self._missing(user, {r: p for r, p in wanted.items() if not watch.was_left(r, began)})
                watch.answered = number
                at = self._clock()
                await self._state.join([Membership(room, user, may, since, at, True) for room, may in missing])
        if number < watch.answered:
            return
        watch.answered = number
        gone = [each.room for each in await self._state.rooms_of(user) if each.loaded and each.room not in rooms]
        if gone:
            ending = {(room, user) for room in gone}
            self._unloading |= ending
            try:
                await self._state.leave(user, gone)
            finally:
                self._unloading -= ending

    async def _missing(self, user: str, wanted: Mapping[str, bool]) -> list[tuple[str, bool]]:
        """Return what of *wanted* is not so yet."""
        there = {each.room: each for each in await self._state.rooms_of(user)}
        return [
            (room, publish)
            for room, publish in wanted.items()
            if (now := there.get(room)) is None or (now.loaded and now.publish is not publish)
        ]

    def catch_up(self, stream: Connection, held: Held, number: int) -> None:
        """Give *stream*, which has just been counted, what has happened to *held* after *number*.

        It has begun without the rooms that its user has left.
        """
        if stream.rooms.follow:
            for membership in held.joined_after(number):
                if stream.closed_because is None:
                    self._follow(stream, membership)
        self._end_if_empty(stream)

    # ---- the log becomes another one ----

    async def open(self, newest: Position) -> None:
        """Begin, with *newest* as the newest position of the log: memberships of earlier epochs go on in this one.

        Raises:
            StateUnavailable, LogUnavailable: that can't be told, or kept.
        """
        self._newest = newest
        if self._kept is not None:
            await self._carry()

    def begin_anew(self, newest: Position) -> None:
        """Go on with a log that has become another one, with *newest* as its newest position."""
        self._newest = newest
        if self._kept is not None:
            self._start_carrying()

    async def _carry(self) -> None:
        """Return when all memberships stand in the present epoch."""
        await asyncio.shield(self._start_carrying())

    def _start_carrying(self) -> asyncio.Task[None]:
        if self._carrying is None or self._carrying.done():
            self._carrying = asyncio.create_task(self._carry_all())
            self._carrying.add_done_callback(_carried)
        return self._carrying

    async def _carry_all(self) -> None:
        newest = None
        while newest != self._newest:
            newest = self._newest
            if newest is not None:
                await carry_all(self._state, self._log, newest)

    async def aclose(self) -> None:
        """End what is under way."""
        under_way = [*self._tasks, *([self._carrying] if self._carrying is not None else [])]
        for task in under_way:
            task.cancel()
        if under_way:
            await asyncio.wait(under_way)


@dataclass(frozen=True, slots=True)
class Question:
    """That the application is asked for the rooms of a user.

    Attributes:
        watch: what happens to that user meanwhile.
        number: how often it was asked.
        began: how much had happened then.
    """

    watch: _Watch
    number: int
    began: int


def _carried(task: asyncio.Task[Any]) -> None:
    """Log why memberships do not go on in a new epoch; whoever needs them tries again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        if isinstance(error, LogUnavailable | StateUnavailable):
            logger.warning("the members of rooms could not be carried over to the new history yet: %s", error)
        else:
            logger.error("the members of rooms could not be carried over to the new history", exc_info=error)


def _guarded(step: Callable[[Connection], object], stream: Connection) -> None:
    """Change *stream*, or abort it if that fails: nobody else feels it."""
    try:
        step(stream)
    except Exception:
        logger.exception("%s failed while its rooms changed, and is aborted", stream.id)
        stream.abort()
