"""The state in Redis: what all processes of a hub, on whatever machines, have in common.

Revocations and memberships are in the memory of each process, where they are asked, and in Redis, where one script
decides what becomes of a change. Its news come to all processes in one order. A change counts here before Redis has it;
what Redis says of it counts from then on. Entries and counters are in Redis only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hub.access.identity import Identity
from hub.errors import StateUnavailable, TooManyMemberships
from hub.log.redis.script import Script
from hub.notification import MAX_OFFSET, Position
from hub.redis_link import BROKEN, RedisConnection, RedisLink, reason
from hub.redis_url import RedisURL
from hub.state.counters import digest_of
from hub.state.entries import Entry, check_entry
from hub.state.epochs import Era, EraRow
from hub.state.memberships import MOST, MOST_OF_A_USER, Memberships, Place
from hub.state.memberships import Row as Member
from hub.state.redis.calls import Call, Calls
from hub.state.redis.news import Missed, News
from hub.state.revocations import Change, Revocations
from hub.state.state import (
    Announce,
    JoinHeard,
    Kind,
    LeaveHeard,
    Membership,
    Revocation,
    unheard,
    unheard_join,
    unheard_leave,
)

logger = logging.getLogger("hub.state")

BEHIND_SECONDS = 2.0
LOAD_SECONDS = 5.0
PART = 1_000
_TRIES = 5
SCRIPT = Script("state.lua", "hub.state.redis")
_FIELDS = (
    *("meta", "news", "writers", "revoked", "buckets", "eras", "began", "standing", "members", "counts"),
    *("entries", "facts", "ends", "owned", "order", "counters", "counted"),
)

Begin = Callable[[RedisConnection, str], Awaitable[tuple[str, int]]]
"""Returns the epoch of the state, and the number of its newest news."""


class RedisState:
    """Keeps the state in Redis.

    Args:
        url: where Redis is.
        prefix: the hash tag of the keys.
        clock: seconds since 1970, for what this process decides itself.
        time: seconds since 1970, for what expires in Redis; None: its own.
    """

    lasting = True

    def __init__(
        self,
        url: RedisURL,
        prefix: str,
        clock: Callable[[], float],
        *,
        time: Callable[[], float] | None = None,
    ) -> None:
        link = RedisLink(url, prefix)
        self._link, self._clock, self._time = link, clock, time
        self._keys = [f"{{{prefix}}}:state:{field}" for field in _FIELDS]
        self._key = dict(zip(_FIELDS, self._keys, strict=True))
        self._calls = Calls(link, SCRIPT, self._keys)
        self._news = News(link, "the state", load=self._load, take=self._take, check=self._same)
        self._epoch = ""
        self._seen = 0  # the number of the newest news that was taken
        self._behind: dict[asyncio.Future[None], tuple[str, int]] = {}
        self._asking: Call | None = None
        self._revocations = Revocations(clock)
        self._unheard: dict[bytes, Revocation] = {}  # revoked here, and not heard of yet
        self._memberships = Memberships(step=-1)
        self._pending: dict[Place, int] = {}  # changes on their way, by what they change
        self._held: dict[Place, tuple[Member | None, list[EraRow]]] = {}  # what Redis said meanwhile
        self._tasks: set[asyncio.Task[Any]] = set()
        self._announce: Announce = unheard
        self._joined: JoinHeard = unheard_join
        self._left: LeaveHeard = unheard_leave

    @property
    def up(self) -> bool:
        return not self._news.away

    async def open(self) -> None:
        try:
            await self._news.open()
        except BROKEN as error:
            raise StateUnavailable(f"{self._link}: {reason(error)}") from None
        self._calls.open()

    async def aclose(self) -> None:
        await self._calls.aclose()
        await self._news.aclose()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for waiting in self._behind:
            if not waiting.done():
                waiting.set_exception(StateUnavailable("it is closed"))

    def _now(self) -> str:
        return "" if self._time is None else repr(self._time())

    # ---- what Redis says ----

    async def _load(self, connection: RedisConnection) -> Mapping[str, bytes]:
        """Read everything anew, and announce what differs from what was known."""
        for _ in range(_TRIES):
            found = await _Copy(self._key, self._clock).read(connection, self._begin)
            if found is not None:
                break
        else:
            raise StateUnavailable("it changes faster than it is read")
        first, self._epoch, self._seen = not self._epoch, found.epoch, found.seen
        known, self._revocations = self._revocations, found.revocations
        new = [revocation for digest, revocation in found.named.items() if digest not in known]
        lost = self._revocations.learn(known)
        before, self._memberships = self._memberships, found.memberships
        for place in self._pending:  # what was changed here counts until it is known what became of it
            row, mine = self._memberships.row(*place), before.row(*place)
            self._held[place] = row, self._memberships.eras_of(row)
            self._memberships.settle(place, mine, before.eras_of(mine))
        if not first:
            logger.warning("the state in Redis was read anew")
            for revocation in new:
                self._announce(revocation)
            self._announce_difference(before)
            for change in lost:  # Redis has lost them, or never had them
                self._calls.change("revoke", self._now(), _candidate(), *_written(change, None))
        self._look()
        return {self._key["news"]: b"%d-0" % self._seen}

    def _announce_difference(self, before: Memberships) -> None:
        now = self._memberships
        for room, user in [place for place in before.places() if now.get(*place) is None]:
            self._left(room, user)
        for place in [place for place in now.places() if before.get(*place) is None]:
            membership = now.get(*place)
            if membership is not None:
                self._joined(membership)

    async def _begin(self, connection: RedisConnection, what: str) -> tuple[str, int]:
        ((epoch, seen),) = await SCRIPT.run(connection, self._keys, [what, self._now(), _candidate()])
        return epoch.decode(), int(seen)

    async def _same(self, connection: RedisConnection) -> bool:
        epoch, seen = await self._begin(connection, "news")
        return epoch == self._epoch and seen >= self._seen

    def _take(self, stream: str, id: bytes, fields: dict[bytes, bytes]) -> None:
        number = int(id.partition(b"-")[0])
        if number != self._seen + 1:
            raise Missed
        self._seen = number
        kind, facts = fields[b"k"], json.loads(fields[b"f"])
        if kind == b"revoked":
            self._hear_revocation(*_revocation(facts))
        elif kind == b"joined":
            eras = _eras(facts[1])
            for each in facts[0]:
                self._learn((each[0], each[1]), _member(each), eras)
        elif kind == b"left":
            for room in facts[1]:
                self._learn((room, facts[0]), None, [])
        elif kind == b"carried":
            eras = _eras(facts)
            self._memberships.carry_eras(eras)
            for place, (row, its) in self._held.items():
                self._held[place] = row, [*(era for era in eras if row is not None and era[0] == row[2]), *its]
        self._look()

    def _learn(self, place: Place, row: Member | None, eras: list[EraRow]) -> None:
        """Take over what Redis has of one membership, unless this process is changing it."""
        if place in self._pending:
            self._held[place] = row, eras
        else:
            self._settle(place, row, eras)

    def _settle(self, place: Place, row: Member | None, eras: list[EraRow]) -> None:
        before = self._memberships.get(*place)
        self._memberships.settle(place, row, eras)
        now = self._memberships.get(*place)
        if before is None and now is not None:
            self._joined(now)
        elif before is not None and now is None:
            self._left(*place)

    def _look(self) -> None:
        for waiting, (epoch, number) in list(self._behind.items()):
            if epoch == self._epoch and number <= self._seen and not waiting.done():
                waiting.set_result(None)

    async def _reached(self, answer: Sequence[Any]) -> None:
        """Wait until what an *answer* names as the newest has come here.

        Raises:
            StateUnavailable: it has not within two seconds.
        """
        epoch, number = answer[0].decode(), int(answer[1])
        if epoch != self._epoch:
            await self._news.restart()
        elif number <= self._seen:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind[waiting] = epoch, number
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                await waiting
        except TimeoutError:
            raise StateUnavailable("what it holds has not come here yet") from None
        finally:
            del self._behind[waiting]

    async def _present(self) -> None:
        """Wait until what other processes have changed before this call is known here.

        Raises:
            StateUnavailable: that can't be told now.
        """
        call = self._asking
        if call is None or call.sent or call.answer.done():  # of those who ask in one turn, one does
            call = self._asking = self._calls.send("news", self._now(), _candidate())
        await self._reached(await self._calls.answered(call))

    # ---- revocations ----

    def announce_to(self, announce: Announce) -> None:
        self._announce = announce

    def revoked(self, identity: Identity) -> bool:
        return self._revocations.revoked(identity)

    async def revoke(self, revocation: Revocation) -> None:
        change = self._revocations.add(revocation)
        self._unheard[change.digest] = revocation
        self._announce(revocation)
        call = self._calls.change("revoke", self._now(), _candidate(), *_written(change, revocation))
        try:
            await self._calls.answered(call)
        except StateUnavailable:
            if call.answer.done():  # it will not be heard of
                self._unheard.pop(change.digest, None)
            raise

    def _hear_revocation(self, digest: bytes, revocation: Revocation) -> None:
        self._revocations.put(digest, revocation.at, revocation.until)
        if self._unheard.get(digest) == revocation:  # this process has announced it
            del self._unheard[digest]
        elif revocation.id:
            self._announce(revocation)

    # ---- memberships ----

    def announce_members_to(self, joined: JoinHeard, left: LeaveHeard) -> None:
        self._joined, self._left = joined, left

    async def join(self, wanted: Sequence[Membership]) -> list[Membership]:
        joined = self._memberships.join(wanted)
        for each in joined.begun:
            self._joined(each)
        if not wanted:
            return []
        rows = [field for each in wanted for field in _wanted(each)]
        places = {(each.room, each.user) for each in wanted}
        call = self._changing(places, "join", rows)
        answer = await self._calls.answered(call)
        await self._reached(answer)
        if answer[3] is not None:
            user = answer[3].decode()
            raise TooManyMemberships(user or None, MOST_OF_A_USER if user else MOST)
        found = _memberships(json.loads(answer[2]))
        if None in found:
            raise StateUnavailable("it is not known what became of it")
        return [each for each in found if each is not None]

    async def leave(self, user: str, rooms: Collection[str]) -> list[Membership]:
        ended = self._memberships.leave(user, rooms)
        for each in ended:
            self._left(each.room, user)
        if not rooms:
            return []
        call = self._changing({(room, user) for room in rooms}, "leave", map(_bytes, [user, *rooms]))
        answer = await self._calls.answered(call)
        await self._reached(answer)
        found = [each for each in _memberships(json.loads(answer[2])) if each is not None]
        return found if found or call.sent == 1 else ended  # the answer was lost: it is not said again

    def _changing(self, places: Collection[Place], what: str, arguments: Iterable[Any]) -> Call:
        """Send a change of memberships: in *places*, what Redis says counts when it is known what became of it."""
        for place in places:
            self._pending[place] = self._pending.get(place, 0) + 1
        call = self._calls.change(what, self._now(), _candidate(), *arguments)
        task = asyncio.get_running_loop().create_task(self._changed(call, places))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return call

    async def _changed(self, call: Call, places: Collection[Place]) -> None:
        rows: dict[Place, Member | None] = {}
        eras: list[EraRow] = []
        try:
            await asyncio.wait([call.answer])
            answer = call.answer.result()
            if call.arguments[0] == "join":
                said = json.loads(answer[2])
                eras = _eras(said[1])
                rows = {(each[0], each[1]): _member(each) if len(each) > 2 else None for each in said[0]}
            else:
                rows = dict.fromkeys(places)
            while int(answer[1]) > self._seen and answer[0].decode() == self._epoch:
                with suppress(StateUnavailable):  # then the tail is away: it comes back
                    await self._reached(answer)
        except StateUnavailable:  # what was changed here stays so
            rows = {}
        finally:
            for place in places:
                self._pending[place] -= 1
                if not self._pending[place]:
                    del self._pending[place]
                    if place in self._held:
                        self._settle(place, *self._held.pop(place))
                    elif place in rows:
                        self._settle(place, rows[place], eras)

    async def membership(self, room: str, user: str) -> Membership | None:
        await self._present()
        return self._memberships.get(room, user)

    async def members(self, room: str, *, after: str = "", limit: int = 1_000) -> list[Membership]:
        await self._present()
        return self._memberships.members(room, after, limit)

    async def rooms_of(self, user: str) -> list[Membership]:
        await self._present()
        return self._memberships.rooms_of(user)

    async def epochs(self) -> list[str]:
        await self._present()
        return self._memberships.epochs()

    async def carry_over(self, epoch: str, newest: Position, end: int | None) -> None:
        self._memberships.carry_over(epoch, newest, end)
        facts = (epoch, newest.epoch, newest.offset, "-" if end is None else end)
        call = self._calls.change("carry", self._now(), _candidate(), *facts)
        await self._reached(await self._calls.answered(call))

    # ---- entries and counters ----

    async def put(self, key: str, value: str, *, expires: float, owner: str, lasting: bool = False) -> None:
        check_entry(key, Entry(value, expires, owner, lasting))
        call = self._calls.send("put", self._now(), _candidate(), _bytes(key), value, repr(float(expires)), owner)
        await self._calls.answered(call)

    async def get(self, key: str) -> str | None:
        return await self._entry("get", key)

    async def take(self, key: str) -> str | None:
        return await self._entry("take", key)

    async def _entry(self, what: str, key: str) -> str | None:
        call = self._calls.send(what, self._now(), _candidate(), _bytes(key))
        answer = await self._calls.answered(call)
        return None if answer[1] is None else answer[1].decode()

    async def count(self, key: str, *, window: float) -> int:
        call = self._calls.send("count", self._now(), _candidate(), digest_of(key), repr(float(window)))
        return int((await self._calls.answered(call))[1])


class _Copy:
    """Everything that Redis holds, as of one moment.

    Args:
        keys: by field.
        clock: seconds since 1970.

    Attributes:
        epoch: names the history of the state.
        seen: the number of the newest news that it has.
        named: the revocations that are kept exactly, by digest.
    """

    def __init__(self, keys: Mapping[str, str], clock: Callable[[], float]) -> None:
        self._keys = keys
        self.epoch, self.seen = "", 0
        self.revocations, self.memberships = Revocations(clock), Memberships(step=-1)
        self.named: dict[bytes, Revocation] = {}

    async def read(self, connection: RedisConnection, begin: Begin) -> _Copy | None:
        """Read it; None: so much changed meanwhile that it has to be tried again."""
        self.epoch, self.seen = await begin(connection, "begin")
        numbers: dict[bytes, int] = {}
        async for digest, facts in self._pairs(connection, "revoked"):
            at, until, number, kind, id = facts.decode().split(" ", 4)
            key, revocation = _revocation([digest.decode(), kind, id, at, until])
            self.named[key], numbers[key] = revocation, int(number)
        in_order = [(key, self.named[key]) for key in sorted(numbers, key=numbers.__getitem__)]
        buckets = [(int(bucket), float(at)) async for bucket, at in self._pairs(connection, "buckets")]
        self.revocations.restore([(key, each.at, each.until) for key, each in in_order], buckets)
        rows: dict[Place, Member] = {}
        async for name, facts in self._pairs(connection, "members"):
            length, _, rest = name.partition(b":")
            place = rest[: int(length)].decode(), rest[int(length) :].decode()
            rows[place] = _member([*place, *facts.decode().split(" ")])
        eras = _eras(
            [[number.decode(), *facts.decode().split(" ")] async for number, facts in self._pairs(connection, "eras")]
        )
        self.memberships.restore_eras(eras)
        known = {era[0] for era in eras}  # what has come to be in between follows as news
        self.memberships.restore(row for row in rows.values() if row[2] in known)
        whole = await self._catch_up(connection)
        return self if whole and (await begin(connection, "news"))[0] == self.epoch else None

    async def _pairs(self, connection: RedisConnection, field: str) -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the fields of a hash, each once at least, with their values."""
        cursor = b"0"
        while True:
            cursor, found = await connection.call(
                "HSCAN", self._keys[field], cursor, "COUNT", PART, seconds=LOAD_SECONDS
            )
            for place in range(0, len(found), 2):
                yield found[place], found[place + 1]
            if cursor == b"0":
                return

    async def _catch_up(self, connection: RedisConnection) -> bool:
        """Take what has happened while it was read, some of which it has already; return whether none is missing."""
        while True:
            behind = f"{self.seen + 1}-0"
            entries = await connection.call(
                *("XRANGE", self._keys["news"], behind, "+", "COUNT", PART), seconds=LOAD_SECONDS
            )
            if not entries:
                return True
            for id, fields in entries:
                if int(id.partition(b"-")[0]) != self.seen + 1:
                    return False
                self.seen += 1
                self._take(fields[1], json.loads(fields[3]))

    def _take(self, kind: bytes, facts: Any) -> None:
        if kind == b"revoked":
            digest, revocation = _revocation(facts)
            self.named[digest] = revocation
            self.revocations.put(digest, revocation.at, revocation.until)
        elif kind == b"joined":
            for each in facts[0]:
                self.memberships.settle((each[0], each[1]), _member(each), _eras(facts[1]))
        elif kind == b"left":
            for room in facts[1]:
                self.memberships.settle((room, facts[0]), None, [])
        else:
            self.memberships.carry_eras(_eras(facts))


def _candidate() -> str:
    """Return a name for the history, if it has none: another one each time, or one that was lost would go on."""
    return secrets.token_hex(8)


def _written(change: Change, revocation: Revocation | None) -> list[Any]:
    """Return what the script is told of a *change* that *revocation* makes."""
    until = "-" if change.until is None else repr(float(change.until))
    kind, id = ("", "") if revocation is None else (revocation.kind, json.dumps(revocation.id))
    buckets = [fact for bucket, at in change.buckets for fact in (bucket, repr(float(at)))]
    return [
        change.digest.hex(),
        repr(float(change.at)),
        until,
        kind,
        id,
        len(change.gone),
        *(gone.hex() for gone in change.gone),
        *buckets,
    ]


def _revocation(facts: Sequence[str]) -> tuple[bytes, Revocation]:
    """Return the digest of a revocation, and what else is known of it; its id is empty if that is not."""
    digest, kind, id, at, until = facts
    known: Kind = "token" if kind == "token" else "user"
    ends = None if until == "-" else float(until)
    return bytes.fromhex(digest), Revocation(known, json.loads(id) if id else "", float(at), ends)


def _wanted(membership: Membership) -> list[Any]:
    room, user, publish, since, at, loaded = membership
    return [room, user, since.epoch, since.offset, repr(float(at)), int(publish), int(loaded)]


def _member(facts: Sequence[str]) -> Member:
    room, user, era, offset, at, publish, loaded = facts
    return room, user, int(era), int(offset), float(at), publish == "1", loaded == "1"


def _eras(rows: Iterable[Sequence[str]]) -> list[EraRow]:
    return [
        (int(number), name, None if fixed == "-" else int(fixed), MAX_OFFSET if cap == "-" else int(cap))
        for number, name, fixed, cap in rows
    ]


def _memberships(said: Any) -> list[Membership | None]:
    """Return the memberships that an answer has; None for each that there is not any more."""
    eras = {row[0]: Era(*row) for row in _eras(said[1])}
    found: list[Membership | None] = []
    for facts in said[0]:
        if len(facts) > 2:
            room, user, era, offset, at, publish, loaded = _member(facts)
            found.append(Membership(room, user, publish, eras[era].since(offset), at, loaded))
        else:
            found.append(None)
    return found


def _bytes(text: str) -> bytes:
    """Return *text* as it is in Redis; one that can't be in UTF-8 never is."""
    return text.encode("utf-8", "surrogatepass")
