"""A subscription's client stream: at once the asyncio protocol of its socket and a receiver of the fan-out.

It begins with `hub.open`, replays what the log holds after the client's position, page by page as the socket takes
them, and goes live in one step (`seam.py` decides). Live batches go straight to the transport; while that is full
they wait in a send queue under the slow-reader policy. A connection that keeps up has no task, no timer and no queue.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.client_stream import ClientStream, CloseReason, Ending, StreamKind
from hub.connections.holders import NOBODY, Holder
from hub.connections.page_cache import PageCache, PageQuery
from hub.connections.registry import StreamRegistry
from hub.connections.resume import position_asked, start
from hub.connections.seam import Beginning, Seam, State, Step
from hub.connections.send_queue import Dropped, SendQueue
from hub.connections.stretches import OPEN, Covered, Since, Stretch, Stretches, with_added
from hub.encoding import SSE, Drop, Encoding, End, Gap, Opening, Topics, retry_between
from hub.errors import LogUnavailable
from hub.fanout import Audience, Batch, Fanout
from hub.log.log import Frames, Located, Log
from hub.metrics import Metrics
from hub.notification import Notification, Position
from hub.settings import SlowPolicy
from hub.topics import room_of

logger = logging.getLogger("hub.connection")

WRITE_BYTES = 64 * 1024
SLICE_BYTES = 16 * 1024


class PresenceView(enum.Enum):
    """What a stream is told of who is on its topics."""

    NOTHING = enum.auto()
    NUMBERS = enum.auto()
    NAMES = enum.auto()


class StreamRooms(NamedTuple):
    """The rooms of one stream.

    Attributes:
        follow: it has the rooms of its user: those that the user joins are added, those that the user leaves removed.
        own: the topics of the rooms that it has joined by itself, each with the position after which they are seen.
        alone: those of them that it has only by that.
        named: the topics of rooms that it has asked for, if it follows: a grant of them outlasts the membership.
    """

    follow: bool = False
    own: Mapping[str, Position] = MappingProxyType({})
    alone: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()


NO_ROOMS, ROOMS_OF_USER = StreamRooms(), StreamRooms(follow=True)


class Subscription(NamedTuple):
    """What one connection asked for.

    Attributes:
        topics: topics and patterns.
        last_event_id: the id it comes back with, `earliest` or `latest`; None or empty: only what is new.
        encoding: how it looks on the wire.
        visibility: which of the notifications that match it may see.
        presence: what it is told of who is on its topics.
        rooms: it has the rooms of its user, which are among the topics.
        retry: the seconds, between two bounds, after which its client comes back when it loses the stream.
        asked: when its request came, in seconds of `time.monotonic`; 0: nobody knows.
    """

    topics: tuple[str, ...]
    last_event_id: str | None = None
    encoding: Encoding = SSE()
    visibility: Visibility = EVERYTHING
    presence: PresenceView = PresenceView.NOTHING
    rooms: bool = False
    retry: tuple[float, float] = (2, 4)
    asked: float = 0.0


class Change(NamedTuple):
    """Other topics for an open subscription.

    Attributes:
        topics: all of them.
        visibility: which of the notifications that match them may be seen.
        added: those of them that are new.
        after: the offset after which these count; None: the newest position.
        gap: what is missing of these before that; None if nothing is.
        hole: the mark of what was trimmed, if the client is told of it by that gap; None: it is not.
        latest: of what is there already only the newest of each topic follows.
    """

    topics: frozenset[str]
    visibility: Visibility
    added: frozenset[str]
    after: int | None = None
    gap: Gap | None = None
    hole: Hashable = None
    latest: bool = False


@dataclass(slots=True, frozen=True)
class Wiring:
    """What all subscriptions of one hub share.

    Attributes:
        buffer_bytes: how much may wait for one reader, the transport's own buffer included.
        slow: what happens when more would.
    """

    log: Log
    pages: PageCache
    fanout: Fanout
    metrics: Metrics
    streams: StreamRegistry
    buffer_bytes: int = 1024 * 1024
    slow: SlowPolicy = SlowPolicy.DISCONNECT


class Connection(ClientStream):
    """One open subscription.

    Attributes:
        presence: what it is told of who is on its topics.
        rooms: those of its user and its own.
    """

    kind: ClassVar[StreamKind] = StreamKind.SUBSCRIPTION
    rests: ClassVar[bool] = False
    """Whether it stays open without topics. The first ones after that begin anew: with them its client gets a cursor,
    which may lie before the last one."""

    __slots__ = (
        "_asked",
        "_audience",
        "_count",
        "_cursor",
        "_dropped_before",
        "_encoding",
        "_last_event_id",
        "_locating",
        "_missed",
        "_queue",
        "_reading",
        "_rest",
        "_retry",
        "_said",
        "_seam",
        "_since",
        "_straight",
        "_topics",
        "_visibility",
        "_wiring",
        "presence",
        "rooms",
    )

    def __init__(self, subscription: Subscription, wiring: Wiring, *, holder: Holder = NOBODY) -> None:
        super().__init__(wiring.streams, holder)
        self._topics: Collection[str] = subscription.topics
        self._last_event_id = subscription.last_event_id  # until it has begun
        self._retry = subscription.retry
        self._asked = subscription.asked  # until it has begun
        self._encoding = subscription.encoding
        self._visibility = subscription.visibility
        self.presence = subscription.presence
        self.rooms = ROOMS_OF_USER if subscription.rooms else NO_ROOMS
        self._since: Since = 0  # after which offset its topics count on this stream; their floors are in the visibility
        self._wiring = wiring
        self._audience: Audience | None = None
        self._cursor = 0  # live: the offset up to which everything was written or announced as missing
        self._seam: Seam | None = None  # until it is live
        self._locating: asyncio.Future[Located] | None = None
        self._reading: asyncio.Future[Frames] | None = None
        self._rest: memoryview | None = None  # of a page, which the transport has had no room for yet
        self._said = 0  # bytes of that rest, at most, that tell of changes of its topics
        self._queue: SendQueue | None = None
        self._straight = False  # live, and nothing waits: batches go straight to the transport
        self._missed: Callable[[], object] | None = None  # called when it is straight again
        self._count = 0  # frames written, beside those that its audience was offered since it joined
        self._dropped_before = 0  # by queues that are empty by now

    @property
    def state(self) -> State:
        """Where it stands between its client's position and live."""
        if self._seam is not None:
            return self._seam.state
        return State.LIVE if self._locating is None else State.REPLAYING

    @property
    def has_begun(self) -> bool:
        """Whether `hub.open` has been given to the transport."""
        return self._locating is None and (self._seam is None or self._seam.has_begun)

    @property
    def topics(self) -> Collection[str]:
        """The topics and patterns that it has now."""
        return self._topics

    @property
    def encoding(self) -> Encoding:
        """How it looks on the wire."""
        return self._encoding

    @property
    def visibility(self) -> Visibility:
        """Which notifications its reader may see."""
        return self._visibility

    @property
    def _delivered(self) -> int:
        return self._count + (self._audience.offered if self._audience is not None else 0)

    @property
    def _dropped(self) -> int:
        return self._dropped_before + (self._queue.dropped if self._queue is not None else 0)

    @property
    def _waiting(self) -> int:
        queued = self._queue.size if self._queue is not None else 0
        held = self._seam.waiting if self._seam is not None else 0
        return queued + held + (len(self._rest) if self._rest is not None else 0)

    @property
    def lag(self) -> int:
        """How many positions of the log it is behind the newest, whatever their topics; 0: nothing waits for it."""
        if self._seam is None and not self._queue:
            return 0
        cursor = self._cursor if self._seam is None else self._seam.cursor
        return max(self._wiring.fanout.newest.offset - cursor, 0)

    # ---- the socket's side ----

    def pause_writing(self) -> None:
        """Pause: the transport's buffer is above its high-water mark."""
        self._straight = False
        super().pause_writing()

    def _go_on(self) -> None:
        if self._seam is not None:
            if self._reading is None:
                self._catch_up()
        elif self._locating is None:
            self._empty_queue()

    def _straighten(self) -> None:
        """Write batches straight to the transport from now on, unless it is full: nothing waits any more."""
        self._straight = not self._paused
        if self._straight and self._missed is not None:
            missed, self._missed = self._missed, None
            missed()

    # ---- what is told in passing, beside the notifications ----

    def tell(self, framed: bytes, missed: Callable[[], object]) -> None:
        """Write *framed* if it can go out now; else drop it, and call *missed* as soon as something can.

        It does not put the next heartbeat off: that moves the client's cursor, which *framed*, without an id, does not.
        """
        if self._straight:
            self._transport.write(framed)
        else:
            self._missed = missed

    def say(self, framed: bytes) -> None:
        """Write *framed*, which answers the client, behind what is half written; whoever calls waits for `at_leisure`.

        Like `tell`, it does not put the next heartbeat off.
        """
        if self._rest:
            self._rest = memoryview(bytes(self._rest) + framed)
            self._said += len(framed)
        else:
            self._transport.write(framed)

    @property
    def at_leisure(self) -> bool:
        """Whether nothing waits for the client that it has been answered."""
        return not (self._paused or self._rest)

    # ---- the trunk's side: a receiver of the fan-out ----

    def on_next(self, batch: Batch) -> None:
        """Write *batch*, which a flush brings, or keep it; never wait."""
        if self._straight:
            self._cursor = batch.last
            self._transport.write(batch.payload)
        else:
            self._wait(batch)

    def _wait(self, batch: Batch) -> None:
        if self._audience is None:  # it has left while the batch was being offered
            return
        self._audience.defer(batch)
        self._count -= len(batch)
        if self._seam is None:
            self._put_in_queue(batch.notifications, batch.frames)
        elif not self._seam.hold(batch):
            self._leave_audience()

    def _put_in_queue(self, notifications: Sequence[Notification], frames: Sequence[bytes]) -> None:
        """Put *frames* into the send queue, under the slow-reader policy."""
        wiring = self._wiring
        if self._queue is None:
            self._queue = SendQueue(wiring.slow, self._cursor)
        room = wiring.buffer_bytes - self._transport.get_write_buffer_size()
        before = self._queue.dropped
        for notification, frame in zip(notifications, frames, strict=True):
            if not self._queue.offer(notification, frame, room):
                self.abort(CloseReason.SLOW)
                return
        wiring.metrics.dropped += self._queue.dropped - before

    def _empty_queue(self) -> None:
        """Write what waits until the transport has enough, or nothing waits."""
        queue = self._queue
        while queue and self._can_write:
            self._transport.write(self._taken(queue))
            self._cursor = queue.after
        if not queue:
            self._let_queue_go()
            self._straighten()

    def _taken(self, queue: SendQueue) -> bytes:
        """Return what goes out next of *queue*."""
        taken = queue.take(WRITE_BYTES)
        number = sum(isinstance(part, bytes) for part in taken)
        self._count += number
        self._wiring.metrics.delivered += number
        return b"".join([part if isinstance(part, bytes) else self._drop(part) for part in taken])

    def _drop(self, part: Dropped) -> bytes:
        return self._encoding.drop(Drop(part.count, self._position(part.after), self._position(part.before)))

    def _let_queue_go(self) -> None:
        if self._queue is not None:
            self._dropped_before += self._queue.dropped
            self._queue = None

    # ---- replay, and the seam to live ----

    def _begin(self) -> None:
        """Find the client's position in the log, which may take its time."""
        position = position_asked(self._last_event_id)
        if position is None:
            self._begin_at(None)
            return
        locating = self._wiring.log.locate(position)
        if locating.done():
            self._located(locating)
        else:
            self._locating = locating
            locating.add_done_callback(self._located)

    def _located(self, locating: asyncio.Future[Located]) -> None:
        self._locating = None
        if self.closed_because is not None:
            return
        try:
            located = locating.result()
        except LogUnavailable:
            self._come_back()
        else:
            self._begin_at(located)

    def _begin_at(self, located: Located | None) -> None:
        """Decide where the stream begins, say so, and go there."""
        wiring, log = self._wiring, self._wiring.log
        # Flushed first: what was gathered before this step is in the log, and must not come a second time.
        wiring.fanout.flush()
        tail = wiring.fanout.newest
        try:
            log.bounds()  # raises while the log can't be used: then nobody begins, for it might be long
            begin = start(self._last_event_id, located=located, trimmed=self._trimmed)
        except LogUnavailable:
            self._come_back()
            return
        if begin.after is None:
            self._cursor = tail.offset
            self._open(Beginning(tail, None, None))
            self._join()
            self._straighten()
            return
        latest = None
        if begin.latest:  # what is older than the newest of its topic was not given to the client
            self._since = latest = tail.offset
        stretches = Stretches.begin(begin.after, self._topics, self._visibility, latest=latest)
        self._seam = Seam(begin, tail, wiring.buffer_bytes // 4, stretches)
        beginning = self._seam.beginning()
        if beginning is not None:
            self._open(beginning)
        self._catch_up()

    def _trimmed(self, after: int) -> int:
        """Return the newest offset beyond *after* that was trimmed and may have counted; 0 if none."""
        return self._wiring.log.trimmed(self._topics, after, self._visibility)

    def _catch_up(self) -> None:
        """Read the next page, and write it; go on later where the log or the transport needs time."""
        self._write_rest()
        seam, wiring = self._seam, self._wiring
        if seam is None or not self._can_write:
            return
        wiring.fanout.flush()
        after, upto, bounded, latest = seam.question(wiring.fanout.newest.offset)
        until = upto if bounded else 0
        present = seam.stretches.present
        encoding = self._encoding if seam.stretches.with_ids else self._encoding.without_ids()
        query = PageQuery(after, present.topics, encoding, present.visibility, until, latest, present.but)
        reading = wiring.pages.read(query, upto=upto)
        if reading.done():
            self._take_page(reading)
        else:
            self._reading = reading
            reading.add_done_callback(self._page_came)

    def _page_came(self, reading: asyncio.Future[Frames]) -> None:
        # A callback that is due already can't be taken back: the stream may have ended, or reads something else by now.
        if reading is self._reading:
            self._reading = None
            self._take_page(reading)

    def _take_page(self, reading: asyncio.Future[Frames]) -> None:
        """Write the page that was read, and do what the seam says."""
        seam = self._seam
        assert seam is not None
        try:
            page = reading.result()
        except LogUnavailable:
            self._come_back()
            return
        except Exception:
            logger.exception("%s: its history could not be read", self.id)
            self._come_back()
            return
        said = seam.take(page)
        if isinstance(said, Beginning):
            self._open(said)
        elif said is not None:
            self._write(self._encoding.gap(said))
        if page.number:
            self._wiring.metrics.replayed += page.number
            self._count += page.number
            self._rest = memoryview(page.payload)
            self._write_rest()
        # One step without an await: flush what the fan-out has gathered, note the tail, join. Whatever is published
        # after that comes as a batch; whatever came before it is in a page.
        self._wiring.fanout.flush()
        self._do(seam.step(self._wiring.fanout.newest.offset, room=self._can_write))

    def _do(self, step: Step) -> None:
        if step is Step.LEAVE:
            self._leave_audience()
        elif step is Step.RELEASE:
            self._release()
        elif step is Step.JOIN:
            self._join()
            self._go_live()
        elif step is not Step.WAIT:
            if step is Step.JOIN_AND_READ:
                self._join()
            # A page a turn: a fast reader of a long history would keep everybody else waiting to its end.
            self._go_on_soon()

    def _write_rest(self) -> None:
        """Write what is left of a page, in slices, until the transport has enough."""
        rest = self._rest
        while rest and self._can_write:
            self._write(rest[:SLICE_BYTES])
            rest = rest[SLICE_BYTES:]
        self._rest = rest or None
        if not rest:
            self._said = 0

    def _release(self) -> None:
        """Write what was held, in one write, as a flush brings it: a slow reader shows in what comes after that."""
        assert self._seam is not None
        held = self._seam.release()
        self._go_live()
        if held:
            number = sum(map(len, held))
            self._count += number
            self._wiring.metrics.delivered += number
            self._write(b"".join([batch.payload for batch in held]))

    def _go_live(self) -> None:
        assert self._seam is not None
        self._count_replay(self._seam)
        self._cursor, self._seam = self._seam.cursor, None
        self._straighten()

    def _count_replay(self, seam: Seam) -> None:
        if seam.replayed is not None and seam.has_begun:
            self._wiring.metrics.replay_notifications.observe(seam.replayed)

    def _join(self) -> None:
        self._audience = self._wiring.fanout.join(self, self._topics, self._encoding, self._visibility)
        self._topics = self._audience.topics
        self._count -= self._audience.offered

    def _leave_audience(self) -> None:
        if self._audience is not None:
            self._count += self._audience.offered
            self._wiring.fanout.leave(self, self._audience)
            self._audience = None

    # ---- other topics ----

    def settle(self, topics: tuple[str, ...], visibility: Visibility) -> None:
        """Take other topics than it was made for, before it takes its socket over."""
        self._topics, self._visibility = topics, visibility

    def name(self, asked: Collection[str], no_more: Collection[str] = ()) -> None:
        """Note which topics it has *asked* for by their names, beside the rooms of its user."""
        if self.rooms.follow:
            rooms = frozenset(each for each in asked if room_of(each) is not None)
            named = (self.rooms.named | rooms).difference(no_more)
            if named != self.rooms.named:
                self.rooms = self.rooms._replace(named=named)

    def gain(self, topic: str, visibility: Visibility, after: int) -> None:
        """Go on with *topic* as well, from this very step on: what stands after the offset *after* follows.

        Its reader sees *visibility* of all its topics then.
        """
        topics = frozenset(self._topics) | {topic}
        if self.has_begun:
            self.change(Change(topics, visibility, topics.difference(self._topics), after))
        else:
            self._begin_again(topics, visibility)

    def lose(self, topic: str) -> None:
        """Go on without *topic*, from this very step on: what was sent to it is not written any more.

        Not even what waits already. What waits in the send queue comes again from the log, without the topic. A page
        that is half written can't be divided: such a stream is cut, and its client resumes.
        """
        topics = frozenset(self._topics) - {topic}
        self._narrow(topics, self._visibility.through(topics))

    def restrict(self, topic: str, since: Position) -> None:
        """Go on with only that of *topic*, which has a floor, that stands after *since*; as for `lose`."""
        floor = self._visibility.floor(topic)
        if floor is None or since <= floor:
            return
        visibility = self._visibility._replace(since=self._visibility.since - {(topic, floor)} | {(topic, since)})
        self._wiring.fanout.flush()
        if self._straight:  # nothing waits that stands before it
            self._visibility = visibility
        else:
            self._narrow(frozenset(self._topics), visibility)

    def _narrow(self, topics: frozenset[str], visibility: Visibility) -> None:
        """Go on with less."""
        if not self.has_begun:
            self._begin_again(topics, visibility)
            return
        self._wiring.fanout.flush()  # what was gathered before this step was sent while the topic counted
        if self._rest:
            self.abort(CloseReason.REVOKED)
        if self.closed_because is not None:
            return
        if self._queue is not None:
            self._give_queue_up()
        self.change(Change(topics, visibility, frozenset()))

    def _begin_again(self, topics: frozenset[str], visibility: Visibility) -> None:
        """Begin with other topics: nothing was written yet but the headers."""
        before, self._topics, self._visibility = self._topics, topics, visibility
        self._wiring.streams.moved(self, before)
        if self._seam is not None:  # its first page is being read; else its position is being looked for
            self._leave_audience()
            self._stop_reading()
            self._seam, self._since = None, 0
            self._begin()

    def _give_queue_up(self) -> None:
        """Drop the send queue, and read from the log what was in it."""
        self._leave_audience()
        self._let_queue_go()
        way = Stretches(self._cursor, [Stretch(self._cursor, OPEN, frozenset(self._topics), self._visibility)])
        self._seam = Seam(None, self._wiring.fanout.newest, self._wiring.buffer_bytes // 4, way)

    def change(self, change: Change) -> Position:
        """Go on with other topics, in this very step; return the position after which those that were added count.

        The stream is open and has begun. What it was given before stays what it was; then `hub.topics` follows, then
        what the new topics bring. A stream that has to read for that, or that waits for its reader, reads on from the
        log: what it was given already, and what it waits with, comes first.
        """
        # Flushed first: what was gathered before this step matched the old topics, and is given out as it did.
        self._wiring.fanout.flush()
        tail = self._wiring.fanout.newest
        begins = Position(tail.epoch, tail.offset if change.after is None else change.after)
        if self.closed_because is not None:  # it could not take what was flushed
            return begins
        said = self._encoding.topics(Topics(tuple(sorted(change.topics)), begins, change.gap))
        former = Stretch(tail.offset, OPEN, frozenset(self._topics), self._visibility)
        had = Covered.of(former.topics, self._since, former.visibility)
        self._leave_audience()
        if change.added:
            kept, counts = change.topics - change.added, begins.offset
            if change.latest:  # what is older than the newest of its topic is not given to the client
                place = tail.offset if self._seam is None or not former.topics else self._seam.stretches.place
                counts = max(counts, place)
            self._since = with_added(self._since, kept, change.added, counts)
        self._topics, self._visibility = change.topics, change.visibility
        self._wiring.streams.moved(self, former.topics)
        if self._straight and begins.offset >= tail.offset:
            self._join()
            self._write(said)
            return begins
        waiting = self._take_what_waits()
        written = self._cursor if self._seam is None else self._seam.cursor
        if self.rests and not former.topics and change.topics:
            latest = tail.offset if change.latest else None
            anew = Stretches.begin(begins.offset, change.topics, change.visibility, latest=latest)
            self._cursor = begins.offset
            self._seam = Seam(None, tail, self._wiring.buffer_bytes // 4, anew)
            self._seam.change(change.hole)
            self._read_on_after(waiting, said)
            return begins
        if self._seam is None:
            self._seam = Seam(None, tail, self._wiring.buffer_bytes // 4, Stretches(tail.offset, [former]))
        self._seam.change(change.hole)
        self._seam.stretches.change(
            change.topics,
            change.visibility,
            added=change.added,
            after=begins.offset,
            latest=change.latest,
            had=had,
            written=written,
        )
        self._read_on_after(waiting, said)
        return begins

    def _read_on_after(self, waiting: bytes, said: bytes) -> None:
        """Write *waiting*, then *said*, and read on."""
        self._said += len(said)
        if waiting and self._said > self._wiring.buffer_bytes:  # beside that one page waits, or what the queue had
            self.abort(CloseReason.SLOW)
            return
        self._rest = memoryview(waiting + said)
        self._catch_up()

    def _take_what_waits(self) -> bytes:
        """Return what waits for the reader, as it goes out, and give up the page that is being read."""
        parts = [bytes(self._rest)] if self._rest else []
        while self._queue:
            parts.append(self._taken(self._queue))
            self._cursor = self._queue.after
        self._let_queue_go()
        self._straight = False
        self._stop_reading()
        return b"".join(parts)

    # ---- the hub's own words ----

    def _open(self, beginning: Beginning) -> None:
        position, recovered, gap = beginning
        self._last_event_id = None
        self._since = self._since or position.offset
        opening = Opening(self.id, tuple(self._topics), position, recovered, gap, retry_between(*self._retry))
        self._write(self._encoding.opening(opening))
        if self._asked:
            self._wiring.metrics.connect_seconds.observe(time.monotonic() - self._asked)
            self._asked = 0.0

    def _position(self, offset: int) -> Position:
        return Position(self._wiring.log.epoch, offset)

    def _last_sent(self) -> float:
        if not self._straight or self._audience is None:
            return float("inf")  # it is busy, and its cursor is not the fan-out's
        return max(self._touched, self._audience.touched)

    def _heartbeat(self) -> bytes:
        # An idle live stream was offered everything that the fan-out has flushed, and the sweep begins with a flush.
        newest = self._wiring.fanout.newest
        self._cursor = newest.offset
        return self._encoding.heartbeat(newest)

    # ---- the end ----

    def _farewell(self, ending: Ending) -> bytes:
        parts = [bytes(self._rest)] if self._rest else []  # begun in the middle of a frame, maybe
        while self._queue:
            parts.append(self._taken(self._queue))
        return b"".join([*parts, self._encoding.end(End(*ending))])

    def _come_back(self) -> None:
        """End a stream whose history can't be read now; the client tries again and misses nothing."""
        self.end(CloseReason.LOG_UNAVAILABLE, retry_between(2, 10))

    def _left(self) -> None:
        """Leave the fan-out, and drop what waits."""
        self._straight = False
        self._missed = None
        self._let_queue_go()
        self._rest = None
        self._leave_audience()
        if self._seam is not None:
            self._count_replay(self._seam)
        if self._locating is not None:
            self._locating.cancel()
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.remove_done_callback(self._page_came)  # others may wait for it, too
            self._reading = None
