"""What every home of the state does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple, Protocol

from hub.access.identity import Identity
from hub.notification import Position

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


class Membership(NamedTuple):
    """That a user belongs to a room; there is one for a room and a user.

    Attributes:
        room: the name of the room, whose topic is `topic_of("room", room)`.
        user: the id of the user.
        publish: whether the member may publish to the room, too.
        since: the newest position that was given out when it began: what stands after it is the member's.
        at: when it began, in seconds since 1970.
        loaded: it came from the application's hook, and ends when that does not name it any more.
    """

    room: str
    user: str
    publish: bool
    since: Position
    at: float
    loaded: bool = False


JoinHeard = Callable[[Membership], None]
LeaveHeard = Callable[[str, str], None]


def unheard_join(membership: Membership) -> None:
    """Do nothing about a membership that has begun."""


def unheard_leave(room: str, user: str) -> None:
    """Do nothing about a membership that has ended."""


class State(Protocol):
    """Revocations, memberships, entries that can be taken once, and counters.

    They are shared by all processes that have the same home.

    All calls belong to the event loop's thread. Whatever waits for a disk or a network waits for a bounded time.
    """

    @property
    def lasting(self) -> bool:
        """Whether revocations, memberships and lasting entries outlive the process."""
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

    # ---- memberships ----

    def announce_members_to(self, joined: JoinHeard, left: LeaveHeard) -> None:
        """Call *joined* with each membership that begins from now on, *left* with the room and user of each that ends.

        That is in the step in which the others below first know of it, before `join` or `leave` waits for anything.
        What other processes with the same home do comes here too.
        """
        ...

    async def join(self, wanted: Sequence[Membership]) -> list[Membership]:
        """Begin the memberships that are *wanted*, all or none; return them as they are, when the home has them.

        A user who is a member already stays it since then. Only `publish` and `loaded` become those that are wanted;
        and not even these where the one there was is not loaded, and the one that is wanted is.

        A user has at most 1,000 memberships, all users together 1,000,000.

        Raises:
            InvalidInput: a room or a user has a name that can't be in a topic, or a time is not a number.
            TooManyMemberships: there would be more than there may be.
            StateUnavailable: the home does not confirm them. They count here all the same, until this process ends.
        """
        ...

    async def leave(self, user: str, rooms: Collection[str]) -> list[Membership]:
        """End the memberships of *user* in *rooms*; return those that there were, when the home has that.

        Raises:
            StateUnavailable: the home does not confirm it. They have ended here all the same, until this process ends;
                the same call again ends them there.
        """
        ...

    async def membership(self, room: str, user: str) -> Membership | None:
        """Return the membership of *user* in *room*; None if there is none.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def members(self, room: str, *, after: str = "", limit: int = 1_000) -> list[Membership]:
        """Return up to *limit* memberships of *room*, of the users behind *after*, in the order of code points.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def rooms_of(self, user: str) -> list[Membership]:
        """Return all memberships of *user*, in the order of the rooms.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def epochs(self) -> list[str]:
        """Return the epochs of the log that memberships have their positions in, each once.

        Raises:
            StateUnavailable: that can't be told now.
        """
        ...

    async def carry_over(self, epoch: str, newest: Position, end: int | None) -> None:
        """Have all memberships whose position is one of *epoch* go on in the epoch of *newest*; see `carried`.

        Cost does not depend on how many they are. Of several processes that do it, the first one decides.

        Raises:
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
