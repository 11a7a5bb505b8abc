"""The subscribers of a run: each is an asyncio protocol that counts and times deliveries, and reconnects when cut."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import cycle, islice
from typing import cast

from hub.eventstream import compact_json
from hub.load.figures import Figures, Track
from hub.load.options import CannotRun
from hub.load.stream import FOR_GOOD, MAX_KNOWN, MalformedAnswer, Reader, Reading, Stream, refusal

AT_ONCE = 64
"""Maximum number of attempts under way: below the backlog of any server, else the system delays them by a second."""
ATTEMPT = 15.0
"""Seconds after which an attempt to open a stream is given up and repeated."""
DEFAULT_RETRY = 3.0
"""Seconds to wait before a reconnect if the hub sent no `retry:`, as in browsers."""
SOURCE_PORTS = 20_000
"""Maximum number of connections from one source address: it has 28,000 ports on Linux, and others need some too."""


class Subscribers:
    """The subscribers of one run, which count their deliveries in its figures. Use with `aclosing`.

    Attributes:
        returning: when the last subscriber that lost its connection will reconnect (monotonic seconds).
        all_opened: done when every subscriber has had a stream; fails if one was refused before.
        unfinished: number of subscribers that have neither read the end of the run nor been refused.
    """

    def __init__(self, figures: Figures, hub: tuple[str, int], run: str) -> None:
        options, self.figures = figures.options, figures
        url = (options.url / "notifications/subscribe").with_query(topic=options.topic)
        self.path, host = url.raw_path, url.raw_authority
        self.request = f"GET {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n"
        self.reader = Reader(run)
        self.returning = 0.0
        self.unfinished = options.connections
        self.all_opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        bearers = [f"Authorization: Bearer {token}\r\n" for token in options.tokens] or [""]
        self.each = [Subscriber(self, bearer) for bearer in islice(cycle(bearers), options.connections)]
        self._hub = hub
        self._last_failure = "their streams end at once, as over capacity and while draining"
        self._attempts = asyncio.Semaphore(AT_ONCE)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, seconds: float) -> None:
        """Open the streams of all subscribers; raise `CannotRun` if one is refused, or after *seconds*."""
        self._tasks = [asyncio.create_task(self._keep_open(*each)) for each in enumerate(self.each)]
        try:
            async with asyncio.timeout(seconds):
                await self.all_opened
        except TimeoutError:
            count = f"only {self.figures.opened:,} of {len(self.each):,} subscribers connected within {seconds:.0f} s"
            raise CannotRun(f"{count}: {self._last_failure}") from None

    def drop(self, share: float) -> int:
        """Abort *share* of the open connections, chosen at random, all at once; return how many."""
        connected = [subscriber for subscriber in self.each if subscriber.open]
        chosen = random.sample(connected, round(len(connected) * share))
        for subscriber in chosen:
            subscriber.dropped = True
            subscriber.abort()
        return len(chosen)

    def missing(self, total: int) -> int:
        """Return how many deliveries of the events 0 to *total* - 1 are missing, over all subscribers."""
        return sum(subscriber.track.missing(total) for subscriber in self.each)

    async def aclose(self) -> None:
        """Abort all connections and wait until the last one is closed."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        for subscriber in self.each:
            subscriber.abort()
        await asyncio.gather(*(subscriber.closed for subscriber in self.each if subscriber.closed))
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _keep_open(self, number: int, subscriber: Subscriber) -> None:
        """Connect *subscriber* whenever it has no connection, until it is refused."""
        while True:
            async with self._attempts:
                opened = await self._attempt(number, subscriber)
            self.figures.failed_attempts += not opened  # after the await: other tasks change it meanwhile
            if subscriber.closed is not None:
                await asyncio.shield(subscriber.closed)
            if subscriber.refused:
                return
            await asyncio.sleep(subscriber.retry)

    async def _attempt(self, number: int, subscriber: Subscriber) -> bool:
        """Connect *subscriber*; return True when it has its stream, False if the attempt failed."""
        loop = asyncio.get_running_loop()
        subscriber.attempt = loop.create_future()
        source = source_address(number, self._hub[0])
        try:
            async with asyncio.timeout(ATTEMPT):
                try:
                    await loop.create_connection(lambda: subscriber, *self._hub, local_addr=source)
                except BaseException:
                    # If this was cancelled after the connection was made, uvloop closes it without `connection_lost`.
                    subscriber.connection_lost(None)
                    raise
                return await subscriber.attempt
        except (OSError, TimeoutError) as error:
            self._last_failure = str(error) or f"no stream within {ATTEMPT:.0f} s"
            subscriber.abort()
            return False


class Subscriber(asyncio.Protocol):
    """A reader of one stream that reconnects as often as necessary, as an `EventSource` does.

    Attributes:
        open, refused, dropped: whether it has a stream now, was refused for good, was disconnected by the driver.
        retry: seconds to wait before a reconnect, as the hub asked.
        attempt: result True when the present attempt has opened a stream, False if it ended without one.
        closed: done when the present connection is closed; None before the first one.
    """

    def __init__(self, subscribers: Subscribers, bearer: str = "") -> None:
        self.open = self.refused = self.dropped = False
        self.retry = DEFAULT_RETRY
        self.track = Track()
        self.attempt: asyncio.Future[bool] | None = None
        self.closed: asyncio.Future[None] | None = None
        self._subscribers, self._figures = subscribers, subscribers.figures
        self._bearer = bearer  # the header with its token
        self._cursor = ""
        self._stream = Stream()
        self._transport: asyncio.Transport | None = None
        self._opened = self._finished = False
        self._live_from = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the stream, from the last received id on."""
        # A cast, not a check: uvloop's transports are no subclass of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        self.closed = asyncio.get_running_loop().create_future()
        self._stream = Stream()
        if self.dropped:
            # Events that fell due while the driver kept this subscriber disconnected do not show the hub's speed.
            self.dropped, self._live_from = False, time.monotonic_ns()
        resume = f"Last-Event-ID: {self._cursor}\r\n" if self._cursor else ""
        transport.write(f"{self._subscribers.request}{self._bearer}{resume}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Count and time the deliveries that *data* completes. This is the hot path of the driver."""
        now, figures = time.monotonic_ns(), self._figures
        reading = self._read(data)
        if reading.marks:
            figures.last_delivery = now
            for number, stamp in reading.marks:
                if figures.take(self.track, number):
                    (figures.latencies if stamp >= self._live_from else figures.caught_up).record(now - stamp)
        if reading.cursor:
            self._cursor = reading.cursor
        if not reading.plain:
            self._apply(reading)

    def _read(self, data: bytes) -> Reading:
        stream, reader = self._stream, self._subscribers.reader
        try:
            # The same bytes have the same meaning on every stream that is between two blocks: decode them once.
            if stream.between and len(data) <= MAX_KNOWN and (known := reader.whole(data)) is not None:
                return known
            blocks = stream.blocks(data)
        except MalformedAnswer as error:
            return self._refuse(0, str(error).encode())
        if stream.status not in {0, 200}:
            # The reason may come after the head, in a part of its own.
            return self._refuse(stream.status, blocks + stream.text) if stream.ended else Reading()
        if stream.ended:
            self.abort()
        return reader.read(blocks)

    def _refuse(self, status: int, detail: bytes) -> Reading:
        """Never connect again; if not all streams were open yet, the run fails."""
        if not self.refused:
            self.refused = True
            self._figures.refusals[status] += 1
            if not self._subscribers.all_opened.done():
                self._subscribers.all_opened.set_exception(refusal(f"GET {self._subscribers.path}", status, detail))
            self._finish()
            self.abort()
        return Reading()

    def _apply(self, reading: Reading) -> None:
        figures = self._figures
        if reading.retry is not None:
            self.retry = reading.retry
        if reading.gap:
            figures.gaps[reading.gap] += 1
        figures.notices.update(reading.notices)
        if reading.refused:
            why = {"detail": f"hub.close with the reason {reading.refused}", "code": reading.refused}
            self._refuse(FOR_GOOD[reading.refused], compact_json(why).encode())
        if "hub.open" in reading.notices and not (self.open or self.refused):
            figures.reconnects += self._opened
            figures.opened += not self._opened
            figures.connected += 1
            self.open = self._opened = True
            self._settle(opened=True)
            if figures.opened == len(self._subscribers.each) and not self._subscribers.all_opened.done():
                self._subscribers.all_opened.set_result(None)
        if reading.end:
            self._finish()

    def _finish(self) -> None:
        self._subscribers.unfinished -= not self._finished
        self._finished = True

    def abort(self) -> None:
        """Abort the connection, if there is one."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Record that the connection has ended; without a connection, do nothing."""
        if self._transport is None or self.closed is None:
            return
        if self._stream.status not in {0, 200}:
            self._refuse(self._stream.status, self._stream.text)
        self._figures.connected -= self.open
        self._transport, self.open = None, False
        if not self.refused:
            self._subscribers.returning = max(self._subscribers.returning, time.monotonic() + self.retry)
        self._settle(opened=False)
        if not self.closed.done():
            self.closed.set_result(None)

    def _settle(self, *, opened: bool) -> None:
        if self.attempt is not None and not self.attempt.done():
            self.attempt.set_result(opened)


def source_address(number: int, address: str) -> tuple[str, int] | None:
    """Return the source address of connection *number* to *address*; None leaves the choice to the system.

    One source address has too few ports for the largest runs; 127.0.0.0/8 has enough (Linux answers on all of it).
    """
    group = number // SOURCE_PORTS
    return (f"127.0.0.{group + 1}", 0) if group and address.startswith("127.") else None
