"""The client's end of a generation: a protocol with a cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hub.connections.connection import CloseReason, retry_between
from hub.connections.peer import OneWay, watch_peer
from hub.eventstream import LAST_CHUNK, block, chunk
from hub.generations.generation import Generation
from hub.web.dialects import Dialect

WRITE_BYTES = 64 * 1024


class TokenViewer(OneWay):
    """Sends one client what a generation says, at the client's own pace.

    It holds nothing but a number: what a slow client has not been sent yet stays in the generation, and goes out in one
    piece when there is room. At the end it closes the connection; a client that takes nothing is cut, without an end.

    Args:
        cursor: the number of the last part the client has.
        peer_timeout: seconds it may take nothing.

    Attributes:
        on_end: called when the connection is gone.
    """

    __slots__ = (
        "_buffered",
        "_chunked",
        "_cursor",
        "_dialect",
        "_over",
        "_paused",
        "_peer_timeout",
        "_stream",
        "_touched",
        "_transport",
        "on_end",
    )

    def __init__(
        self, stream: Generation, dialect: Dialect, cursor: int, *, chunked: bool, peer_timeout: float
    ) -> None:
        super().__init__()
        self.on_end: Callable[[TokenViewer], object] = lambda viewer: None
        self._stream, self._dialect, self._cursor = stream, dialect, cursor
        self._chunked, self._peer_timeout = chunked, peer_timeout
        self._paused = self._over = False
        self._touched = 0.0
        self._buffered = 0

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Begin: say what this is, then what there is, then what comes."""
        self._transport = transport
        self._touched = time.monotonic()
        transport.set_write_buffer_limits(WRITE_BYTES)
        watch_peer(transport.get_extra_info("socket"), self._peer_timeout)
        transport.write(unsent + self._framed(self._dialect.start(self._stream, self._cursor, retry_between(1, 3))))
        self._stream.watch(self)
        self.news()

    def news(self) -> None:
        """Send what is new, if there is room."""
        if self._paused or self._over:
            return
        stream, after = self._stream, self._cursor
        said = b""
        if after < stream.newest:
            said = stream.shared((self._dialect.name, self._chunked, after), self._text)
            self._cursor = stream.newest
        if stream.ending is not None:
            said += stream.shared((self._dialect.name, self._chunked), self._end)
        if said:
            self._touched = time.monotonic()
            self._transport.write(said)
        if stream.ending is not None:
            self._close()

    def _text(self) -> bytes:
        return self._framed(self._dialect.text(self._stream, self._cursor))

    def _end(self) -> bytes:
        assert self._stream.ending is not None
        last = self._framed(self._dialect.end(self._stream, self._stream.ending))
        return last + (LAST_CHUNK if self._chunked else b"")

    def _framed(self, blocks: bytes) -> bytes:
        return chunk(blocks) if self._chunked else blocks

    def pause_writing(self) -> None:
        """Hear from the transport that it holds enough."""
        self._paused = True
        self._buffered = self._transport.get_write_buffer_size()
        self._touched = time.monotonic()

    def resume_writing(self) -> None:
        """Hear from the transport that it can take more."""
        self._paused = False
        # Not in this call: asyncio closes a transport twice if a write fails while it says so.
        asyncio.get_running_loop().call_soon(self.news)

    def tend(self, now: float, heartbeat: float) -> None:
        """Write a comment if nothing was written for *heartbeat* seconds; cut a peer that takes nothing.

        *now* is in seconds of `time.monotonic`.
        """
        if self._paused or self._over:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._buffered:
                self._buffered, self._touched = unsent, now
            elif now - self._touched >= self._peer_timeout:
                self.abort()
        elif now - self._touched >= heartbeat:
            self._touched = now
            self._transport.write(self._framed(block(comment="")))

    def cut(self, *, flood: bool) -> None:
        """End it for what the client did."""
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Be gone. The generation goes on: closing a tab is no cancel."""
        self._leave()
        self.on_end(self)

    def come_back(self) -> None:
        """End the answer without an end of the generation: the client comes back, and goes on where it was."""
        if not self._over:
            last = self._framed(self._dialect.away(CloseReason.SHUTDOWN, retry_between(1, 6)))
            self._transport.write(last + (LAST_CHUNK if self._chunked else b""))
            self._close()

    def abort(self) -> None:
        """Cut the connection."""
        self._leave()
        self._transport.abort()

    def _close(self) -> None:
        """Write nothing more; the connection ends when the client has it all, or takes nothing for too long."""
        self._leave()
        self._buffered, self._touched = self._transport.get_write_buffer_size(), time.monotonic()
        self._transport.close()

    def _leave(self) -> None:
        self._over = True
        self._stream.leave(self)
