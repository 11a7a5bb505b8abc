"""Many clients that poll, on one epoll: each answer is counted, and its client asks again at once, with its cursor."""

from __future__ import annotations

import re
import select
import socket
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPConnection
from typing import NamedTuple, Self

from hub.load.latency import Latencies
from tests.benchmarks.crowd import AT_ONCE, AT_ONCE_CLOSED, KNOWN, READ_BYTES
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.wire import Reading

OPENING = 512  # polls that are asked for and not yet seen to wait
METRICS = "/metrics"
ASK_SECONDS = 0.005  # between two questions of how many polls wait

_WAITING = re.compile(rb'hub_streams\{kind="poll"\} ([0-9]+)')
_CURSOR = re.compile(rb'"cursor":"([^"]+)"')
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    """The answer to a poll.

    Attributes:
        closes: the connection ends with it.
    """

    numbers: tuple[int, ...]
    cursor: bytes
    closes: bool

    @classmethod
    def of(cls, received: bytes) -> Self | None:
        """Read *received*; None: it is not whole.

        Raises:
            CannotMeasure: the poll was refused.
        """
        head, ended, body = received.partition(b"\r\n\r\n")
        if not ended:
            return None
        length = _LENGTH.search(head + b"\r\n")
        if not (len(body) >= int(length[1]) if length else body.endswith(b"\r\n0\r\n\r\n")):
            return None
        cursor = _CURSOR.search(body)
        if not head.startswith(b"HTTP/1.1 200 ") or cursor is None:
            raise CannotMeasure(f"a poll was refused: {received[:80]!r}")
        return cls(Reading.of(body).numbers, cursor[1], length is None)


class Pollers:
    """The clients of one run. Use as a context.

    A poll that waits shows nothing to its client, so the hub is asked how many there are: before the first event, and,
    through `has`, before the next one. Otherwise an event would find the clients on their way, not waiting.

    Attributes:
        delivered: events that have arrived, over all clients, each once and in order.
        disordered: events that came again, or after a later one.
        closed: connections that ended without an answer.
        last: when the last event arrived, in nanoseconds of the monotonic clock.
    """

    def __init__(self, port: int) -> None:
        self.delivered = self.disordered = self.closed = self.last = 0
        self._port = port
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._clients: dict[int, int] = {}  # by socket
        self._requests: list[bytes] = []  # of each client, without the end of the head
        self._next: list[int] = []  # of each client the least number that may come
        self._got: list[int] = []
        self._rest: dict[int, bytes] = {}  # by socket the beginning of an answer
        self._known: dict[bytes, Answer] = {}
        self._read: list[Answer] = []
        self._read_at = array("q")
        self._hub = HTTPConnection("127.0.0.1", port, timeout=30)
        self._asked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.close()
        for each in self._sockets.values():
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE_CLOSED)
            each.close()
        self._epoll.close()

    # ---- opening ----

    def open(self, requests: Iterable[bytes], patience: float) -> None:
        """Have a client wait with each of *requests*, some at a time; return when all do.

        Raises:
            CannotMeasure: one was refused, or it took more than *patience* seconds.
        """
        deadline = time.monotonic() + patience
        cursor = b""
        for request in requests:
            if not cursor:
                cursor = self._begin_cursor(request)
            self._requests.append(request[: -len(b"\r\n")])
            self._connect(len(self._requests) - 1, cursor)
            if len(self._requests) % (OPENING // 2) == 0:
                self._wait_until(len(self._requests) - OPENING, deadline)
        self._wait_until(len(self._requests), deadline)

    def _begin_cursor(self, request: bytes) -> bytes:
        """Return the cursor to begin with: a poll without one is answered at once."""
        with socket.create_connection(("127.0.0.1", self._port), 30) as each:
            each.sendall(request)
            received = b""
            while (answer := Answer.of(received)) is None:
                more = each.recv(READ_BYTES)
                if not more:
                    raise CannotMeasure("a poll was not answered")
                received += more
        return answer.cursor

    def _wait_until(self, number: int, deadline: float) -> None:
        while self._waiting() < number:
            if time.monotonic() > deadline:
                raise CannotMeasure(f"fewer than {number} polls wait")
            time.sleep(ASK_SECONDS)

    def _waiting(self) -> int:
        """Return how many polls wait."""
        self._hub.request("GET", METRICS)
        told = _WAITING.search(self._hub.getresponse().read())
        if told is None:
            raise CannotMeasure("the hub does not say how many polls wait")
        return int(told[1])

    def _connect(self, client: int, cursor: bytes) -> None:
        each = socket.create_connection(("127.0.0.1", self._port), 30)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = each.fileno()
        self._sockets[fd], self._clients[fd] = each, client
        self._epoll.register(fd, select.EPOLLIN)
        self._ask(fd, cursor)

    def _ask(self, fd: int, cursor: bytes) -> None:
        self._sockets[fd].sendall(b"%bLast-Event-ID: %b\r\n\r\n" % (self._requests[self._clients[fd]], cursor))

    def begin(self) -> None:
        """Forget what came so far: from now on events count."""
        self._next = [0] * len(self._requests)
        self._got = [0] * len(self._requests)

    # ---- receiving ----

    def watch(self, fd: int) -> None:
        """Let `receive` tell when something comes on *fd*, too, which is no connection of these clients."""
        self._epoll.register(fd, select.EPOLLIN)

    def has(self, number: int) -> bool:
        """Return whether *number* deliveries have arrived, and everybody waits for more."""
        if self.delivered < number or time.monotonic() < self._asked + ASK_SECONDS:
            return False
        waits = self._waiting() >= len(self._requests)
        self._asked = time.monotonic()
        return waits

    def receive(self, seconds: float, other: Callable[[], None]) -> None:
        """Take the answers of some clients, waiting *seconds* for them, and ask again; *other* for what is watched."""
        wait = min(seconds, ASK_SECONDS)  # `has` has to be asked again, and nothing will come meanwhile
        for fd, _ in self._epoll.poll(wait, AT_ONCE):
            each = self._sockets.get(fd)
            if each is None:
                other()
                continue
            try:
                received = each.recv(READ_BYTES)
            except OSError:
                received = b""
            now = time.monotonic_ns()
            if not received:
                self._end(fd)
                continue
            answer = self._make_out(fd, received)
            if answer is not None:
                self._take(self._clients[fd], answer, now)
                self._ask_again(fd, answer)

    def _make_out(self, fd: int, received: bytes) -> Answer | None:
        whole = self._rest.pop(fd, b"") + received
        answer = self._known.get(whole)
        if answer is None:
            answer = Answer.of(whole)
            if answer is None:
                self._rest[fd] = whole
                return None
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[whole] = answer
        return answer

    def _take(self, client: int, answer: Answer, now: int) -> None:
        for number in answer.numbers:
            if number < self._next[client]:
                self.disordered += 1
            else:
                self._next[client] = number + 1
                self._got[client] += 1
                self.delivered += 1
        if answer.numbers:
            self._read.append(answer)
            self._read_at.append(now)
            self.last = now

    def _ask_again(self, fd: int, answer: Answer) -> None:
        if not answer.closes:
            self._ask(fd, answer.cursor)
            return
        client = self._clients[fd]
        self._forget(fd)
        self._connect(client, answer.cursor)

    def _end(self, fd: int) -> None:
        self._forget(fd)
        self.closed += 1

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._clients[fd]
        self._sockets.pop(fd).close()

    # ---- the end ----

    def lost(self, expected: Sequence[int]) -> int:
        """Return how many events are missing, if each client, in the order of opening, *expected* so many."""
        return sum(max(0, wanted - got) for wanted, got in zip(expected, self._got, strict=True))

    def latencies(self, due: Sequence[int]) -> Latencies:
        """Return how long after its moment in *due*, by number, each event arrived."""
        latencies = Latencies()
        for answer, at in zip(self._read, self._read_at, strict=True):
            for number in answer.numbers:
                latencies.record(at - due[number])
        return latencies
