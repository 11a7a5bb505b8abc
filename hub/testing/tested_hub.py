"""A hub in the event loop of a test."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from hub.errors import HandlerCancelled
from hub.events.bus import EventBus, log_failure
from hub.events.event import Event, check_event_name
from hub.hub import Hub
from hub.notifications import NotificationService
from hub.settings import Settings
from hub.testing.clock import Clock
from hub.testing.collected import PATIENCE, Collected
from hub.web.app import setup_hub

LAST_SECONDS = 1.0


class HubForTest:
    """A hub that runs in the event loop of a test.

    Attributes:
        hub: the hub itself, with all its parts.
        app: the application that it is in.
        clock: its time; put it forward with `advance`.
        url: where it is served; empty if it is not.
    """

    def __init__(self, hub: Hub, app: web.Application, clock: Clock, *, strict: bool) -> None:
        self.hub, self.app, self.clock = hub, app, clock
        self.url = ""
        self._failures: list[BaseException] = []
        self._collected: list[Collected] = []
        self._ending = False
        if strict:
            hub.bus.report = self._report

    @property
    def bus(self) -> EventBus:
        """The event bus."""
        return self.hub.bus

    @property
    def notifications(self) -> NotificationService:
        """The notification service."""
        return self.hub.notifications

    async def emit(self, name: str, payload: Any = None) -> Event:
        """Emit an event and return it when all its handlers, and those of the events that they emitted, have ended.

        Raises:
            ExceptionGroup: some failed, in a strict hub.
            TimeoutError: they did not end within five seconds.
        """
        event = self.bus.emit(name, payload)
        await self.settled()
        return event

    async def settled(self, timeout: float = PATIENCE) -> None:
        """Wait until no handler runs and no event waits. Raises as `emit`."""
        async with asyncio.timeout(timeout):
            await self.bus.idle()
        await asyncio.sleep(0)  # what ended last is reported in the loop's next step
        self.check()

    def collect(self, *topics: str) -> Collected:
        """Return what collects the notifications to *topics* and patterns from now on; without any: all of them."""
        collected = Collected(self.notifications, topics, self.check)
        self._collected.append(collected)
        return collected

    async def advance(self, seconds: float) -> None:
        """Put the clock forward, and have the hub let go of what is too old then.

        Idempotency keys, the age of notifications, tickets and tokens of new requests go by this clock. Streams that
        are open, heartbeats, limits of rates and timers of handlers go by that of the machine.
        """
        self.clock.advance(seconds)
        self.hub.log.trim()
        await self.settled()

    def check(self) -> None:
        """Raise what handlers have raised since the last time, in a strict hub.

        Raises:
            ExceptionGroup: there was something; a `BaseExceptionGroup` if not all of it is an `Exception`.
        """
        failures, self._failures = self._failures, []
        if failures:
            raise BaseExceptionGroup("event handlers failed", failures)  # an `ExceptionGroup` if it can be one

    async def end(self) -> None:
        """Give handlers that still run a second to end. What runs on is cancelled, which is no failure of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self.bus.idle()
        self._ending = True
        for each in self._collected:
            each.close()

    def _report(self, handler: str, event: Event, failure: BaseException) -> None:
        if self._ending and isinstance(failure, HandlerCancelled):
            return
        log_failure(handler, event, failure)
        failure.add_note(f"raised by the handler {handler} at event {event.name}")
        self._failures.append(failure)  # also one that is no `Exception`, such as that of `pytest.fail`
        for each in self._collected:
            each.wake()


@asynccontextmanager
async def hub_for_test(
    *,
    listeners: Iterable[str] = (),
    strict: bool = True,
    served: bool = False,
    app: web.Application | None = None,
    setup: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[HubForTest]:
    """Run a hub in the running event loop for the time of the block.

    Args:
        listeners: names of modules and packages with listener classes, as in `HUB_LISTENERS`.
        strict: what an event handler raises fails the test, in `emit`, in a wait of `collect`, or at the end.
        served: also serve it on a free port of 127.0.0.1, with all routes; `url` says where.
        app: an application with handlers of its own, which has no hub yet; None: an empty one.
        setup: other arguments of `setup_hub`, such as `authenticate`.
        settings: settings by their names, such as `retain_count=2`; nothing is read from the environment.

    Raises:
        ExceptionGroup: handlers have failed, and the block does not end with another error.
    """
    app = web.Application() if app is None else app
    clock = Clock()
    chosen = Settings(**{"drain": 0, "listeners": tuple(listeners), **settings})
    guarded = {"jwt_secret", "jwt_keys", "jwks_url"} & settings.keys() or "authenticate" in (setup or {})
    arguments = {"routes": None if guarded else "all", **(setup or {})}
    hub = setup_hub(app, chosen, clock=clock, **arguments)
    made = HubForTest(hub, app, clock, strict=strict)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    async with AsyncExitStack() as running:
        running.push_async_callback(runner.cleanup)
        running.push_async_callback(made.end)
        await runner.setup()
        if served:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    made.check()


def make_event(name: str, payload: Any = None, *, id: str | None = None, at: float | None = None) -> Event:
    """Return an event, for a test that calls a handler itself.

    Args:
        name: as for `emit`.
        payload: anything.
        id: None: a random one.
        at: seconds since 1970; None: now.

    Raises:
        InvalidEventName: *name* breaks the grammar.
    """
    return Event(check_event_name(name), payload, id or uuid.uuid4().hex, time.time() if at is None else at)
