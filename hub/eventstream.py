"""The Server-Sent Events format: blocks out, blocks in (WHATWG HTML, section 9.2).

Pure functions on text and bytes. Lines end with LF; a block ends with an empty line.
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

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a chunked HTTP/1.1 body (RFC 9112, section 7.1)."""


JsonDefault = Callable[[Any], Any]
"""Returns something that can be sent instead of an object of a type that is not known, or raises `TypeError`."""


def compact_json(value: object, default: JsonDefault | None = None) -> str:
    """Return *value* as JSON on one line, UTF-8 kept as it is.

    What the standard library has no JSON for (`datetime`, `Decimal`, `UUID`, enums, sets, dataclasses, pydantic models,
    keys that are not strings) becomes what pydantic makes of it.

    Args:
        value: whatever is to be sent.
        default: called with each object that pydantic does not know either.

    Raises:
        TypeError, ValueError, RecursionError: it is not JSON (NaN included), or nested too deeply.
    """
    try:
        return _to_json(value)
    except TypeError:
        # All of it again rather than a part at a time: a key can't be converted alone. Nothing was used up so far, for
        # the encoder stops at the first object that is not JSON.
        return _to_json(to_jsonable_python(value, fallback=default))


def plain_text(text: str) -> str:
    """Return *text* without the subclass it may have: a member of an enum is its value, however it prints itself."""
    return str.__str__(text)


def _fast_encode() -> Callable[[object], str]:
    """Return what `_encoder.encode` does, with its C part made once instead of at each call, where Python has it."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        encode = make(None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    except TypeError:  # there is none, or not this one
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
    r"""Return one SSE block, its final empty line included.

    *data* goes out as one `data:` line per CR, LF or CRLF line. The caller vouches that *type* and *id* hold no
    CR, LF or NUL. *retry* is in milliseconds. Without *data* a browser dispatches nothing but still takes
    *id* and *retry*.

    Raises:
        UnicodeEncodeError: a lone surrogate, which UTF-8 cannot carry.
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
    """Return the data of a frame that `block` made; its lines end with LF, whatever they ended with before."""
    return "\n".join(line[6:] for line in frame.decode().split("\n") if line.startswith("data: "))


def chunk(body: bytes) -> bytes:
    """Return *body* as one chunk of a chunked HTTP/1.1 body; chunks may simply be joined."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def unchunk(framed: bytes) -> bytes:
    """Return the body that `chunk` framed."""
    return framed[framed.index(b"\r\n") + 2 : -2]


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """One event of a handler's own stream. `data`: a string goes out as it is, anything else as compact JSON.

    `type` and `id` hold no CR, LF or NUL, `retry` is a whole number of milliseconds from 0; the rest is refused with
    `InvalidInput` when the event is sent. `comment` is for people who watch the wire: clients ignore it.
    """

    data: object = None
    type: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    @classmethod
    def of(cls, item: object) -> MessageEvent:
        """Return *item* if it is an event already, else an event with *item* as its data."""
        return item if isinstance(item, cls) else cls(item)

    def encode(self, json_default: JsonDefault | None = None) -> bytes:
        """Return the event as one SSE block. Without data (None) it only carries its other fields.

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
    """One block as a client sees it. `type` is `message` if the block named none; `id` is the cursor after it."""

    data: str
    type: str
    id: str

    def json(self) -> Any:
        """Return `data` read as JSON."""
        return json.loads(self.data)


class Decoder:
    """Turns the bytes of a stream into messages, wherever the bytes are cut (WHATWG HTML, 9.2.6).

    Attributes:
        last_event_id: what a client sends as `Last-Event-ID` when it comes back.
        retry: the reconnection time in milliseconds that the server asked for, if it did.
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
        # A CR at the very end may be half of a CRLF: it waits for what follows.
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
            # The cursor moves only when a block is whole, then even if it dispatches nothing (a heartbeat).
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
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        return None
