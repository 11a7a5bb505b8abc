"""A hub: everything one application needs, wired together, with a beginning and an end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress

from hub.cleanup import cleaned_up
from hub.connections.connection import Wiring
from hub.connections.page_cache import PageCache
from hub.connections.registry import Connections
from hub.errors import InvalidTopic, LogUnavailable, TryLater
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
from hub.log.archive.format import Contents
from hub.log.archive.spool import Spool
from hub.log.log import Log, Movable
from hub.log.log_url import make_log
from hub.metrics import Metrics
from hub.notification import Position
from hub.notifications import NotificationService
from hub.proxies import Proxies
from hub.settings import Settings
from hub.topics import topic_of

logger = logging.getLogger("hub")


class Hub:
    """One hub. It serves between `open` and `aclose`, and takes publishes in-process from its making on.

    Attributes:
        draining: shutdown has begun: HTTP publishes and subscribes are told to come back.
        proxies: what stands before it.
        json_default: what turns objects that neither the standard library nor pydantic knows into JSON.
        max_connections: streams that may be open at once; 0: no limit.
        viewers: how many watch an answer as it is generated.
    """

    def __init__(
        self, settings: Settings, *, clock: Callable[[], float] = time.time, json_default: JsonDefault | None = None
    ) -> None:
        self.settings = settings
        self.json_default = json_default
        self.metrics = Metrics()
        self.log: Log = make_log(
            settings.log,
            count=settings.retain_count,
            size=settings.retain_bytes,
            age=settings.retain_age,
            topics=settings.retain_topics,
            clock=clock,
            unobserved=self._unobserved,
        )
        self.bus = EventBus(clock, self.metrics)
        self.notifications = NotificationService(self.log, self.metrics, json_default=json_default)
        self.fanout = Fanout(self.metrics)
        self.notifications.subject.subscribe(self.fanout.on_next, self.fanout.on_error, self.fanout.on_completed)
        self.wiring = Wiring(
            self.log,
            PageCache(self.log),
            self.fanout,
            self.metrics,
            settings.buffer_bytes,
            settings.slow,
            settings.peer_timeout,
        )
        self.connections = Connections(self.wiring, heartbeat=settings.heartbeat)
        self.provider: Provider = make_provider(settings)
        self.generations = Generations(
            _limits(settings),
            log=generation_log(settings, clock),
            on_end=self._answered,
            metrics=self.metrics,
            clock=clock,
        )
        self.max_connections = settings.max_connections
        self.proxies = Proxies(settings.root_path, settings.trusted_proxies)
        self.viewers = 0
        self.draining = False
        self._listeners = Listeners(settings.listeners, self.bus, self.notifications)
        self._bound = ExitStack()
        self._adopting: asyncio.Task[Contents] | None = None

    @property
    def full(self) -> bool:
        """Whether no further stream may be opened."""
        return bool(self.max_connections) and len(self.connections) + self.viewers >= self.max_connections

    def _answered(self, stream: Generation) -> None:
        """Let the rest of the hub know of an answer that has ended.

        Its text is for listeners, on the bus: in the log it would outlive the answer, for all to read.
        """
        facts = dict(stream.ending.facts) if stream.ending is not None else {}
        what = {"sessionId": stream.id, "phase": stream.phase, "owner": stream.head.owner, **facts}
        with suppress(TryLater):
            self.bus.emit("ai.stream.finished", {**what, "text": stream.text()})
        with suppress(TryLater):
            self.notifications.send_notification(what, topics=_topics_of(stream), type="ai.finished", private=True)

    def _unobserved(self, error: Exception) -> None:
        self.metrics.unobserved_failures += 1
        logger.error("a notification that nobody waited for was not kept: %s", error)

    async def open(self) -> None:
        """Begin, on the running loop: open the log, bind the listeners, let the events that waited for them through.

        A start that fails ends what had begun, and leaves nothing behind.

        Raises:
            LogUnavailable: the log can't be opened.
            InvalidListener: a listener can't be found or bound.
        """
        async with AsyncExitStack() as begun:
            await self.log.open()
            begun.push_async_callback(self.aclose)
            bounds = self.log.bounds()
            logger.info("the log is %s: %s kept, newest %s", self.settings.log, f"{bounds.kept:,}", bounds.newest)
            self.fanout.begin(bounds.newest)
            self.notifications.open()
            self._bound.enter_context(self._listeners)
            self.bus.open()
            await self.generations.open()
            self.connections.start()
            begun.pop_all()

    async def drain(self, seconds: float | None = None) -> None:
        """End every open stream within *seconds* (None: as set); each client is told when to come back."""
        if self.draining:
            return
        self.draining = True
        await self.connections.drain(self.settings.drain if seconds is None else seconds)

    async def adopt(self, spool: Spool) -> Contents:
        """Let the log take over the history in *spool*, which is closed in the end; return what it was.

        It is verified before anything is touched. Every open stream ends, and is told of the gap when it comes back.
        Cancelling this leaves it unknown whether the history was taken over.

        Raises:
            InvalidArchive: it is cut short, or a line breaks a rule.
            LogNotEmpty: something was sent here once.
            LogUnavailable: it could not be kept, or another one is being taken over.
        """
        if self._adopting is not None:
            spool.close()
            raise LogUnavailable("it is taking over a history already")
        self._adopting = asyncio.create_task(self._adopt(spool))
        return await asyncio.shield(self._adopting)

    async def _adopt(self, spool: Spool) -> Contents:
        try:
            if not isinstance(self.log, Movable):
                raise LogUnavailable("it can't take over a history")
            contents = await spool.verify()
            await self.log.adopt(contents.epoch, contents.newest, contents.trimmed, spool.history())
            return contents
        finally:
            # However it ended: in the same step in which the log is another one, everybody else begins anew.
            with suppress(LogUnavailable):
                self._begin_anew(self.log.bounds().newest)
            self._adopting = None
            spool.close()

    def _begin_anew(self, newest: Position) -> None:
        if newest != self.fanout.newest:
            self.connections.send_away()
            self.fanout.begin(newest)
            logger.info("the log has taken over another one, newest %s", newest)

    async def aclose(self) -> None:
        """End: running handlers finish, streams complete, the log keeps what it took.

        Whatever is foreign, the cleanup of providers and of event handlers, has a bounded time for that. What one step
        raises is raised when all the others have been taken.
        """
        self.draining = True
        async with AsyncExitStack() as last:  # what is pushed first comes last
            last.push_async_callback(self.log.aclose)
            last.callback(self.connections.stop)
            last.push_async_callback(self._drain_the_rest)
            last.callback(self.notifications.close)
            last.callback(self._bound.close)
            last.push_async_callback(self.bus.aclose, self.settings.drain)
            last.push_async_callback(self._close_provider)
            last.push_async_callback(self.generations.aclose)
            if self._adopting is not None:
                self._adopting.cancel()
                await cleaned_up({self._adopting: "the taking over of a history"}, self.metrics)

    async def _drain_the_rest(self) -> None:
        if len(self.connections):
            await self.connections.drain(0)

    async def _close_provider(self) -> None:
        closing = asyncio.create_task(self._let_provider_close())
        await cleaned_up({closing: qualified_name(self.provider.aclose)}, self.metrics)

    async def _let_provider_close(self) -> None:
        try:
            await self.provider.aclose()
        except Exception:
            logger.exception("the provider failed to close")


def _topics_of(stream: Generation) -> list[str]:
    """Return the topic of an answer, and that of its owner, whose name may be none that a topic can have."""
    topics = [f"ai/{stream.id}"]
    with suppress(InvalidTopic):
        topics += [topic_of("user", stream.head.owner)] if stream.head.owner else []
    return topics


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
