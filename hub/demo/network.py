"""What a network does to the page of the demo: nothing, or it blocks WebSockets, or holds streams back as well.

Whoever is logged in chooses it on the page, for their own browser and no other. From then on the demo answers that
browser as a proxy in such a network would, and cuts what is open. The hub knows nothing of it, and the client of the
page is not told either: it finds out what goes through.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import hdrs, web

from hub.connections.client_stream import CloseReason, StreamKind
from hub.demo.accounts import logged_in
from hub.errors import InvalidInput, Unauthorized
from hub.hub import Hub
from hub.web.access import Access
from hub.web.body import read_json
from hub.web.endpoint import Handler, check_site

COOKIE = "hub_demo_network"
LONGEST = 30.0
"""Seconds after which a proxy that waits for the end of a stream gives up."""
MOST = 100
"""Streams that are held back at a time; more are given up at once."""


class Network(enum.StrEnum):
    """What gets through."""

    OPEN = "open"
    NO_WEBSOCKETS = "no-websockets"
    NO_STREAMS = "no-streams"  # and no WebSockets either

    @property
    def cuts(self) -> frozenset[StreamKind]:
        """The kinds of streams that do not get through."""
        return _CUTS[self]


_CUTS = {
    Network.OPEN: frozenset[StreamKind](),
    Network.NO_WEBSOCKETS: frozenset({StreamKind.WEBSOCKET}),
    Network.NO_STREAMS: frozenset({StreamKind.WEBSOCKET, StreamKind.SUBSCRIPTION}),
}


def network_of(request: web.Request) -> Network:
    """Return the network that the browser of *request* has chosen, as long as somebody is logged in there."""
    chosen = request.cookies.get(COOKIE, Network.OPEN)
    return Network(chosen) if chosen in _NAMES and logged_in(request) is not None else Network.OPEN


_NAMES = frozenset(Network)


async def choose(hub: Hub, request: web.Request) -> web.Response:
    """Choose a network: `{"network": "no-websockets"}`; what does not get through it is cut at once."""
    check_site(hub, request, by_cookie=True)
    user = logged_in(request)
    if user is None:
        raise Unauthorized("unauthorized", "log in on the page of the demo")
    body = await read_json(request)
    name = body.get("network") if isinstance(body, dict) else None
    if not isinstance(name, str) or name not in _NAMES:
        raise InvalidInput("network", f"is none of {', '.join(Network)}")
    network = Network(name)
    answer = web.json_response({"network": network})
    # The page reads it, so that all tabs of the browser show the same.
    secure = Access.of(request).is_secure(request)
    answer.set_cookie(COOKIE, network, path="/", secure=secure, samesite="Lax")
    for stream in hub.connections.of(user.user):
        held = stream.holder.identity
        if stream.kind in network.cuts and held is not None and held.session == user.session:
            stream.abort(CloseReason.CLIENT)  # the network is not polite
    return answer


ROUTES: dict[str, dict[str, Handler]] = {"/network": {"PUT": choose}}


class Proxy:
    """Stands before the hub, and answers for it what its network does not let through."""

    def __init__(self) -> None:
        self._ended = asyncio.Event()
        self._held = 0

    def add_to(self, app: web.Application) -> None:
        """Put it before everything that *app* answers."""
        app.middlewares.append(self.answer)
        app.on_shutdown.append(self._end)

    @web.middleware
    async def answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Return what comes through."""
        network = network_of(request)
        if network is Network.OPEN:
            return await handler(request)
        if hdrs.UPGRADE in request.headers:
            return _page(403, "This network lets no WebSocket through.")
        if network is Network.NO_STREAMS and request.path.endswith("/notifications/subscribe"):
            await self._hold(request)
            return _page(504, "This network waits for the end of an answer. That of a stream did not come.")
        return await handler(request)

    async def _hold(self, request: web.Request) -> None:
        """Wait for the end of a stream, which does not come: until the client, or the demo, has had enough."""
        if self._held >= MOST:
            return
        self._held += 1
        until = time.monotonic() + LONGEST
        try:
            while request.transport is not None and time.monotonic() < until and not self._ended.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), 0.5)
        finally:
            self._held -= 1

    async def _end(self, app: web.Application) -> None:
        self._ended.set()


def _page(status: int, text: str) -> web.Response:
    """Return what such proxies answer: a page of their own."""
    html = f"<!doctype html><title>{status}</title><p>{text}</p>"
    return web.Response(status=status, text=html, content_type="text/html", headers={"Cache-Control": "no-store"})
