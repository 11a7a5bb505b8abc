"""A hub: everything one application needs, wired together, with a beginning and an end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import Any

from hub.access.addresses import Addresses
from hub.access.hosts import Hosts
from hub.access.rates import PublishRates, Rates
from hub.cleanup import cleaned_up
from hub.connections.changes import TopicChanges, TopicsChanged
from hub.connections.client_stream import SUBSCRIPTIONS, CloseReason, StreamFacts, StreamKind
from hub.connections.connection import Wiring
from hub.connections.elsewhere import StreamsElsewhere
from hub.connections.page_cache import PageCache
from hub.connections.registry import StreamRegistry
from hub.errors import InvalidInput, InvalidSettings, InvalidTopic, NotThere, StateUnavailable, TryLater
from hub.events.bus import EventBus
from hub.events.event import qualified_name
from hub.events.loader import Listeners
from hub.eventstream import JsonDefault
from hub.fanout import Fanout
from hub.generations.generation import Generation
from hub.generations.providers.choice import make_provider
from hub.generations.providers.provider import Provider
from hub.generations.registry import GenerationLimits, Generations
from hub.generations.store import generation_log
from hub.log.choice import make_log
from hub.log.log import Elsewhere, Log
from hub.log_url import LogURL
from hub.loop_lag import LoopLag
from hub.metrics import COUNTERS, HISTOGRAMS, OF_WORKERS, Metrics
from hub.notification import Position
from hub.notifications import NotificationService
from hub.presence.lifecycle import Lifecycle
from hub.presence.rooms import NOBODY_IS_KNOWN, Rooms
from hub.presence.service import PresenceService
from hub.process import cpu_seconds, memory_bytes
from hub.proxies import Proxies
from hub.settings import Settings
from hub.state.choice import make_peers
from hub.state.state import Kind, Revocation, State
from hub.topics import topic_of
from hub.tracing import Tracing

logger = logging.getLogger("hub")

CONNECT_BURST = 5.0
"""Seconds' worth of connects that one address may make at once: the clients behind it come back together."""
REFUSE_BURST = 5.0
"""Seconds' worth of refused requests that are looked at, likewise."""
TICKET_BURST = 20.0
"""Seconds' worth of tickets that one user gets at once. At the default rate, none of them has to go for another one
before its 30 seconds are over: an owner may have 256."""


class Hub:
    """One hub. It serves between `open` and `aclose`, and takes publishes in-process from its making on.

    Args:
        settings: what it is to be like.
        clock: seconds since 1970.
        json_default: see below.
        provider: see below; None: what the settings name.
        tracing: notes the way of notifications; None: OpenTelemetry does if the settings say so, else nobody.
        state: keeps what was revoked, and who belongs to which room; it is open while the hub is. None: nobody is
            known.

    Attributes:
        clock: seconds since 1970, as the hub sees them.
        name: names this process in the figures of the hub.
        draining: shutdown has begun: HTTP publishes and subscribes are told to come back.
        proxies: what stands before it.
        addresses: the addresses of its clients, and how limits count them.
        hosts: the names in `Host` to which it answers; None: any.
        connecting: how often one address may open a stream.
        refusing: how often requests of one user or address may be refused, before the next ones are not looked at.
        minting: how often one user may ask for a ticket.
        publishing: how many notifications may be published over HTTP.
        json_default: what turns objects that neither the standard library nor pydantic knows into JSON.
        connections: all open client streams, of whatever kind.
        peers: the other processes of the hub.
        presence: which users are on which topics.
        rooms: which users belong to which rooms.
        lifecycle: emits the events of streams, users, topics and rooms.
        changes: changes the topics of subscriptions.
        elsewhere: the streams of the other processes.
        provider: what answers on `/ai/chat/stream`; None: nothing does.
        tracing: see above.

    Raises:
        InvalidSettings: the settings ask for OpenTelemetry, which is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        json_default: JsonDefault | None = None,
        provider: Provider | None = None,
        state: State | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.json_default = json_default
        self._state, self.clock = state, clock
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.metrics = Metrics()
        self.tracing = _tracing(settings) if tracing is None else tracing
        self.log: Log = make_log(
            LogURL.parse(settings.log),
            count=settings.retain_count,
            size=settings.retain_bytes,
            age=settings.retain_age,
            topics=settings.retain_topics,
            clock=clock,
            unobserved=self._unobserved,
            prefix=settings.redis_prefix,
            wait=settings.redis_wait,
            fence=settings.redis_fence == "on",
        )
        self.peers = make_peers(settings)
        self.bus = EventBus(clock, self.metrics, self.tracing)
        self.notifications = NotificationService(
            self.log, self.metrics, json_default=json_default, tracing=self.tracing, renewed=self._begin_anew
        )
        self.fanout = Fanout(self.metrics, clock=clock, tracing=self.tracing)
        self.notifications.subject.subscribe(self.fanout.on_next, self.fanout.on_error, self.fanout.on_completed)
        self._pages = PageCache(self.log)
        self.proxies = Proxies(settings.root_path, settings.trusted_proxies)
        self.addresses = Addresses(self.proxies)
        self.hosts = Hosts(settings.allowed_hosts) if settings.allowed_hosts else None
        self.connecting = Rates(settings.connect_rate, burst=CONNECT_BURST)
        self.refusing = Rates(settings.refuse_rate, burst=REFUSE_BURST)
        self.minting = Rates(settings.ticket_rate, burst=TICKET_BURST)
        self.publishing = PublishRates(settings.publish_rate, settings.publish_rate_total)
        self.connections = StreamRegistry(
            self.metrics,
            limit=settings.max_connections,
            per_user=settings.max_per_user,
            policy=settings.per_user,
            per_address=settings.max_per_address,
            counted=self.addresses.counted,
            heartbeat=settings.heartbeat,
            peer_timeout=settings.peer_timeout,
            buffer_bytes=settings.buffer_bytes,
            before_sweep=self._before_sweep,
            peers=self.peers,
        )
        if self.tracing is not None:
            self.connections.watch(opened=self._stream_opened, closed=self._stream_ended)
        self.wiring = Wiring(
            self.log, self._pages, self.fanout, self.metrics, self.connections, settings.buffer_bytes, settings.slow
        )
        self.lifecycle = Lifecycle(self.bus, self.fanout)
        self.presence = PresenceService(
            self.connections,
            self.lifecycle,
            most_bytes=settings.buffer_bytes // 4,
            clock=clock,
            peers=self.peers,
        )
        self.rooms = Rooms(state, self.log, self.connections, self.lifecycle, clock=clock, peers=self.peers)
        self.changes = TopicChanges(self.wiring)
        self.elsewhere = StreamsElsewhere(self.connections, self.peers, self._figures, self.name)
        self.provider = make_provider(settings) if provider is None else provider
        self.generations = Generations(
            _limits(settings),
            log=generation_log(settings, clock),
            on_end=self._answered,
            metrics=self.metrics,
            clock=clock,
            peers=self.peers,
        )
        self.draining = False
        self._lag = LoopLag(self.metrics.loop_lag_seconds)
        self._listeners = Listeners(settings.listeners, self.bus, self.notifications)
        self._bound = ExitStack()

    @property
    def max_connections(self) -> int:
        """How many streams may be open at once; 0: no limit."""
        return self.connections.limit

    @property
    def viewers(self) -> int:
        """How many streams of generations are open."""
        return self.connections.count(StreamKind.GENERATION)

    async def change_topics(
        self, id: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), after: str | None = None
    ) -> TopicsChanged:
        """Change the topics of the open stream with this *id*, by the rights of its holder; see `TopicChanges.change`.

        The change ends with the stream: a client that comes back asks for what it asked for at first.
        """
        return await self.changes.change(id, add=add, remove=remove, after=after)

    async def revoke_user(self, user: str) -> None:
        """Revoke all that *user* was given until now, and end the streams of the user.

        When this returns, the revocation is kept. Tokens that were made until now, or do not say when, are refused.
        What the application's login says without `issued` counts as given at the next request.

        Raises:
            InvalidInput: *user* is not a string.
            NotThere: nobody is known here.
            StateUnavailable: it was not confirmed that the revocation is kept; it counts until the process ends.
        """
        await self._revoke("user", user)

    async def revoke_token(self, jti: str) -> None:
        """Revoke the token with the id *jti*, and end the streams that it opened. Raises as `revoke_user`."""
        await self._revoke("token", jti)

    async def _revoke(self, kind: Kind, id: str) -> None:
        if not isinstance(id, str):
            raise InvalidInput(kind, "is not a string")
        if self._state is None:
            raise NotThere("identity", NOBODY_IS_KNOWN)
        await self._state.revoke(Revocation(kind, id, self.clock()))

    def end_connection(self, id: str) -> bool:
        """End the open stream with this *id* in this process; return whether there was one.

        The rights of its holder stay. Its client is told `revoked`, and to come back after 10 to 60 seconds at the
        earliest. `elsewhere.end` ends it in whatever process it is.
        """
        return self.elsewhere.end_here(id)

    def check_state(self) -> None:
        """Check that what was revoked elsewhere is known here, as far as that can be told.

        Raises:
            StateUnavailable: the home of the state does not answer.
        """
        if self._state is not None and not self._state.up:
            raise StateUnavailable("it does not answer")

    def _figures(self) -> dict[str, Any]:
        """Return the figures of this process: sums, for those of all processes are added up."""
        metrics = self.metrics
        own = {
            "uptime": metrics.uptime,
            "memory_bytes": memory_bytes(),
            "cpu_seconds": cpu_seconds(),
            "log_answered_seconds_ago": self._log_answered_ago(),
        }
        counters = {name: getattr(metrics, name) for name in COUNTERS}
        histograms = {name: getattr(metrics, name).figures() for name in HISTOGRAMS}
        return {
            "streams": {str(kind): self.connections.count(kind) for kind in StreamKind},
            "streams_limit": self.max_connections,
            "topics": self.fanout.topics,
            "generations": self.generations.streaming,
            "viewers": self.viewers,
            **counters,
            "streams_ended": dict(metrics.streams_ended),
            **histograms,
            "http_request_seconds": {what: each.figures() for what, each in metrics.http_request_seconds.items()},
            **own,
            "worker": {
                "name": self.name,
                "streams": len(self.connections),
                **counters,
                **{name: histograms[name] for name in OF_WORKERS},
                "http_requests": {what: each.count for what, each in metrics.http_request_seconds.items()},
                **own,
            },
        }

    def _log_answered_ago(self) -> float:
        """Return how many seconds ago the log last answered; 0 if it is in this process."""
        return max(time.monotonic() - self.log.answered, 0.0) if isinstance(self.log, Elsewhere) else 0.0

    def _answered(self, stream: Generation) -> None:
        """Announce a generation that has ended, as an event and as a notification.

        Only the event has its text: in the log it would outlive the generation, for all to read.
        """
        facts = dict(stream.ending.facts) if stream.ending is not None else {}
        what = {"sessionId": stream.id, "phase": stream.phase, "owner": stream.head.owner, **facts}
        with suppress(TryLater):
            self.bus.emit("ai.stream.finished", {**what, "text": stream.text()})
        with suppress(TryLater):
            self.notifications.send_notification(what, topics=_topics_of(stream), type="ai.finished", private=True)

    def _stream_opened(self, facts: StreamFacts) -> None:
        assert self.tracing is not None
        self.tracing.stream_opened(facts.kind)

    def _stream_ended(self, facts: StreamFacts) -> None:
        assert self.tracing is not None
        self.tracing.stream_ended(facts.kind, facts.reason or CloseReason.CLIENT, max(time.time() - facts.opened, 0.0))

    def _unobserved(self, error: Exception) -> None:
        self.metrics.unobserved_failures += 1
        logger.error("a notification that nobody waited for was not kept: %s", error)

    async def open(self) -> None:
        """Open the log, bind the listeners, and dispatch the events that waited for them, on the running loop.

        A start that fails closes everything that it had opened.

        Raises:
            LogUnavailable: the log can't be opened.
            StateUnavailable: the other processes can't be reached.
            InvalidListener: a listener can't be found or bound.
        """
        async with AsyncExitStack() as begun:
            await self.log.open()
            begun.push_async_callback(self.aclose)
            await self.peers.open()
            bounds = self.log.bounds()
            where = LogURL.parse(self.settings.log)  # without what is secret in it
            logger.info("the log is %s: %s kept, newest %s", where, f"{bounds.kept:,}", bounds.newest)
            self.fanout.begin(bounds.newest)
            await self.rooms.open(bounds.newest)
            self.notifications.open()
            self._bound.enter_context(self._listeners)
            self.bus.open()
            await self.generations.open()
            self.connections.start()
            self._lag.start()
            begun.pop_all()

    async def drain(self, seconds: float | None = None) -> None:
        """End every open stream within *seconds* (None: as set); each client is told when to come back.

        A call during another one returns when the streams have ended, too.
        """
        self.draining = True
        within = self.settings.drain if seconds is None else seconds
        await self.connections.drain(within, finish=self.settings.finish)

    def _begin_anew(self, newest: Position) -> None:
        """Go on with a log that has become another one, with *newest* as its newest position.

        Every open subscription ends; its client is told of the gap when it comes back, if there is one. The log calls
        this in the same step in which it changes: what it announces after that belongs to the new history.
        """
        if newest != self.fanout.newest:
            self.connections.end_all((*SUBSCRIPTIONS, StreamKind.POLL), CloseReason.LOG_UNAVAILABLE)
            self._pages.clear()
            self.fanout.begin(newest)
            self.rooms.begin_anew(newest)
            logger.info("the log has become another one, newest %s", newest)

    def _before_sweep(self) -> None:
        self.log.trim()
        self._pages.trim()
        self.fanout.flush()  # so that an idle stream has been offered everything when its heartbeat says so

    async def aclose(self) -> None:
        """Close everything: running handlers finish, streams end, and the log confirms what it accepted.

        The cleanup of providers and of event handlers has a bounded time. What one step raises is raised after all the
        others have been taken.
        """
        self.draining = True
        async with AsyncExitStack() as last:  # what is pushed first comes last
            last.push_async_callback(self.log.aclose)
            last.push_async_callback(self.peers.aclose)
            last.callback(self.connections.stop)
            last.callback(self._lag.stop)
            last.callback(self.presence.stop)
            last.push_async_callback(self.rooms.aclose)
            last.push_async_callback(self._drain_the_rest)
            last.callback(self.notifications.close)
            last.callback(self._bound.close)
            last.push_async_callback(self.bus.aclose, self.settings.drain)
            last.push_async_callback(self._close_provider)
            last.push_async_callback(self.generations.aclose)

    async def _drain_the_rest(self) -> None:
        if len(self.connections):
            await self.connections.drain(0.0)

    async def _close_provider(self) -> None:
        if self.provider is not None:
            closing = asyncio.create_task(self._let_it_close(self.provider))
            await cleaned_up({closing: qualified_name(self.provider.aclose)}, self.metrics)

    async def _let_it_close(self, provider: Provider) -> None:
        try:
            await provider.aclose()
        except Exception:
            logger.exception("the provider failed to close")


def _topics_of(stream: Generation) -> list[str]:
    """Return the topic of an answer, and that of its owner, whose name may be none that a topic can have."""
    topics = [f"ai/{stream.id}"]
    with suppress(InvalidTopic):
        topics += [topic_of("user", stream.head.owner)] if stream.head.owner else []
    return topics


def _tracing(settings: Settings) -> Tracing | None:
    """Return what traces a hub with *settings*; OpenTelemetry is loaded only where they ask for it.

    Raises:
        InvalidSettings: it is not installed.
    """
    if not settings.otel:
        return None
    try:
        from hub.telemetry import OpenTelemetry  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        extra = "pip install '/path/to/broadcast-hub[otel]'"
        raise InvalidSettings([f"otel (HUB_OTEL): needs the package {missing.name}: {extra}"]) from None
    return OpenTelemetry()


def _limits(settings: Settings) -> GenerationLimits:
    return GenerationLimits(
        window=settings.ai_window,
        keep=settings.ai_keep,
        size=settings.ai_bytes,
        kept_size=settings.ai_keep_bytes,
        owned=settings.ai_per_user,
        total=settings.ai_total,
        first=settings.ai_first_timeout,
        gap=settings.ai_gap_timeout,
        whole=settings.ai_timeout,
        unwatched=settings.ai_unwatched,
    )
