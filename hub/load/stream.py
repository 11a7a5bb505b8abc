"""The parser of HTTP answers and SSE streams, for bytes that are cut anywhere. It does no I/O."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from hub.access.bearer import LIST_OPTION, OPTION, VARIABLE
from hub.eventstream import Decoder, compact_json
from hub.load.options import CannotRun

MAX_PART = 4 * 1024 * 1024
"""Maximum size of one chunk or block in bytes; a hub sends nothing larger (its bound is 1 MiB of data)."""
KNOWN, MAX_KNOWN = 256, 16 * 1024
"""Number of received parts whose readings are cached, and their maximum size in bytes."""


FOR_GOOD = {"unauthorized": 401, "token_invalid": 401, "token_expired": 401, "revoked": 401, "forbidden": 403}
"""Reasons of `hub.close` after which coming back would change nothing, and the statuses that they stand for."""


class MalformedAnswer(ValueError):
    """The peer sent something that is not an HTTP/1.x answer, or a part above the bounds."""


class Answer:
    """The parser of one HTTP answer; each answer needs a new object.

    Attributes:
        status: the status code; 0 until the head is complete.
        ended: whether the body is complete.
        closes: whether the connection ends with the body.
    """

    def __init__(self) -> None:
        self.status = 0
        self.ended = self.closes = self.chunked = False
        self._left = -1  # bytes of the body still to come; -1 if the head does not say
        self._wire = b""

    def feed(self, received: bytes) -> bytes:
        """Return the part of the body that *received* completes; raise `MalformedAnswer` if it can't be parsed."""
        self._wire += received
        if len(self._wire) > MAX_PART:
            raise MalformedAnswer("a part of the answer is larger than 4 MiB")
        if not self.status:
            self._take_head()
        if not self.status:
            return b""
        return self._take_chunks() if self.chunked else self._take_plain()

    def _take_head(self) -> None:
        head, found, rest = self._wire.partition(b"\r\n\r\n")
        if not found:
            return
        status_line, *lines = head.lower().split(b"\r\n")
        version, _, code = status_line.partition(b" ")
        if version not in {b"http/1.1", b"http/1.0"} or not code[:3].isdigit():
            raise MalformedAnswer("the answer is not HTTP/1.1")
        fields = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self.status, self._wire = int(code[:3]), rest
        self.closes = version == b"http/1.0" or fields.get(b"connection") == b"close"
        self.chunked = fields.get(b"transfer-encoding") == b"chunked"
        length = fields.get(b"content-length", b"")
        if length.isdigit() and not self.chunked:
            self._left = int(length)
        self.ended = self._left == 0 or self.status == 204

    def _take_plain(self) -> bytes:
        body, self._wire = self._wire, b""
        if self._left >= 0:
            body = body[: self._left]
            self._left -= len(body)
            self.ended = self._left == 0
        return body

    def _take_chunks(self) -> bytes:
        """Remove whole chunks from the received bytes and return their content (RFC 9112, section 7.1).

        Chunk extensions and trailers are ignored.
        """
        wire, at, parts = self._wire, 0, []
        while not self.ended and (line_end := wire.find(b"\r\n", at)) >= 0:
            try:
                size = int(wire[at:line_end].partition(b";")[0], 16)
            except ValueError:
                size = -1
            if not 0 <= size <= MAX_PART:
                raise MalformedAnswer("the size of a chunk is not a number up to 4 MiB")
            start, end = line_end + 2, line_end + 2 + size
            if len(wire) < end + 2:
                break
            parts.append(wire[start:end])
            at, self.ended = end + 2, size == 0
        self._wire = wire[at:]
        return b"".join(parts)


class Stream(Answer):
    """The parser of an answer that is a stream of SSE blocks.

    Attributes:
        text: the bytes of the body that do not complete a block yet (of a refusal: the problem document).
        between: whether a chunked stream is exactly between two blocks: then the same bytes have the same meaning on
            every such stream.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = b""
        self.between = False

    def blocks(self, received: bytes) -> bytes:
        """Return the blocks that *received* completes, undecoded; lines and blocks end with LF. Raises as `feed`."""
        blocks, end, self.text = (self.text + self.feed(received)).rpartition(b"\n\n")
        if len(self.text) > MAX_PART:
            raise MalformedAnswer("a block of the stream is larger than 4 MiB")
        self.between = self.chunked and not (self._wire or self.text or self.ended)
        return blocks + end


def refusal(request: str, status: int, body: bytes) -> CannotRun:
    """Return the error for an answer that makes the run impossible; *status* 0: the answer was not HTTP.

    Its text quotes the reason in *body*, if that is a problem document (RFC 9457).
    """
    answer, why = f"with {status}" if status else "in something that is not HTTP/1.1", "is this a hub?"
    with suppress(ValueError):
        match json.loads(body):
            case {"detail": str(detail), "code": "unauthorized"}:
                why = f"{detail[:300]} (tokens are taken from {LIST_OPTION}, {OPTION} or {VARIABLE})"
            case {"detail": str(detail)}:
                why = detail[:300]
    return CannotRun(f"{request} was answered {answer}: {why}")


class Mark(NamedTuple):
    """One event of a run. `stamp` is the time when it was due, in nanoseconds of the monotonic clock."""

    number: int
    stamp: int


END = Mark(-1, 0)
"""The mark that is published last: a subscriber that has read it has read all its events."""


def draft(run: str, topic: str, mark: Mark, pad: str = "") -> str:
    """Return the JSON of the draft that publishes *mark*; the type names the run, the key makes a retry safe."""
    return compact_json({"topic": topic, "type": f"load.{run}", "key": f"{run}-{mark.number}", "data": [*mark, pad]})


class Reading(NamedTuple):
    """The meaning of some blocks for a subscriber."""

    marks: tuple[Mark, ...] = ()  # the events of this run
    cursor: str = ""  # the id to resume from; empty if the blocks have none
    retry: float | None = None  # seconds to wait before a reconnect; None if the blocks do not say
    notices: tuple[str, ...] = ()  # the types of the hub's own events (`hub.open`, `hub.gap`, …)
    refused: str = ""  # why the hub ended this stream for good; empty if it did not
    gap: str = ""  # why the hub can't resume this stream; empty if it can
    end: bool = False  # whether the blocks contain the end of the run
    plain: bool = True  # whether there is nothing but marks and a cursor


class Reader:
    """The decoder of the blocks of one run; `whole` is `_whole` with a cache for bytes that come again."""

    def __init__(self, run: str) -> None:
        self._type = f"load.{run}"
        self.whole = lru_cache(KNOWN)(self._whole)

    def _whole(self, received: bytes) -> Reading | None:
        """Return the reading of *received*, which begins between two blocks of a chunked stream.

        Return None if it ends within a block.
        """
        stream = Stream()
        stream.status, stream.chunked = 200, True
        blocks = stream.blocks(received)
        return self.read(blocks) if stream.between else None

    def read(self, blocks: bytes) -> Reading:
        """Return the reading of *blocks*, which are complete and end with LF, as the hub writes them."""
        decoder = Decoder()
        marks, notices, gap, refused = [], [], "", ""
        for message in decoder.feed(blocks):
            if message.type == self._type:
                number, stamp, _ = message.json()
                marks.append(Mark(number, stamp))
            elif message.type.startswith("hub."):
                notices.append(message.type)
                with suppress(ValueError):
                    match message.type, message.json():
                        case "hub.open", {"recovered": False, "reason": str(gap)}:
                            pass
                        case "hub.close", {"reason": str(why)} if why in FOR_GOOD:
                            refused = why
        retry, end = None if decoder.retry is None else decoder.retry / 1000, END in marks
        events = tuple(mark for mark in marks if mark != END)
        plain = not (notices or end) and retry is None
        return Reading(events, decoder.last_event_id, retry, tuple(notices), refused, gap, end, plain)
