"""The state in a small SQLite file of its own: revocations outlive the process, whatever ends it.

Everything is in memory too, where it is asked; the file is read once, at the start. Counters, and entries that are not
lasting, are in memory only: a flood of requests must not wear the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from hub.access.identity import Identity
from hub.notification import Position
from hub.state.counters import Counters
from hub.state.entries import Entries, Entry
from hub.state.epochs import EraRow
from hub.state.journal import Journal, Statement
from hub.state.memberships import Memberships
from hub.state.revocations import Change, Revocations
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

logger = logging.getLogger("hub.state")


class SQLiteState:
    """Keeps the state in memory, and what must last in the file at *path* as well; confirms after the commit.

    Args:
        path: the file; it is made if it is not there, its folder too. One process may have it open.
        clock: seconds since 1970.
    """

    lasting = True

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._journal = Journal(path)
        self._revocations = Revocations(clock)
        self._entries = Entries(clock)
        self._counters = Counters(clock)
        self._memberships = Memberships()
        self._announce: Announce = unheard
        self._joined: JoinHeard = unheard_join
        self._left: LeaveHeard = unheard_leave

    @property
    def up(self) -> bool:
        return self._journal.up

    async def open(self) -> None:
        rows = await self._journal.open()
        self._revocations.restore(rows.revocations, rows.buckets)
        self._memberships.restore_eras(rows.eras)
        try:
            async for some in self._journal.memberships():
                self._memberships.restore(some)
        except BaseException:
            await self._journal.aclose()
            raise
        facts = f"{len(rows.revocations):,} revocations, {len(self._memberships):,} memberships"
        logger.info("the state is %s: %s", self._path, facts)
        now = self._clock()
        kept = [(key, Entry(value, expires, owner, True)) for key, value, expires, owner in rows.entries]
        gone = [key for key, entry in kept if entry.expires <= now]
        for key, entry in kept:
            if entry.expires > now:
                gone += self._entries.put(key, entry)
        if gone:
            self._journal.write(*_removed(gone))

    def announce_to(self, announce: Announce) -> None:
        self._announce = announce

    def revoked(self, identity: Identity) -> bool:
        return self._revocations.revoked(identity)

    async def revoke(self, revocation: Revocation) -> None:
        change = self._revocations.add(revocation)
        self._announce(revocation)
        await self._journal.keep(*_changed(change))

    def announce_members_to(self, joined: JoinHeard, left: LeaveHeard) -> None:
        self._joined, self._left = joined, left

    async def join(self, wanted: Sequence[Membership]) -> list[Membership]:
        joined = self._memberships.join(wanted)
        for each in joined.begun:
            self._joined(each)
        rows = [("INSERT OR REPLACE INTO membership VALUES (?, ?, ?, ?, ?, ?, ?)", row) for row in joined.rows]
        if rows:
            await self._journal.keep(*_carried(joined.eras), *rows)
        return joined.memberships

    async def leave(self, user: str, rooms: Collection[str]) -> list[Membership]:
        ended = self._memberships.leave(user, rooms)
        for each in ended:
            self._left(each.room, user)
        if rooms:  # also those that are not there: the file may not have kept that they have ended
            query = "DELETE FROM membership WHERE room = ? AND user = ?"
            await self._journal.keep(*((query, (room, user)) for room in rooms))
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
        changed = self._memberships.carry_over(epoch, newest, end)
        if changed:
            await self._journal.keep(*_carried(changed))

    async def put(self, key: str, value: str, *, expires: float, owner: str, lasting: bool = False) -> None:
        was = self._entries.get(key)
        gone = self._entries.put(key, Entry(value, expires, owner, lasting))
        if lasting:
            row = (key, value, float(expires), owner)
            kept = ("INSERT OR REPLACE INTO entry (key, value, expires, owner) VALUES (?, ?, ?, ?)", row)
            await self._journal.keep(kept, *_removed(gone))
        elif gone or (was is not None and was.lasting):
            self._journal.write(*_removed([key, *gone]))

    async def get(self, key: str) -> str | None:
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    async def take(self, key: str) -> str | None:
        entry = self._entries.take(key)
        if entry is None:
            return None
        if entry.lasting:
            await self._journal.keep(*_removed([key]))
        return entry.value

    async def count(self, key: str, *, window: float) -> int:
        return self._counters.count(key, window)

    async def aclose(self) -> None:
        await self._journal.aclose()


def _removed(keys: Iterable[str]) -> list[Statement]:
    return [("DELETE FROM entry WHERE key = ?", (key,)) for key in keys]


def _carried(eras: Iterable[EraRow]) -> list[Statement]:
    return [("INSERT OR REPLACE INTO era VALUES (?, ?, ?, ?)", row) for row in eras]


def _changed(change: Change) -> list[Statement]:
    row = (change.digest, float(change.at), None if change.until is None else float(change.until))
    return [
        ("INSERT OR REPLACE INTO revocation (digest, at, until) VALUES (?, ?, ?)", row),
        *(("DELETE FROM revocation WHERE digest = ?", (digest,)) for digest in change.gone),
        *(("INSERT OR REPLACE INTO bucket VALUES (?, ?)", bucket) for bucket in change.buckets),
    ]
