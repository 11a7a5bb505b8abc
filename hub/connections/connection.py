"""One open client stream: at once the asyncio protocol of its socket and the observer of its audience.

It begins with `hub.open`, replays what the log holds after the client's position, page by page as the socket takes
them, and goes live in one step. Live frames go straight to the transport; while that is full they wait in an outbox
under the slow-reader policy. A connection that keeps up has no task, no timer and no queue.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, cast

from hub.connections.page_cache import PageCache, PageQuery
from hub.connections.peer import OneWay, watch_peer
from hub.connections.resume import GapReason, Start, position_asked, start
from hub.connections.send_queue import Dropped, SendQueue
from hub.errors import LogUnavailable
from hub.eventstream import LAST_CHUNK, block, chunk, compact_json
from hub.fanout import Audience, Batch, Fanout, Shape
from hub.log.log import Frames, Located, Log
from hub.metrics import Metrics
from hub.notification import Notification, Position
from hub.settings import SlowPolicy

logger = logging.getLogger("hub.connection")

WRITE_BYTES = 64 * 1024
SLICE_BYTES = 16 * 1024

_WORDS = {None: "null", True: "true", False: "false"}
FEW_TOPICS = 4  # as most ask for; a list of 128 long ones would have the cache grow by megabytes
_few_as_json = lru_cache(maxsize=1024)(compact_json)


class State(enum.Enum):
    """Where a connection stands; only the connection itself moves on."""

    REPLAYING = enum.auto()  # history is being sent; the log is the buffer, nothing is held
    HOLDING = enum.auto()  # what may be the last page is being read; live batches are held until it is there
    LIVE = enum.auto()  # in step with the fan-out
    CLOSED = enum.auto()  # nothing more is written


class CloseReason(enum.StrEnum):
    """Why a connection ended. After any of these an `EventSource` may come back and resume."""

    CLIENT = "client"  # it left, or its network did
    SLOW = "slow"  # its reader was too slow
    PEER_TIMEOUT = "peer_timeout"  # it took nothing for too long
    FLOOD = "flood"  # it sent much where it should only listen
    SHUTDOWN = "shutdown"  # this process ends
    LOG_UNAVAILABLE = "log_unavailable"  # its history can't be read now
    FAILED = "failed"  # a defect in the hub


class Subscription(NamedTuple):
    """What one connection asked for: topics and patterns, the id it comes back with, and a shape."""

    topics: tuple[str, ...]
    last_event_id: str | None = None
    shape: Shape = Shape()


@dataclass(slots=True)
class Wiring:
    """What all connections of one hub share.

    Attributes:
        buffer_bytes: how much may wait for one reader, the transport's own buffer included.
        slow: what happens when more would.
        peer_timeout: seconds a peer may take nothing while something waits for it.
        peers_watched: the listening socket has seen to what `watch_peer` does.
        connections: every open connection by its id, from its first byte to the end of its socket.
    """

    log: Log
    pages: PageCache
    fanout: Fanout
    metrics: Metrics
    buffer_bytes: int = 1024 * 1024
    slow: SlowPolicy = SlowPolicy.DISCONNECT
    peer_timeout: float = 30.0
    peers_watched: bool = False
    connections: dict[str, Connection] = field(default_factory=dict)


# 64 random bits in hex each; the kernel is asked for many at a time. Hubs on several threads share them: every step on
# a deque is one that no other thread can divide.
_tokens: deque[str] = deque()


def _token() -> str:
    """Return a token that nobody else gets."""
    try:
        return _tokens.pop()
    except IndexError:
        many = secrets.token_hex(8 * 128)
        _tokens.extend([many[place : place + 16] for place in range(16, len(many), 16)])
        return many[:16]


def retry_between(least: float, most: float) -> int:
    """Return a reconnection time in milliseconds, jittered so that clients do not all come back at once."""
    return int(random.uniform(least, most) * 1000)


class Connection(OneWay):
    """One open client stream. It begins when it takes a transport over.

    Attributes:
        id: names this connection and nothing else.
        closed_because: why it ended; None while it lives.
    """

    __slots__ = (
        "_audience",
        "_cursor",
        "_going_on",
        "_held",
        "_held_bytes",
        "_last_event_id",
        "_latest",
        "_locating",
        "_outbox",
        "_owed",
        "_paused",
        "_reading",
        "_rest",
        "_shape",
        "_state",
        "_straight",
        "_told",
        "_topics",
        "_touched",
        "_transport",
        "_unsent",
        "_unsent_head",
        "_upto",
        "_wiring",
        "closed_because",
        "id",
    )

    def __init__(self, subscription: Subscription, wiring: Wiring) -> None:
        super().__init__()
        self.id = "c_" + _token()
        self.closed_because: CloseReason | None = None
        self._topics: Collection[str] = subscription.topics
        self._last_event_id = subscription.last_event_id
        self._shape = subscription.shape
        self._wiring = wiring
        self._state = State.REPLAYING
        self._audience: Audience | None = None
        self._cursor = 0  # the offset up to which everything was given to the transport or announced as missing
        self._latest = False  # only the newest of each topic, up to `_upto`, is being read
        self._owed: Start | None = None  # the stream's beginning, still to be written
        self._told: Hashable = None  # which mark of a hole was the last one it was told of
        self._upto = 0  # the offset up to which the page that is being read goes
        self._locating: asyncio.Future[Located] | None = None
        self._reading: asyncio.Future[Frames] | None = None
        self._rest: memoryview | None = None  # of a page, which the transport has had no room for yet
        self._held: list[Batch] | None = None
        self._held_bytes = 0
        self._outbox: SendQueue | None = None
        self._going_on = False  # its turn comes in the next tick
        self._paused = False
        self._straight = False  # live, and nothing waits: batches go straight to the transport
        self._touched = 0.0  # when it was last written to on its own, or was last seen to take something
        self._unsent = 0  # what the transport held when it was last looked at, while paused
        self._unsent_head = b""

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def topics(self) -> Collection[str]:
        """What it asked for."""
        return self._topics

    # ---- the socket's side: asyncio.Protocol ----

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Begin; *unsent*, the headers of the answer, goes out in one write with what the stream begins with."""
        self._unsent_head = unsent
        self.connection_made(transport)
        if self._unsent_head:
            self._write(b"")  # where the log needs time to find the beginning

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: say where the stream begins, replay, go live."""
        self._transport = cast(asyncio.Transport, transport)
        self._touched = time.monotonic()
        wiring = self._wiring
        wiring.connections[self.id] = self
        wiring.metrics.connects += 1
        # Little waits in the transport, where nothing can be dropped: a part of the bound at most.
        self._transport.set_write_buffer_limits(min(WRITE_BYTES, wiring.buffer_bytes // 4))
        if not wiring.peers_watched:
            watch_peer(self._transport.get_extra_info("socket"), wiring.peer_timeout)
        if logger.isEnabledFor(logging.INFO):
            logger.info("open %s peer=%s topics=%s", self.id, _peer(self._transport), ",".join(self._topics)[:300])
        try:
            self._begin()
        except LogUnavailable:
            self._come_back()
        except Exception:
            logger.exception("%s could not begin", self.id)
            self.abort()

    def pause_writing(self) -> None:
        """Hear from the transport that it holds enough."""
        self._paused = True
        self._straight = False
        self._unsent = self._transport.get_write_buffer_size()
        self._touched = time.monotonic()

    def resume_writing(self) -> None:
        """Hear from the transport that it can take more."""
        self._paused = False
        # Not in this call: asyncio closes a transport twice if a write fails while it says so.
        self._go_on_soon()

    def _go_on(self) -> None:
        self._going_on = False
        if self._state is State.LIVE:
            self._empty_outbox()
        elif self._reading is None and self._locating is None:
            self._catch_up()

    def cut(self, *, flood: bool) -> None:
        """End it for what the client did."""
        self.abort(CloseReason.FLOOD if flood else CloseReason.CLIENT)

    def connection_lost(self, exc: Exception | None) -> None:
        """Be gone from every registry."""
        self._leave(CloseReason.CLIENT)
        if self._wiring.connections.pop(self.id, None) is not None:
            self._wiring.metrics.disconnects += 1
            logger.info("closed %s reason=%s", self.id, self.closed_because)

    # ---- the trunk's side: a receiver of the fan-out ----

    def on_next(self, batch: Batch) -> None:
        """Take what a flush brings; never wait."""
        if self._straight:
            self._cursor = batch.last
            self._transport.write(batch.payload)
        else:
            self._wait(batch)

    def _wait(self, batch: Batch) -> None:
        # The fan-out has counted this batch as delivered; now it only waits.
        self._wiring.metrics.delivered -= len(batch)
        if self._state is State.HOLDING and self._held is not None:
            self._held.append(batch)
            self._held_bytes += len(batch.payload)
            if self._held_bytes > self._wiring.buffer_bytes // 4:  # it will go to the transport in one write
                self._stop_holding()
        elif self._state is State.LIVE:
            self._put_out(batch.notifications, batch.frames)

    def _put_out(self, notifications: Sequence[Notification], frames: Sequence[bytes]) -> None:
        """Let *frames* wait in the outbox, under the slow-reader policy."""
        wiring = self._wiring
        if self._outbox is None:
            self._outbox = SendQueue(wiring.slow, self._cursor)
        room = wiring.buffer_bytes - self._transport.get_write_buffer_size()
        before = self._outbox.dropped
        for notification, frame in zip(notifications, frames, strict=True):
            if not self._outbox.offer(notification, frame, room):
                wiring.metrics.slow_disconnects += 1
                self.abort(CloseReason.SLOW)
                return
        wiring.metrics.dropped += self._outbox.dropped - before

    def _empty_outbox(self) -> None:
        """Write what waits until the transport has enough, or nothing waits."""
        outbox = self._outbox
        while outbox and self._can_write:
            taken = outbox.take(WRITE_BYTES)
            self._cursor = outbox.after
            self._wiring.metrics.delivered += sum(isinstance(part, bytes) for part in taken)
            self._transport.write(b"".join(map(self._written, taken)))
        if not outbox:
            self._outbox = None
            self._straight = self._state is State.LIVE and not self._paused

    @property
    def _can_write(self) -> bool:
        """Whether a write goes anywhere: after one that failed the transport is closing, and says nothing more."""
        return not (self._paused or self._transport.is_closing())

    def _written(self, part: bytes | Dropped) -> bytes:
        if isinstance(part, bytes):
            return part
        facts = {"dropped": part.count, "after": self._id(part.after), "before": self._id(part.before)}
        return self._framed(block(compact_json(facts), type="hub.dropped"))

    # ---- replay, and the seam to live ----

    def _begin(self) -> None:
        """Decide where the stream begins, say so, and go there."""
        log, position = self._wiring.log, position_asked(self._last_event_id)
        log.bounds()  # raises while the log can't be used
        if position is None:
            self._begin_at(None)
            return
        locating = log.locate(position)
        if locating.done():
            self._begin_at(locating.result())
        else:
            self._locating = locating
            locating.add_done_callback(self._position_came)

    def _position_came(self, locating: asyncio.Future[Located]) -> None:
        self._locating = None
        try:
            self._begin_at(locating.result())
        except LogUnavailable:
            self._come_back()
        except Exception:
            logger.exception("%s could not begin", self.id)
            self.abort()

    def _begin_at(self, located: Located | None) -> None:
        log, tail = self._wiring.log, self._wiring.fanout.flush()
        begin = start(self._last_event_id, located=located, trimmed=lambda after: log.trimmed(self._topics, after))
        if begin.after is None:
            self._cursor = tail
            self._open(tail, recovered=None)
            self._join()
            self._go_live()
            return
        self._cursor = begin.after
        self._latest, self._upto = begin.latest, tail
        if begin.known:
            self._open(begin.after, recovered=True)
        else:
            self._owed = begin
        self._catch_up()

    def _catch_up(self) -> None:
        """Read pages and write them until live; go on later where the log or the transport needs time."""
        self._write_rest()
        if self._state in {State.REPLAYING, State.HOLDING} and self._can_write:
            bounded = self._latest or self._state is State.HOLDING
            if not bounded:
                self._upto = self._wiring.fanout.flush()
            until = self._upto if bounded else 0
            question = PageQuery(self._cursor, frozenset(self._topics), self._shape, until, self._latest)
            reading = self._wiring.pages.read(question, upto=self._upto)
            if not reading.done():
                self._reading = reading
                reading.add_done_callback(self._page_came)
                return
            self._take_page(reading)
            if self._state in {State.REPLAYING, State.HOLDING}:
                # A page a turn: a fast reader of a long history would keep everybody else waiting to its end.
                self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._going_on:
            self._going_on = True
            asyncio.get_running_loop().call_soon(self._go_on)

    def _page_came(self, reading: asyncio.Future[Frames]) -> None:
        self._reading = None
        self._take_page(reading)
        self._catch_up()

    def _take_page(self, reading: asyncio.Future[Frames]) -> None:
        try:
            page = reading.result()
        except LogUnavailable:
            self._come_back()
            return
        except Exception:
            logger.exception("%s: its history could not be read", self.id)
            self._come_back()
            return
        self._cursor = page.reached
        at_end = page.reached >= self._upto
        told, self._told = self._told, page.hole or self._told
        if self._owed is not None:
            if page.number or at_end:
                self._open_before(page.first or self._upto + 1, page.oldest)
        elif page.hole and page.hole != told and not self._latest:
            self._write(self._framed(self._gap_block(GapReason.TRIMMED, page.oldest)))
        if page.number:
            self._wiring.metrics.replayed += page.number
            self._rest = memoryview(page.payload)
            self._write_rest()
        if at_end:
            self._latest = False
        if not self._can_write:
            # The reader takes its time. Live it would be judged by what is still in the transport, so it stays where
            # nothing can be lost, and asks again when that has room: what is held now will come from the log.
            if self._state is State.HOLDING:
                self._stop_holding()
        elif at_end:
            self._reach_live()

    def _write_rest(self) -> None:
        """Write what is left of a page, in slices, until the transport has enough."""
        rest = self._rest
        while rest and self._can_write:
            self._write(rest[:SLICE_BYTES])
            rest = rest[SLICE_BYTES:]
        self._rest = rest or None

    def _reach_live(self) -> None:
        """Everything up to `_upto` is written: go live if that is all there is, else hold what comes and read on."""
        if self._state is State.HOLDING:
            held, self._held = self._held or [], None
            self._go_live()
            if held:
                # In one write, as a flush brings it: whether the reader is slow shows in what comes after that.
                self._wiring.metrics.delivered += sum(map(len, held))
                self._cursor = held[-1].last
                self._write(b"".join([batch.payload for batch in held]))
        elif self._wiring.fanout.flush() == self._upto:
            # Flushed, nothing newer, no await in between: joining now misses nothing and repeats nothing.
            self._join()
            self._go_live()
        else:
            self._upto = self._wiring.fanout.flush()
            self._state = State.HOLDING
            self._held, self._held_bytes = [], 0
            self._join()

    def _join(self) -> None:
        self._audience = self._wiring.fanout.join(self, self._topics, self._shape)
        self._topics = self._audience.topics

    def _go_live(self) -> None:
        self._state = State.LIVE
        self._straight = not self._paused

    def _stop_holding(self) -> None:
        """Give up what was held: it is in the log, and reading goes on."""
        self._leave_audience()
        self._held = None
        self._state = State.REPLAYING

    # ---- the hub's own blocks ----

    def _open_before(self, first: int, oldest: int) -> None:
        """Say that the stream begins right before the offset *first*, where something may be missing before it."""
        assert self._owed is not None
        begin, self._owed = self._owed, None
        self._open(first - 1, recovered=begin.recovered, gap=begin.gap, oldest=oldest)

    def _open(self, offset: int, *, recovered: bool | None, gap: GapReason | None = None, oldest: int = 0) -> None:
        """Say where the stream begins, and what is missing before that."""
        as_json = _few_as_json if len(self._topics) <= FEW_TOPICS else compact_json
        facts = f'"connection":"{self.id}","topics":{as_json(tuple(self._topics))},"recovered":{_WORDS[recovered]}'
        if gap is not None:
            facts += f',"reason":"{gap}","oldest":"{self._id(oldest)}"'
        opening = f"retry: {retry_between(2, 4)}\nid: {self._id(offset)}\n".encode()
        opening += block(f"{{{facts}}}", type="hub.open")
        # In one chunk: who is cut between the two would come back with an id after the gap.
        self._write(self._framed(opening if gap is None else opening + self._gap_block(gap, oldest)))

    def _gap_block(self, reason: GapReason, oldest: int) -> bytes:
        return block(compact_json({"recovered": False, "reason": reason, "oldest": self._id(oldest)}), type="hub.gap")

    def _id(self, offset: int) -> str:
        return str(Position(self._wiring.log.epoch, offset))

    def _framed(self, body: bytes) -> bytes:
        return chunk(body) if self._shape.chunked else body

    def _write(self, framed: bytes | memoryview) -> None:
        self._touched = time.monotonic()
        if self._unsent_head:
            framed, self._unsent_head = self._unsent_head + bytes(framed), b""
        self._transport.write(framed)

    # ---- heartbeat and peer timeout, from the shared sweep ----

    def tend(self, now: float, idle_since: float, heartbeat: bytes) -> None:
        """Write *heartbeat*, a block, if nothing was written since *idle_since*; cut a peer that takes nothing.

        Times are seconds of `time.monotonic`.
        """
        if self._paused:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent, self._touched = unsent, now
            elif now - self._touched >= self._wiring.peer_timeout:
                self._wiring.metrics.peer_timeouts += self._state is not State.CLOSED
                self.abort(CloseReason.PEER_TIMEOUT)
        elif self._straight and self._audience is not None and max(self._touched, self._audience.touched) <= idle_since:
            self._write(self._framed(heartbeat))

    # ---- the end ----

    def close(self, reason: CloseReason, retry: int) -> None:
        """Write what waits, say *reason* and when to come back (*retry*, milliseconds), and end the stream."""
        if self._state is State.CLOSED:
            return
        if self._rest:  # begun in the middle of a frame, maybe
            self._write(self._rest)
        while self._outbox:
            self._transport.write(b"".join(map(self._written, self._outbox.take(WRITE_BYTES))))
        last = self._framed(block(compact_json({"reason": reason}), type="hub.close", retry=retry))
        self._write(last + (LAST_CHUNK if self._shape.chunked else b""))
        self._leave(reason)
        self._transport.close()

    def _come_back(self) -> None:
        """End a stream whose history can't be read now; the client tries again and misses nothing."""
        self.close(CloseReason.LOG_UNAVAILABLE, retry_between(2, 10))

    def abort(self, reason: CloseReason = CloseReason.FAILED) -> None:
        """Cut the connection: nothing more reaches the client, which resumes from its id."""
        self._leave(reason)
        self._transport.abort()

    def _leave(self, reason: CloseReason) -> None:
        """Take no further part in anything."""
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._straight = False
        self.closed_because = reason
        self._outbox = self._held = self._rest = None
        self._leave_audience()
        if self._reading is not None:
            self._reading.remove_done_callback(self._page_came)  # others may wait for it, too
            self._reading = None
        if self._locating is not None:
            self._locating.remove_done_callback(self._position_came)
            self._locating.cancel()
            self._locating = None

    def _leave_audience(self) -> None:
        if self._audience is not None:
            self._wiring.fanout.leave(self, self._audience)
            self._audience = None


def _peer(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else "local"
