"""The event bus: delivers events of the application to the handlers that asked for them."""

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
from hub.tracing import Tracing

MAX_WAITING = 10_000
MOST_KNOWN = 1_000

logger = logging.getLogger(__name__)


Handler = Callable[[Event], object]
"""A callable that takes an event. Its return value is ignored, unless it is awaitable: the bus runs that as a task."""


class _State(enum.Enum):
    BUFFERING = enum.auto()  # the listeners are not bound yet: events wait
    OPENING = enum.auto()  # the waiting events are being dispatched; new ones queue behind them
    OPEN = enum.auto()
    CLOSED = enum.auto()


class _Registration:
    """A handler with its patterns and options."""

    __slots__ = ("bound", "handler", "name", "once", "patterns", "rank")

    def __init__(self, patterns: Iterable[str], handler: Handler, name: str, rank: tuple[int, int], once: bool) -> None:
        self.patterns = check_event_patterns(patterns)
        self.handler, self.name, self.rank, self.once = handler, name, rank, once
        self.bound = True  # false as soon as it is disposed, even while an event is being delivered


class _Call:
    """A call of a handler that raised an exception, or that returned a future."""

    __slots__ = ("error", "event", "future", "handler")

    def __init__(self, handler: str, event: Event, outcome: asyncio.Future[Any] | BaseException) -> None:
        self.handler, self.event = handler, event
        self.future = outcome if isinstance(outcome, asyncio.Future) else None
        self.error = None if isinstance(outcome, asyncio.Future) else outcome

    def failure(self) -> BaseException | None:
        """Return the exception of the call, or None; a cancellation as `HandlerCancelled`. The call must have ended."""
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

    def report_failure(self, report: Report) -> None:
        """Pass the exception of the call, if there is one, to *report*: now, or when the future ends."""
        if self.future is None:
            self._report(report)
        else:
            self.future.add_done_callback(lambda _: self._report(report))

    def _report(self, report: Report) -> None:
        failure = self.failure()
        if failure is not None:
            report(self.handler, self.event, failure)


Report = Callable[[str, Event, BaseException], None]
"""A function that is told of a handler that failed: the handler's name, the event, and what it raised."""


def log_failure(handler: str, event: Event, failure: BaseException) -> None:
    """Log that *handler* failed."""
    logger.error("handler %s failed at event %s", handler, event.name, exc_info=failure)


class EventBus:
    """Delivers each event to the handlers whose patterns match; one that fails affects no other handler.

    Before `open()` events are kept; after `aclose()` none are accepted. The cost of an event depends on the number
    of handlers that match it, not on the number registered. Handlers run on the loop's thread only; `emit`, `on` and
    every `dispose` may be called from any thread.

    Attributes:
        report: is told of each handler that failed, unless `publish` raises that; logs it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Create a bus that keeps events until it is opened.

        Args:
            clock: returns the time for `Event.at`, in seconds since 1970.
            metrics: counts the handlers that do not end (`left_behind`).
            tracing: notes each event; None: nobody does.
        """
        self._clock = clock
        self._metrics = metrics or Metrics()
        self._tracing = tracing
        self.report: Report = log_failure
        self._state = _State.BUFFERING
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registrations: PatternTrie[_Registration] = PatternTrie()
        self._wanted: dict[str, bool] = {}  # what `wants` has found since the registrations changed
        self._observers: dict[_Registration, ObserverBase[Event]] = {}
        self._running: dict[asyncio.Future[Any], str] = {}  # what handlers returned, with the handlers' names
        self._waiting: deque[Event] = deque()  # emitted before the bus was open, or by another thread
        self._behind = 0  # number of events emitted while the waiting ones were dispatched
        self._order = itertools.count()
        # Guards the trie, the observers, the waiting events and the state; never held while a handler runs.
        # Reentrant: the garbage collector may dispose a subscription at any moment.
        self._lock = threading.RLock()

    # ---- subscribing ----

    def on(
        self, patterns: str | Iterable[str], handler: Handler, *, priority: int = 0, once: bool = False
    ) -> DisposableBase:
        """Call *handler* with every event that matches any of *patterns*, until the returned object is disposed.

        A plain handler runs inside `emit`; a coroutine function is started as a task that the bus owns. One event
        calls the handler once, however many of its patterns match. After `dispose` it is not called again,
        not even for an event that is being delivered; tasks already started continue.

        Args:
            patterns: one name or pattern, or several.
            handler: what it raises is logged with its qualified name.
            priority: higher is called (or started) earlier; equal priorities in the order of registration.
            once: call the handler for the first event only.

        Raises:
            InvalidEventName: a pattern breaks the grammar.
            ValueError: there is no pattern.
            TypeError: *handler* is not callable.
            ShuttingDown: the bus is closed.
        """
        if not callable(handler):
            raise TypeError(f"a handler can be called; {handler!r} cannot")
        registration = self._register(patterns, handler, qualified_name(handler), priority, once)
        if registration is None:
            raise ShuttingDown
        return Disposable(partial(self._forget, registration))

    def observable(self, pattern: str) -> Observable[Event]:
        """Return an observable of the events that match *pattern*; each observer gets those after its `subscribe`.

        It completes when the bus closes (at once if it is closed already). The cost of a disposal depends on the
        length of the pattern, not on the number of subscriptions. What an observer raises is logged and affects no
        other observer.

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
        """Return the next event that matches *pattern* and for which *filter* returns a true value.

        The subscription begins when the coroutine first runs: an event emitted before its task has started is missed.

        Raises:
            InvalidEventName: *pattern* breaks the grammar.
            TimeoutError: no event matched within *timeout* seconds.
            ShuttingDown: the bus was closed before an event matched.
            WrongThread: the running loop is not the one of the bus.
            Exception: the exception that *filter* raised.
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

    def wants(self, name: str) -> bool:
        """Return whether an event *name* would have a handler now: what nobody hears need not be made."""
        wanted = self._wanted.get(name)
        if wanted is None:
            with self._lock:
                if len(self._wanted) >= MOST_KNOWN:
                    self._wanted.clear()
                wanted = self._wanted[name] = next(self._registrations.match(name.split(".")), None) is not None
        return wanted

    # ---- emitting ----

    def emit(self, name: str, payload: Any = None) -> Event:
        """Emit the event *name* with *payload* and return it without waiting for asynchronous handlers.

        When this returns, the plain handlers have run and the coroutines are started. There are two exceptions: until
        `open()` has dispatched the waiting events, the new one waits behind them; and an event from another thread
        than the loop's is passed to the loop. In both cases no event is lost and the events of one thread stay in
        order; at most 10,000 may wait.

        Raises:
            InvalidEventName: *name* breaks the grammar, or is a pattern.
            EventBufferFull: 10,000 events wait already; this one is not kept.
            ShuttingDown: the bus is closed.
        """
        event = self._event(name, payload)
        if self._state is _State.OPEN and _running_loop() is self._loop:
            self._dispatch(event)
        else:
            self._hand_over(event)
        return event

    async def publish(self, name: str, payload: Any = None) -> Event:
        """Emit the event *name* with *payload* and return it when all its handlers have ended.

        Cancelling this call does not cancel the handlers; their exceptions are then logged.

        Raises:
            ExceptionGroup: all exceptions of the handlers, in the order of their calls.
            InvalidEventName: *name* breaks the grammar, or is a pattern.
            BusNotOpen: `open()` has not been called yet.
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
                    call.report_failure(self.report)
                raise
        if errors := [failure for call in calls if (failure := call.failure()) is not None]:
            # This makes an ExceptionGroup, unless a task ended by SystemExit or KeyboardInterrupt, which only a
            # BaseExceptionGroup can hold.
            raise BaseExceptionGroup(f"handlers of {name} failed", errors)
        return event

    # ---- opening and closing ----

    def open(self) -> None:
        """Bind the running loop and dispatch the waiting events in order; a second call does nothing.

        Events that handlers emit meanwhile are queued behind the waiting ones, up to 10,000.

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
        """Return the next waiting event; with none left, set the state to open and return None."""
        with self._lock:
            if not self._waiting:
                self._opened()
                return None
            return self._waiting.popleft()

    def _opened(self) -> None:
        """Set the state to open: from now on events are dispatched at once.

        Events still wait here only if a handler raised SystemExit or KeyboardInterrupt; the loop dispatches them.
        """
        with self._lock:
            if self._state is _State.OPENING:
                self._state = _State.OPEN
                for _ in self._waiting:
                    asyncio.get_running_loop().call_soon(self._dispatch_next)

    async def aclose(self, timeout: float | None = 5) -> None:
        """Wait for the handlers, cancel those still running after *timeout* seconds, and complete the observables.

        Events are accepted until the last handler has ended or the time is up, so that a handler can finish its
        work. When this returns, no handler runs, with two exceptions: the one that called this, and those whose
        cleanup takes more than 6 seconds (they are logged by name and no longer waited for). Cancelling this call
        cancels the handlers without waiting for them. A second call does nothing.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.idle()
        finally:
            self._close()
        await cleaned_up(self._others_running(), self._metrics)

    async def idle(self) -> None:
        """Wait until no handler runs, except the one that calls this, and no event waits to be dispatched."""
        while self._state is _State.OPEN:
            if running := self._others_running():
                await asyncio.wait(running)
            elif self._waiting:
                await asyncio.sleep(0)
            else:
                return

    def _others_running(self) -> dict[asyncio.Future[Any], str]:
        """Return the running handlers except the one that calls this: it cannot wait for itself."""
        asking = asyncio.current_task()
        return {future: f"handler {name}" for future, name in self._running.items() if future is not asking}

    def _close(self) -> None:
        with self._lock:
            self._state = _State.CLOSED
            lost, observers = len(self._waiting), list(self._observers.items())
            self._waiting.clear()
            self._registrations = PatternTrie()
            self._wanted.clear()
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
        """Queue *event* for `open()` or, once the bus is open, for the loop's next iteration."""
        with self._lock:
            if self._state is _State.CLOSED:
                raise ShuttingDown
            opening = self._state is _State.OPENING
            # Without this bound, handlers that answer each event with another one would keep `open()` from ending.
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
            call.report_failure(self.report)

    def _deliver(self, event: Event) -> list[_Call]:
        """Call every handler that matches *event*; return the calls that failed or returned a future."""
        if self._tracing is None or not self.wants(event.name):
            return self._call_all(event)
        with self._tracing.event(event.name):  # the tasks of handlers begin in it, and take its context along
            return self._call_all(event)

    def _call_all(self, event: Event) -> list[_Call]:
        with self._lock:
            wanting = set(self._registrations.match(event.name.split(".")))
        calls = (self._call(registration, event) for registration in sorted(wanting, key=attrgetter("rank")))
        return [call for call in calls if call is not None]

    def _call(self, registration: _Registration, event: Event) -> _Call | None:
        """Call one handler; return None if it returned without an exception and without a future."""
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
            # A plain call cannot be cancelled: a CancelledError comes from the handler and must not reach the emitter.
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
            self._wanted.clear()
        return registration

    def _forget(self, registration: _Registration) -> None:
        registration.bound = False
        with self._lock:
            self._observers.pop(registration, None)
            for pattern in registration.patterns:
                self._registrations.remove(pattern.split("."), registration)
            self._wanted.clear()

    def _check_loop(self, call: str, instead: str) -> None:
        if self._loop is not None and _running_loop() is not self._loop:
            raise WrongThread(call, instead)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
