"""Fakes: a transport with a limited capacity, and a log whose reads can be delayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from hub.access.visibility import EVERYTHING, Visibility
from hub.log.log import Announce, Bounds, Frames, Located, Page, Renewed, ignore_renewal
from hub.log.memory import MemoryLog
from hub.log.receipt import Receipt
from hub.log.trimmed import TrimmedState
from hub.notification import Draft, Notification, Position


class FakeTransport(asyncio.Transport):
    """A transport whose peer takes `capacity` bytes without reading.

    Further bytes stay in its buffer; above the high-water mark `high` it pauses its protocol, as a real one does.
    """

    def __init__(self, protocol: asyncio.Protocol, capacity: int | None = None, high: int = 65_536) -> None:
        super().__init__()
        self._protocol = protocol
        self.capacity = capacity  # bytes that the peer still takes without reading; None: all
        self.high = high
        self.received = bytearray()
        self.unsent = bytearray()
        self.paused = False
        self.closed = False
        self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        assert not self.aborted
        self.unsent += data
        self._send()
        if len(self.unsent) > self.high and not self.paused:
            self.paused = True
            self._protocol.pause_writing()

    def _send(self) -> None:
        count = len(self.unsent) if self.capacity is None else min(self.capacity, len(self.unsent))
        self.received += self.unsent[:count]
        del self.unsent[:count]
        if self.capacity is not None:
            self.capacity -= count

    def read(self, count: int) -> None:
        """Simulate that the peer reads *count* bytes more."""
        if self.capacity is not None:
            self.capacity += count
        self._send()
        if self.paused and len(self.unsent) <= self.high // 4:
            self.paused = False
            self._protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the limit is the one that the test has chosen."""

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def is_reading(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def lose(self) -> None:
        """Simulate the loss of the connection."""
        self.aborted = True
        self._protocol.connection_lost(None)


class SlowLog:
    """A memory log whose reads wait until the test answers them."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.pending: list[tuple[asyncio.Future[Any], Callable[[], asyncio.Future[Any]]]] = []

    @property
    def epoch(self) -> str:
        return self._log.epoch

    async def open(self) -> None:
        await self._log.open()

    def announce_to(self, announce: Announce, renewed: Renewed = ignore_renewal) -> None:
        self._log.announce_to(announce, renewed)

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        return self._log.append(drafts)

    def read(self, after: int, topics: Collection[str], **options: Any) -> asyncio.Future[Page]:
        return self._later(lambda: self._log.read(after, topics, **options))

    def frames(self, after: int, topics: Collection[str], **options: Any) -> asyncio.Future[Frames]:
        return self._later(lambda: self._log.frames(after, topics, **options))

    def _later(self, read: Callable[[], asyncio.Future[Any]]) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending.append((answer, read))
        return answer

    def answer(self) -> None:
        """Answer the oldest read with the present content of the log."""
        answer, read = self.pending.pop(0)
        if not answer.cancelled():
            answer.set_result(read().result())

    def fail(self, error: Exception) -> None:
        """Let the oldest read raise *error*."""
        answer, _ = self.pending.pop(0)
        if not answer.cancelled():
            answer.set_exception(error)

    def bounds(self) -> Bounds:
        return self._log.bounds()

    def given(self) -> asyncio.Future[Position]:
        return self._log.given()

    def locate(self, position: Position) -> asyncio.Future[Located]:
        return self._log.locate(position)

    def trimmed(self, topics: Collection[str], after: int = 0, visibility: Visibility = EVERYTHING) -> int:
        return self._log.trimmed(topics, after, visibility)

    def trimmed_state(self) -> TrimmedState:
        return self._log.trimmed_state()

    async def adopt(
        self, epoch: str, newest: int, trimmed: TrimmedState, history: AsyncIterator[Sequence[Notification]]
    ) -> None:
        await self._log.adopt(epoch, newest, trimmed, history)

    def trim(self) -> None:
        self._log.trim()

    async def aclose(self) -> None:
        await self._log.aclose()
