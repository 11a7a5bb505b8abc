"""From the bytes of an HTTP answer to whole SSE blocks, wherever the bytes are cut. Pure."""

from __future__ import annotations

MAX_HEAD = 64 * 1024
MAX_PART = 4 * 1024 * 1024
"""More than this in one chunk or one block is nothing that a hub sends (its bound is 1 MiB of data)."""


class MalformedAnswer(ValueError):
    """The peer sent something that is not an HTTP/1.x answer, or a part beyond every bound."""


class Stream:
    """Reads one answer; a new connection needs a new one.

    Attributes:
        status: of the answer; 0 until its head is complete.
        between: nothing is half read in a chunked stream, so that the next bytes mean the same on every stream
            that is between two blocks.
        ended: the body is complete, nothing follows.
    """

    __slots__ = ("_chunked", "_left", "_text", "_wire", "between", "ended", "status")

    def __init__(self) -> None:
        self.status = 0
        self.between = self.ended = False
        self._chunked = False
        self._left = -1  # bytes to come if the head said so
        self._wire = self._text = b""

    def feed(self, received: bytes) -> bytes:
        """Return the SSE blocks that *received* completes, as they are (lines and blocks end with LF).

        Raises:
            MalformedAnswer: there is no way to go on reading.
        """
        self._wire += received
        if not self.status and not self._take_head():
            return b""
        self._text += self._take_chunks() if self._chunked else self._take_plain()
        end = self._text.rfind(b"\n\n") + 2
        blocks, self._text = (self._text[:end], self._text[end:]) if end > 1 else (b"", self._text)
        if len(self._wire) > MAX_PART or len(self._text) > MAX_PART:
            raise MalformedAnswer("a part of the stream is larger than 4 MiB")
        self.between = self._chunked and not (self._wire or self._text or self.ended)
        return blocks

    @property
    def rest(self) -> bytes:
        """What came of the body without completing a block (of a refusal: the problem document)."""
        return self._text

    def _take_head(self) -> bool:
        head, found, rest = self._wire.partition(b"\r\n\r\n")
        if not found:
            if len(head) > MAX_HEAD:
                raise MalformedAnswer("the head of the answer is larger than 64 KiB")
            return False
        status, *fields = head.split(b"\r\n")
        version, _, code = status.partition(b" ")
        if version not in {b"HTTP/1.1", b"HTTP/1.0"} or not code[:3].isdigit():
            raise MalformedAnswer("the answer is not HTTP/1.1")
        for field in fields:
            name, _, value = field.lower().partition(b":")
            if name == b"transfer-encoding":
                self._chunked = value.strip() == b"chunked"
            elif name == b"content-length" and value.strip().isdigit():
                self._left = int(value)
        self.status, self._wire = int(code[:3]), rest
        self.ended = self._left == 0 or self.status == 204
        return True

    def _take_plain(self) -> bytes:
        body, self._wire = self._wire, b""
        if self._left >= 0:
            body = body[: self._left]
            self._left -= len(body)
            self.ended = self._left == 0
        return body

    def _take_chunks(self) -> bytes:
        """Take whole chunks off the wire (RFC 9112, section 7.1); trailers mean nothing here."""
        wire, at, parts = self._wire, 0, []
        while not self.ended:
            line_end = wire.find(b"\r\n", at)
            if line_end < 0:
                break
            size = _chunk_size(wire[at:line_end])
            start = line_end + 2
            if len(wire) < start + size + 2:
                break
            if size == 0:
                self.ended = True
            parts.append(wire[start : start + size])
            at = start + size + 2
        self._wire = wire[at:]
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _chunk_size(line: bytes) -> int:
    try:
        size = int(line.partition(b";")[0], 16)
    except ValueError:
        size = -1
    if not 0 <= size <= MAX_PART:
        raise MalformedAnswer("the size of a chunk is not a number up to 4 MiB")
    return size
