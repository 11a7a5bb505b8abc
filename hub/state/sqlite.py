"""The state in a small SQLite file of its own: revocations outlive the process, whatever ends it.

Everything is in memory too, where it is asked; the file is read once, at the start. Counters, and entries that are not
lasting, are in memory only: a flood of requests must not wear the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from hub.access.identity import Identity
from hub.state.counters import Counters
from hub.state.entries import Entries, Entry
from hub.state.journal import Journal, Statement
from hub.state.revocations import Change, Revocations
from hub.state.state import Announce, Revocation, unheard

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
        self._announce: Announce = unheard

    @property
    def up(self) -> bool:
        return self._journal.up

    async def open(self) -> None:
        rows = await self._journal.open()
        self._revocations.restore(rows.revocations, rows.buckets)
        logger.info("the state is %s: %s revocations", self._path, f"{len(rows.revocations):,}")
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


def _changed(change: Change) -> list[Statement]:
    row = (change.digest, float(change.at), None if change.until is None else float(change.until))
    return [
        ("INSERT OR REPLACE INTO revocation (digest, at, until) VALUES (?, ?, ?)", row),
        *(("DELETE FROM revocation WHERE digest = ?", (digest,)) for digest in change.gone),
        *(("INSERT OR REPLACE INTO bucket VALUES (?, ?)", bucket) for bucket in change.buckets),
    ]
