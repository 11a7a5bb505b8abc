"""The state in memory: of one process, and forgotten with it."""

from __future__ import annotations

from collections.abc import Callable

from hub.access.identity import Identity
from hub.state.counters import Counters
from hub.state.entries import Entries, Entry
from hub.state.revocations import Revocations
from hub.state.state import Announce, Revocation, unheard


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
        self._announce: Announce = unheard

    async def open(self) -> None:
        pass

    def announce_to(self, announce: Announce) -> None:
        self._announce = announce

    def revoked(self, identity: Identity) -> bool:
        return self._revocations.revoked(identity)

    async def revoke(self, revocation: Revocation) -> None:
        self._revocations.add(revocation)
        self._announce(revocation)

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
