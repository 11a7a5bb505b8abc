"""A client on a raw socket: it reads every byte of an answer, and can disconnect in every possible way."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from multidict import CIMultiDict

from tests.spec_decoder import Event, SpecDecoder

PATIENCE = 30.0
"""Seconds after which a wait fails; in a test that passes, nothing waits that long.

It is less than the default heartbeat, so that a test fails if the hub notices something only at the next heartbeat.
"""

Address = tuple[str, int] | str

_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([0-9]{3}) [ -~]*")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns a true value."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the observed state has no event to wait for
            await asyncio.sleep(0.002)


class StreamEnded(Exception):
    """The stream ended before the awaited bytes or event."""


class Unframed(Exception):
    """The framing of the bytes breaks the rules of HTTP/1.1."""


class Chunks:
    """A strict decoder of chunked bodies (RFC 9112, section 7.1), for bytes that are cut anywhere."""

    def __init__(self) -> None:
        self.complete = False
        self.unread = bytearray()
        self._left: int | None = None  # remaining bytes of the present chunk, with its final CRLF

    def feed(self, received: bytes) -> bytes:
        """Return the part of the body that *received* brings."""
        self.unread += received
        body = bytearray()
        while self.unread and not self.complete:
            if self._left is None:
                line, found, _ = self.unread.partition(b"\r\n")
                if not found:
                    if len(line) > 10:
                        raise Unframed(bytes(line[:80]))
                    break
                if not _CHUNK_SIZE.fullmatch(line):
                    raise Unframed(bytes(line[:80]))
                del self.unread[: len(line) + 2]
                self._left = int(line, 16) + 2
                self._last = self._left == 2
            elif self._left > 2:
                part = self.unread[: self._left - 2]
                del self.unread[: len(part)]
                self._left -= len(part)
                body += part
            elif len(self.unread) < 2:
                break
            else:
                if self.unread[:2] != b"\r\n":
                    raise Unframed(bytes(self.unread[:80]))
                del self.unread[:2]
                self._left, self.complete = None, self._last
        return bytes(body)


class Length:
    """A body with a Content-Length."""

    def __init__(self, length: int) -> None:
        self.unread = bytearray()
        self._left = length
        self.complete = length == 0

    def feed(self, received: bytes) -> bytes:
        """Return the part of the body that *received* brings."""
        body, rest = received[: self._left], received[self._left :]
        self._left -= len(body)
        self.unread += rest
        self.complete = self._left == 0
        return body


class UntilClosed:
    """A body that ends when the connection closes."""

    unread = bytearray()
    complete = False

    def feed(self, received: bytes) -> bytes:
        """Return the part of the body that *received* brings."""
        return received


class Client:
    """One connection to a hub.

    Attributes:
        status, headers: those of the answer that was read last.
        decoder: an `EventSource` that gets the body of the answer.
        received: the body so far, without chunk framing.
        opened: the `hub.open` of the stream, if it was waited for.
        left: bytes after which it is as if the connection had been cut; None: it is not.
    """

    opened: Event

    def __init__(
        self, its_socket: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool
    ) -> None:
        self._socket, self._reader, self._writer = its_socket, reader, writer
        self._keep = keep
        self._unread = b""
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.decoder = SpecDecoder()
        self.received = bytearray()
        self._framing: Chunks | Length | UntilClosed = Length(0)
        self._events: deque[Event] = deque()
        self.closed = False
        self.left: int | None = None

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
        its_socket: socket.socket | None = None,
        keep: bool = True,
    ) -> Client:
        """Connect to *address*.

        Args:
            address: a host and a port, or the path of a Unix socket.
            tls: a context that trusts the server's certificate.
            receive_buffer: approximate size of the kernel's receive buffer in bytes.
            its_socket: a connected socket to use.
            keep: whether to store the body in `received`.
        """
        loop = asyncio.get_running_loop()
        if its_socket is None:
            family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
            its_socket = socket.socket(family, socket.SOCK_STREAM)
            its_socket.setblocking(False)
            if receive_buffer is not None:
                its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            try:
                await loop.sock_connect(its_socket, address)
            except BaseException:
                its_socket.close()
                raise
        reader, writer = await asyncio.open_connection(
            sock=its_socket, ssl=tls, server_hostname="localhost" if tls else None
        )
        return cls(its_socket, reader, writer, keep=keep)

    # ---- out ----

    async def send(self, data: bytes) -> None:
        """Send *data* unchanged."""
        async with asyncio.timeout(PATIENCE):
            self._writer.write(data)
            await self._writer.drain()

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        version: str = "1.1",
    ) -> None:
        """Send a request with its body."""
        await self.send(request(method, path, headers=headers, body=body, version=version))

    # ---- in ----

    async def head(self) -> int:
        """Read the status line and the headers of an answer; return the status."""
        async with asyncio.timeout(PATIENCE):
            while b"\r\n\r\n" not in self._unread:
                self._unread += await self._some_bytes()
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        match = _STATUS_LINE.fullmatch(status_line)
        assert match, status_line
        self.status = int(match[1])
        self.headers = CIMultiDict()
        for line in lines:
            name, separator, value = line.partition(": ")
            assert separator, line
            self.headers.add(name, value)
        self._framing = self._framing_of_body()
        self.decoder = SpecDecoder()
        self.received.clear()
        self._events.clear()
        return self.status

    def _framing_of_body(self) -> Chunks | Length | UntilClosed:
        if self.headers.get("Transfer-Encoding") == "chunked":
            assert "Content-Length" not in self.headers
            return Chunks()
        if "Content-Length" in self.headers or self.status in {204, 304}:
            return Length(int(self.headers.get("Content-Length", "0")))
        return UntilClosed()

    async def _some_bytes(self) -> bytes:
        if self.left == 0:
            raise StreamEnded("it is cut here")
        try:
            some = await self._reader.read(256 * 1024 if self.left is None else self.left)
        except ConnectionError as error:
            self.closed = True
            raise StreamEnded(repr(error)) from None
        if not some:
            self.closed = True
            raise StreamEnded("the connection was closed")
        if self.left is not None:
            self.left -= len(some)
        return some

    @property
    def _is_stream(self) -> bool:
        return self.headers.get("Content-Type") == "text/event-stream"

    @property
    def complete(self) -> bool:
        """Whether the body has been read to the end that its framing announces."""
        return self._framing.complete

    async def more(self) -> bytes:
        """Return the next bytes of the body; empty when it is complete.

        Raises:
            StreamEnded: the connection ended; `complete` says whether that was the end of the body.
        """
        async with asyncio.timeout(PATIENCE):
            while True:
                if self.complete:
                    self._unread = bytes(self._framing.unread) + self._unread
                    self._framing.unread = bytearray()
                    return b""
                some, self._unread = self._unread or await self._some_bytes(), b""
                body = self._framing.feed(some)
                if body:
                    if self._keep:
                        self.received += body
                    if self._is_stream:
                        self._events += self.decoder.feed(body)
                        assert not self.decoder.unknown, self.decoder.unknown
                    return body

    async def body(self) -> bytes:
        """Read the answer to its end and return its whole body."""
        with suppress(StreamEnded):
            while await self.more():
                pass
        assert self.complete or isinstance(self._framing, UntilClosed), "the body was cut"
        return bytes(self.received)

    async def json(self) -> Any:
        """Read the answer to its end and return its body, decoded as JSON."""
        return json.loads(await self.body())

    async def event(self) -> Event:
        """Return the next event, whatever its type.

        Raises:
            StreamEnded: there are no more events.
        """
        while not self._events:
            if not await self.more():
                raise StreamEnded("the answer is complete")
        return self._events.popleft()

    def arrived(self) -> list[Event]:
        """Return the events that are here already, and were not asked for yet."""
        events, self._events = list(self._events), deque()
        return events

    async def next(self, type: str = "message") -> Event:
        """Return the next event, and assert that it is of *type*."""
        event = await self.event()
        assert event.type == type, event
        return event

    async def upto(self, data: str) -> list[Event]:
        """Return the events up to and including the first one with *data*."""
        events = [await self.event()]
        while events[-1].data != data:
            events.append(await self.event())
        return events

    async def rest(self, upto: str | None = None) -> list[Event]:
        """Return the events until the stream ends in any way, or up to the first one with the data *upto*."""
        events: list[Event] = []
        with suppress(StreamEnded):
            while not events or events[-1].data != upto:
                events.append(await self.event())
        return events

    async def block(self) -> None:
        """Read one more block, whether it dispatches an event or not."""
        before = self.decoder.blocks
        while self.decoder.blocks == before:
            assert await self.more(), "the answer is complete"

    async def gone(self) -> None:
        """Read until the server has ended the connection in any way."""
        with suppress(StreamEnded):
            while True:
                if not await self.more():
                    async with asyncio.timeout(PATIENCE):
                        self._unread += await self._some_bytes()

    async def exactly(self, count: int) -> bytes:
        """Return the next *count* raw bytes, with their framing; they are not decoded."""
        taken = b""
        while len(taken) < count:
            taken += await self.at_most(count - len(taken))
        return taken

    async def at_most(self, count: int) -> bytes:
        """Return up to *count* raw bytes as soon as there are any, with their framing; they are not decoded."""
        async with asyncio.timeout(PATIENCE):
            some = self._unread or await self._some_bytes()
        self._unread = some[count:]
        return some[:count]

    def sip(self, count: int) -> bytes:
        """Return up to *count* bytes from the kernel's buffer; only after `stop_reading`, and without TLS."""
        try:
            return self._socket.recv(count)
        except BlockingIOError:
            return b""

    def is_silent(self) -> bool:
        """Return whether there are no received bytes or events that were not read yet."""
        buffered: bytes = self._reader._buffer  # type: ignore[attr-defined]  # there is no public access to it
        return not buffered and not self._unread and not self._events

    def stop_reading(self) -> None:
        """Stop reading from the socket until `read_on`; the kernel's buffer fills."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # every socket transport has it

    def read_on(self) -> None:
        """Read from the socket again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # every socket transport has it

    # ---- ways to disconnect ----

    def reset(self) -> None:
        """Disconnect with a RST, as a process that dies with unread bytes does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """Disconnect with a FIN, as a closed tab does."""
        self._writer.transport.abort()

    def half_close(self) -> None:
        """Send a FIN, but go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Disconnect, and wait until the connection is closed."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


def request(
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    version: str = "1.1",
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in {"Host": "localhost", **(headers or {})}.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + (body or b"")
