"""What waits for one client of Socket.IO: the queue of python-engineio, and at once the transport of its stream.

A stream of the hub writes bytes to a transport, and python-engineio takes packets from a queue: for the answer to a
poll, or one after the other for a WebSocket. That queue has no bound. This one is bounded as a socket is: what is taken
counts as unsent until more is asked for, which pauses the stream, and then its policy for slow readers decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from hub.web.socketio.packets import END

MESSAGE, NOOP = 4, 6
TAKEN_BYTES = 64 * 1024
"""Bytes after which no further packet is taken for the same answer."""
MOST_FOREIGN = 100
"""Packets of python-engineio that may wait: it answers some of what clients send, whether they take that or not."""
_OVERHEAD = 64


class Text:
    """A packet of Engine.IO that was encoded already."""

    __slots__ = ("size", "text")

    packet_type = MESSAGE
    binary = False

    def __init__(self, packet: bytes) -> None:
        self.text, self.size = packet.decode(), len(packet)

    def encode(self, b64: bool = False) -> str:
        """Return the packet as it is sent."""
        return self.text


_CLOSE = Text(b"1")


@lru_cache(maxsize=16)  # many streams get the same bytes in one turn
def _divided(packets: bytes) -> tuple[Text, ...]:
    return tuple(map(Text, packets.split(END)[:-1]))


class Paused(Protocol):
    """The stream that writes to an outbox."""

    def pause_writing(self) -> None:
        """Write no more for now."""
        ...

    def resume_writing(self) -> None:
        """There is room again."""
        ...


class Outbox:
    """The queue of one Engine.IO socket, and the transport of the stream that belongs to it.

    Attributes:
        cut: called once when the stream is aborted: all its connections have to be closed.
        stream: the stream; None until it has begun.
        address: the address of the client.
        over: everything was taken, the end too.
        most: how many packets one answer has, at most; 0: as many as are due.
    """

    def __init__(self) -> None:
        self.cut: Callable[[], object] | None = None
        self.stream: Paused | None = None
        self.address = ""
        self.over = False
        self.most = 0
        self._packets: deque[Any] = deque()  # those of python-engineio, and texts; None is the end
        self._size = 0
        self._taken = 0
        self._number = 0  # of packets that were taken for the same answer
        self._foreign = 0  # packets of python-engineio that wait
        self._part = b""  # of a packet
        self._high = TAKEN_BYTES
        self._paused = False
        self._closing = False
        self._arrived = asyncio.Event()

    # ---- the queue ----

    async def get(self) -> Any:
        """Return the next packet when there is one, None at the end; what was taken before has been sent."""
        self._note_sent()
        while not self._packets:
            if self.over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._take()

    def get_nowait(self) -> Any:
        """Return the next packet.

        Raises:
            asyncio.QueueEmpty: there is none, or enough was taken for one answer.
        """
        if not self._packets or self._taken >= TAKEN_BYTES or self._number == self.most > 0:
            raise asyncio.QueueEmpty
        return self._take()

    async def put(self, packet: Any) -> None:
        """Add a packet of python-engineio; None is the end."""
        self.put_nowait(packet)

    def put_nowait(self, packet: Any) -> None:
        """Add a packet of python-engineio; None is the end. With too many of them the client is cut off."""
        self._packets.append(packet)
        self._size += _size(packet)
        self._arrived.set()
        self._foreign += packet is not None
        if self._foreign > MOST_FOREIGN:
            self.abort()

    def task_done(self) -> None:
        """Do nothing: nobody waits for that."""

    async def join(self) -> None:
        """Do nothing: nobody waits until everything was taken."""

    def _take(self) -> Any:
        packet = self._packets.popleft()
        size = _size(packet)
        self._size -= size
        self._taken += size
        self._number += 1
        if packet is None:
            self.over = True
        elif not isinstance(packet, Text):
            self._foreign -= 1
        return packet

    def _note_sent(self) -> None:
        self._taken = self._number = 0
        if self._paused and self.get_write_buffer_size() <= self._high // 4:
            self._paused = False
            if self.stream is not None:
                self.stream.resume_writing()

    # ---- the transport ----

    def write(self, data: bytes | memoryview) -> None:
        """Add packets; what a stream writes may be cut anywhere."""
        if self._closing or not data:
            return
        data = bytes(data)
        if self._part or not data.endswith(END):
            whole, _, self._part = (self._part + data).rpartition(END)
            data = whole + END if whole else b""
        for packet in _divided(data) if data else ():
            self._packets.append(packet)
            self._size += packet.size + _OVERHEAD
        self._arrived.set()
        if not self._paused and self.stream is not None and self.get_write_buffer_size() > self._high:
            self._paused = True
            self.stream.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait, those included that are being sent."""
        return self._size + self._taken + len(self._part)

    def set_write_buffer_limits(self, high: int) -> None:
        """Pause the stream while more than *high* bytes wait, until a quarter of that is left."""
        self._high = high

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the address of the client as `peername`."""
        return (self.address, 0) if name == "peername" else default

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        return self._closing

    def close(self) -> None:
        """Write no more; the session ends when the client has taken everything."""
        if not self._closing:
            self._closing = True
            self._packets += (_CLOSE, None)
            self._arrived.set()

    def abort(self) -> None:
        """Drop what waits, and close the connections of the client."""
        self._closing = True
        self._packets.clear()
        self._packets.append(None)
        self._size, self._foreign, self._part = 0, 0, b""
        self._arrived.set()
        if self.cut is not None:
            cut, self.cut = self.cut, None
            cut()


def _size(packet: Any) -> int:
    if packet is None:
        return 0
    if isinstance(packet, Text):
        return packet.size + _OVERHEAD
    return _OVERHEAD  # a ping, an opening, or what ends a poll
