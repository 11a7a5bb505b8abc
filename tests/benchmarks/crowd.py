"""Many connections on one epoll: every delivery is counted, and its moment noted.

What a server writes to thousands of connections is mostly the same bytes. So the bytes are looked up first, and taken
apart only when they are new: reading costs about as little as the system call itself.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from hub.load.latency import Latencies
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.wire import Opening, Reading, Wire

READ_BYTES = 65_536
AT_ONCE = 128  # connections that are read before the driver looks at the clock again
OPENING = 256  # streams that are asked for and not yet there
KNOWN = 512
AT_ONCE_CLOSED = struct.pack("ii", 1, 0)  # linger for no time: a reset, which leaves no port waiting


class Crowd:
    """The connections of one run. Use as a context.

    Attributes:
        delivered: events that have arrived, over all connections, each once and in order.
        disordered: events that came again, or after a later one.
        closed: streams that have ended.
        last: when the last event arrived, in nanoseconds of the monotonic clock.
    """

    def __init__(self, port: int, wire: Wire) -> None:
        self.delivered = self.disordered = self.closed = self.last = 0
        self._port = port
        self._wire = wire
        self._read_bytes = Reading.of_frames if wire.framed else Reading.of
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._openings: dict[int, Opening] = {}  # of the streams that are not open yet
        self._next: dict[int, int] = {}  # per connection the least number that may come
        self._got: dict[int, int] = {}  # per connection how many came
        self._rest: dict[int, bytes] = {}  # per connection the beginning of an event whose end has not come
        self._known: dict[bytes, Reading] = {}
        self._read: list[Reading] = []
        self._read_at = array("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets.values():
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE_CLOSED)
            each.close()
        self._epoll.close()

    # ---- opening ----

    def open(self, requests: Iterable[bytes], patience: float) -> None:
        """Open a stream with each of *requests*, some at a time; return when all have been answered.

        Raises:
            CannotMeasure: one was refused, or it took more than *patience* seconds.
        """
        deadline = time.monotonic() + patience
        for request in requests:
            self._connect(request)
            while len(self._openings) >= OPENING:
                self._go_on_opening(deadline)
        while self._openings:
            self._go_on_opening(deadline)
        for each in self._sockets.values():
            # Linux has a client that sent twice acknowledge every second event only, which the server's core pays for.
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _connect(self, request: bytes) -> None:
        each = socket.create_connection(("127.0.0.1", self._port), 30)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.sendall(request)
        each.setblocking(False)
        fd = each.fileno()
        self._sockets[fd] = each
        self._openings[fd] = Opening(self._wire)
        self._epoll.register(fd, select.EPOLLIN)

    def _go_on_opening(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise CannotMeasure(f"{len(self._openings)} of {len(self._sockets)} streams were not opened in time")
        for fd, _ in self._epoll.poll(1, AT_ONCE):
            received = self._receive(fd)
            if received is None:
                raise CannotMeasure("a stream ended while it was opened")
            opening = self._openings.get(fd)
            if opening is None:
                if self._wire.framed:
                    self._make_out(fd, received)  # it may be a ping
                continue
            said = opening.take(received)
            if said:
                self._sockets[fd].send(said)
            if opening.done:
                del self._openings[fd]
                if opening.rest:
                    self._rest[fd] = opening.rest

    def _receive(self, fd: int) -> bytes | None:
        """Return what has come on *fd*, or None if it has ended."""
        try:
            return self._sockets[fd].recv(READ_BYTES) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def begin(self) -> None:
        """Forget what came so far: from now on events count."""
        self._next = dict.fromkeys(self._sockets, 0)
        self._got = dict.fromkeys(self._sockets, 0)
        if not self._wire.framed:  # half a frame is needed to read the next one
            self._rest.clear()

    def has(self, number: int) -> bool:
        """Return whether *number* deliveries have arrived, and everybody waits for more."""
        return self.delivered >= number

    # ---- receiving ----

    def watch(self, fd: int) -> None:
        """Let `receive` tell when something comes on *fd*, too, which is no connection of this crowd."""
        self._epoll.register(fd, select.EPOLLIN)

    def receive(self, seconds: float, other: Callable[[], None]) -> None:
        """Take what comes, from some connections at most, waiting *seconds* for it; *other* for what is watched."""
        clock, sockets, known, after, got = time.monotonic_ns, self._sockets, self._known, self._next, self._got
        read, read_at, rests = self._read, self._read_at, self._rest
        for fd, _ in self._epoll.poll(seconds, AT_ONCE):
            if fd not in sockets:
                other()
                continue
            try:
                received = sockets[fd].recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                received = b""
            now = clock()
            reading = known.get(received)
            if reading is None or fd in rests:
                if not received:
                    self._end(fd)
                    continue
                reading = self._make_out(fd, received)
                if not reading.numbers:
                    continue
            numbers = reading.numbers
            if numbers[0] < after[fd] or not reading.sorted:
                self._take_one_by_one(fd, numbers)
            else:
                after[fd] = numbers[-1] + 1
                got[fd] += len(numbers)
                self.delivered += len(numbers)
            read.append(reading)
            read_at.append(now)
            self.last = now

    def _make_out(self, fd: int, received: bytes) -> Reading:
        """Read *received*, which is new, or goes on where something was cut."""
        before = self._rest.pop(fd, b"")
        reading = self._read_bytes(before + received)
        if reading.answer:
            self._sockets[fd].send(reading.answer)
        if reading.rest:
            self._rest[fd] = reading.rest
        elif reading.numbers and not (before or reading.answer):
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[received] = reading
        return reading

    def _take_one_by_one(self, fd: int, numbers: Sequence[int]) -> None:
        for number in numbers:
            if number < self._next[fd]:
                self.disordered += 1
            else:
                self._next[fd] = number + 1
                self._got[fd] += 1
                self.delivered += 1

    def _end(self, fd: int) -> None:
        self._epoll.unregister(fd)
        self.closed += 1

    # ---- the end ----

    def lost(self, expected: Sequence[int]) -> int:
        """Return how many events are missing, if each connection, in the order of opening, *expected* so many."""
        return sum(max(0, wanted - got) for wanted, got in zip(expected, self._got.values(), strict=True))

    def latencies(self, due: Sequence[int]) -> Latencies:
        """Return how long after its moment in *due*, by number, each event arrived."""
        latencies = Latencies()
        for reading, at in zip(self._read, self._read_at, strict=True):
            for number in reading.numbers:
                latencies.record(at - due[number])
        return latencies
