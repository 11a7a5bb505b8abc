"""The tickets that are kept in the state: from minting, through the stream that begins, to the stream that comes back.

    mint ─ ticket ─ admit ─ begin ─ return ─ admit ─ begin ─ …
              └────── take_back ──────┘

A ticket that is not used is kept in memory: a restart costs the client one more request. What a stream may come back
with lasts, where the state does, so that a restart of the hub costs an open page nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from hub.access.identity import Identity
from hub.access.tickets import Covers, Return, Shown, Ticket, cookie_name, no_ticket, shown
from hub.errors import StateUnavailable, Unauthorized
from hub.state.state import State

logger = logging.getLogger("hub.state")

TELL_SECONDS = 3600.0
"""Seconds for which a stream whose rights have ended is told so when it comes back; then its ticket is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A valid ticket, with which a stream may begin.

    Attributes:
        id: the public part of the ticket.
        identity: who asked for it. The rights are of that time: what may be read today is the caller's question.
        asked: the topics of the stream.
        ticket: what is kept of it; None: its stream comes back.
        within: the topics and patterns that it is for; None: whatever the identity may read.
        rooms: the stream has the rooms of its user, too.
    """

    id: str
    identity: Identity
    asked: tuple[str, ...]
    ticket: Ticket | None
    within: tuple[str, ...] | None = None
    rooms: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCookie:
    """What a browser has to keep so that its stream comes back.

    Attributes:
        id: the public part of the ticket.
        value: the secret.
        seconds: for how long it is of use: until the stream may not come back, and would not even be told why.
    """

    id: str
    value: str
    seconds: float


class Tickets:
    """Mints tickets, admits streams with them, and has each begin one stream.

    Args:
        state: where they are kept.
        clock: seconds since 1970.
        covers: whether one pattern covers another.
    """

    def __init__(self, state: State, clock: Callable[[], float], covers: Covers) -> None:
        self._state = state
        self._clock = clock
        self._covers = covers

    async def mint(self, identity: Identity, topics: Iterable[str] | None = None) -> str:
        """Return a new ticket for *identity*, for *topics* only; None: for whatever the identity may read.

        Raises:
            Unauthorized: the rights of *identity* have ended.
            TooLarge: they are more than fits.
            StateUnavailable: tickets can't be kept now.
        """
        text, ticket = Ticket.mint(identity, topics, self._clock())
        await self._put(ticket)
        return text

    async def admit(
        self, text: str, cookies: Mapping[str, str], asked: Collection[str], *, secure: bool, rooms: bool = False
    ) -> Admission:
        """Return the admission of a stream of *asked* whose request shows the ticket *text*.

        The ticket is not used up by that: only `begin` does.

        Args:
            text: the ticket in the URL.
            cookies: those of the request.
            asked: the topics and patterns of the stream.
            secure: whether the request came over TLS.
            rooms: the stream has the rooms of its user, too.

        Raises:
            Unauthorized: the ticket is not valid, or what it was given for has ended or was revoked.
            Forbidden: it is for other topics.
            StateUnavailable: that can't be told now.
        """
        seen = shown(text)
        cookie = cookies.get(cookie_name(seen.id, secure=secure))
        admission = await self._first(seen, asked, rooms=rooms)
        if admission is None and cookie is not None:
            admission = await self._again(seen, cookie, asked, rooms=rooms)
        if admission is None:
            raise no_ticket()
        if self._state.revoked(admission.identity):
            raise Unauthorized("revoked", "the rights that the ticket was given for have been revoked: log in again")
        return admission

    async def _first(self, seen: Shown, asked: Collection[str], *, rooms: bool) -> Admission | None:
        kept = await self._state.get(_ticket_key(seen.id))
        if kept is None:
            return None
        ticket = Ticket.from_text(kept)
        ticket.check(seen, asked, self._clock(), self._covers)
        return Admission(
            id=ticket.id, identity=ticket.identity, asked=tuple(asked), ticket=ticket, within=ticket.topics, rooms=rooms
        )

    async def _again(self, seen: Shown, cookie: str, asked: Collection[str], *, rooms: bool) -> Admission | None:
        kept = await self._state.get(_return_key(seen.id))
        if kept is None:
            return None
        try:
            back = Return.from_text(kept)
        except ValueError:  # another version of the hub wrote it
            return None
        back.check(seen, cookie, asked, self._clock(), rooms=rooms)
        return Admission(id=back.id, identity=back.identity, asked=tuple(asked), ticket=None, within=back.within)

    async def begin(self, admission: Admission) -> StreamCookie | None:
        """Use the ticket up, for the stream that begins now; return the cookie that its answer sets.

        Of several that were admitted with one ticket, one begins. None: the stream comes back, with the cookie it has.

        Raises:
            Unauthorized: another stream has begun with the ticket meanwhile.
            StateUnavailable: that can't be told now.
        """
        ticket = admission.ticket
        if ticket is None:
            return None
        if await self._state.take(_ticket_key(ticket.id)) is None:
            raise no_ticket()
        now = self._clock()
        value, back = ticket.begin(admission.asked, now, rooms=admission.rooms)
        key, expires = _return_key(ticket.id), back.expires + TELL_SECONDS
        try:
            await self._state.put(key, back.to_text(), expires=expires, owner=back.identity.user, lasting=True)
        except StateUnavailable as error:  # the stream may begin: it can come back until this process ends
            logger.warning("a stream that began with a ticket can't come back after a restart: %s", error)
        return StreamCookie(id=ticket.id, value=value, seconds=expires - now)

    async def take_back(self, admission: Admission) -> None:
        """Let the ticket be shown again, within its 30 seconds: the answer that began the stream did not go out.

        Raises:
            StateUnavailable: that can't be kept now.
        """
        ticket = admission.ticket
        if ticket is not None and ticket.expires > self._clock():
            await self._put(ticket)
            await self._state.take(_return_key(ticket.id))

    async def _put(self, ticket: Ticket) -> None:
        owner = _ticket_owner(ticket.identity.user)
        await self._state.put(_ticket_key(ticket.id), ticket.to_text(), expires=ticket.expires, owner=owner)


def _ticket_owner(user: str) -> str:
    """Return who owns the tickets of *user* that are not used yet: too many of them take no stream its return."""
    return f"tickets of {user}"


def _ticket_key(id: str) -> str:
    return f"ticket/{id}"


def _return_key(id: str) -> str:
    return f"return/{id}"
