"""Who holds the open streams: each one's user and address, and how many they hold. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from hub.access.identity import Identity


class Holder(NamedTuple):
    """The client that holds a stream.

    Attributes:
        user: its user; None: nobody knows.
        address: its address, if that is not the address of the socket's peer (behind a proxy); empty: it is.
        expires: when its rights end, in seconds since 1970; None: not at a time that is known.
        identity: who its user is, with its rights when the stream was opened; None: nobody known.
        within: topics and patterns beyond which the stream may not be widened; None: all that the identity may read.
    """

    user: str | None = None
    address: str = ""
    expires: float | None = None
    identity: Identity | None = None
    within: tuple[str, ...] | None = None


NOBODY = Holder()
"""The holder of a stream of which nothing is known but its socket."""


class Held(Protocol):
    """A stream, as far as its holder is concerned."""

    id: str
    holder: Holder

    @property
    def address(self) -> str:
        """The address of its client; empty: it has none."""
        ...


Stream = TypeVar("Stream", bound=Held)


class Holders(Generic[Stream]):
    """The streams of each user, the oldest first, and the number of streams of each address.

    Args:
        counted: returns under what an address is counted, always the same; empty: not at all.
    """

    def __init__(self, counted: Callable[[str], str] = str) -> None:
        self.counted = counted
        # Most users have one stream: it stands here without a dict of its own, which would cost a tenth of a stream.
        self._users: dict[str, Stream | dict[str, Stream]] = {}
        self._addresses: Counter[str] = Counter()

    def of(self, user: str) -> list[Stream]:
        """Return the streams of *user*, the oldest first."""
        held = self._users.get(user)
        if held is None:
            return []
        return list(held.values()) if isinstance(held, dict) else [held]

    def count(self, user: str) -> int:
        """Return how many streams *user* holds."""
        held = self._users.get(user)
        return len(held) if isinstance(held, dict) else int(held is not None)

    def at(self, address: str) -> int:
        """Return how many streams are held under what *address* is counted as; 0 if it is not counted."""
        counted = self.counted(address)
        return self._addresses[counted] if counted else 0

    def add(self, stream: Stream) -> None:
        """Count *stream*."""
        user = stream.holder.user
        if user is not None:
            held = self._users.get(user)
            if held is None:
                self._users[user] = stream
            elif isinstance(held, dict):
                held[stream.id] = stream
            else:
                self._users[user] = {held.id: held, stream.id: stream}
        if counted := self.counted(stream.address):
            self._addresses[counted] += 1

    def remove(self, stream: Stream) -> None:
        """Count *stream*, which was added, no more."""
        user = stream.holder.user
        if user is not None:
            held = self._users[user]
            if isinstance(held, dict):
                del held[stream.id]
            if not isinstance(held, dict) or not held:
                del self._users[user]
        if counted := self.counted(stream.address):
            self._addresses[counted] -= 1
            if not self._addresses[counted]:
                del self._addresses[counted]
