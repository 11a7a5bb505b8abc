"""Who belongs to which room: the table that every home on one machine has in memory."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite
from typing import NamedTuple

from hub.errors import InvalidInput, TooManyMemberships
from hub.log.index import Names
from hub.notification import MAX_OFFSET, Position
from hub.state.epochs import Era, EraRow
from hub.state.state import Membership
from hub.topics import topic_of

MOST = 1_000_000
MOST_OF_A_USER = 1_000
SMALL = 256  # members of a room that are sorted when they are asked for

Row = tuple[str, str, int, int, float, bool, bool]
"""Room, user, number of the era, offset, at, publish, loaded."""


Place = tuple[str, str]
"""Room and user."""

_Kept = tuple[int, int, float, bool, bool]
"""Number of the era, offset, at, publish, loaded: a plain tuple, which the garbage collector lets alone."""


class _Room:
    """The members of one room, and the order of their names once they are many."""

    __slots__ = ("members", "names")

    def __init__(self) -> None:
        self.members: dict[str, _Kept] = {}
        self.names: Names | None = None

    def put(self, user: str, kept: _Kept) -> None:
        if self.names is not None and user not in self.members:
            self.names.add(user)
        self.members[user] = kept
        if self.names is None and len(self.members) > SMALL:
            self.names = Names()
            for name in self.members:
                self.names.add(name)

    def remove(self, user: str) -> None:
        del self.members[user]
        if self.names is not None:
            self.names.remove(user)

    def after(self, user: str) -> Iterator[str]:
        """Return the names behind *user*, in order."""
        if self.names is None:
            return iter(sorted(name for name in self.members if name > user))
        return self.names.between(f"{user}\0", None)


class Joined(NamedTuple):
    """What a `join` has changed.

    Attributes:
        memberships: those that were wanted, as they are now, in that order.
        begun: those of them that were not there before.
        rows: the same for a home that lasts, also where nothing has changed: it may not have kept them before.
        eras: what they stand in.
    """

    memberships: list[Membership]
    begun: list[Membership]
    rows: list[Row]
    eras: list[EraRow]


class Memberships:
    """All memberships, by room and by user, within bounds.

    Args:
        most: how many there may be.
        most_of_a_user: how many of them may be of one user.
        step: from the number of one era that begins here to that of the next one; negative where the home numbers
            those that it keeps.
    """

    def __init__(self, *, most: int = MOST, most_of_a_user: int = MOST_OF_A_USER, step: int = 1) -> None:
        self._most, self._most_of_a_user = most, most_of_a_user
        self._rooms: dict[str, _Room] = {}
        self._users: dict[str, list[str]] = {}  # the rooms of each, in order
        self._eras: dict[int, Era] = {}
        self._began: dict[str, Era] = {}  # by epoch, the era of those that began in it, and stand there still
        self._step = step
        self._number = 0  # of the era that was made last; none is used again
        self._count = 0

    def __len__(self) -> int:
        return self._count

    # ---- who is there ----

    def get(self, room: str, user: str) -> Membership | None:
        """Return the membership of *user* in *room*; None if there is none."""
        there = self._rooms.get(room)
        kept = None if there is None else there.members.get(user)
        return None if kept is None else self._membership(room, user, kept)

    def members(self, room: str, after: str, limit: int) -> list[Membership]:
        """Return up to *limit* memberships of *room* of the users behind *after*, in the order of their names."""
        there = self._rooms.get(room)
        if there is None:
            return []
        return [self._membership(room, user, there.members[user]) for user in islice(there.after(after), limit)]

    def rooms_of(self, user: str) -> list[Membership]:
        """Return all memberships of *user*, in the order of the names of the rooms."""
        rooms = self._users.get(user, ())
        return [self._membership(room, user, self._rooms[room].members[user]) for room in rooms]

    # ---- joining and leaving ----

    def join(self, wanted: Sequence[Membership]) -> Joined:
        """Begin the memberships that are *wanted*, all or none of them; see `State.join`.

        Raises:
            InvalidInput, TooManyMemberships: nothing was changed.
        """
        found: dict[tuple[str, str], Membership] = {}
        begun: dict[tuple[str, str], Membership] = {}
        for each in wanted:
            _check(each)
            place = (each.room, each.user)
            before = found.get(place) or self.get(*place)
            found[place] = each if before is None else _merged(before, each)
            if before is None or place in begun:
                begun[place] = found[place]
        self._check_bounds(begun.values())
        rows = [(each.room, each.user, *self._put(each)) for each in found.values()]
        eras = [self._eras[number].row for number in {row[2] for row in rows}]
        return Joined([found[each.room, each.user] for each in wanted], [*begun.values()], rows, eras)

    def _check_bounds(self, begun: Collection[Membership]) -> None:
        """Raise `TooManyMemberships` if there is no room for those that have *begun*."""
        if self._count + len(begun) > self._most:
            raise TooManyMemberships(None, self._most)
        for user, number in Counter(each.user for each in begun).items():
            if len(self._users.get(user, ())) + number > self._most_of_a_user:
                raise TooManyMemberships(user, self._most_of_a_user)

    def _put(self, membership: Membership) -> _Kept:
        room, user, publish, since, at, loaded = membership
        there = self._rooms.get(room)
        before = None if there is None else there.members.get(user)
        if there is not None and before is not None:
            kept = (*before[:3], publish, loaded)
            there.put(user, kept)
            return kept
        era = self._began.get(since.epoch)
        if era is None:
            self._number += self._step
            era = self._began[since.epoch] = self._eras[self._number] = Era(self._number, since.epoch)
        kept = (era.number, since.offset, at, publish, loaded)
        self._add(room, user, kept)
        return kept

    def _add(self, room: str, user: str, kept: _Kept) -> None:
        there = self._rooms.get(room)
        if there is None:
            there = self._rooms[room] = _Room()
        there.put(user, kept)
        rooms = self._users.get(user)
        if rooms is None:
            self._users[user] = [room]
        else:
            insort(rooms, room)
        self._eras[kept[0]].count += 1
        self._count += 1

    def leave(self, user: str, rooms: Iterable[str]) -> list[Membership]:
        """End the memberships of *user* in *rooms*, and return those that there were."""
        found = [self.get(room, user) for room in dict.fromkeys(rooms)]
        ended = [each for each in found if each is not None]
        for each in ended:
            self._remove(each.room, user)
        return ended

    def _remove(self, room: str, user: str) -> None:
        there = self._rooms[room]
        era = self._eras[there.members[user][0]]
        there.remove(user)
        if not there.members:
            del self._rooms[room]
        rooms = self._users[user]
        del rooms[bisect_left(rooms, room)]
        if not rooms:
            del self._users[user]
        era.count -= 1
        self._count -= 1
        if not era.count:
            del self._eras[era.number]
            if self._began.get(era.name) is era:
                del self._began[era.name]

    # ---- epochs ----

    def epochs(self) -> list[str]:
        """Return the epochs in which memberships stand."""
        return list(dict.fromkeys(era.name for era in self._eras.values() if era.count))

    def carry_over(self, epoch: str, newest: Position, end: int | None) -> list[EraRow]:
        """Carry all memberships that stand in *epoch* over to that of *newest* (see `carried`); return what changed."""
        changed = [era for era in self._eras.values() if era.name == epoch]
        self._began.pop(epoch, None)
        for era in changed:
            era.carry_over(newest, end)
        return [era.row for era in changed]

    # ---- a home that lasts ----

    def restore_eras(self, rows: Iterable[EraRow]) -> None:
        """Take over the eras that a home has written down, before the memberships."""
        for number, name, fixed, cap in rows:
            era = self._eras[number] = Era(number, name, fixed, cap)
            self._number = max(self._number, number) if self._step > 0 else self._number
            if fixed is None and cap == MAX_OFFSET:
                self._began[name] = era

    def restore(self, rows: Iterable[Row]) -> None:
        """Take over memberships that a home has written down; the bounds are those under which they were accepted."""
        for room, user, number, offset, at, publish, loaded in rows:
            if number not in self._eras:  # of no epoch that anybody knows: it begins anew
                self._eras[number] = Era(number, "")
                self._number = max(self._number, number)
            self._add(room, user, (number, offset, at, bool(publish), bool(loaded)))

    # ---- a home that other processes change as well ----

    def places(self) -> list[Place]:
        """Return where there are memberships."""
        return [(room, user) for room, there in self._rooms.items() for user in there.members]

    def row(self, room: str, user: str) -> Row | None:
        """Return what there is to write down of one membership; None: there is none."""
        there = self._rooms.get(room)
        kept = None if there is None else there.members.get(user)
        return None if kept is None else (room, user, *kept)

    def eras_of(self, row: Row | None) -> list[EraRow]:
        """Return in what the membership *row* stands."""
        return [] if row is None else [self._eras[row[2]].row]

    def settle(self, place: Place, row: Row | None, eras: Iterable[EraRow]) -> None:
        """Have the membership in *place* be *row*, whatever it was; *eras* has that in which it stands."""
        before = self.row(*place)
        if before == row:
            return
        if row is not None and row[2] not in self._eras:
            self.restore_eras(era for era in eras if era[0] == row[2])
        if row is not None and before is not None and before[2] == row[2]:
            self._rooms[place[0]].put(place[1], row[2:])
            return
        if before is not None:
            self._remove(*place)
        if row is not None:
            if row[2] not in self._eras:  # it has just ended with what was there before
                self.restore_eras(era for era in eras if era[0] == row[2])
            self._add(*place, row[2:])

    def carry_eras(self, rows: Iterable[EraRow]) -> None:
        """Have the eras that are known become as *rows* say."""
        for number, name, fixed, cap in rows:
            era = self._eras.get(number)
            if era is not None:
                if self._began.get(era.name) is era:
                    del self._began[era.name]
                era.name, era.fixed, era.cap = name, fixed, cap

    def _membership(self, room: str, user: str, kept: _Kept) -> Membership:
        number, offset, at, publish, loaded = kept
        return Membership(room, user, publish, self._eras[number].since(offset), at, loaded)


def _merged(before: Membership, wanted: Membership) -> Membership:
    """Return what becomes of a membership, *before*, that is *wanted* again: it goes on since it began."""
    if wanted.loaded and not before.loaded:
        return before
    return before._replace(publish=wanted.publish, loaded=wanted.loaded)


def _check(membership: Membership) -> None:
    topic_of("room", membership.room, "room")
    topic_of("user", membership.user, "user")
    if not isfinite(membership.at):
        raise InvalidInput("at", "is not a time")
