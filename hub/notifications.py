"""The notification service: accepts notifications, and broadcasts them through one `Subject`, the trunk."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict, Unpack
from uuid import UUID

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.internal.exceptions import DisposedException
from reactivex.subject import Subject

from hub.errors import ShuttingDown, WrongThread
from hub.eventstream import JsonDefault
from hub.log.log import Log, Renewed, ignore_renewal
from hub.log.receipt import Receipt
from hub.metrics import Metrics
from hub.notification import Draft, Notification, Position
from hub.topics import EVERY_TOPIC, TopicIndex, check_pattern, topic_of

logger = logging.getLogger("hub.notifications")


class Options(TypedDict, total=False):
    """The options of a notification beside its data and topic; see `NotificationService.send_notification`."""

    topics: Iterable[str] | None
    type: str | None
    retry: int | None
    private: bool
    tags: Mapping[str, Any] | None
    key: str | None


class Trunk(Subject[Notification]):
    """The subject that every notification passes through, in the order of positions.

    An exception of an observer is logged; it affects neither the other observers nor the publisher.
    """

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def on_next(self, value: Notification) -> None:
        """Pass *value* to every observer. Only the loop's thread calls this, so it needs no lock."""
        if self.is_disposed:
            raise DisposedException
        if self.is_stopped:
            return
        for observer in tuple(self.observers):
            try:
                observer.on_next(value)
            except Exception:
                self._metrics.observer_failures += 1
                logger.exception("an observer of the trunk failed at %s", value.id)


class _Taps:
    """In-process observers of single topics, behind one observer of the trunk: subscribing and disposing are O(1)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._index: TopicIndex[abc.ObserverBase[Notification]] = TopicIndex()
        self._open: dict[abc.ObserverBase[Notification], None] = {}
        self._ended = False

    def tap(self, topics: Sequence[str], observer: abc.ObserverBase[Notification]) -> abc.DisposableBase:
        if self._ended:
            observer.on_completed()
            return Disposable()
        self._open[observer] = None
        self._index.add(topics, observer)

        def leave() -> None:
            if observer in self._open:
                del self._open[observer]
                self._index.remove(topics, observer)

        return Disposable(leave)

    def on_next(self, notification: Notification) -> None:
        if not self._open:
            return
        for observer in self._index.match(notification.topics):
            try:
                observer.on_next(notification)
            except Exception:
                self._metrics.observer_failures += 1
                logger.exception("an observer of %s failed at %s", ", ".join(notification.topics), notification.id)

    def on_error(self, error: Exception) -> None:
        """Never called: the trunk does not fail."""

    def on_completed(self) -> None:
        self._ended = True
        while self._open:
            observer, _ = self._open.popitem()
            try:
                observer.on_completed()
            except Exception:
                self._metrics.observer_failures += 1
                logger.exception("an observer failed at the end of its stream")
        self._index = TopicIndex()


class NotificationService:
    """Accepts notifications and broadcasts them; one per application.

    All calls belong to the event loop's thread, except `send_notification_threadsafe`.

    Attributes:
        subject: the trunk, a reactivex `Subject`. Only the log feeds it, after confirmation and in the order of
            positions; an application must not call its `on_next`, because a client could not resume what it sends. For
            single topics `stream` is cheaper.

    Args:
        log: keeps the notifications, and gives them their positions.
        metrics: the counters; None: counters of its own.
        json_default: returns something that can be sent instead of an object that pydantic does not know.
        renewed: called with the newest position when the log has become another one, before anything of it is
            broadcast.
    """

    def __init__(
        self,
        log: Log,
        metrics: Metrics | None = None,
        *,
        json_default: JsonDefault | None = None,
        renewed: Renewed = ignore_renewal,
    ) -> None:
        self._log = log
        self._metrics = metrics or Metrics()
        self._json_default = json_default
        self.subject = Trunk(self._metrics)
        self._taps = _Taps(self._metrics)
        self.subject.subscribe(self._taps.on_next, self._taps.on_error, self._taps.on_completed)
        self._announced: deque[Notification] = deque()
        self._broadcasting = False
        self._closed = False
        self._thread: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        log.announce_to(self._announce, renewed)

    def open(self) -> None:
        """Bind the service to the running loop and its thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    # ---- in ----

    def send_notification(
        self,
        data: object,
        *,
        topic: str | None = None,
        topics: Iterable[str] | None = None,
        type: str | None = None,
        retry: int | None = None,
        private: bool = False,
        tags: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Broadcast *data*. This is a plain call that never waits; it may be made from a coroutine or not.

        The notification has its place in the order when this returns. Await the receipt to know that the log has it;
        without that, a failure is logged and counted.

        Args:
            data: a string is sent as it is, anything else as compact JSON; at most 1 MiB encoded. What pydantic can
                turn into JSON (`datetime`, `UUID`, dataclasses, models and more) is accepted too; any other object is
                passed to the `json_default` of the hub.
            topic: one topic; with *topics*, their union in this order; with neither, `notifications`.
            topics: several topics; at most 16 together with *topic*.
            type: the SSE event type, for `addEventListener`; None for a plain `message`.
            retry: a reconnection time in milliseconds, sent with the notification.
            private: only readers see it who asked for one of its topics and were granted that one.
            tags: short scalar values by name, stored with the notification and not sent.
            key: idempotency key: for five minutes, a call with the same key returns the first position and sends
                nothing.

        Raises:
            InvalidTopic, InvalidDraft: a field breaks its rule; the error names both, and nothing was sent.
            TooLarge: *data* exceeds its bound.
            LogUnavailable: too much waits for the log already; a retry with the same key is safe.
            ShuttingDown: the hub has ended.
            WrongThread: this is not the loop's thread.
        """
        draft = Draft.of(
            data,
            topic=topic,
            topics=topics,
            type=type,
            retry=retry,
            private=private,
            tags=tags,
            key=key,
            json_default=self._json_default,
        )
        return self.publish((draft,))[0]

    def send_to_user(self, user_id: str | int | UUID, data: object, **options: Unpack[Options]) -> Receipt:
        """Send *data* to the topic `user/{user_id}`; *options* as for `send_notification`."""
        return self.send_notification(data, topic=topic_of("user", user_id), **options)

    def send_to_room(self, room_id: str | int | UUID, data: object, **options: Unpack[Options]) -> Receipt:
        """Send *data* to the topic `room/{room_id}`; *options* as for `send_notification`."""
        return self.send_notification(data, topic=topic_of("room", room_id), **options)

    def send_notification_threadsafe(
        self, data: object, *, topic: str | None = None, **options: Unpack[Options]
    ) -> concurrent.futures.Future[Position]:
        """Send a notification as `send_notification` does, but from any thread.

        Return a future of the confirmed position; if the log fails or the hub ends, it has that exception.

        Raises:
            InvalidTopic, InvalidDraft, TooLarge: raised at once, in the calling thread.
            ShuttingDown: the hub has not started yet, or has ended.
        """
        draft = Draft.of(data, topic=topic, **options, json_default=self._json_default)
        if self._loop is None or self._closed:
            raise ShuttingDown

        async def send() -> Position:
            return await self.publish((draft,))[0]

        return asyncio.run_coroutine_threadsafe(send(), self._loop)

    def publish(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Send *drafts* with consecutive positions, all or none of them; return one receipt for each.

        Raises:
            LogUnavailable, ShuttingDown, WrongThread: as for `send_notification`.
        """
        if self._closed:
            raise ShuttingDown
        if self._thread is not None and self._thread != threading.get_ident():
            raise WrongThread("send_notification", "send_notification_threadsafe")
        began = time.perf_counter()
        receipts = self._log.append(drafts)
        for receipt in receipts:
            self._metrics.repeated += receipt.repeated
        if receipts:  # the log answers for all of them at once
            if receipts[-1].done:
                self._answered(began, confirmed=True)
            else:
                receipts[-1].watch(partial(self._answered, began))
        return receipts

    def _answered(self, began: float, confirmed: bool) -> None:
        """Note that the log has answered a publish that *began* then."""
        if confirmed:
            self._metrics.publish_confirmed_seconds.observe(time.perf_counter() - began)

    # ---- out ----

    @property
    def position(self) -> Position:
        """The newest position: the `lastEventId` for a page that is rendered now, so that its stream misses nothing.

        Read it before the data that the page shows. Whatever is sent after that follows on the stream, even if it is
        sent before the stream is opened. What is sent between this and the reading of the data is in both.

        In a hub of several processes it may be a little older than the newest of them all, which costs a repetition.

        Raises:
            LogUnavailable: the log can't be used now.
        """
        return self._log.bounds().newest

    def _announce(self, notifications: Sequence[Notification]) -> None:
        """Feed the trunk; called by the log. What an observer publishes meanwhile comes after *notifications*."""
        self._announced.extend(notifications)
        if self._broadcasting:
            return
        self._broadcasting = True
        try:
            while self._announced:
                self._metrics.published += 1
                self.subject.on_next(self._announced.popleft())
        finally:
            self._broadcasting = False

    def stream(self, *topics: str) -> Observable[Notification]:
        """Return an observable of the notifications to *topics*; each observer gets those after its `subscribe`.

        *topics* may be patterns, which match as those of a client do: `**` does not reach `user/…`, `room/…` and
        `ai/…`. Without any, it is everything, those included. A disposal costs the same for any number of observers.
        The stream completes when the hub ends. What an observer raises is logged; other observers, and the next
        notification to the same observer, are not affected.

        Raises:
            InvalidTopic: a topic breaks the grammar.
        """
        wanted = tuple(dict.fromkeys(check_pattern(topic) for topic in topics)) or EVERY_TOPIC

        def subscribe(
            observer: abc.ObserverBase[Notification], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return self._taps.tap(wanted, observer)

        return Observable(subscribe)

    def close(self) -> None:
        """Refuse further notifications and complete every stream."""
        if not self._closed:
            self._closed = True
            self.subject.on_completed()
