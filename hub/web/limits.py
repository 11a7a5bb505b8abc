"""Limits at the door: who holds a stream, and who publishes, as far as limits count them."""

from __future__ import annotations

from aiohttp import web

from hub.access.identity import Identity
from hub.connections.client_stream import CloseReason, Ending
from hub.connections.holders import NOBODY, Holder
from hub.encoding import Limit, retry_between
from hub.errors import TooManyPublishes
from hub.hub import Hub


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
