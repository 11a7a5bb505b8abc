"""The frames that a client sends over a WebSocket, read as whole messages within a bound (RFC 6455).

Single frames are read by the library `websockets`, and so is what is compressed (RFC 7692). This adds the rules for
fragments, text and closing. A reader costs a kilobyte, so that an idle socket has none: see `idle`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode

PROTOCOL_ERROR, UNSUPPORTED_DATA, INVALID_TEXT, TOO_SLOW, TOO_BIG = 1002, 1003, 1007, 1008, 1009
NO_CODE = 1005
LARGEST_CONTROL = 125


def is_close(data: bytes) -> bool:
    """Return whether *data* is the close frame of a client, and nothing else; of what it says, nothing is checked."""
    return len(data) >= 6 and data[0] == 0x80 | Opcode.CLOSE and data[1] == 0x80 | len(data) - 6


class BrokenFrame(Exception):
    """What the client has sent breaks a rule; `code` is the close code that says which, `why` a sentence."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why


class Received(NamedTuple):
    """What the client has sent: a message, or a ping, a pong or the close.

    Attributes:
        opcode: which of them.
        payload: of a text, its bytes, which are UTF-8; of the close, the reason.
        code: the code of the close; 1005: it has none.
    """

    opcode: Opcode
    payload: bytes
    code: int = NO_CODE


class FrameReader:
    """Reads frames of one client, cut anywhere, into messages.

    Args:
        limit: bytes that a message may have, also when it is inflated.
        deflate: messages may be compressed.

    Attributes:
        since: when the message began that is not complete yet; whoever feeds the reader keeps it.
    """

    __slots__ = ("_deflate", "_frame", "_limit", "_message", "_opcode", "_unread", "since")

    def __init__(self, limit: int, *, deflate: bool = False) -> None:
        self._limit = limit
        self._deflate = [PerMessageDeflate(True, True, 15, 15)] if deflate else []
        self._unread = bytearray()
        self._frame: Generator[None, None, Frame] | None = None  # that is being read
        self._opcode: Opcode | None = None  # of the message whose fragments come
        self._message = bytearray()
        self.since = 0.0

    @property
    def idle(self) -> bool:
        """Whether it is between two messages: then another reader can go on."""
        return not self._unread and self._frame is None and self._opcode is None

    @property
    def in_fragments(self) -> bool:
        """Whether it has a part of a message, and the next frame goes on with it."""
        return self._opcode is not None

    def feed(self, data: bytes) -> Iterator[Received]:
        """Yield what *data* completes. Raises as `frames`."""
        return (received for received in self.frames(data) if received is not None)

    def frames(self, data: bytes) -> Iterator[Received | None]:
        """Yield what each frame completes that ends in *data*; None for a fragment that others follow.

        Whoever takes only some of them gets the others when more is fed.

        Raises:
            BrokenFrame: the client breaks a rule; nothing more can be read.
        """
        self._unread += data
        while self._unread or self._frame is not None:
            if self._frame is None:
                size = max(self._limit - len(self._message), LARGEST_CONTROL)
                self._frame = Frame.parse(self._exactly, mask=True, max_size=size, extensions=self._deflate)
            try:
                next(self._frame)
            except StopIteration as read:
                self._frame = None
                yield self._take(read.value)
            except PayloadTooBig:
                raise BrokenFrame(TOO_BIG, f"a message may have {self._limit:,} bytes") from None
            except ProtocolError as error:
                raise BrokenFrame(PROTOCOL_ERROR, str(error)) from None
            else:
                return

    def _exactly(self, number: int) -> Generator[None, None, bytes]:
        while len(self._unread) < number:
            yield
        taken = bytes(self._unread[:number])
        del self._unread[:number]
        return taken

    def _take(self, frame: Frame) -> Received | None:
        if frame.opcode is Opcode.CLOSE:
            return _close(bytes(frame.data))
        if frame.opcode in {Opcode.PING, Opcode.PONG}:
            return Received(frame.opcode, bytes(frame.data))
        return self._take_fragment(frame)

    def _take_fragment(self, frame: Frame) -> Received | None:
        if (frame.opcode is Opcode.CONT) is (self._opcode is None):
            raise BrokenFrame(PROTOCOL_ERROR, "a fragment does not follow the one before")
        self._opcode = self._opcode or frame.opcode
        self._message += frame.data
        if len(self._message) > self._limit:
            raise BrokenFrame(TOO_BIG, f"a message may have {self._limit:,} bytes")
        if not frame.fin:
            return None
        opcode, message = self._opcode, bytes(self._message)
        self._opcode, self._message = None, bytearray()
        if opcode is Opcode.TEXT and not _is_utf8(message):
            raise BrokenFrame(INVALID_TEXT, "a text is not UTF-8")
        return Received(opcode, message)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _close(payload: bytes) -> Received:
    try:
        close = Close.parse(payload)
    except UnicodeDecodeError:
        raise BrokenFrame(INVALID_TEXT, "the reason of a close is not UTF-8") from None
    except ProtocolError as error:
        raise BrokenFrame(PROTOCOL_ERROR, str(error)) from None
    return Received(Opcode.CLOSE, close.reason.encode(), int(close.code))
