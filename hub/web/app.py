"""Setting a hub up in an aiohttp application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from hub.bus import EventBus
from hub.errors import AlreadySetUp
from hub.hub import Hub
from hub.notifications import NotificationService
from hub.settings import Settings
from hub.web import ai, handover
from hub.web.ai import TokenViewers
from hub.web.history import history, import_history
from hub.web.publish import emit, publish
from hub.web.resource import Handler, Resource
from hub.web.sse import HandlerStreams
from hub.web.state import healthz, metrics, readyz, stats
from hub.web.subscribe import subscribe, subscribe_by_post

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
NOTIFICATIONS: web.AppKey[NotificationService] = web.AppKey("notifications", NotificationService)
BUS: web.AppKey[EventBus] = web.AppKey("bus", EventBus)


def setup_hub(app: web.Application, settings: Settings | None = None, *, prefix: str = "") -> Hub:
    """Give *app* a hub: its routes under *prefix*, its start and its drain.

    The service is `app[NOTIFICATIONS]`, the event bus `app[BUS]`, at once and for the application's whole life.

    Args:
        app: any application, not started yet.
        settings: None: what the environment and the file named by `HUB_CONFIG` say.
        prefix: where the routes begin, such as `/live`; empty for `/`.

    Raises:
        AlreadySetUp: *app* has a hub.
        InvalidSettings: *settings* is None and what was found is wrong.
    """
    if HUB in app:
        raise AlreadySetUp
    hub = Hub(settings or Settings.load())
    app[HUB], app[NOTIFICATIONS], app[BUS] = hub, hub.notifications, hub.bus
    streams = app[HandlerStreams.KEY] = HandlerStreams(hub)
    app[TokenViewers.KEY] = TokenViewers(hub)
    for path, handlers in _routes(hub).items():
        app.router.add_route("*", prefix.rstrip("/") + path, Resource(hub, handlers).__call__)

    async def live(app: web.Application) -> AsyncIterator[None]:
        await handover.check()
        await hub.open()
        yield
        try:
            await streams.aclose()
        finally:
            await hub.aclose()

    app.cleanup_ctx.append(live)
    # Not in the cleanup: aiohttp would first wait, twice, for what only this ends.
    app.on_shutdown.append(drain_hub)
    return hub


async def drain_hub(app: web.Application) -> None:
    """End every stream of the hub of *app* within its drain window. A second call has nothing left to do."""
    hub = app[HUB]
    await asyncio.gather(hub.drain(), app[HandlerStreams.KEY].drain(), app[TokenViewers.KEY].drain())


def _routes(hub: Hub) -> dict[str, dict[str, Handler]]:
    routes: dict[str, dict[str, Handler]] = {
        "/notifications/subscribe": {"GET": subscribe, "POST": subscribe_by_post},
        "/notifications/publish": {"POST": publish},
        "/notifications/history": {"GET": history, "POST": import_history},
        "/notifications/stats": {"GET": stats},
        "/healthz": {"GET": healthz},
        "/readyz": {"GET": readyz},
        "/metrics": {"GET": metrics},
    }
    routes |= ai.routes()
    if hub.settings.events_api:
        routes["/events/{name}"] = {"POST": emit}
    return routes
