"""Limits at the door: who holds a stream, who publishes, and who is refused, as far as limits count them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from hub.access.identity import Identity
from hub.connections.client_stream import CloseReason, Ending
from hub.connections.holders import NOBODY, Holder
from hub.encoding import Limit, retry_between
from hub.errors import (
    AuthUnavailable,
    Forbidden,
    ShuttingDown,
    TooManyPublishes,
    TooManyRefusals,
    TooManyStreams,
    TooManyTickets,
    Unauthorized,
)
from hub.hub import Hub

Refusal = Unauthorized | Forbidden | AuthUnavailable | TooManyRefusals

# So that a hook is asked once per request. aiohttp has such keys since 3.14, and warns of others.
IDENTITY: Any = web.RequestKey("identity", Identity) if hasattr(web, "RequestKey") else "hub.identity"


def holder_of(
    hub: Hub, request: web.BaseRequest, identity: Identity | None = None, within: tuple[str, ...] | None = None
) -> Holder:
    """Return the holder of the stream that *request* of *identity* (None: nobody known) asks for.

    *within* are the topics and patterns beyond which it may not be widened; None: all that the identity may read.
    """
    peer = request.remote or ""
    client = hub.addresses.client(peer, request.headers.getall("X-Forwarded-For", ()))
    # Most streams share one holder: the address of the peer can be asked of the socket.
    address = "" if client == peer else client
    if identity is not None:
        return Holder(identity.user, address, identity.expires, identity, within)
    return Holder(None, address) if address else NOBODY


def refused(hub: Hub, request: web.BaseRequest, holder: Holder) -> Ending | None:
    """Return how a stream of *holder* has to end at once, since a limit leaves no room for it; None: there is room.

    Each call counts as an attempt to connect.
    """
    address = holder.address or request.remote or ""
    counted = hub.addresses.counted(address)
    if counted and hub.connecting.ask(counted):
        return Ending(CloseReason.CAPACITY, retry_between(10, 60), Limit.CONNECT_RATE)
    return hub.connections.lacks_room(holder.user, address)


def check_room(hub: Hub, request: web.BaseRequest, holder: Holder) -> None:
    """Check that *holder* may have a poll, or a session of Socket.IO, now.

    Raises:
        ShuttingDown, TooManyStreams: not now.
    """
    if hub.draining:
        hub.metrics.refused += 1
        raise ShuttingDown
    ending = refused(hub, request, holder)
    if ending is not None:
        hub.metrics.refused += 1
        raise TooManyStreams(ending.limit or "max_connections")


def check_publish(hub: Hub, who: str, number: int = 0) -> None:
    """Count *number* notifications of *who*, or only see whether one may be published now.

    Raises:
        TooManyPublishes: as for `PublishRates`.
    """
    try:
        if number:
            hub.publishing.take(who, number)
        else:
            hub.publishing.check(who)
    except TooManyPublishes:
        hub.metrics.limited += 1
        raise


def publisher(hub: Hub, request: web.BaseRequest, identity: Identity | None = None) -> str:
    """Return whose publishes *request* counts among: those of its user, or of its address; empty: no limit."""
    if identity is not None:
        return f"user {identity.user}"
    client = hub.addresses.client(request.remote or "", request.headers.getall("X-Forwarded-For", ()))
    return hub.addresses.counted(client)


# ---- those who are refused ----


def count_refusal(hub: Hub, request: web.Request, error: Refusal) -> None:
    """Count a request that was refused with *error*, in the statistics and among those of its sender."""
    count_refusal_of(hub, publisher(hub, request, request.get(IDENTITY)), error)


def count_refusal_of(hub: Hub, who: str, error: Refusal) -> None:
    """Count what *who*, as `publisher` says, asked for, and was refused with *error*."""
    if isinstance(error, TooManyRefusals):
        hub.metrics.limited += 1
    elif isinstance(error, AuthUnavailable):
        hub.metrics.auth_unavailable += 1
    else:
        if isinstance(error, Forbidden):
            hub.metrics.forbidden += 1
        else:
            hub.metrics.unauthorized += 1
        if who:
            hub.refusing.spend(who)


def check_refusals(hub: Hub, request: web.BaseRequest, identity: Identity | None = None) -> None:
    """Raise if so much of *identity*, or of the address of *request*, was refused that nothing more is looked at now.

    Raises:
        TooManyRefusals: it says when to come back.
    """
    if len(hub.refusing):
        check_refusals_of(hub, publisher(hub, request, identity))


def check_refusals_of(hub: Hub, who: str) -> None:
    """Raise as `check_refusals` if so much of *who* was refused."""
    if who and (wait := hub.refusing.wait(who)):
        raise TooManyRefusals("refuse_rate", hub.refusing.per_second, wait)


def count_ticket(hub: Hub, identity: Identity) -> None:
    """Count a ticket that *identity* asks for.

    Raises:
        TooManyTickets: there were too many; it says when to come back.
    """
    if wait := hub.minting.ask(identity.user):
        hub.metrics.limited += 1
        raise TooManyTickets("ticket_rate", hub.minting.per_second, wait)
