"""`setup_hub`: add a hub to an aiohttp application."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator
from urllib.parse import quote, unquote

from aiohttp import web
from yarl import URL

from hub.errors import AlreadySetUp
from hub.events.bus import EventBus
from hub.eventstream import JsonDefault
from hub.generations.providers.provider import Provider
from hub.hub import Hub
from hub.notifications import NotificationService
from hub.settings import Settings, unknown_variables
from hub.web import generations, handover
from hub.web.endpoint import Endpoint, Handler, NotFound
from hub.web.handler_streams import HandlerStreams
from hub.web.history import history
from hub.web.monitoring import healthz, metrics, readyz, stats
from hub.web.publish import emit, publish
from hub.web.subscribe import subscribe, subscribe_by_post

logger = logging.getLogger("hub.web")

_UNCHANGED = re.compile(r"[A-Za-z0-9._~\-]*")

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
NOTIFICATIONS: web.AppKey[NotificationService] = web.AppKey("notifications", NotificationService)
BUS: web.AppKey[EventBus] = web.AppKey("bus", EventBus)


def setup_hub(
    app: web.Application,
    settings: Settings | None = None,
    *,
    prefix: str = "",
    json_default: JsonDefault | None = None,
    provider: Provider | None = None,
) -> Hub:
    """Add a hub to *app*: its routes under *prefix*, its start and its drain.

    The service is `app[NOTIFICATIONS]`, the event bus `app[BUS]`, from now on.

    Args:
        app: any application, not started yet.
        settings: None: what the environment and the file named by `HUB_CONFIG` say.
        prefix: where the routes begin, such as `/live`; empty for `/`.
        json_default: called with each object in the data of a notification, or of an event of an `@sse` handler, that
            is neither JSON nor known to pydantic, as `json.dumps(default=…)` would: it returns something that can be
            sent, or raises `TypeError`.
        provider: what answers on `/ai/chat/stream`, closed with the hub; None: what the settings name. Where neither
            names one, those routes are not there.

    Raises:
        AlreadySetUp: *app* has a hub.
        InvalidSettings: *settings* is None and what was found is wrong.
    """
    if HUB in app:
        raise AlreadySetUp
    hub = Hub(settings or _found(), json_default=json_default, provider=provider)
    app[HUB], app[NOTIFICATIONS], app[BUS] = hub, hub.notifications, hub.bus
    streams = app[HandlerStreams.KEY] = HandlerStreams(hub)
    prefix = _as_matched(prefix.rstrip("/"))
    for path, handlers in _routes(hub).items():
        Endpoint(hub, handlers).add_to(app, (_in_pattern(prefix) if "{" in path else prefix) + path)
    if prefix:
        # A first segment that is a parameter makes aiohttp try this route last, after all that the application adds.
        NotFound(hub).add_to(app, _in_pattern(prefix, first_too=True) + "/{path:.*}")

    async def live(app: web.Application) -> AsyncIterator[None]:
        await handover.check()
        await hub.open()
        yield
        try:
            await hub.connections.drain(0.0)  # a last word to whatever was opened since the drain
            await streams.aclose()
        finally:
            await hub.aclose()

    app.cleanup_ctx.append(live)
    # On shutdown, not in the cleanup: aiohttp waits before the cleanup for open requests, which only this ends.
    app.on_shutdown.append(drain_hub)
    return hub


def _found() -> Settings:
    settings = Settings.load()
    for sentence in unknown_variables(os.environ):
        logger.warning("%s", sentence)
    return settings


async def drain_hub(app: web.Application) -> None:
    """End every stream of the hub of *app* within its drain window. A second call has nothing left to do."""
    await app[HUB].drain()


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


def _routes(hub: Hub) -> dict[str, dict[str, Handler]]:
    routes: dict[str, dict[str, Handler]] = {
        "/notifications/subscribe": {"GET": subscribe, "POST": subscribe_by_post},
        "/notifications/publish": {"POST": publish},
        "/notifications/history": {"GET": history},
        "/notifications/stats": {"GET": stats},
        "/healthz": {"GET": healthz},
        "/readyz": {"GET": readyz},
        "/metrics": {"GET": metrics},
    }
    routes |= generations.routes(hub)
    if hub.settings.events_api:
        routes["/events/{name}"] = {"POST": emit}
    return routes
