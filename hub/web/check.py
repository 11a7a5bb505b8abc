"""`/notifications/check`: what a hub knows of how it is run, for `hub check`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from hub.errors import LogUnavailable
from hub.file_limit import UNLIMITED, file_limit
from hub.hub import Hub
from hub.log.file_system import file_system_of
from hub.log_url import PRIVATE, SQLITE, LogURL
from hub.web.access import Access
from hub.web.body import MAX_BODY_BYTES
from hub.web.links import client_address, is_secure, link

PATH = "/notifications/check"
_BACKLOG = Path("/proc/sys/net/core/somaxconn")


async def check(hub: Hub, request: web.Request) -> web.Response:
    """Return the limits, the log and the rights that this process runs with, and how *request* came to it."""
    access = Access.of(request)
    await access.administer(request)
    settings = hub.settings
    facts = {
        "time": round(hub.clock(), 3),
        "streams": len(hub.connections),
        "limits": {
            "streams": settings.max_connections,
            "files": None if (files := file_limit()) == UNLIMITED else files,
            "backlog": _backlog(),
            "body": MAX_BODY_BYTES,
        },
        "log": _log(hub),
        "access": {
            "known": access.asks,
            "revocations": None if access.state is None else access.state.lasting,
        },
        "timeouts": {"heartbeat": settings.heartbeat, "drain": settings.drain, "peer": settings.peer_timeout},
        "request": _way(hub, request),
        "draining": hub.draining,
    }
    return web.json_response(facts, headers={"Cache-Control": "no-store"})


def _log(hub: Hub) -> dict[str, Any]:
    address = LogURL.parse(hub.settings.log)
    system = file_system_of(address.path) if address.scheme in {SQLITE, PRIVATE} else None
    answers = True
    try:
        hub.log.bounds()
    except LogUnavailable:
        answers = False
    return {
        "kind": address.scheme,
        "answers": answers,
        "file_system": None if system is None else system.kind,
        "network": system is not None and system.network,
    }


def _way(hub: Hub, request: web.Request) -> dict[str, Any]:
    """Return how *request* came here, as far as this process and the proxies that it trusts can tell."""
    peer = request.remote or ""
    return {
        "peer": peer,
        "client": client_address(hub.proxies, request),
        "trusted": hub.proxies.any and hub.proxies.trusts(peer),
        "forwarded": "X-Forwarded-For" in request.headers or "Forwarded" in request.headers,
        "secure": is_secure(hub.proxies, request),
        "prefix": link(hub, request, up=2, path=""),
    }


def _backlog() -> int | None:
    """Return how many connections may wait for being accepted; None where the kernel does not tell."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, ValueError):
        return int(_BACKLOG.read_text(encoding="ascii"))
    return None
