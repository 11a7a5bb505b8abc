"""All open client streams: the limits of their number, one sweep for heartbeats and stuck peers, one drain."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Protocol, TypeVar

from hub.connections.client_stream import ClientStream, CloseReason, Ending, StreamFacts, StreamKind
from hub.connections.holders import Holder, Holders
from hub.connections.peer import watch_peer
from hub.encoding import Limit, retry_between
from hub.metrics import Metrics
from hub.settings import PerUser
from hub.state.peers import Alone, News, Peers

logger = logging.getLogger("hub.connection")

WRITE_BYTES = 64 * 1024
SWEEPS_PER_HEARTBEAT = 15
LONGEST_SWEEP = 1.0
DRAIN_SLICE = 0.05
STAY_AWAY = 86_400_000
"""Milliseconds after which an `EventSource` that was replaced comes back: nothing but a page can stop it for good."""
ABORT_SECONDS = 1.0

HELD = "held"
"""What a process tells the others: when the streams of a user began there."""

T = TypeVar("T")

Watcher = Callable[[StreamFacts], object]
"""Is called with the facts of a stream; what it raises is logged."""


class Follower(Protocol):
    """Follows every stream that is counted, from its beginning to its end. What it raises is logged."""

    def opened(self, stream: ClientStream) -> None:
        """Note *stream*, which is about to begin. Nothing may be written to it, nor published, before it has."""
        ...

    def moved(self, stream: ClientStream, before: Collection[str]) -> None:
        """Note that *stream* has other topics than *before*. Nothing may be written to it, nor published, in this."""
        ...

    def closed(self, stream: ClientStream) -> None:
        """Note that *stream* has ended, and that its socket is closed."""
        ...


def _not_counted(address: str) -> str:
    return ""


def shutdown() -> Ending:
    """Return the end of a stream whose process ends; each client gets a time of its own to come back."""
    return Ending(CloseReason.SHUTDOWN, retry_between(1, 6))


class StreamRegistry:
    """Every open client stream of one hub, of whatever kind.

    Args:
        metrics: counts connects, disconnects and peer timeouts.
        limit: streams that may be open at once; 0: no limit.
        per_user: streams that one user may hold at once; 0: no limit.
        policy: what happens when a user who holds that many opens another one.
        per_address: streams that may be open at once from one address; 0: no limit.
        counted: returns under what an address is counted, always the same; empty: it is not limited.
        heartbeat: seconds a stream may be idle before it gets a heartbeat.
        peer_timeout: seconds a peer may take nothing while something waits for it.
        buffer_bytes: how much may wait for one client; at most a quarter of it waits in the transport.
        before_sweep: called at the beginning of each sweep.
        now: seconds of `time.monotonic`, or a clock that is moved by hand.
        peers: the other processes of the hub, whose streams of a user count as well.

    Attributes:
        draining: shutdown has begun: whatever opens ends at once.
        write_bytes: the high-water mark of the transports.
        peers_watched: the listening socket has seen to what `watch_peer` does.
        holders: who holds the streams.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        limit: int = 0,
        per_user: int = 0,
        policy: PerUser = PerUser.NEWEST,
        per_address: int = 0,
        counted: Callable[[str], str] = str,
        heartbeat: float = 15.0,
        peer_timeout: float = 30.0,
        buffer_bytes: int = 1024 * 1024,
        before_sweep: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.monotonic,
        peers: Peers | None = None,
    ) -> None:
        self.metrics = metrics
        self.limit = limit
        self.per_user = per_user
        self.per_address = per_address
        self._policy = policy
        self.holders: Holders[ClientStream] = Holders(counted if per_address else _not_counted)
        self.peer_timeout = peer_timeout
        self.write_bytes = min(WRITE_BYTES, buffer_bytes // 4)
        self.draining = False
        self.peers_watched = False
        self._heartbeat = heartbeat
        self._before_sweep = before_sweep
        self._now = now
        self._streams: dict[str, ClientStream] = {}
        self._refused: set[str] = set()  # those among them that were told to come back, until their sockets are closed
        self._finish_until = 0.0  # while draining: when streams that may finish have to end, in seconds of the clock
        self._kinds: Counter[StreamKind] = Counter()
        self._opened: list[Watcher] = []
        self._closed: list[Watcher] = []
        self._follower: Follower | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peers = Alone() if peers is None or not per_user else peers
        self._elsewhere: dict[str, dict[str, list[float]]] = {}  # by user and process, when streams there began
        self._base = time.time() - time.monotonic()
        self._peers.follow(HELD, self._hear)

    def __len__(self) -> int:
        return len(self._streams)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[ClientStream]:
        """Iterate over those that are open now, whatever closes meanwhile."""
        return iter(list(self._streams.values()))

    def get(self, id: str) -> ClientStream | None:
        """Return the stream with this *id*, or None if none is open."""
        return self._streams.get(id)

    def of(self, user: str) -> list[ClientStream]:
        """Return the open streams of *user*, the oldest first."""
        return [stream for stream in self.holders.of(user) if stream.closed_because is None]

    def count(self, kind: StreamKind) -> int:
        """Return how many streams of *kind* are open."""
        return self._kinds[kind]

    def held_by(self, user: str) -> int:
        """Return how many streams *user* holds; in all processes, if that is limited."""
        return self.holders.count(user) + sum(map(len, self._elsewhere.get(user, {}).values()))

    @property
    def full(self) -> bool:
        """Whether no further stream may be opened."""
        return 0 < self.limit <= len(self._streams) - len(self._refused)

    def lacks_room(self, user: str | None, address: str) -> Ending | None:
        """Return how a stream of *user* (None: unknown) from *address* has to end at once; None: there is room."""
        if self.full:
            return Ending(CloseReason.CAPACITY, retry_between(10, 60))
        if user is not None and self._policy is PerUser.NEWEST and 0 < self.per_user <= self.held_by(user):
            return Ending(CloseReason.CAPACITY, retry_between(10, 60), Limit.MAX_PER_USER)
        if 0 < self.per_address <= self.holders.at(address):
            return Ending(CloseReason.CAPACITY, retry_between(10, 60), Limit.MAX_PER_ADDRESS)
        return None

    # ---- streams come and go ----

    def add(self, stream: ClientStream) -> Ending | None:
        """Count *stream*, which has taken its socket over; return how it has to end if it may not begin.

        If it is one too many of its user and that user's oldest has to make room, the oldest ends.
        """
        user = stream.holder.user
        refused = self.lacks_room(user, stream.address)  # there was room when its request came
        if refused is not None:
            self.metrics.refused += 1
        elif self.draining and not (stream.finishes and self._now() < self._finish_until):
            refused = shutdown()
        elif user is not None and 0 < self.per_user <= self.held_by(user):
            self._make_room(user)
        self._streams[stream.id] = stream
        if refused is None:
            self._kinds[stream.kind] += 1
            self.holders.add(stream)
            self._tell_held(user)
            if self._follower is not None and stream.known:
                _guarded(self._follower.opened, stream)
        else:
            self._refused.add(stream.id)
        self.metrics.connects += 1
        if self._opened:
            self._tell(self._opened, stream.facts())
        if logger.isEnabledFor(logging.DEBUG):
            facts = stream.facts()
            topics = ",".join(facts.topics)[:300]
            logger.debug("open %s kind=%s peer=%s topics=%s", facts.id, facts.kind, facts.address, topics)
        return refused

    def moved(self, stream: ClientStream, before: Collection[str]) -> None:
        """Note that *stream*, which is open, has other topics than *before*."""
        if self._follower is not None and stream.known and self.holds(stream):
            _guarded(partial(self._follower.moved, before=before), stream)

    def holds(self, stream: ClientStream) -> bool:
        """Return whether *stream* is counted, and was not refused."""
        return stream.id in self._streams and stream.id not in self._refused

    def identify(self, stream: ClientStream, holder: Holder) -> Ending | None:
        """Count *stream*, of which nobody knew who holds it, among those of *holder*; it is known from now on.

        Return how it has to end if that user may not hold another one.
        """
        user = holder.user
        if user is not None and 0 < self.per_user <= self.held_by(user):
            if self._policy is PerUser.NEWEST:
                self.metrics.refused += 1
                return Ending(CloseReason.CAPACITY, retry_between(10, 60), Limit.MAX_PER_USER)
            self._make_room(user)
        self.holders.remove(stream)
        stream.identify(holder)
        self.holders.add(stream)
        self._tell_held(user)
        if self._follower is not None:
            _guarded(self._follower.opened, stream)
        return None

    def remove(self, stream: ClientStream) -> None:
        """Count *stream* no more: its socket is closed."""
        if self._streams.pop(stream.id, None) is not None:
            if stream.id in self._refused:
                self._refused.remove(stream.id)
            else:
                self._kinds[stream.kind] -= 1
                self.holders.remove(stream)
                self._tell_held(stream.holder.user)
                if self._follower is not None and stream.known:
                    _guarded(self._follower.closed, stream)
            self.metrics.disconnects += 1
            self.metrics.ended(stream.closed_because or CloseReason.CLIENT, time.monotonic() - stream.begun)
            if self._closed:
                self._tell(self._closed, stream.facts())
            logger.debug("closed %s reason=%s", stream.id, stream.closed_because)

    def _make_room(self, user: str) -> None:
        """End the oldest streams of *user*, who is about to open another one.

        Those that have ended may still have unsent bytes; of these too there are never more than the user may hold.
        """
        held = self.holders.of(user)
        self._end_oldest(user, self.per_user - 1)
        ended = [stream for stream in held if stream.closed_because is not None]
        for stream in ended[: max(len(ended) - self.per_user, 0)]:
            stream.abort(CloseReason.REPLACED)

    def _end_oldest(self, user: str, most: int) -> None:
        """End the streams of *user* here that are not among the newest *most* of all processes."""
        opened = self.of(user)
        here = [(self._base + stream.begun, 1) for stream in opened]
        others = [(each, 0) for held in self._elsewhere.get(user, {}).values() for each in held]
        oldest = sorted(here + others)[: max(len(here) + len(others) - most, 0)]
        for stream in opened[: sum(own for _, own in oldest)]:
            _end(stream, Ending(CloseReason.REPLACED, STAY_AWAY))

    # ---- other processes ----

    def _tell_held(self, user: str | None) -> None:
        """Tell the other processes when the streams of *user* here began."""
        if user is not None and self.per_user:
            self._peers.hold(HELD, user, [self._base + stream.begun for stream in self.of(user)] or None)

    def _hear(self, news: News) -> None:
        """Note what *user* holds in another process; end what is one too many: that process looks after its own."""
        user, held = news.key, self._elsewhere.setdefault(news.key, {})
        held.pop(news.peer, None)
        if news.now is not None:
            held[news.peer] = news.now
        if not held:
            del self._elsewhere[user]
        if self._policy is PerUser.OLDEST and self.held_by(user) > self.per_user:
            self._end_oldest(user, self.per_user)

    def watch(self, *, opened: Watcher | None = None, closed: Watcher | None = None) -> None:
        """Call *opened* with the facts of each stream that begins, and *closed* with those of each that has ended."""
        self._opened += [opened] if opened is not None else []
        self._closed += [closed] if closed is not None else []

    def _tell(self, watchers: Iterable[Watcher], facts: StreamFacts) -> None:
        for watcher in watchers:
            _guarded(watcher, facts)

    def follow(self, follower: Follower) -> None:
        """Tell *follower*, from now on, of each stream that is counted: refused ones are not."""
        self._follower = follower

    def inherit_from(self, listeners: Iterable[socket.socket]) -> None:
        """Set on listening sockets what every stream needs: on Linux each connection inherits it from them."""
        if sys.platform != "linux":
            return
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            watch_peer(listener, self.peer_timeout)
        self.peers_watched = True

    # ---- the sweep ----

    def start(self) -> None:
        """Sweep from now on, on the running loop."""
        pause = min(self._heartbeat / SWEEPS_PER_HEARTBEAT, LONGEST_SWEEP)
        self._timer = asyncio.get_running_loop().call_later(pause, self._again)

    def _again(self) -> None:
        self.sweep()
        self.start()

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """Send a heartbeat to each idle stream, and abort those whose peers take nothing."""
        self._before_sweep()
        now = self._now()
        idle_since = now - self._heartbeat
        for stream in self:
            try:
                stream.tend(now, idle_since)
            except Exception:
                logger.exception("%s failed in a sweep, and is aborted", stream.id)
                stream.abort()

    # ---- the end ----

    def end_all(self, kinds: Collection[StreamKind], reason: CloseReason) -> None:
        """End every stream of *kinds* at once; each client gets a time of its own to come back."""
        for stream in self:
            if stream.kind in kinds:
                _end(stream, Ending(reason, retry_between(1, 6)))

    def end_of(self, reason: CloseReason, matches: Callable[[Holder], bool]) -> int:
        """End the streams of the holders that *matches* accepts; return how many those were."""
        found = [stream for stream in self if stream.closed_because is None and matches(stream.holder)]
        self.end_each(reason, found)
        return len(found)

    def end_each(
        self, reason: CloseReason, streams: Iterable[ClientStream], *, within: tuple[int, int] = (10, 60)
    ) -> None:
        """End each of *streams* that has not ended; each client gets a time of its own to come back, *within* seconds.

        Args:
            reason: what the clients are told.
            streams: which end.
            within: the earliest and the latest time to come back.
        """
        for stream in streams:
            if stream.closed_because is None:
                _end(stream, Ending(reason, retry_between(*within)))

    async def drain(self, seconds: float, *, finish: float = 0.0) -> None:
        """End every stream; return as soon as the last one has ended.

        Those that may finish have *finish* seconds to end by themselves. The others end within *seconds*, spread
        evenly, so that the next process is not met by all clients at once. What then still has unsent bytes is aborted.
        """
        self.draining = True
        began = self._now()
        deadline, self._finish_until = began + seconds, max(self._finish_until, began + finish)
        await asyncio.gather(self._end_spread(seconds, deadline), self._let_finish())
        for stream in self:
            _end(stream, shutdown())
        await asyncio.sleep(0)  # a turn of the loop for what can be sent at once
        given_up = self._now() + ABORT_SECONDS
        while self._streams and self._now() < given_up:  # an abort ends within a turn or two
            for stream in self:
                stream.abort(CloseReason.SHUTDOWN)
            await asyncio.sleep(0)

    async def _end_spread(self, seconds: float, deadline: float) -> None:
        waiting = [stream for stream in self if not stream.finishes]
        slices = max(1, round(seconds / DRAIN_SLICE))
        for turn in range(slices):
            self._before_sweep()  # what was published a moment ago comes before the end
            for stream in waiting[turn::slices]:
                _end(stream, shutdown())
            if not any(stream.id in self._streams for stream in waiting):
                return
            await asyncio.sleep(DRAIN_SLICE if seconds else 0)
        # A close is over when the kernel has taken the last byte: that is looked for, not announced.
        while self._now() < deadline and any(stream.id in self._streams for stream in waiting):  # noqa: ASYNC110 - see above
            await asyncio.sleep(DRAIN_SLICE)

    async def _let_finish(self) -> None:
        while self._now() < self._finish_until and any(stream.finishes for stream in self):  # noqa: ASYNC110 - as above
            await asyncio.sleep(DRAIN_SLICE)


def _guarded(watcher: Callable[[T], object], told: T) -> None:
    try:
        watcher(told)
    except Exception:
        logger.exception("a watcher of streams failed")


def _end(stream: ClientStream, ending: Ending) -> None:
    """End *stream*, or abort it if that fails: no stream keeps the others from their end."""
    try:
        stream.end(*ending)
    except Exception:
        logger.exception("%s failed at its end, and is aborted", stream.id)
        stream.abort()
