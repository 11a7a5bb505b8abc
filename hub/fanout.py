"""From one notification to every connection that wants it.

The fan-out observes the trunk. Connections that asked for the same topics in the same encoding, and may see the same,
form one audience; the index finds the audiences, their frames are gathered, and a flush joins them once and offers
them to every receiver as one batch, so that each connection is written to once.

When nothing is going on a notification is flushed at once, before the publisher has its answer. In a burst they gather
first, so that it costs each connection a write or two; `hub/pacing.py` decides for how long. Nothing waits longer than
a flush takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from hub.access.visibility import EVERYTHING, Visibility
from hub.encoding import Encoding
from hub.metrics import Metrics
from hub.notification import Notification, Position
from hub.pacing import Pacing, Step
from hub.patterns import compiled
from hub.topics import TopicIndex

logger = logging.getLogger("hub.fanout")

GATHER_BYTES = 64 * 1024


AudienceKey = tuple[frozenset[str], Encoding, Visibility]


class Batch:
    """What one flush brings to one audience; shared by all its receivers.

    Attributes:
        notifications: in order.
        frames: the bytes of each.
        payload: all frames joined.
        last: the offset of the newest.
    """

    __slots__ = ("frames", "last", "notifications", "payload")

    def __init__(self, notifications: list[Notification], frames: list[bytes]) -> None:
        self.notifications = notifications
        self.frames = frames
        self.payload = frames[0] if len(frames) == 1 else b"".join(frames)
        self.last = notifications[-1].position.offset

    def __len__(self) -> int:
        return len(self.frames)


class Receiver(Protocol):
    """What takes batches: a connection. One that raises is aborted, and nobody else feels it."""

    def on_next(self, batch: Batch) -> None:
        """Write or keep *batch*, without waiting."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class Audience:
    """The receivers with identical subscriptions, and what has been gathered for them since the last flush.

    Attributes:
        key: what is identical: topics, encoding and visibility.
        gathered: bytes that wait for the next flush.
        offered: frames that each receiver was offered since this audience exists.
        touched: when something was last flushed to all of them, in seconds of `time.monotonic`.
    """

    __slots__ = (
        "_all",
        "_deferred",
        "_encoding",
        "_frames",
        "_notifications",
        "_visibility",
        "gathered",
        "key",
        "offered",
        "receivers",
        "topics",
        "touched",
    )

    def __init__(self, topics: frozenset[str], encoding: Encoding, visibility: Visibility = EVERYTHING) -> None:
        self.key: AudienceKey = (topics, encoding, visibility)
        self.topics = topics
        self._encoding, self._visibility = encoding, visibility
        self._all = encoding.names_all_topics
        self.receivers: dict[Receiver, None] = {}
        self.touched = 0.0
        self.gathered = 0
        self.offered = 0
        self._deferred = 0  # frames of the batch that is being offered which receivers could not write yet
        self._notifications: list[Notification] = []
        self._frames: list[bytes] = []

    def gather(self, notification: Notification, topic: str) -> bool:
        """Keep *notification*, which matches because of *topic*, for the next flush; return whether it is the first."""
        if notification.private and not self._visibility.sees(notification.topics, private=True):
            return False
        frame = self._encoding.notification(notification, self._shown(notification) if self._all else (topic,))
        self._notifications.append(notification)
        self._frames.append(frame)
        self.gathered += len(frame)
        return len(self._frames) == 1

    def _shown(self, notification: Notification) -> tuple[str, ...]:
        """Return all topics through which the receivers see *notification*, which they do."""
        topics = notification.topics
        if len(topics) == 1:
            return topics
        asked = self.topics.__contains__ if self.topics.issuperset(topics) else compiled(self.topics).match
        return self._visibility.shown(filter(asked, topics), private=notification.private)

    def defer(self, batch: Batch) -> None:
        """Count *batch*, which is being offered, as not delivered yet to one of the receivers."""
        self._deferred += len(batch)

    def flush(self, now: float) -> int:
        """Offer what was gathered to every receiver and return how many frames were written at once."""
        batch = Batch(self._notifications, self._frames)
        self._notifications, self._frames, self.gathered = [], [], 0
        self.touched = now
        self.offered += len(batch)
        self._deferred = 0
        receivers = list(self.receivers)  # a receiver may leave while it is offered something
        for receiver in receivers:
            deferred = self._deferred
            try:
                receiver.on_next(batch)
            except Exception:
                logger.exception("a connection failed while it was written to, and is aborted")
                self._deferred = deferred + len(batch)
                receiver.abort()
        return len(batch) * len(receivers) - self._deferred


class Fanout:
    """Observes the trunk and offers each notification to every connection that wants it.

    Args:
        metrics: `delivered` and `publish_written_seconds` grow here.
        now: seconds of a monotonic clock.
        clock: seconds since 1970: the clock of `Notification.at`.

    Attributes:
        turning: is called with the topics of an audience that is about to appear or to go; it must not publish.
    """

    def __init__(
        self,
        metrics: Metrics,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._epoch = ""
        self._newest = 0
        self._oldest = 0.0  # when the oldest one that is gathered was published
        self._metrics = metrics
        self._index: TopicIndex[Audience] = TopicIndex()
        self._audiences: dict[AudienceKey, Audience] = {}
        self._unflushed: dict[Audience, None] = {}
        self._pacing = Pacing(now)
        self._now, self._clock = now, clock
        self._timer: asyncio.TimerHandle | None = None
        self.turning: Callable[[Iterable[str]], object] | None = None

    def begin(self, newest: Position) -> None:
        """Start at *newest*, the newest position of the log, before any connection joins."""
        self._epoch, self._newest = newest
        self._loop = asyncio.get_running_loop()  # looked up once: to find the loop is a system call

    @property
    def newest(self) -> Position:
        """The newest position the trunk brought here, flushed or not."""
        return Position(self._epoch, self._newest)

    @property
    def resting(self) -> bool:
        """Whether nothing is gathered, and the next notification is flushed at once or begins a burst."""
        return self._pacing.resting

    @property
    def topics(self) -> int:
        """How many exact topics somebody wants."""
        return len(self._index)

    def subscribers(self) -> Counter[str]:
        """Return how many open connections have each topic and pattern that somebody wants; it walks all of them."""
        found: Counter[str] = Counter()
        for audience in self._audiences.values():
            number = len(audience.receivers)
            for topic in audience.topics:
                found[topic] += number
        return found

    def wants(self, topic: str) -> bool:
        """Return whether any open connection wants *topic*."""
        return self._index.wants(topic)

    def occupied(self, topic: str) -> bool:
        """Return whether an open connection is subscribed to exactly *topic*, which is no pattern."""
        return topic in self._index

    def join(
        self,
        receiver: Receiver,
        topics: Iterable[str],
        encoding: Encoding,
        visibility: Visibility = EVERYTHING,
    ) -> Audience:
        """Offer *receiver* everything that is not gathered yet; call `flush` before, in the same step.

        Floors in the *visibility* lie behind what is live: readers with different ones form one audience.
        """
        key = (frozenset(topics), encoding, visibility.live if visibility.since else visibility)
        audience = self._audiences.get(key)
        if audience is None:
            if self.turning is not None:
                self.turning(key[0])
            audience = self._audiences[key] = Audience(*key)
            self._index.add(audience.topics, audience)
        audience.receivers[receiver] = None
        return audience

    def leave(self, receiver: Receiver, audience: Audience) -> None:
        """Offer *receiver* nothing more."""
        audience.receivers.pop(receiver, None)
        if not audience.receivers and audience.key in self._audiences:
            if self.turning is not None:
                self.turning(audience.topics)
            del self._audiences[audience.key]
            self._index.remove(audience.topics, audience)
            self._unflushed.pop(audience, None)

    def on_next(self, notification: Notification) -> None:
        """Gather *notification*, which the trunk brings, and flush it now or later."""
        self._newest = notification.position.offset
        if not self._unflushed:
            self._oldest = notification.at
        full = False
        for audience, topic in self._index.match(notification.topics).items():
            if audience.gather(notification, topic):
                self._unflushed[audience] = None
            full = full or audience.gathered > GATHER_BYTES
        if not self._unflushed:
            return
        self._go_on(self._pacing.arrived(full=full))

    def flush(self) -> None:
        """Offer what was gathered to its receivers. After this all have been offered everything up to `newest`."""
        if self._unflushed:
            began, oldest = self._now(), self._oldest
            while self._unflushed:
                audience = next(iter(self._unflushed))
                del self._unflushed[audience]
                self._metrics.delivered += audience.flush(began)
            # Once for each flush, not for each connection. Clocks of two machines may differ: no time is below 0.
            self._metrics.publish_written_seconds.observe(max(self._clock() - oldest, 0.0))
            self._go_on(self._pacing.flushed(began))

    def _tick(self) -> None:
        self._timer = None
        self._go_on(self._pacing.tick(gathered=bool(self._unflushed)))

    def _go_on(self, step: Step) -> None:
        """Do what the pacing says."""
        if step is Step.FLUSH:
            self.flush()
        elif step is Step.TICK:
            if self._timer is not None:  # somebody else has flushed what was waited with
                self._timer.cancel()
                self._timer = None
            self._loop.call_soon(self._tick)
        elif step is Step.WAIT:
            self._timer = self._loop.call_later(self._pacing.pause, self._tick)

    def on_error(self, error: Exception) -> None:
        """Never called: the trunk does not fail."""

    def on_completed(self) -> None:
        """Flush the last of it: the trunk has ended."""
        self.flush()
