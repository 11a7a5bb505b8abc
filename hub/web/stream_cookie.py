"""The cookies `hub_stream_…`, with which a browser comes back to a stream that began with a ticket."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aiohttp import web

from hub.access.tickets import cookie_name
from hub.hub import Hub
from hub.state.tickets import StreamCookie
from hub.web.links import is_secure, link

MOST = 32
"""Such cookies that a browser keeps: about 2 KiB in each request for a stream. Proxies take 8 KiB of all cookies."""


def stream_cookies(hub: Hub, request: web.Request, cookie: StreamCookie) -> Iterator[str]:
    """Yield the `Set-Cookie` headers of the stream that *request* begins: *cookie*, and the end of the oldest others.

    A page that is loaded again begins with another ticket, so each load leaves a cookie behind. It ends with the
    rights, but those may last for weeks. So beyond 32 the oldest are removed: browsers send those first that they got
    first (RFC 6265, 5.4). A stream whose cookie has gone stays open; if it is lost, its page needs a new ticket.
    """
    secure = is_secure(hub.proxies, request)
    cross_site = secure and request.headers.get("Origin") in hub.settings.cors_origins
    attributes = f"; Path={link(hub, request, up=0, path='')}; HttpOnly; SameSite={'None' if cross_site else 'Strict'}"
    attributes += "; Secure" * secure + "; Partitioned" * cross_site
    others = [name for name in request.cookies if name.startswith(cookie_name("", secure=secure))]
    for name in others[: max(len(others) - MOST + 1, 0)]:
        yield f"{name}=; Max-Age=0{attributes}"
    yield f"{cookie_name(cookie.id, secure=secure)}={cookie.value}; Max-Age={math.ceil(cookie.seconds)}{attributes}"
