"""A WebSocket that is open: a subscription whose client sends, too."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Protocol

from websockets.frames import Opcode

from hub.connections.client_stream import UNREAD_BYTES, CloseReason, StreamKind
from hub.connections.connection import Subscription, Wiring
from hub.connections.holders import Holder
from hub.encoding import Limit, retry_between
from hub.web import conversation
from hub.web.conversation import Asked, Conversation
from hub.web.websocket.frames import NO_CODE, TOO_SLOW, UNSUPPORTED_DATA, BrokenFrame, FrameReader, Received, is_close
from hub.wires import Format, Messages, close_frame, frame
from hub.wires import Opcode as Sent

logger = logging.getLogger("hub.connection")

MAX_MESSAGE_BYTES = 1024 * 1024
WAITING_BYTES = 64 * 1024
"""Bytes of messages that wait for the one before to be answered; beyond that nothing more is read."""
_MESSAGE_OVERHEAD = 200
FRAMES_AT_ONCE = 500
"""Frames of one client that are read in one turn of the loop, which takes some milliseconds."""
CLOSE_SECONDS = 2.0
"""Seconds that a client has to answer the hub's close frame."""


class Answering(Protocol):
    """What does what clients ask for.

    Attributes:
        message_seconds: seconds in which a message has to come that has begun.
    """

    message_seconds: float

    async def answer(self, socket: WebSocket, message: bytes) -> None:
        """Do what *message* asks for, and say so to *socket*. It does not raise, and its time is bounded."""
        ...

    def start(self, socket: WebSocket) -> None:
        """Have the messages that wait at *socket* answered, one after the other, in a task."""
        ...


class WebSocket(Conversation):
    """One open WebSocket.

    What its client sends is answered in order, one message after the other. While an answer is under way, up to 64 KiB
    of messages wait; then nothing more is read from the socket, nor of what has come from it.

    Attributes:
        asked: what its request asked for.
        known: whether it is known who holds it; until then it has 5 seconds, and may send 64 KiB.
    """

    kind: ClassVar[StreamKind] = StreamKind.WEBSOCKET

    __slots__ = (
        "_answering",
        "_behind",
        "_deaf",
        "_heard_close",
        "_pinged",
        "_pong",
        "_reader",
        "_reads_on",
        "_waiting_bytes",
        "_waits",
        "working",
    )

    def __init__(
        self,
        subscription: Subscription,
        wiring: Wiring,
        answering: Answering,
        *,
        holder: Holder,
        known: bool = True,
        asked: Asked = Asked(),  # noqa: B008 - it is immutable
    ) -> None:
        super().__init__(subscription, wiring, holder=holder, known=known, asked=asked)
        self.working = False  # somebody answers what waits
        self._answering = answering
        self._reader: FrameReader | None = None  # in the middle of a message, or behind
        self._behind = False  # what has come is not read to its end, and nothing more is taken from the socket
        self._reads_on = False  # `_read_on` is due in the next turn of the loop
        self._waits: deque[Received] | None = None
        self._waiting_bytes = 0
        self._deaf = False  # the client has broken a rule, and nothing more of it is read
        self._heard_close = False
        self._pinged = 0.0  # when the ping was sent that was not answered yet; 0: none
        self._pong: bytes | None = None  # to be sent when there is room

    @property
    def messages(self) -> Messages:
        """How its messages look."""
        assert isinstance(self._encoding, Messages)
        return self._encoding

    # ---- what the client sends ----

    def data_received(self, data: bytes) -> None:
        """Read frames; answer pings at once, and messages one after the other."""
        self._pinged = 0.0
        if self._deaf:
            if is_close(data):  # its frames can't be told apart any more, but it answers with one that comes alone
                self._transport.close()
            return
        if not self.known:
            self._unread += len(data)
            if self._unread > UNREAD_BYTES:
                self.abort(CloseReason.FLOOD)
                return
        self._read(data)

    def _read(self, data: bytes) -> None:
        """Read frames, until too much waits for answers, or there were many: the others come to their turn."""
        reader = self._reader
        if reader is None:
            reader = self._reader = FrameReader(MAX_MESSAGE_BYTES, deflate=self.messages.deflate)
            reader.since = time.monotonic()
        frames = 0
        try:
            for received in reader.frames(data):
                if received is not None:
                    self._take(received)
                if not reader.in_fragments:
                    reader.since = time.monotonic()
                frames += 1
                if frames == FRAMES_AT_ONCE or self._is_full:
                    self._stay_behind()
                    return
        except BrokenFrame as error:
            self._break(error)
            return
        self._reader = None if reader.idle else reader
        self._take_more()

    @property
    def _is_full(self) -> bool:
        """Whether so much waits for answers that nothing more is read."""
        return self._waiting_bytes > WAITING_BYTES and self.closed_because is None

    def _stay_behind(self) -> None:
        if not self._behind:
            self._behind = True
            if not self._transport.is_closing():
                self._transport.pause_reading()
        self._read_on_soon()

    def _read_on_soon(self) -> None:
        if self._behind and not (self._reads_on or self._is_full):
            self._reads_on = True
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        self._reads_on = False
        if self._reader is not None:
            self._reader.since = time.monotonic()  # it was the hub that took its time
            self._read(b"")

    def _take_more(self) -> None:
        """Take from the socket what comes."""
        if self._behind:
            self._behind = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _take(self, received: Received) -> None:
        if self.closed_because is not None:
            if received.opcode is Opcode.CLOSE:
                self._transport.close()
        elif received.opcode is Opcode.PING:
            self._pong = frame(Sent.PONG, received.payload)
            self._send_pong()
        elif received.opcode is not Opcode.PONG:
            self._check_opcode(received.opcode)
            self._wait_for_answer(received)

    def _check_opcode(self, opcode: Opcode) -> None:
        wanted = Opcode.TEXT if self.messages.format is Format.JSON else Opcode.BINARY
        if opcode not in {wanted, Opcode.CLOSE}:
            raise BrokenFrame(UNSUPPORTED_DATA, f"a message of {self.messages.format} is a {wanted.name.lower()} frame")

    def _wait_for_answer(self, received: Received) -> None:
        if self._waits is None:
            self._waits = deque()
        self._waits.append(received)
        self._waiting_bytes += len(received.payload) + _MESSAGE_OVERHEAD
        if not self.working:
            self.working = True
            self._answering.start(self)

    def _break(self, error: BrokenFrame) -> None:
        """Close: what the client sends can't be read any further."""
        self._reader, self._deaf = None, True
        self._take_more()  # and drop it: a RST would destroy the last words
        if self.closed_because is not None:
            self._transport.close()
            return
        logger.debug("%s: %s", self.id, error.why)
        self._write(close_frame(error.code, error.why) if not self._rest else b"")
        self._close(CloseReason.PROTOCOL)

    async def work(self) -> None:
        """Answer what waits, one message after the other; return when nothing waits, or the socket has ended."""
        try:
            while self._waits and self.closed_because is None:
                if not self.at_leisure:
                    await self.leisure()
                    continue
                received = self._waits.popleft()
                self._waiting_bytes -= len(received.payload) + _MESSAGE_OVERHEAD
                self._read_on_soon()
                if received.opcode is Opcode.CLOSE:
                    self._answer_close(received)
                else:
                    await self._answering.answer(self, received.payload)
                    await asyncio.sleep(0)  # others get their turn, however much one client asks for
        finally:
            self._waits, self.working = None, False

    def reply(self, said: dict[str, object]) -> None:
        """Send a message, unless the socket has ended."""
        if self.closed_because is None:
            self.say(self.messages.message(said))

    def _answer_close(self, received: Received) -> None:
        self._heard_close = True
        self._transport.write(close_frame(1000 if received.code == NO_CODE else received.code))
        self._close(CloseReason.CLIENT)

    # ---- room, time, the end ----

    def _go_on(self) -> None:
        super()._go_on()
        self._send_pong()

    def _send_pong(self) -> None:
        if self._pong is not None and self.at_leisure and self.closed_because is None:
            pong, self._pong = self._pong, None
            self._transport.write(pong)

    def _heartbeat(self) -> bytes:
        self._pinged = self._pinged or time.monotonic()
        return super()._heartbeat()

    def tend(self, now: float, idle_since: float) -> None:
        """As every stream; and close the socket of a client that does not say who it is, or answer a ping or a close.

        Or to complete the message that it has begun. While the hub reads nothing of the client, an answer may wait
        unread.
        """
        if self.closed_because is not None:
            if now - self._touched >= CLOSE_SECONDS and not self._transport.get_write_buffer_size():
                self._transport.close()
        elif not self.known and now - self.begun >= conversation.KNOWN_SECONDS:
            self.end(CloseReason.UNAUTHORIZED, retry_between(10, 60))
        elif self._behind:
            self._pinged = now if self._pinged else 0.0
        elif self._pinged and now - self._pinged >= self._registry.peer_timeout:
            self.abort(CloseReason.PEER_TIMEOUT)
            return
        elif self._reader is not None and now - self._reader.since >= self._answering.message_seconds:
            self._break(BrokenFrame(TOO_SLOW, f"a message has to come within {self._answering.message_seconds:g} s"))
            return
        super().tend(now, idle_since)

    def end(self, reason: CloseReason, retry: int, limit: Limit | None = None) -> None:
        """Say `hub.close`, then close; the socket closes when the client has answered, or after 2 seconds."""
        super().end(reason, retry, limit)
        self._read_on_soon()  # to its close frame

    def _close(self, reason: CloseReason) -> None:
        """Write nothing more. The socket stays open for the close frame of the client, if that has not come.

        To close it while the client sends would cost that the last words: a RST destroys what it has not read.
        """
        if self._heard_close:
            super()._close(reason)
            return
        self._leave(reason)
        self._unsent, self._touched = self._transport.get_write_buffer_size(), time.monotonic()

    def _left(self) -> None:
        super()._left()
        self._pong = None


class LastWords(asyncio.Protocol):
    """The socket of a client that can't have a WebSocket now: says why, waits for its close frame, and closes.

    Args:
        words: frames, the close frame last.
        ended: called when the socket is closed.
    """

    def __init__(self, words: bytes, ended: Callable[[LastWords], object]) -> None:
        self._words, self._ended = words, ended
        self._reader = FrameReader(UNREAD_BYTES)
        self._unread = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Write *unsent* and the last words on *transport*."""
        self._transport = transport
        transport.write(unsent + self._words)
        self._timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        """Close when the client has; at once, if it sends more than 64 KiB."""
        self._unread += len(data)
        if self._unread > UNREAD_BYTES:
            self.abort()
            return
        try:
            closed = any(received.opcode is Opcode.CLOSE for received in self._reader.feed(data))
        except BrokenFrame:
            closed = True
        if closed and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._ended(self)
