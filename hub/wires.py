"""How things look on the wires beside Server-Sent Events: one object per message, as a line or as a WebSocket frame.

The objects are the same on each wire: what SSE says with `event`, `id` and `data` has `op`, `id` and members of its
own. A line of NDJSON is such an object; a WebSocket carries it in a frame of JSON, or of msgpack. Frames are made once
for all connections that share them: they have no mask, and a compressed one needs no other frame to be read.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from hub.encoding import FEW_TOPICS, Attendance, Drop, End, Gap, Opening, Present, Topics
from hub.eventstream import LAST_CHUNK, chunk, compact_json
from hub.notification import Notification, Position

LEAST_COMPRESSED = 256
"""Bytes from which a frame is compressed: smaller ones hardly shrink."""
_LEVEL = 6
_EMPTY_BLOCK = b"\x00\x00\xff\xff"  # ends what zlib flushes; left out of a message (RFC 7692, 7.2.1)
_WORDS = {None: "null", True: "true", False: "false"}

# ---- what is said, as JSON ----


def _said(op: str, facts: Mapping[str, object]) -> str:
    return compact_json({"op": op, **facts})


def _notification(notification: Notification, topics: Sequence[str], *, ids: bool, without_type: str = "") -> str:
    """Return the object of *notification*, seen through *topics*; without *ids* its id does not move the cursor."""
    _, _, text, is_json, _, _, type, retry, _, _ = notification
    facts = _topics_as_json(tuple(topics)) if len(topics) <= FEW_TOPICS else compact_json(topics)
    more = without_type if type is None else f',"type":{compact_json(type)}'
    if retry is not None:
        more += f',"retry":{retry}'
    data = text if is_json else compact_json(text)
    name = "id" if ids else "earlier"
    return f'{{"op":"notification","{name}":"{notification.id}","topics":{facts}{more},"data":{data}}}'


_topics_as_json = lru_cache(maxsize=1024)(compact_json)


def _opening(opening: Opening) -> str:
    """Return `hub.open`; without topics it has no id: a client that is cut before it has some keeps its cursor."""
    connection, topics, position, recovered, gap, retry = opening
    as_json = _topics_as_json(topics) if len(topics) <= FEW_TOPICS else compact_json(topics)
    place = f'"id":"{position}",' if topics else ""
    facts = f'"connection":"{connection}","topics":{as_json},{place}"recovered":{_WORDS[recovered]}'
    if gap is not None:
        facts += f',"reason":"{gap.reason}","oldest":"{gap.oldest}"'
    return f'{{"op":"hub.open",{facts},"retry":{retry}}}'


def _topics(topics: Topics) -> str:
    """Return `hub.topics`, which tells of a gap itself: a client that is cut behind it has `from` as its cursor."""
    gap = {} if topics.gap is None else _gap_facts(topics.gap)
    return _said("hub.topics", {"topics": topics.topics, "from": str(topics.position), **gap})


def _gap_facts(gap: Gap) -> dict[str, object]:
    return {"recovered": False, "reason": gap.reason, "oldest": str(gap.oldest)}


def _gap(gap: Gap) -> str:
    return _said("hub.gap", _gap_facts(gap))


def _drop(drop: Drop) -> str:
    return _said("hub.dropped", {"dropped": drop.number, "after": str(drop.after), "before": str(drop.before)})


def _attendance(attendance: Attendance) -> str:
    topic, number, users = attendance
    named = {} if users is None else {"users": [user.facts() for user in users]}
    return _said("hub.presence", {"topic": topic, "count": number, **named})


def _change(op: str, topic: str, who: Present) -> str:
    info = {"info": dict(who.info)} if who.info else {}
    return _said(op, {"topic": topic, "user": who.id, **info})


def _heartbeat(newest: Position) -> str:
    return f'{{"op":"hub.heartbeat","id":"{newest}"}}'


def _end(end: End) -> str:
    limit = {} if end.limit is None else {"limit": end.limit}
    return _said("hub.close", {"reason": end.reason, **limit, "retry": end.retry})


# ---- encodings of such objects ----


class ObjectEncoding(ABC):
    """An encoding in which all that is said is an object; a wire adds how objects are carried."""

    @abstractmethod
    def carried(self, *objects: str) -> bytes:
        """Return the bytes of *objects*, each JSON text whose first member is `op`; a client gets all or none."""

    @property
    @abstractmethod
    def ids(self) -> bool:
        """Whether notifications have their ids; without, their id is named `earlier` and moves no cursor."""

    @property
    def takes_chunks(self) -> bool:
        """False: a notification does not look like its SSE chunk."""
        return False

    @property
    def names_all_topics(self) -> bool:
        """True: a notification names all topics through which it is seen."""
        return True

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        """Return the bytes of *notification*."""
        return self.carried(_notification(notification, topics, ids=self.ids))

    def opening(self, opening: Opening) -> bytes:
        """Return `hub.open`, and `hub.gap` with it."""
        return self._with_gap(_opening(opening), opening.gap)

    def topics(self, topics: Topics) -> bytes:
        """Return `hub.topics`, and `hub.gap` with it."""
        return self._with_gap(_topics(topics), topics.gap)

    def gap(self, gap: Gap) -> bytes:
        """Return `hub.gap`."""
        return self.carried(_gap(gap))

    def drop(self, drop: Drop) -> bytes:
        """Return `hub.dropped`."""
        return self.carried(_drop(drop))

    def attendance(self, attendance: Attendance) -> bytes:
        """Return `hub.presence`."""
        return self.carried(_attendance(attendance))

    def join(self, topic: str, who: Present) -> bytes:
        """Return `hub.join`."""
        return self.carried(_change("hub.join", topic, who))

    def leave(self, topic: str, who: Present) -> bytes:
        """Return `hub.leave`."""
        return self.carried(_change("hub.leave", topic, who))

    def heartbeat(self, newest: Position) -> bytes:
        """Return `hub.heartbeat` with the id of *newest*, which moves the client's cursor on."""
        return self.carried(_heartbeat(newest))

    def end(self, end: End) -> bytes:
        """Return `hub.close`."""
        return self.carried(_end(end))

    def _with_gap(self, said: str, gap: Gap | None) -> bytes:
        return self.carried(said) if gap is None else self.carried(said, _gap(gap))


# ---- lines ----


@dataclass(frozen=True)
class Lines(ObjectEncoding):
    """NDJSON: one object per line.

    Attributes:
        chunked: with HTTP/1.1 chunk framing (RFC 9112, section 7.1); False for HTTP/1.0.
        ids: notifications have their ids.
        nulls: a notification without a type says so, as on a page of the history.
    """

    chunked: bool = True
    ids: bool = True
    nulls: bool = False

    def without_ids(self) -> Lines:
        """Return the encoding in which a notification says `earlier` for `id`."""
        return replace(self, ids=False)

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        """Return the line of *notification*."""
        without_type = ',"type":null' if self.nulls else ""
        return self.carried(_notification(notification, topics, ids=self.ids, without_type=without_type))

    def carried(self, *objects: str) -> bytes:
        """Return a line for each of *objects*, all in the same chunk."""
        lines = "".join([f"{each}\n" for each in objects]).encode()
        return chunk(lines) if self.chunked else lines

    def end(self, end: End) -> bytes:
        """Return `hub.close`, and the end of the HTTP body."""
        return super().end(end) + (LAST_CHUNK if self.chunked else b"")


# ---- WebSocket ----


class Opcode(enum.IntEnum):
    """The kinds of WebSocket frames that the hub sends (RFC 6455, section 5.2)."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Format(enum.StrEnum):
    """How messages look on a WebSocket; named as its subprotocol."""

    JSON = "hub.v1.json"
    MSGPACK = "hub.v1.msgpack"


CLOSE_CODES = {
    "client": 1000,
    "complete": 1000,
    "shutdown": 1001,
    "draining": 1012,
    "capacity": 1013,
    "auth_unavailable": 1013,
    "log_unavailable": 1013,
}
"""The close code for each reason of `hub.close`; for all others, which say that there is no right, it is 1008."""
NOT_ALLOWED = 1008


def frame(opcode: Opcode, payload: bytes, *, compressed: bool = False) -> bytes:
    """Return one unmasked, final frame (RFC 6455, section 5.2); *compressed* says that its payload is."""
    first, size = 0x80 | (0x40 if compressed else 0) | opcode, len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame with *code* and *reason*, a text of which at most 123 bytes are sent."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)


PING = frame(Opcode.PING, b"")


@dataclass(frozen=True)
class Messages(ObjectEncoding):
    """Messages of a WebSocket, each in one frame.

    Attributes:
        format: what is in a frame.
        deflate: frames of 256 bytes and more are compressed, each by itself (RFC 7692, without context takeover).
        ids: notifications have their ids.
    """

    format: Format = Format.JSON
    deflate: bool = False
    ids: bool = True

    def without_ids(self) -> Messages:
        """Return the encoding in which a notification says `earlier` for `id`."""
        return replace(self, ids=False)

    def carried(self, *objects: str) -> bytes:
        """Return a frame for each of *objects*."""
        if self.format is Format.JSON:
            return b"".join([self._framed(Opcode.TEXT, each.encode()) for each in objects])
        return b"".join([self.message(json.loads(each)) for each in objects])

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        """Return the frame of *notification*; in msgpack binary data is as it is."""
        if self.format is Format.JSON:
            return super().notification(notification, topics)
        facts = {"op": "notification", "id" if self.ids else "earlier": notification.id, "topics": list(topics)}
        if notification.type is not None:
            facts["type"] = notification.type
        if notification.retry is not None:
            facts["retry"] = notification.retry  # type: ignore[assignment]  # the members have different types
        return self.message({**facts, "data": with_bytes(notification.data)})

    def heartbeat(self, newest: Position) -> bytes:
        """Return `hub.heartbeat` with the id of *newest*, and a ping, which the client's library answers."""
        return _heartbeat_frames(self, newest)

    def end(self, end: End) -> bytes:
        """Return `hub.close` and a close frame with the code for its reason."""
        return super().end(end) + close_frame(CLOSE_CODES.get(end.reason, NOT_ALLOWED), end.reason)

    def message(self, said: Mapping[str, object]) -> bytes:
        """Return the frame of any message."""
        if self.format is Format.JSON:
            return self._framed(Opcode.TEXT, compact_json(said).encode())
        return self._framed(Opcode.BINARY, _packed(said))

    def _framed(self, opcode: Opcode, payload: bytes) -> bytes:
        if not self.deflate or len(payload) < LEAST_COMPRESSED:
            return frame(opcode, payload)
        deflate = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
        packed = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_EMPTY_BLOCK)
        return frame(opcode, packed, compressed=True)


@lru_cache(maxsize=16)  # thousands of connections get the same one in one sweep
def _heartbeat_frames(messages: Messages, newest: Position) -> bytes:
    return messages.carried(_heartbeat(newest)) + PING


def _packed(value: object) -> bytes:
    """Return *value* as msgpack; whole numbers beyond 64 bits become floats, as in JavaScript."""
    pack = _packer()
    try:
        return pack(value)
    except OverflowError:
        return pack(_with_floats(value))


@lru_cache(maxsize=1)
def _packer() -> Callable[[object], bytes]:
    import msgpack  # noqa: PLC0415 - an extra

    return cast(Callable[[object], bytes], msgpack.packb)


def _with_floats(value: object) -> object:
    if isinstance(value, dict):
        return {name: _with_floats(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_floats(each) for each in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        try:
            return float(value)
        except OverflowError:
            return math.copysign(math.inf, value)
    return value


def formats() -> tuple[Format, ...]:
    """Return the formats that can be spoken with what is installed, the usual one first."""
    try:
        import msgpack  # noqa: PLC0415, F401 - an extra
    except ImportError:
        return (Format.JSON,)
    return (Format.JSON, Format.MSGPACK)


# ---- binary data ----


def with_bytes(data: Any) -> Any:
    """Return *data* as msgpack carries it: the bytes of binary data, anything else as it is."""
    if data.__class__ is dict and data.keys() == {"base64"} and isinstance(data["base64"], str):
        try:
            return base64.b64decode(data["base64"], validate=True)
        except (binascii.Error, ValueError):
            return data
    return data
