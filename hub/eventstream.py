"""The Server-Sent Events format: encoder and decoder of blocks (WHATWG HTML, section 9.2).

Everything here works on text and bytes and does no I/O. Lines end with LF; a block ends with an empty line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from hub.errors import InvalidInput

_BREAK = re.compile(r"[\r\n\0]")
_LINE_END = re.compile(r"\r\n|\r|\n")
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)

MAX_RETRY_DIGITS = 18
"""A longer time is ignored: Python takes no whole number of any length, and no clock such a time."""

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked HTTP/1.1 body (RFC 9112, section 7.1)."""


JsonDefault = Callable[[Any], Any]
"""A function that gets an object of an unknown type, and returns a value to send instead or raises `TypeError`."""


def compact_json(value: object, default: JsonDefault | None = None) -> str:
    """Return *value* as JSON on one line, without escapes for characters beyond ASCII.

    Types that the standard library can't encode (`datetime`, `Decimal`, `UUID`, enums, sets, dataclasses, pydantic
    models, keys that are not strings) are converted by pydantic.

    Args:
        value: the value to encode.
        default: called with each object that pydantic does not know either.

    Raises:
        TypeError, ValueError: *value* can't be encoded (NaN neither).
        RecursionError: it is nested too deeply.
    """
    try:
        return _to_json(value)
    except TypeError:
        # Convert the whole value, not single objects: the encoder offers no conversion of keys. No iterator has been
        # consumed so far, because the encoder stops at the first object that is not JSON.
        return _to_json(to_jsonable_python(value, fallback=default))


def plain_text(text: str) -> str:
    """Return *text* as a plain `str`; of a subclass such as `StrEnum`, the value, even if its `__str__` differs."""
    return str.__str__(text)


def _fast_encode() -> Callable[[object], str]:
    """Return a function equivalent to `_encoder.encode` that creates the C encoder once and not at each call.

    Where Python has no such C encoder, return `_encoder.encode` itself.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        encode = make(None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    except TypeError:  # there is none, or its signature differs
        return _encoder.encode
    return lambda value: "".join(encode(value, 0))


_to_json = _fast_encode()


def block(
    data: str | None = None,
    *,
    type: str | None = None,
    id: str | None = None,
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""Return one SSE block, with the empty line that ends it.

    *data* becomes one `data:` line per CR, LF or CRLF line. The caller makes sure that *type* and *id* contain no
    CR, LF or NUL. *retry* is in milliseconds. For a block without *data*, a browser dispatches no event, but still
    applies *id* and *retry*.

    Raises:
        UnicodeEncodeError: there is a lone surrogate, which UTF-8 can't encode.
    """
    head = ""
    if comment is not None:
        head = "".join(f":{line}\n" for line in _LINE_END.split(comment))
    if retry is not None:
        head += f"retry: {retry}\n"
    if type is not None:
        head += f"event: {type}\n"
    if id is not None:
        head += f"id: {id}\n"
    if data is None:
        return f"{head}\n".encode()
    if "\n" in data or "\r" in data:
        data = "\ndata: ".join(_LINE_END.split(data))
    return f"{head}data: {data}\n\n".encode()


def data_of(frame: bytes) -> str:
    """Return the data of a frame that `block` made; its lines end with LF, even if they were CR or CRLF lines."""
    return "\n".join(line[6:] for line in frame.decode().split("\n") if line.startswith("data: "))


def chunk(body: bytes) -> bytes:
    """Return *body* as one chunk of a chunked HTTP/1.1 body; chunks may be concatenated."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def unchunk(framed: bytes) -> bytes:
    """Return the body in *framed*, which `chunk` made."""
    return framed[framed.index(b"\r\n") + 2 : -2]


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """One event of a handler's own stream. `data`: a string is sent as it is, anything else as compact JSON.

    `type` and `id` must contain no CR, LF or NUL, and `retry` must be a whole number of milliseconds from 0; sending
    anything else raises `InvalidInput`. `comment` is for people who read the bytes: clients ignore it.
    """

    data: object = None
    type: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    @classmethod
    def of(cls, item: object) -> MessageEvent:
        """Return *item* if it is a `MessageEvent`, else one with *item* as its data."""
        return item if isinstance(item, cls) else cls(item)

    def encode(self, json_default: JsonDefault | None = None) -> bytes:
        """Return the event as one SSE block. Without data (None) the block has the other fields only.

        *json_default* is called with each object in the data that is neither JSON nor known to pydantic.

        Raises:
            InvalidInput: a field breaks its rule.
        """
        for name, value in (("type", self.type), ("id", self.id)):
            if value is not None and (not isinstance(value, str) or _BREAK.search(value)):
                raise InvalidInput(name, "is not a string without CR, LF and NUL")
        retry = self.retry
        if retry is not None and (not isinstance(retry, int) or isinstance(retry, bool) or retry < 0):
            raise InvalidInput("retry", "is not a whole number of milliseconds from 0")
        try:
            data = self.data if self.data is None else _text(self.data, json_default)
            type = None if self.type is None else plain_text(self.type)
            id = None if self.id is None else plain_text(self.id)
            return block(data, type=type, id=id, retry=None if retry is None else int(retry), comment=self.comment)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput("data", f"can't be sent: {str(error)[:200]}") from None


def _text(data: object, json_default: JsonDefault | None) -> str:
    return plain_text(data) if isinstance(data, str) else compact_json(data, json_default)


@dataclass(frozen=True, slots=True)
class Message:
    """One received event. `type` is `message` if the block had none; `id` is the last event id after the block."""

    data: str
    type: str
    id: str

    def json(self) -> Any:
        """Return `data`, decoded as JSON."""
        return json.loads(self.data)


class Decoder:
    """A decoder of SSE streams: turns bytes, cut anywhere, into messages (WHATWG HTML, 9.2.6).

    Attributes:
        last_event_id: the value of `Last-Event-ID` for a reconnect.
        retry: the reconnection time in milliseconds that the server sent; None without one.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = self._id = last_event_id
        self.retry: int | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._started = False
        self._reset()

    def _reset(self) -> None:
        self._data: list[str] = []
        self._type = ""

    def feed(self, received: bytes) -> Iterator[Message]:
        """Yield each message that *received* completes."""
        text = self._rest + self._utf8.decode(received)
        if text and not self._started:
            text = text.removeprefix("\ufeff")
            self._started = True
        # A CR at the very end may be the first half of a CRLF: keep it until more bytes arrive.
        held = "\r" if text.endswith("\r") else ""
        *lines, rest = _LINE_END.split(text.removesuffix("\r") if held else text)
        self._rest = rest + held
        for line in lines:
            message = self._take(line)
            if message is not None:
                yield message

    def _take(self, line: str) -> Message | None:
        if not line:
            data, type = self._data, self._type
            self._reset()
            # The cursor moves only when a block is complete, even if the block dispatches no event (a heartbeat).
            self.last_event_id = self._id
            return Message("\n".join(data), type or "message", self.last_event_id) if data else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._type = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit() and len(value) <= MAX_RETRY_DIGITS:
            self.retry = int(value)
        return None
