"""`setup_hub`: add a hub to an aiohttp application."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from aiohttp import web

from hub.access.policy import Policy
from hub.errors import AlreadySetUp, InvalidSettings
from hub.events.bus import EventBus
from hub.eventstream import JsonDefault
from hub.generations.providers.provider import Provider
from hub.hub import Hub
from hub.log_url import PRIVATE, LogURL
from hub.notifications import NotificationService
from hub.presence.rooms import Rights, Rooms
from hub.presence.service import PresenceService
from hub.settings import PREFIX, Settings, unknown_variables
from hub.state.choice import make_state
from hub.state.state import State
from hub.tracing import Tracing
from hub.web import handover
from hub.web.access import Access
from hub.web.administration import changes_by_rights
from hub.web.dashboard.dashboard import Dashboard
from hub.web.handler_streams import HandlerStreams
from hub.web.hooks import (
    Authenticate,
    AuthorizeJoin,
    AuthorizePublish,
    AuthorizeSubscribe,
    Hooks,
    Recheck,
    RoomsOf,
)
from hub.web.openapi import routes as openapi
from hub.web.openapi.document import Terms
from hub.web.rights import Rechecks, end_revoked
from hub.web.routes import chosen, mount, routes_of
from hub.web.verifier import verifier_of
from hub.web.websocket.handshake import OPERATIONS
from hub.web.websocket.operations import Operations

if TYPE_CHECKING:
    from hub.web.socketio.server import SocketIO

logger = logging.getLogger("hub.web")

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
NOTIFICATIONS: web.AppKey[NotificationService] = web.AppKey("notifications", NotificationService)
BUS: web.AppKey[EventBus] = web.AppKey("bus", EventBus)
PRESENCE: web.AppKey[PresenceService] = web.AppKey("presence", PresenceService)
ROOMS: web.AppKey[Rooms] = web.AppKey("rooms", Rooms)


def setup_hub(
    app: web.Application,
    settings: Settings | None = None,
    *,
    prefix: str = "",
    json_default: JsonDefault | None = None,
    provider: Provider | None = None,
    authenticate: Authenticate | None = None,
    authorize_subscribe: AuthorizeSubscribe | None = None,
    authorize_publish: AuthorizePublish | None = None,
    recheck: Recheck | None = None,
    rooms_of: RoomsOf | None = None,
    authorize_join: AuthorizeJoin | None = None,
    routes: Literal["all"] | Collection[str] | None = None,
    tracing: Tracing | None = None,
    clock: Callable[[], float] = time.time,
) -> Hub:
    """Add a hub to *app*: its routes under *prefix*, its start and its drain.

    From now on the service is `app[NOTIFICATIONS]`, the event bus `app[BUS]`, who is there `app[PRESENCE]`, who belongs
    to which room `app[ROOMS]`.

    Args:
        app: any application, not started yet.
        settings: None: what the environment and the file named by `HUB_CONFIG` say.
        prefix: where the routes begin, such as `/live`; empty for `/`.
        json_default: called with each object in the data of a notification, or of an event of an `@sse` handler, that
            is neither JSON nor known to pydantic, as `json.dumps(default=…)` would: it returns something that can be
            sent, or raises `TypeError`.
        provider: what answers on `/ai/chat/stream`, closed with the hub; None: what the settings name. Where neither
            names one, those routes are not there.
        authenticate: `async (request) -> Identity | None`: who sends a request, by the application's own login.
        authorize_subscribe: `async (identity, topics) -> bool`: may allow less than the grants of the identity.
        authorize_publish: `async (identity, draft) -> bool`: the same for each draft.
        recheck: `async (identity) -> Identity | None`: called within every `HUB_RECHECK` seconds for each session that
            has open streams; they end if it returns None.
        rooms_of: `async (identity) -> Iterable[str | (str, bool)]`: asked for each stream of a user; the rooms to which
            the application says that the user belongs, and whether it may publish there.
        authorize_join: `async (identity, room, publish) -> bool`: whether a user may join a room by itself, over HTTP;
            without it, none may.
        routes: what is mounted: `"all"`, or some of `subscribe`, `publish`, `history`, `stats`, `metrics`, `health`,
            `ai`, `events`, `tickets`, `connections`, `topics`, `presence`, `rooms`, `export`, `dashboard`, `api`. None:
            everything where identities are known; else `subscribe`, for public notifications, and `health`. Routes that
            are named where nobody is known serve whoever reaches them, with all rights.
        tracing: notes the way of notifications, such as a `hub.telemetry.OpenTelemetry` with providers of your own;
            None: OpenTelemetry with those of the process if the settings say `otel`, else nobody.
        clock: seconds since 1970, for tests of what expires.

    Raises:
        AlreadySetUp: *app* has a hub.
        InvalidInput: *routes* names something else, or a hook is a plain function.
        InvalidSettings: *settings* is None and what was found is wrong.
    """
    if HUB in app:
        raise AlreadySetUp
    settings = _with_private_redis(app, settings or _found())
    verifier = verifier_of(settings, clock)
    guarded = authenticate is not None or verifier is not None
    state = _state(settings, clock, guarded=guarded, named=routes is not None)
    hub = Hub(settings, clock=clock, json_default=json_default, provider=provider, state=state, tracing=tracing)
    app[HUB], app[NOTIFICATIONS], app[BUS] = hub, hub.notifications, hub.bus
    app[PRESENCE], app[ROOMS] = hub.presence, hub.rooms
    hooks = Hooks(
        authenticate=authenticate,
        authorize_subscribe=authorize_subscribe,
        authorize_publish=authorize_publish,
        recheck=recheck,
        rooms_of=rooms_of,
        authorize_join=authorize_join,
    )
    policy = _policy(hub.settings, guarded=guarded, named=routes is not None)
    app[Access.KEY] = access = Access(hub, policy, hooks, verifier, state)
    changes_by_rights(hub, access)
    hub.rooms.rights = Rights(access.granted, None if authorize_subscribe is None else access.ask)
    dashboard = Dashboard(hub, access, verifier) if hub.settings.dashboard else None
    if dashboard is not None:
        app[Dashboard.KEY] = dashboard
    if state is not None:
        announce = partial(end_revoked, hub.connections)
        state.announce_to(announce if dashboard is None else dashboard.noting(announce))
        if not state.lasting:
            logger.info("revocations will be lost when the process ends; set HUB_STATE to a file to keep them")
    rechecks = None if recheck is None else Rechecks(hub.connections, policy, recheck, hub.settings.recheck, hub.rooms)
    names = chosen(routes, guarded=guarded)
    streams, operations = HandlerStreams(hub), Operations(hub, access, names)
    app[HandlerStreams.KEY], app[OPERATIONS] = streams, operations
    mounted = routes_of(hub, frozenset(names) - {"dashboard"})
    if "api" in names:
        mounted |= openapi.routes(mounted, _terms(hub, policy, hooks, guarded=guarded, tokens=verifier is not None))
    if "dashboard" in names:
        mounted |= routes_of(hub, {"dashboard"})
    socketio = _socketio(hub, access, operations) if hub.settings.socketio and "subscribe" in names else None
    if socketio is not None:
        app[type(socketio).KEY] = socketio
        mounted |= socketio.routes()
    mount(hub, mounted, app, prefix)

    parts = [each for each in (operations, socketio, rechecks, dashboard) if each is not None]
    app.cleanup_ctx.append(partial(_live, hub=hub, access=access, streams=streams, parts=parts))
    # On shutdown, not in the cleanup: aiohttp waits before the cleanup for open requests, which only this ends.
    app.on_shutdown.append(drain_hub)
    return hub


class _Part(Protocol):
    """What is closed before the hub."""

    async def aclose(self) -> None:
        """Close it."""
        ...


async def _live(
    app: web.Application, *, hub: Hub, access: Access, streams: HandlerStreams, parts: Iterable[_Part]
) -> AsyncIterator[None]:
    """Open *hub* and what belongs to it, and close it all after the yield, the last of *parts* first."""
    await handover.check()
    await access.open()
    try:
        await hub.open()
    except BaseException:
        await access.aclose()
        raise
    for part in parts:
        if isinstance(part, Rechecks):
            part.start()
        elif isinstance(part, Dashboard):
            part.open()
    yield
    try:
        await hub.connections.drain(0.0)  # a last word to whatever was opened since the drain
        await streams.aclose()
    finally:
        async with AsyncExitStack() as last:  # what is pushed first comes last
            closed: list[_Part] = [access, hub, *parts]
            for each in closed:
                last.push_async_callback(each.aclose)


def _socketio(hub: Hub, access: Access, operations: Operations) -> SocketIO:
    """Return what serves clients of Socket.IO.

    Raises:
        InvalidSettings: what it needs is not installed.
    """
    try:
        from hub.web.socketio.server import SocketIO  # noqa: PLC0415 - an extra, only where it is used
    except ModuleNotFoundError as missing:
        why = (
            f"socketio (HUB_SOCKETIO): {missing.name} is not installed; pip install '/path/to/broadcast-hub[socketio]'"
        )
        raise InvalidSettings([why]) from None
    return SocketIO(hub, access, operations)


def _with_private_redis(app: web.Application, settings: Settings) -> Settings:
    """Return *settings* with the address of a Redis that *app* starts before all else, if they ask for one."""
    address = LogURL.parse(settings.log)
    if address.scheme != PRIVATE:
        return settings
    from hub.log.redis.private.server import PrivateRedis  # noqa: PLC0415 - only where it is wanted, and not on Windows

    private = PrivateRedis(address.path)

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with private:
            yield

    app.cleanup_ctx.append(running)
    return settings.model_copy(update={"log": private.url})


def _found() -> Settings:
    settings = Settings.load()
    for sentence in unknown_variables(os.environ):
        logger.warning("%s", sentence)
    return settings


def _state(settings: Settings, clock: Callable[[], float], *, guarded: bool, named: bool) -> State | None:
    """Return the state; None where nobody can be asked who they are. Warn of *settings* that have no effect then."""
    if guarded:
        return make_state(settings, clock)
    about_rights = ("anonymous_subscribe", "anonymous_publish", "state")
    if found := [PREFIX + each.upper() for each in about_rights if getattr(settings, each)]:
        logger.warning(
            "%s: set without effect, because nobody can be asked who they are: whoever reaches the hub may %s. Set "
            "HUB_JWT_SECRET, HUB_JWT_KEYS or HUB_JWKS_URL, or give setup_hub the hook authenticate",
            ", ".join(found),
            "use all that is mounted, with all rights" if named else "read all public notifications",
        )
    return None


async def drain_hub(app: web.Application) -> None:
    """End every stream of the hub of *app* within its drain window. A second call has nothing left to do."""
    await app[HUB].drain()


def _policy(settings: Settings, *, guarded: bool, named: bool) -> Policy:
    """Return the rules of a hub: what anybody may do where nobody is known follows from what is mounted."""
    if guarded:
        return Policy(anonymous_subscribe=settings.anonymous_subscribe, anonymous_publish=settings.anonymous_publish)
    return Policy(trusted=True) if named else Policy(anonymous_subscribe=("**",))


def _terms(hub: Hub, policy: Policy, hooks: Hooks, *, guarded: bool, tokens: bool) -> Terms:
    """Return what decides which refusals the API is described with."""
    may_refuse = hooks.authorize_subscribe is not None or hooks.authorize_publish is not None
    return Terms(guarded=guarded, tokens=tokens, trusted=policy.trusted and not may_refuse, hosts=hub.hosts is not None)
