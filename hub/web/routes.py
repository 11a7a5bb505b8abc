"""Which routes there are, by the names that `setup_hub` takes, and where they are mounted."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal
from urllib.parse import quote, unquote

from aiohttp import web
from yarl import URL

from hub.errors import InvalidInput
from hub.hub import Hub
from hub.web import client_files, generations, rooms
from hub.web.administration import change_topics, connections, end_connection, mint_ticket, revoke_token, revoke_user
from hub.web.check import PATH as PATH_OF_CHECK
from hub.web.check import check
from hub.web.dashboard import routes as dashboard_routes
from hub.web.endpoint import Endpoint, Handler, NotFound
from hub.web.history import export, history, history_pages
from hub.web.monitoring import healthz, metrics, readyz, stats
from hub.web.poll import poll
from hub.web.position import position
from hub.web.presence import presence
from hub.web.publish import emit, publish
from hub.web.subscribe import subscribe, subscribe_by_post
from hub.web.tracing import traced
from hub.web.websocket.handshake import websocket

_UNCHANGED = re.compile(r"[A-Za-z0-9._~\-]*")

ADMINISTRATION = frozenset({"stats", "metrics", "connections", "events", "export", "dashboard"})
"""What only administrators may use, of what `routes` of `setup_hub` may name."""
NAMES = ADMINISTRATION | {
    "subscribe", "publish", "history", "health", "ai", "tickets", "topics", "presence", "rooms", "api",
}  # fmt: skip
"""What `routes` of `setup_hub` may name."""


def chosen(routes: Literal["all"] | Collection[str] | None, *, guarded: bool) -> Collection[str]:
    """Return the names of the routes that are mounted.

    Raises:
        InvalidInput: *routes* names something else.
    """
    if routes == "all" or (routes is None and guarded):
        return NAMES
    names = frozenset({"subscribe", "health"} if routes is None else [routes] if isinstance(routes, str) else routes)
    if unknown := sorted(names - NAMES):
        raise InvalidInput("routes", f"{unknown[0]!r} is none of {', '.join(sorted(NAMES))}, and not 'all'")
    return names


def routes_of(hub: Hub, chosen: Collection[str]) -> dict[str, dict[str, Handler]]:
    """Return the handlers of the routes that are *chosen* by name, by path and method."""
    pages: dict[str, Handler] = {"GET": history if "export" in chosen else history_pages}
    all_routes: dict[str, dict[str, dict[str, Handler]]] = {
        "subscribe": {
            "/notifications/subscribe": {"GET": subscribe, "POST": subscribe_by_post},
            "/notifications/position": {"GET": position},
            "/notifications/ws": {"GET": websocket},
            "/notifications/poll": {"GET": poll},
            client_files.PATH: {"GET": client_files.client_file},
        },
        "publish": {
            "/notifications/publish": {"POST": traced(hub.tracing, "/notifications/publish", publish)},
        },
        "export": {"/notifications/history": {"GET": export}},
        "history": {"/notifications/history": pages},  # behind the export, whose path it has
        "stats": {"/notifications/stats": {"GET": stats}, PATH_OF_CHECK: {"GET": check}},
        "health": {"/healthz": {"GET": healthz}, "/readyz": {"GET": readyz}},
        "metrics": {"/metrics": {"GET": metrics}},
        "ai": generations.routes(hub),
        "tickets": {"/notifications/tickets": {"POST": mint_ticket}},
        "topics": {"/notifications/connections/{id}": {"PATCH": change_topics}},
        "connections": {
            "/notifications/connections": {"GET": connections},
            "/notifications/connections/{id}": {"DELETE": end_connection},
            "/notifications/users/{userId}/connections": {"DELETE": revoke_user},
            "/notifications/tokens/{jti}": {"DELETE": revoke_token},
        },
        "presence": {"/notifications/presence": {"GET": presence}},
        "rooms": {
            "/notifications/rooms/{room}/members": {"GET": rooms.members},
            "/notifications/rooms/{room}/members/{userId}": {"PUT": rooms.join, "DELETE": rooms.leave},
        },
        "events": (
            {"/events/{name}": {"POST": traced(hub.tracing, "/events/{name}", emit)}} if hub.settings.events_api else {}
        ),
        "dashboard": dashboard_routes.routes() if hub.settings.dashboard else {},
    }
    routes: dict[str, dict[str, Handler]] = {}
    for path, handlers in (each for name in all_routes if name in chosen for each in all_routes[name].items()):
        routes[path] = routes.get(path, {}) | handlers
    return routes


def mount(hub: Hub, mounted: Mapping[str, Mapping[str, Handler]], app: web.Application, prefix: str) -> None:
    """Add an endpoint to *app* for each path that is *mounted*, under *prefix*, percent-encoded or not."""
    prefix = _as_matched(prefix.rstrip("/"))
    for path, handlers in mounted.items():
        Endpoint(hub, handlers, path).add_to(app, (_in_pattern(prefix) if "{" in path else prefix) + path)
    if prefix:
        # A first segment that is a parameter makes aiohttp try this route last, after all that the application adds.
        NotFound(hub).add_to(app, _in_pattern(prefix, first_too=True) + "/{path:.*}")


def _as_matched(prefix: str) -> str:
    """Return *prefix*, percent-encoded or not, as aiohttp spells a path when it looks for a route."""
    if "{" in prefix:  # it has parameters of its own
        return prefix
    return URL.build(path=quote(unquote(prefix), safe="/"), encoded=True).path_safe


def _in_pattern(prefix: str, *, first_too: bool = False) -> str:
    """Return *prefix* as the beginning of a route that has parameters.

    There aiohttp compares fixed text that is percent-encoded with a path that is not. So each segment that encoding
    would change, and the first one if *first_too*, becomes a parameter that matches only itself.
    """
    segments = prefix.split("/")
    for place, segment in enumerate(segments):
        fixed = _UNCHANGED.fullmatch(segment) and not (first_too and place == 1)
        if not fixed and "{" not in segment:
            segments[place] = f"{{prefix_{place}:{re.escape(segment)}}}"
    return "/".join(segments)
