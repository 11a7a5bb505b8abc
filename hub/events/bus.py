"""The event bus: brings what happened inside the application to whoever wants to hear of it."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import itertools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Any

import reactivex
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from hub.cleanup import cleaned_up
from hub.errors import BusNotOpen, EventBufferFull, HandlerCancelled, ShuttingDown, WrongThread
from hub.events.event import Event, check_event_name, check_event_pattern, check_event_patterns, qualified_name
from hub.metrics import Metrics
from hub.patterns import PatternTrie

MAX_WAITING = 10_000

logger = logging.getLogger(__name__)


Handler = Callable[[Event], object]
"""Hears an event. What it returns is ignored, unless it can be awaited: then the bus runs it as a task."""


class _State(enum.Enum):
    BUFFERING = enum.auto()  # the listeners are not bound yet: events wait
    OPENING = enum.auto()  # what waited is being dispatched; what is emitted meanwhile comes behind it
    OPEN = enum.auto()
    CLOSED = enum.auto()


class _Registration:
    """A handler and what it asked for."""

    __slots__ = ("bound", "handler", "name", "once", "patterns", "rank")

    def __init__(self, patterns: Iterable[str], handler: Handler, name: str, rank: tuple[int, int], once: bool) -> None:
        self.patterns = check_event_patterns(patterns)
        self.handler, self.name, self.rank, self.once = handler, name, rank, once
        self.bound = True  # false from the moment it is disposed, also for an event that is being delivered


class _Call:
    """A handler that did not simply return: it has raised, or its future is still to end."""

    __slots__ = ("error", "event", "future", "handler")

    def __init__(self, handler: str, event: Event, outcome: asyncio.Future[Any] | BaseException) -> None:
        self.handler, self.event = handler, event
        self.future = outcome if isinstance(outcome, asyncio.Future) else None
        self.error = None if isinstance(outcome, asyncio.Future) else outcome

    def failure(self) -> BaseException | None:
        """Return what went wrong, once the call has ended; a cancellation as `HandlerCancelled`."""
        error = self.error
        if self.future is not None:
            try:
                error = self.future.exception()
            except asyncio.CancelledError as cancelled:
                error = cancelled
        if isinstance(error, asyncio.CancelledError):
            failure = HandlerCancelled(self.handler, self.event.name)
            failure.__cause__ = error
            return failure
        return error

    def log_failure(self) -> None:
        """Log what went wrong, if something does: now or when the future ends."""
        if self.future is None:
            self._log()
        else:
            self.future.add_done_callback(self._log)

    def _log(self, _: object = None) -> None:
        failure = self.failure()
        if failure is not None:
            logger.error("handler %s failed at event %s", self.handler, self.event.name, exc_info=failure)


class EventBus:
    """Brings every event to the handlers that want it, and keeps their failures away from everybody else.

    Until `open()` events are kept; after `aclose()` there are no more. The cost of an event follows the handlers
    that match it, not those that are registered. Handlers run on the loop's thread only; `emit`, `on` and every
    `dispose` may be called from any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.time, metrics: Metrics | None = None) -> None:
        """Create a bus that keeps events until it is opened.

        Args:
            clock: gives `Event.at`.
            metrics: handlers that don't end are counted here.
        """
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._state = _State.BUFFERING
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registrations: PatternTrie[_Registration] = PatternTrie()
        self._observers: dict[_Registration, ObserverBase[Event]] = {}
        self._running: dict[asyncio.Future[Any], str] = {}  # with the names of the handlers
        self._waiting: deque[Event] = deque()  # emitted before the bus was open, or by another thread
        self._behind = 0  # how many were emitted while those that waited were dispatched
        self._order = itertools.count()
        # Guards the trie, the observers, the waiting events and the state; never held while a handler runs.
        # Reentrant: the garbage collector may dispose a subscription at any moment.
        self._lock = threading.RLock()

    # ---- hearing ----

    def on(
        self, patterns: str | Iterable[str], handler: Handler, *, priority: int = 0, once: bool = False
    ) -> DisposableBase:
        """Call *handler* with every event that matches any of *patterns*, until the returned object is disposed.

        A plain handler runs inside `emit`; a coroutine function is started as a task that the bus owns. One event
        calls the handler once, however many of its patterns match. After `dispose` it is not called again,
        not even for an event that is being delivered; what was started goes on.

        Args:
            patterns: one name or pattern, or several.
            handler: what it raises is logged with its qualified name.
            priority: higher is called (or started) earlier; the same priority in the order of registration.
            once: only the first event.

        Raises:
            InvalidEventName: a pattern breaks the grammar.
            ValueError, TypeError: there is no pattern, or *handler* cannot be called.
            ShuttingDown: the bus is closed.
        """
        if not callable(handler):
            raise TypeError(f"a handler can be called; {handler!r} cannot")
        registration = self._register(patterns, handler, qualified_name(handler), priority, once)
        if registration is None:
            raise ShuttingDown
        return Disposable(partial(self._forget, registration))

    def observable(self, pattern: str) -> Observable[Event]:
        """Return the events that match *pattern* as they happen, from each `subscribe` on.

        It completes when the bus closes (at once if it is closed already). Disposing costs the length of the
        pattern, whatever the number of subscriptions. What an observer raises is logged and hurts nobody else.

        Raises:
            InvalidEventName: *pattern* breaks the grammar.
        """
        check_event_pattern(pattern)

        def subscribe(observer: ObserverBase[Event], _: SchedulerBase | None = None) -> DisposableBase:
            with self._lock:
                registration = self._register(pattern, observer.on_next, f"observable({pattern!r})")
                if registration is not None:
                    self._observers[registration] = observer
                    return Disposable(partial(self._forget, registration))
            observer.on_completed()
            return Disposable()

        return reactivex.create(subscribe)

    async def wait_for(
        self, pattern: str, timeout: float | None = None, filter: Callable[[Event], object] | None = None
    ) -> Event:
        """Return the next event that matches *pattern* and for which *filter* returns something true.

        It hears events from its first step on: a task made of it has to run once before.

        Raises:
            InvalidEventName: *pattern* breaks the grammar.
            TimeoutError: there was none within *timeout* seconds.
            ShuttingDown: the bus was closed before there was one.
            WrongThread: the running loop is not the one of the bus.
            Exception: whatever *filter* raises.
        """
        self._check_loop("EventBus.wait_for()", "EventBus.on()")
        heard: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()

        def offer(event: Event) -> None:
            if heard.done():
                return
            try:
                if filter is None or filter(event):
                    heard.set_result(event)
            except Exception as error:
                heard.set_exception(error)

        def end() -> None:
            if not heard.done():
                heard.set_result(None)

        subscription = self.observable(pattern).subscribe(offer, on_completed=end)
        try:
            async with asyncio.timeout(timeout):
                event = await heard
        finally:
            subscription.dispose()
        if event is None:
            raise ShuttingDown
        return event

    # ---- emitting ----

    def emit(self, name: str, payload: Any = None) -> Event:
        """Let *name* happen, and return the event at once.

        When this returns, the plain handlers have run and the coroutines are started. Two cases differ: before
        `open()` has dispatched what waited, the event waits behind that, and from another thread than the loop's it
        is handed over to the loop. Neither loses it or changes the order of one thread's events; at most 10,000 may
        wait.

        Raises:
            InvalidEventName: *name* breaks the grammar, or is a pattern.
            EventBufferFull: as many events as may wait do so already; this one is not kept.
            ShuttingDown: the bus is closed.
        """
        event = self._event(name, payload)
        if self._state is _State.OPEN and _running_loop() is self._loop:
            self._dispatch(event)
        else:
            self._hand_over(event)
        return event

    async def publish(self, name: str, payload: Any = None) -> Event:
        """Let *name* happen, and return the event when all its handlers have ended.

        Cancelling it does not cancel the handlers; what they raise is logged then.

        Raises:
            ExceptionGroup: what the handlers raised, all of it, in the order of their calls.
            InvalidEventName: *name* breaks the grammar, or is a pattern.
            BusNotOpen: `open()` was not called yet.
            ShuttingDown: the bus is closed.
            WrongThread: the running loop is not the one of the bus.
        """
        event = self._event(name, payload)
        if self._state is _State.CLOSED:
            raise ShuttingDown
        if self._state is _State.BUFFERING:
            raise BusNotOpen
        self._check_loop("EventBus.publish()", "EventBus.emit()")
        calls = self._deliver(event)
        if futures := [call.future for call in calls if call.future is not None]:
            try:
                await asyncio.wait(futures)
            except asyncio.CancelledError:
                for call in calls:
                    call.log_failure()
                raise
        if errors := [failure for call in calls if (failure := call.failure()) is not None]:
            # An ExceptionGroup, unless a task ended by SystemExit or KeyboardInterrupt, which no such group can hold.
            raise BaseExceptionGroup(f"handlers of {name} failed", errors)
        return event

    # ---- life ----

    def open(self) -> None:
        """Bind the running loop and dispatch the events that waited, in their order; a second call does nothing.

        What handlers emit meanwhile comes behind the events that waited, up to 10,000 of it.

        Raises:
            RuntimeError: no loop is running.
            WrongThread: the bus is open on another loop.
            ShuttingDown: the bus is closed.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._state is _State.CLOSED:
                raise ShuttingDown
            if self._loop is not None:
                self._check_loop("EventBus.open()", "one bus per loop")
                return
            self._loop, self._state = loop, _State.OPENING
        try:
            while event := self._next_that_waited():
                self._dispatch(event)
        finally:
            self._opened()

    def _next_that_waited(self) -> Event | None:
        """Return the next event to dispatch while the bus opens; with the last one it is open."""
        with self._lock:
            if not self._waiting:
                self._opened()
                return None
            return self._waiting.popleft()

    def _opened(self) -> None:
        """Dispatch at once from now on; what still waits, because a handler ended the process, is for the loop."""
        with self._lock:
            if self._state is _State.OPENING:
                self._state = _State.OPEN
                for _ in self._waiting:
                    asyncio.get_running_loop().call_soon(self._dispatch_next)

    async def aclose(self, timeout: float | None = 5) -> None:
        """Let the handlers end, cancel those that have not after *timeout* seconds, and complete the observables.

        Events are accepted until the last handler has ended or the time is up, so that a handler can finish
        what it does. When this returns, no handler runs (but the one that called it, and those that still clean up
        after 6 seconds: they are logged by name and left behind). Cancelling it cancels the handlers without waiting
        for them. A second call does nothing.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle()
        finally:
            self._close()
        await cleaned_up(self._others_running(), self._metrics)

    async def _idle(self) -> None:
        """Return when nothing runs and nothing waits to be dispatched."""
        while self._state is _State.OPEN:
            if running := self._others_running():
                await asyncio.wait(running)
            elif self._waiting:
                await asyncio.sleep(0)
            else:
                return

    def _others_running(self) -> dict[asyncio.Future[Any], str]:
        """Return what runs, without the handler that asks: it cannot wait for itself."""
        asking = asyncio.current_task()
        return {future: f"handler {name}" for future, name in self._running.items() if future is not asking}

    def _close(self) -> None:
        with self._lock:
            self._state = _State.CLOSED
            lost, observers = len(self._waiting), list(self._observers.items())
            self._waiting.clear()
            self._registrations = PatternTrie()
        if lost:
            logger.warning("the event bus was closed with %d events that nobody heard", lost)
        for future in self._others_running():
            future.cancel()
        for registration, observer in observers:
            try:
                observer.on_completed()
            except (Exception, asyncio.CancelledError):
                logger.exception("%s failed at its completion", registration.name)

    # ---- delivering ----

    def _event(self, name: str, payload: Any) -> Event:
        return Event(check_event_name(name), payload, uuid.uuid4().hex, self._clock())

    def _hand_over(self, event: Event) -> None:
        """Keep *event* for `open()`, or for the loop's next turn."""
        with self._lock:
            if self._state is _State.CLOSED:
                raise ShuttingDown
            opening = self._state is _State.OPENING
            # Handlers that answer each event with another one would keep an opening bus at it for ever.
            if len(self._waiting) >= MAX_WAITING or (opening and self._behind >= MAX_WAITING):
                raise EventBufferFull(MAX_WAITING)
            if opening:
                self._behind += 1
            elif self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(self._dispatch_next)
                except RuntimeError as closed:  # the loop ended without `aclose()`
                    raise ShuttingDown from closed
            self._waiting.append(event)

    def _dispatch_next(self) -> None:
        with self._lock:
            event = self._waiting.popleft() if self._waiting else None
        if event is not None:
            self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        for call in self._deliver(event):
            call.log_failure()

    def _deliver(self, event: Event) -> list[_Call]:
        """Call every handler that wants *event*; return the calls that failed or have not ended."""
        with self._lock:
            wanting = set(self._registrations.match(event.name.split(".")))
        calls = (self._call(registration, event) for registration in sorted(wanting, key=attrgetter("rank")))
        return [call for call in calls if call is not None]

    def _call(self, registration: _Registration, event: Event) -> _Call | None:
        """Call one handler; None if that was all."""
        if not registration.bound:
            return None
        if registration.once:
            self._forget(registration)
        try:
            result = registration.handler(event)
            if result is None or not inspect.isawaitable(result):
                return None
            future = asyncio.ensure_future(result, loop=self._loop)
        except (Exception, asyncio.CancelledError) as error:
            # A plain call cannot be cancelled: a CancelledError is the handler's own and must not end the emitter.
            return _Call(registration.name, event, error)
        self._running[future] = registration.name
        future.add_done_callback(self._ended)
        return _Call(registration.name, event, future)

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._running.pop(future, None)  # a handler may return the same future twice

    # ---- registering ----

    def _register(
        self, patterns: str | Iterable[str], handler: Handler, name: str, priority: int = 0, once: bool = False
    ) -> _Registration | None:
        """Return the new registration, or None if the bus is closed."""
        patterns = (patterns,) if isinstance(patterns, str) else patterns
        registration = _Registration(patterns, handler, name, (-priority, next(self._order)), once)
        with self._lock:
            if self._state is _State.CLOSED:
                return None
            for pattern in registration.patterns:
                self._registrations.add(pattern.split("."), registration)
        return registration

    def _forget(self, registration: _Registration) -> None:
        registration.bound = False
        with self._lock:
            self._observers.pop(registration, None)
            for pattern in registration.patterns:
                self._registrations.remove(pattern.split("."), registration)

    def _check_loop(self, call: str, instead: str) -> None:
        if self._loop is not None and _running_loop() is not self._loop:
            raise WrongThread(call, instead)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
