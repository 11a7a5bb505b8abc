"""The publishing side of a run: one kept connection, and the moment of each event and of each answer."""

from __future__ import annotations

import re
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from hub.load.latency import Latencies
from tests.benchmarks.errors import CannotMeasure

STATUS = re.compile(rb"HTTP/1\.1 ([0-9])")
_STATUS_BYTES = 10
_ANSWER_BYTES = 262_144


class Publisher:
    """Publishes event after event. Use as a context.

    Args:
        port: of the server.
        post: makes the request for an event, by its number.

    Attributes:
        due: when each event was due, in nanoseconds of the monotonic clock; also when the latency counts from.
        unanswered: requests under way.
        answers: from each request to its answer.
        lags: how much later than due each event was sent.
        last: when the last answer came, in nanoseconds of the monotonic clock.
    """

    def __init__(self, port: int, post: Callable[[int], bytes]) -> None:
        self.due: list[int] = []
        self.unanswered: deque[int] = deque()
        self.answers = Latencies()
        self.lags = Latencies()
        self.last = 0
        self._port = port
        self._post = post
        self._tail = b""

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return what to watch for answers."""
        return self._socket.fileno()

    def publish(self, count: int, due: int | None = None) -> None:
        """Publish the next *count* events together; *due* is their moment, None: now."""
        first = len(self.due)
        requests = b"".join(self._post(number) for number in range(first, first + count))
        now = time.monotonic_ns()
        self.due += [now if due is None else due] * count
        self.unanswered.extend([now] * count)
        if due is not None:
            self.lags.record(now - due)
        self._socket.sendall(requests)

    def hear(self) -> None:
        """Take the answers that have come.

        Raises:
            CannotMeasure: one of them is no success, or the connection has ended.
        """
        try:
            received = self._socket.recv(_ANSWER_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise CannotMeasure(f"the publishing connection failed: {error}") from None
        now = self.last = time.monotonic_ns()
        if not received:
            raise CannotMeasure("the server closed the publishing connection")
        received = self._tail + received
        self._tail = received[1 - _STATUS_BYTES :]
        for match in STATUS.finditer(received):
            if match[1] != b"2":
                raise CannotMeasure(f"a publish was refused: {received[match.start() :][:80]!r}")
            self.answers.record(now - self.unanswered.popleft())
