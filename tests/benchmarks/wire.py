"""The wires that a driver speaks: how it opens a stream, and what the bytes say that come.

It looks for the numbers of the events, whatever stands around them. Over a WebSocket it reads frame after frame, for it
has to answer pings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, Self

from tests.benchmarks.errors import CannotMeasure

EVERYBODY = "bench"
"""The topic, or the room, that everybody is in."""

NUMBER = re.compile(rb'"n":([0-9]+)\}')
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_ENGINE_PING, _ENGINE_PONG = b"2", b"3"


class Wire(NamedTuple):
    """How a stream is opened.

    Attributes:
        headers: of its request.
        steps: what is said when it is answered, in turn, and what has to come before the next; after that it is open.
        framed: it is a WebSocket.
        polls: each answer ends with what it brings; then the client asks again.
    """

    headers: str
    steps: tuple[tuple[bytes, bytes], ...] = ()
    framed: bool = False
    polls: bool = False


WIRES = {
    "sse": Wire("Accept: text/event-stream\r\n"),
    "ndjson": Wire("Accept: application/x-ndjson\r\n"),
    "poll": Wire("Accept: application/json\r\n", polls=True),
    "websocket": Wire(_UPGRADE, framed=True),
    "hub.v1.json": Wire(
        f"{_UPGRADE}Sec-WebSocket-Protocol: hub.v1.json\r\n",
        ((b'{"op":"subscribe","ref":1,"topics":["%b"]}' % EVERYBODY.encode(), b'{"op":"ok","ref":1,'),),
        framed=True,
    ),
    "socket.io": Wire(_UPGRADE, ((b"", b'0{"sid":'), (b"40", b'40{"sid":')), framed=True),
}


class Reading(NamedTuple):
    """What some bytes say.

    Attributes:
        numbers: of the events in them, as they came.
        rest: the part of an event at the end of them.
        sorted: whether each number is greater than the one before.
        answer: what the client has to say to them.
    """

    numbers: tuple[int, ...]
    rest: bytes
    sorted: bool
    answer: bytes = b""

    @classmethod
    def of(cls, received: bytes) -> Self:
        """Read *received*, of an answer that goes on."""
        numbers: list[int] = []
        end = 0
        for match in NUMBER.finditer(received):
            numbers.append(int(match[1]))
            end = match.end()
        begin = received.rfind(b"{", end)
        rest = received[begin:] if begin >= 0 else b""
        return cls(tuple(numbers), rest, _sorted(numbers))

    @classmethod
    def of_frames(cls, received: bytes) -> Self:
        """Read *received*, of a WebSocket, from the beginning of a frame."""
        numbers: list[int] = []
        answer, end = b"", 0
        for opcode, payload, end in frames(received):  # noqa: B007 - what follows the last one is the rest
            match = NUMBER.search(payload)
            if match is not None:
                numbers.append(int(match[1]))
            elif opcode == PING:
                answer += masked(PONG, payload)
            elif opcode == CLOSE:
                answer += masked(CLOSE, payload)
            elif payload == _ENGINE_PING:
                answer += masked(TEXT, _ENGINE_PONG)
        return cls(tuple(numbers), received[end:], _sorted(numbers), answer)


def _sorted(numbers: list[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def frames(received: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the opcode and the payload of each frame of a server that is whole, and where it ends.

    Raises:
        CannotMeasure: one is masked, compressed, or part of a message.
    """
    place, size = 0, len(received)
    while place + 2 <= size:
        first, length = received[place], received[place + 1]
        begin = place + 2
        if length >= 126:
            more = 2 if length == 126 else 8
            if begin + more > size:
                return
            length, begin = int.from_bytes(received[begin : begin + more], "big"), begin + more
        if first & 0xF0 != 0x80 or received[place + 1] & 0x80:
            raise CannotMeasure(f"a frame begins with {received[place : place + 2].hex()}")
        place = begin + length
        if place > size:
            return
        yield first & 0x0F, received[begin:place], place


def masked(opcode: int, payload: bytes) -> bytes:
    """Return the frame of a client; its mask is zero, which is one as good as any on loopback."""
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


class Opening:
    """A stream on the way to being open.

    Attributes:
        done: it is open.
        rest: what has come behind that, of a frame that is not whole.
    """

    __slots__ = ("_answered", "_steps", "_wanted", "_wire", "done", "rest")

    def __init__(self, wire: Wire) -> None:
        self.done = self._answered = False
        self.rest = self._wanted = b""
        self._wire, self._steps = wire, iter(wire.steps)

    def take(self, received: bytes) -> bytes:
        """Take what has come; return what is to be said.

        Raises:
            CannotMeasure: the server refuses.
        """
        self.rest += received
        said, end = b"", 0
        if not self._answered:
            head, ended, rest = self.rest.partition(b"\r\n\r\n")
            if not ended:
                return b""
            if not head.startswith(b"HTTP/1.1 101 " if self._wire.framed else b"HTTP/1.1 200 "):
                raise CannotMeasure(f"a stream was refused: {head[:80]!r}")
            self._answered, self.rest = True, rest if self._wire.framed else b""
            said = self._next()
        for _, payload, end in frames(self.rest):  # noqa: B007 - what follows the last one is the rest
            if not self.done and payload.startswith(self._wanted):
                said += self._next()
        self.rest = self.rest[end:]
        return said

    def _next(self) -> bytes:
        """Return what the next step says; without one it is open."""
        step = next(self._steps, None)
        if step is None:
            self.done = True
            return b""
        says, self._wanted = step
        return masked(TEXT, says) if says else b""
