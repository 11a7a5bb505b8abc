"""How the client sees the hub: paths with the prefix that proxies have removed, its address, its own origin, TLS."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from hub.hub import Hub
from hub.proxies import Proxies


def link(hub: Hub, request: web.BaseRequest, *, up: int, path: str) -> str:
    """Return the path of *request* without its last *up* segments and with *path* appended, percent-encoded."""
    own = request.rel_url.raw_path
    if not own.isascii():  # only aiohttp's parser in pure Python accepts such a path
        own = quote(own, safe="/%", errors="surrogateescape")
    prefix = hub.proxies.root_path
    if hub.proxies.any and (told := request.headers.getall("X-Forwarded-Prefix", ())):
        prefix = hub.proxies.prefix(request.remote or "", told)
    return f"{prefix}{own.rsplit('/', up)[0] if up else own}{path}"


def client_address(proxies: Proxies, request: web.BaseRequest) -> str:
    """Return the address of the client that sent *request* to the outermost trusted proxy."""
    peer = request.remote or ""
    # A request that aiohttp could not parse has headers without `getall`.
    getall = getattr(request.headers, "getall", None)
    return proxies.client(peer, getall("X-Forwarded-For", ())) if proxies.any and getall is not None else peer


def is_secure(proxies: Proxies, request: web.BaseRequest) -> bool:
    """Return whether the client sent *request* over TLS: to the hub, or to a trusted proxy that says so."""
    if request.secure:
        return True
    return proxies.any and proxies.secure(request.remote or "", request.headers.getall("X-Forwarded-Proto", ()))


def is_own(proxies: Proxies, request: web.BaseRequest, origin: str) -> bool:
    """Return whether *origin*, which a browser has sent with *request*, is that of the hub itself.

    A browser that says no more than `Origin` does not tell the hub's own scheme: where the hub knows that it is asked
    over TLS, a page that came without is another one.
    """
    scheme, _, host = origin.partition("://")
    if scheme not in {"http", "https"} or (scheme == "http" and is_secure(proxies, request)):
        return False
    told = request.headers.getall("X-Forwarded-Host", ())
    return host == request.headers.get("Host", "").lower() or host in proxies.hosts(request.remote or "", told)
