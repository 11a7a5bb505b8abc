"""What every home of the state does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from hub.access.identity import Identity

Kind = Literal["user", "token"]


class Revocation(NamedTuple):
    """The end of the rights of a user or of one token.

    Attributes:
        kind: `user`: all that was given to the user until *at*; `token`: the token with this id, whenever it was given.
        id: the id of the user, or of the token (`jti`).
        at: when it was revoked, in seconds since 1970.
        until: when the last right that it concerns ends anyway, so that it may be forgotten; None: that is not known.
    """

    kind: Kind
    id: str
    at: float
    until: float | None = None


Announce = Callable[[Revocation], None]


def unheard(revocation: Revocation) -> None:
    """Do nothing about a revocation."""


class State(Protocol):
    """Revocations, entries that can be taken once, and counters; shared by all processes that have the same home.

    All calls belong to the event loop's thread. Whatever waits for a disk or a network waits for a bounded time.
    """

    @property
    def lasting(self) -> bool:
        """Whether revocations and lasting entries outlive the process."""
        ...

    @property
    def up(self) -> bool:
        """Whether the home answers: False while it takes longer than one that works does."""
        ...

    async def open(self) -> None:
        """Begin, on the running loop. When this returns, `revoked` knows what was revoked before.

        Raises:
            StateUnavailable: the home can't be used; says why.
        """
        ...

    # ---- revocations ----

    def announce_to(self, announce: Announce) -> None:
        """Call *announce* with each revocation from now on, once, in the step in which `revoked` first knows of it.

        That is before `revoke` waits for anything. Revocations of other processes with the same home come here too.
        """
        ...

    def revoked(self, identity: Identity) -> bool:
        """Return whether *identity* has no rights any more. It never waits: it is asked on the way of every request.

        An identity is revoked with its token, or with its user if it was issued not later than that, or nobody knows
        when. So an identity of the application must say when the application was asked (`issued`): one that is asked
        for after the revocation counts again.

        It never says False of what was revoked, whatever the bounds are. Beyond 100,000 revocations the oldest are
        remembered by a short hash, and then it may say True of somebody else's identity that is as old: who gets a new
        token is known again.
        """
        ...

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke what *revocation* says, at once; return when the home has it.

        Raises:
            InvalidInput: a time in it is not a number.
            StateUnavailable: the home does not confirm it. It counts here all the same, until this process ends.
        """
        ...

    # ---- entries ----

    async def put(self, key: str, value: str, *, expires: float, owner: str, lasting: bool = False) -> None:
        """Keep *value* under *key*, instead of what is there, until `take`, or until *expires*.

        An owner has at most 256 entries, all owners together 100,000 and 64 MiB; what was put first goes first.

        Args:
            key: at most 1 KiB in UTF-8.
            value: at most 64 KiB in UTF-8.
            expires: in seconds since 1970.
            owner: whose entry it is; at most 1 KiB.
            lasting: also beyond the end of the process, where the home can.

        Raises:
            TooLarge: a text is too large.
            InvalidInput: a text can't be encoded in UTF-8, or *expires* is not a number.
            StateUnavailable: a lasting entry is not confirmed. It is kept here all the same, until this process ends.
        """
        ...

    async def get(self, key: str) -> str | None:
        """Return what is kept under *key*; None if nothing is, or it has expired.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def take(self, key: str) -> str | None:
        """Return what is kept under *key*, and keep it no more: of all who ask at once, one gets it, the others None.

        Raises:
            StateUnavailable: that can't be told now; the entry may have gone.
        """
        ...

    # ---- counters ----

    async def count(self, key: str, *, window: float) -> int:
        """Count one more under *key* and return how many there are in its window of *window* seconds.

        A window begins with the first one that is counted outside of another window. 100,000 windows are kept; beyond
        them, the one that began first is forgotten. Counters end with the process, where one process has the home.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def aclose(self) -> None:
        """Wait for a bounded time until what was accepted is kept, then let go of every resource."""
        ...
