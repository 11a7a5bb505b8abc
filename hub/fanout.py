"""From one notification to every connection that wants it.

The fan-out observes the trunk. Connections that asked for the same topics in the same shape form one audience; the
index finds the audiences, their frames are gathered, and a flush joins them once and offers them to every receiver
as one batch, so that each connection is written to once.

When nothing is going on a notification is flushed at once, before the publisher has its answer. In a burst they gather
first, so that it costs each connection a write or two; `hub/pacing.py` decides for how long. Nothing waits longer than
a flush takes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from hub.eventstream import unchunk
from hub.metrics import Metrics
from hub.notification import Notification, Position
from hub.pacing import Pacing, Step
from hub.topics import TopicIndex

logger = logging.getLogger("hub.fanout")

GATHER_BYTES = 64 * 1024


class Shape(NamedTuple):
    """How a connection wants its frames."""

    envelope: bool = False  # data wrapped as {"topic": …, "data": …}
    chunked: bool = True  # with HTTP/1.1 chunk framing; False for HTTP/1.0

    def frame(self, notification: Notification, topic: str) -> bytes:
        """Return the bytes of *notification* for a receiver who wants it because of *topic*."""
        framed = notification.envelope(topic) if self.envelope else notification.chunk
        return framed if self.chunked else unchunk(framed)


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
    """Who takes batches: a connection. It never waits; if it raises it is aborted, and nobody else feels it."""

    def on_next(self, batch: Batch) -> None:
        """Take *batch*."""
        ...

    def abort(self) -> None:
        """Be cut."""
        ...


class Audience:
    """The receivers with identical subscriptions, and what has been gathered for them since the last flush."""

    __slots__ = ("_frames", "_notifications", "gathered", "receivers", "shape", "topics", "touched")

    def __init__(self, topics: frozenset[str], shape: Shape) -> None:
        self.topics, self.shape = topics, shape
        self.receivers: dict[Receiver, None] = {}
        self.touched = 0.0  # when something was last flushed to all of them, in seconds of time.monotonic
        self.gathered = 0  # bytes
        self._notifications: list[Notification] = []
        self._frames: list[bytes] = []

    def gather(self, notification: Notification, topic: str) -> bool:
        """Keep *notification* for the next flush; tell whether it is the first."""
        frame = self.shape.frame(notification, topic)
        self._notifications.append(notification)
        self._frames.append(frame)
        self.gathered += len(frame)
        return len(self._frames) == 1

    def flush(self, now: float) -> int:
        """Offer what was gathered to every receiver and return how many frames that were."""
        batch = Batch(self._notifications, self._frames)
        self._notifications, self._frames, self.gathered = [], [], 0
        self.touched = now
        receivers = list(self.receivers)  # a receiver may leave while it is offered something
        for receiver in receivers:
            try:
                receiver.on_next(batch)
            except Exception:
                logger.exception("a connection failed while it was written to, and is cut")
                receiver.abort()
        return len(batch) * len(receivers)


class Fanout:
    """Observes the trunk and brings each notification to every connection that wants it.

    Args:
        metrics: `delivered` grows here.
        now: seconds of a monotonic clock.
    """

    def __init__(self, metrics: Metrics, now: Callable[[], float] = time.monotonic) -> None:
        self._epoch = ""
        self._newest = 0
        self._metrics = metrics
        self._index: TopicIndex[Audience] = TopicIndex()
        self._audiences: dict[tuple[frozenset[str], Shape], Audience] = {}
        self._unflushed: dict[Audience, None] = {}
        self._pacing = Pacing(now)
        self._now = now
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, newest: Position) -> None:
        """Begin where the log stands, before any connection joins; *newest* is its newest position."""
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

    def wants(self, topic: str) -> bool:
        """Tell whether any open connection wants *topic*."""
        return self._index.wants(topic)

    def join(self, receiver: Receiver, topics: Iterable[str], shape: Shape) -> Audience:
        """Let *receiver* have everything that is not gathered yet; call `flush` in the same step, before."""
        wanted = frozenset(topics)
        audience = self._audiences.get((wanted, shape))
        if audience is None:
            audience = self._audiences[wanted, shape] = Audience(wanted, shape)
            self._index.add(wanted, audience)
        audience.receivers[receiver] = None
        return audience

    def leave(self, receiver: Receiver, audience: Audience) -> None:
        """Bring *receiver* nothing more."""
        audience.receivers.pop(receiver, None)
        if not audience.receivers and (audience.topics, audience.shape) in self._audiences:
            del self._audiences[audience.topics, audience.shape]
            self._index.remove(audience.topics, audience)
            self._unflushed.pop(audience, None)

    def on_next(self, notification: Notification) -> None:
        """Take *notification* from the trunk."""
        self._newest = notification.position.offset
        full = False
        for audience, topic in self._index.match(notification.topics).items():
            if audience.gather(notification, topic):
                self._unflushed[audience] = None
            full = full or audience.gathered > GATHER_BYTES
        if not self._unflushed:
            return
        self._go_on(self._pacing.arrived(full=full))

    def flush(self) -> int:
        """Bring what was gathered to its receivers; return the newest offset, which all have now been offered."""
        if self._unflushed:
            began = self._now()
            while self._unflushed:
                audience = next(iter(self._unflushed))
                del self._unflushed[audience]
                offered = audience.flush(began)
                self._metrics.delivered += offered  # not in one line: a receiver may correct the count meanwhile
            self._go_on(self._pacing.flushed(began))
        return self._newest

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
