"""The state in memory: of one process, and forgotten with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hub.access.identity import Identity
from hub.notification import Position
from hub.state.counters import Counters
from hub.state.entries import Entries, Entry
from hub.state.memberships import Memberships
from hub.state.revocations import Revocations
from hub.state.state import (
    Announce,
    JoinHeard,
    LeaveHeard,
    Membership,
    Revocation,
    unheard,
    unheard_join,
    unheard_leave,
)


class MemoryState:
    """Keeps the state in memory.

    Args:
        clock: seconds since 1970.
    """

    lasting = False
    up = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._revocations = Revocations(clock)
        self._entries = Entries(clock)
        self._counters = Counters(clock)
        self._memberships = Memberships()
        self._announce: Announce = unheard
        self._joined: JoinHeard = unheard_join
        self._left: LeaveHeard = unheard_leave

    async def open(self) -> None:
        pass

    def announce_to(self, announce: Announce) -> None:
        self._announce = announce

    def revoked(self, identity: Identity) -> bool:
        return self._revocations.revoked(identity)

    async def revoke(self, revocation: Revocation) -> None:
        self._revocations.add(revocation)
        self._announce(revocation)

    def announce_members_to(self, joined: JoinHeard, left: LeaveHeard) -> None:
        self._joined, self._left = joined, left

    async def join(self, wanted: Sequence[Membership]) -> list[Membership]:
        joined = self._memberships.join(wanted)
        for each in joined.begun:
            self._joined(each)
        return joined.memberships

    async def leave(self, user: str, rooms: Collection[str]) -> list[Membership]:
        ended = self._memberships.leave(user, rooms)
        for each in ended:
            self._left(each.room, user)
        return ended

    async def membership(self, room: str, user: str) -> Membership | None:
        return self._memberships.get(room, user)

    async def members(self, room: str, *, after: str = "", limit: int = 1_000) -> list[Membership]:
        return self._memberships.members(room, after, limit)

    async def rooms_of(self, user: str) -> list[Membership]:
        return self._memberships.rooms_of(user)

    async def epochs(self) -> list[str]:
        return self._memberships.epochs()

    async def carry_over(self, epoch: str, newest: Position, end: int | None) -> None:
        self._memberships.carry_over(epoch, newest, end)

    async def put(self, key: str, value: str, *, expires: float, owner: str, lasting: bool = False) -> None:
        self._entries.put(key, Entry(value, expires, owner, lasting))

    async def get(self, key: str) -> str | None:
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    async def take(self, key: str) -> str | None:
        entry = self._entries.take(key)
        return None if entry is None else entry.value

    async def count(self, key: str, *, window: float) -> int:
        return self._counters.count(key, window)

    async def aclose(self) -> None:
        pass
