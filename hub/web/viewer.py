"""The client stream of a generation: a cursor on an answer that grows."""

from __future__ import annotations

from typing import ClassVar

from hub.connections.client_stream import ClientStream, CloseReason, Ending, StreamKind
from hub.connections.holders import NOBODY, Holder
from hub.connections.registry import StreamRegistry
from hub.encoding import SSE, End, retry_between
from hub.eventstream import block
from hub.generations.generation import Generation
from hub.web.dialects import Dialect


class GenerationViewer(ClientStream):
    """Sends one client what a generation says, at the client's own pace.

    It holds nothing but a number: what a slow client has not been sent yet stays in the generation, and goes out in one
    piece when there is room. The stream ends with the generation. When the client leaves, the generation goes on:
    closing a tab does not cancel it.

    Args:
        cursor: the number of the last part the client has.
        retry: the seconds, between two bounds, after which the client comes back when it loses the stream.
    """

    kind: ClassVar[StreamKind] = StreamKind.GENERATION

    __slots__ = ("_count", "_cursor", "_dialect", "_generation", "_retry", "_sse")

    def __init__(
        self,
        generation: Generation,
        dialect: Dialect,
        cursor: int,
        *,
        chunked: bool,
        retry: tuple[float, float] = (1, 3),
        registry: StreamRegistry,
        holder: Holder = NOBODY,
    ) -> None:
        super().__init__(registry, holder)
        self._generation, self._dialect, self._cursor = generation, dialect, cursor
        self._sse = SSE(chunked=chunked)
        self._retry = retry
        self._count = 0

    def _begin(self) -> None:
        """Write what the generation is, then what there is of it; watch it from here on."""
        start = self._dialect.start(self._generation, self._cursor, retry_between(*self._retry))
        self._write(self._sse.framed(start))
        self._generation.watch(self)
        self.news()

    def news(self) -> None:
        """Write what is new, if there is room; end the stream behind the end of the generation."""
        if self._paused or self.closed_because is not None:
            return
        generation, after, chunked = self._generation, self._cursor, self._sse.chunked
        said = b""
        if after < generation.newest:
            said = generation.shared((self._dialect.name, chunked, after), self._text)
            self._count += generation.newest - after
            self._cursor = generation.newest
        if generation.ending is not None:
            said += generation.shared((self._dialect.name, chunked), self._ending)
        if said:
            self._write(said)
        if generation.ending is not None:
            self._close(CloseReason.COMPLETE)

    def _go_on(self) -> None:
        self.news()

    def _text(self) -> bytes:
        return self._sse.framed(self._dialect.text(self._generation, self._cursor))

    def _ending(self) -> bytes:
        assert self._generation.ending is not None
        return self._sse.last(self._dialect.end(self._generation, self._generation.ending))

    def _heartbeat(self) -> bytes:
        return self._sse.framed(block(comment=""))

    def _farewell(self, ending: Ending) -> bytes:
        # No end of the generation: the client comes back, and goes on where it was.
        return self._sse.last(self._dialect.away(End(*ending)))

    def _left(self) -> None:
        self._generation.leave(self)

    @property
    def _delivered(self) -> int:
        return self._count
