"""One connection to the hub: a bare protocol that counts and times what it reads."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Protocol, cast

from hub.demo.load.latency import Latencies
from hub.demo.load.reading import Reader, Reading
from hub.demo.load.stream import MalformedAnswer, Stream
from hub.demo.load.tally import Tally, Track
from hub.sse import Message

DEFAULT_RETRY = 3.0
"""Seconds until the return where the hub never said `retry:`; what browsers do."""


class State(enum.Enum):
    """Where a subscriber stands."""

    AWAY = enum.auto()  # not connected: not yet, or waiting to come back
    OPENING = enum.auto()  # connected, `hub.open` has not come
    OPEN = enum.auto()
    GONE = enum.auto()  # told to stay away


class House(Protocol):
    """What a subscriber needs around it: where to count, and whom to tell."""

    tally: Tally
    latencies: Latencies
    caught_up: Latencies
    reader: Reader
    last_delivery: int

    def connected(self, subscriber: Subscriber) -> None:
        """Hear that *subscriber* has a connection; `lost` tells of its end."""

    def opened(self, subscriber: Subscriber) -> None:
        """Hear that *subscriber* has its stream."""

    def heard(self, notice: Message) -> None:
        """Hear what the hub said about a stream."""

    def finished(self, subscriber: Subscriber) -> None:
        """Hear that *subscriber* has read the end of the run."""

    def refused(self, subscriber: Subscriber, status: int, detail: bytes) -> None:
        """Hear that *subscriber* got something else than a stream and will not come back."""

    def lost(self, subscriber: Subscriber) -> None:
        """Hear that the connection is closed; *subscriber* is to come back unless its state is `GONE`."""


class Subscriber(asyncio.Protocol):
    """Reads one stream over as many connections as it takes, like an `EventSource` does.

    Attributes:
        cursor: the id to resume from.
        retry: seconds to wait before a return, as the hub asked.
        opened: how many streams it has had.
        finished: it has read the end of the run.
        attempt: true as soon as the present attempt has brought a stream, false if it has ended without one.
    """

    __slots__ = (
        "_dropped",
        "_house",
        "_live_from",
        "_request",
        "_stream",
        "_transport",
        "attempt",
        "cursor",
        "finished",
        "number",
        "opened",
        "retry",
        "state",
        "track",
    )

    def __init__(self, number: int, request: str, house: House) -> None:
        """Subscribe with the HTTP *request*, which lacks only its last, empty line."""
        self.number = number
        self.cursor = ""
        self.retry = DEFAULT_RETRY
        self.opened = 0
        self.finished = False
        self.state = State.AWAY
        self.track = Track()
        self.attempt: asyncio.Future[bool] | None = None
        self._request = request
        self._house = house
        self._stream = Stream()
        self._transport: asyncio.Transport | None = None
        self._dropped = False
        self._live_from = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream, from the last id seen on."""
        # A cast, not a check: uvloop's transports are no subclass of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        self._stream, self.state = Stream(), State.OPENING
        if self._dropped:
            # What fell due while the driver itself kept this one away says nothing about the hub's speed.
            self._dropped, self._live_from = False, time.monotonic_ns()
        resume = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        transport.write(f"{self._request}{resume}\r\n".encode())
        self._house.connected(self)

    def data_received(self, data: bytes) -> None:
        """Count and time what *data* completes. Called once per delivery: the hot path of the driver."""
        now, house = time.monotonic_ns(), self._house
        reading = house.reader.known.get(data) if self._stream.between else None
        if reading is None:
            reading = self._read(data)
        if reading.marks:
            house.last_delivery = now
            for number, stamp in reading.marks:
                if house.tally.take(self.track, number):
                    (house.latencies if stamp >= self._live_from else house.caught_up).record(now - stamp)
        if reading.cursor:
            self.cursor = reading.cursor
        if not reading.plain:
            self._heed(reading)

    def _read(self, data: bytes) -> Reading:
        stream, reader = self._stream, self._house.reader
        between = stream.between
        try:
            blocks = stream.feed(data)
        except MalformedAnswer as error:
            self._refuse(0, str(error).encode())
            return reader.read(b"")
        if stream.status not in {0, 200}:
            self._refuse(stream.status, blocks + stream.rest)
            return reader.read(b"")
        reading = reader.read(blocks)
        if between and stream.between:
            reader.remember(data, reading)
        if stream.ended:
            self.abort()
        return reading

    def _heed(self, reading: Reading) -> None:
        if reading.retry is not None:
            self.retry = reading.retry
        for notice in reading.notices:
            self._house.heard(notice)
            if notice.type == "hub.open" and self.state is State.OPENING:
                self.state = State.OPEN
                self.opened += 1
                self._house.opened(self)
                self._settle(opened=True)
        if reading.end and not self.finished:
            self.finished = True
            self._house.finished(self)

    def _refuse(self, status: int, detail: bytes) -> None:
        if self.state is not State.GONE:
            self.state = State.GONE
            self._house.refused(self, status, detail)
            self.abort()

    def drop(self) -> None:
        """Cut the connection on the driver's own account, without a word to the hub."""
        self._dropped = True
        self.abort()

    def abort(self) -> None:
        """Cut the connection if there is one."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the stream ended; a comeback is the house's business. Without a connection this does nothing."""
        if self._transport is None:
            return
        self._transport = None
        if self.state is not State.GONE:
            self.state = State.AWAY
        self._house.lost(self)
        self._settle(opened=False)

    def _settle(self, *, opened: bool) -> None:
        if self.attempt is not None and not self.attempt.done():
            self.attempt.set_result(opened)
