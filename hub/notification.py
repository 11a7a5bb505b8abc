"""Notifications: a draft, the position that the log gives it, and the notification made of both."""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hub.errors import InvalidDraft, TooLarge
from hub.eventstream import JsonDefault, block, chunk, compact_json, plain_text, unchunk
from hub.names import hint
from hub.topics import DEFAULT_TOPIC, MAX_TOPICS_PER_NOTIFICATION, check_topic

MAX_DATA_BYTES = 1024 * 1024
# A page of the history adds three levels. The strictest JSON reader (that of .NET) accepts 64; Python's own accepts
# about 900, depending on the depth of its call stack.
MAX_DATA_LEVELS = 60
MAX_TYPE_BYTES = 256
MAX_RETRY = 86_400_000
MAX_KEY_LENGTH = 256
MAX_TAGS = 32
MAX_TAG_LENGTH = 256
MAX_OFFSET = 10**18 - 1

# The constructors `Draft(…)` and `Notification(…)` are Python functions, which is slower: every publish calls both.
made = tuple.__new__

_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_POSITION = re.compile(r"([A-Za-z0-9]{1,32})-(0|[1-9][0-9]{0,17})", re.ASCII)
# Bytes that a notification takes beside its texts and its frame: CPython's objects, and their entries in the log. The
# names of its topics, and their index, are counted where they are kept: once, however many notifications share them.
_OVERHEAD = 400
_OVERHEAD_PER_TOPIC = 18
_OVERHEAD_OF_TAGS = 160
_OVERHEAD_PER_TAG = 120
_OVERHEAD_OF_TYPE = 56


class Position(NamedTuple):
    """The place of a notification in the log. A new epoch means that the log was lost.

    Offsets of one epoch begin at 1 and only increase; 0 is the position before the first notification.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that *text* (`epoch-offset`) names, or None if no hub can have written it."""
        match = _POSITION.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None


def new_epoch() -> str:
    """Return a random epoch, different from that of any other log."""
    return secrets.token_hex(5)


class Draft(NamedTuple):
    """A notification that the log has not accepted yet; its fields have been checked.

    `text` is what is sent as `data`: the string as it was given, or compact JSON (then `is_json` is true).
    """

    topics: tuple[str, ...]
    text: str
    is_json: bool
    type: str | None = None
    retry: int | None = None
    private: bool = False
    tags: Mapping[str, Any] | None = None
    key: str | None = None

    @classmethod
    def of(
        cls,
        data: object,
        *,
        topic: str | None = None,
        topics: Iterable[str] | None = None,
        type: str | None = None,
        retry: int | None = None,
        private: bool = False,
        tags: Mapping[str, Any] | None = None,
        key: str | None = None,
        json_default: JsonDefault | None = None,
    ) -> Draft:
        """Check the fields and return them as a draft.

        Args:
            data: a string is sent as it is, bytes as `{"base64": …}`, anything else as compact JSON; at most 1 MiB
                encoded, and 60 levels of lists and objects. What pydantic can turn into JSON (`datetime`, `UUID`,
                dataclasses, models and more) is accepted too.
            topic: one topic; with *topics*, their union in this order; with neither, `notifications`.
            topics: several topics; at most 16 together with *topic*.
            type: the SSE event type; at most 256 bytes without control characters, not `error`, not `hub.…`.
            retry: the reconnection time in milliseconds, 0 to 86,400,000, sent to every receiver.
            private: only readers see it who asked for one of its topics and were granted that one.
            tags: up to 32 short scalar values by name, stored with the notification and not sent.
            key: idempotency key, 1 to 256 characters.
            json_default: called with each object in *data* that pydantic does not know; returns a value to send
                instead.

        Raises:
            InvalidTopic, InvalidDraft: a field breaks its rule; the error names both.
            TooLarge: *data* exceeds its bound.
        """
        # A member of a StrEnum is a string too, but the logs accept only plain strings.
        text = data if data.__class__ is str else plain_text(data) if isinstance(data, str) else None
        return made(
            cls,
            (
                (check_topic(topic),) if topics is None and topic.__class__ is str else _topics(topic, topics),
                _bounded(_json(data, json_default) if text is None else text),
                text is None,
                None if type is None else _type(type),
                None if retry is None else _retry(retry),
                private if private is False else _private(private),
                None if tags is None else _tags(tags),
                None if key is None else _key(key),
            ),
        )

    @classmethod
    def from_json(cls, fields: object) -> Draft:
        """Return the draft with *fields*, a decoded JSON object.

        Raises:
            InvalidTopic, InvalidDraft: a field is unknown or breaks its rule; the error names both.
            TooLarge: `data` exceeds its bound.
        """
        if not isinstance(fields, dict):
            raise InvalidDraft("body", "a draft is a JSON object")
        if not fields.keys() <= _FIELDS:
            unknown = min(fields.keys() - _FIELDS)
            there_are = f"a draft has {', '.join(sorted(_FIELDS))}"
            raise InvalidDraft(_shown(unknown), f"unknown field; {hint(unknown, _FIELDS)}{there_are}")
        if "data" not in fields:
            raise InvalidDraft("data", "is required")
        return cls.of(**fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a publish over HTTP has them: what `from_json` takes."""
        data = json.loads(self.text) if self.is_json else self.text
        others = {name: value for name, value in self._asdict().items() if name in _FIELDS and value}
        retry = {} if self.retry is None else {"retry": self.retry}  # 0 is a time, too
        return others | retry | {"topics": list(self.topics), "data": data}


_FIELDS = frozenset({"topic", "topics", "data", "type", "retry", "private", "tags", "key"})


def _shown(name: str) -> str:
    return ascii(name)[1:-1][:80]


def _json(data: object, default: JsonDefault | None) -> str:
    if isinstance(data, bytes | bytearray | memoryview):
        return f'{{"base64":"{base64.b64encode(data).decode()}"}}'
    try:
        text = compact_json(data, default)
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError) as error:
        raise InvalidDraft("data", f"is not JSON: {str(error)[:200]}") from None
    # Skip texts that are too short for so many brackets or have one pair only (most do), and those that are too large:
    # the caller refuses them anyway.
    if 2 * MAX_DATA_LEVELS < len(text) <= MAX_DATA_BYTES and (text.find("{", 1) > 0 or text.find("[", 1) > 0):
        _check_levels(text)
    return text


def _check_levels(text: str) -> None:
    """Raise `InvalidDraft` if lists and objects in *text*, which is compact JSON, are nested too deeply."""
    if text.count("[") + text.count("{") <= MAX_DATA_LEVELS:
        return
    outside_strings = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    brackets = outside_strings.encode().translate(_ONE_KIND, _BUT_BRACKETS)
    for _ in range(MAX_DATA_LEVELS):
        brackets = brackets.replace(b"[]", b"")  # removes the innermost level
    if brackets:
        raise _too_deep()


def _too_deep() -> InvalidDraft:
    return InvalidDraft("data", f"has lists or objects more than {MAX_DATA_LEVELS} deep in each other")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bounded(text: str) -> str:
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidDraft("data", "is not valid UTF-8 text: it has a lone surrogate") from None
    if size > MAX_DATA_BYTES:
        raise TooLarge("data", MAX_DATA_BYTES)
    return text


def _topics(topic: str | None, topics: Iterable[str] | None) -> tuple[str, ...]:
    if topics is None:
        return (DEFAULT_TOPIC,) if topic is None else (plain_text(check_topic(topic)),)
    if isinstance(topics, str | bytes | Mapping) or not isinstance(topics, Iterable):
        raise InvalidDraft("topics", "is not a list of topics")
    union = list(topics) if topic is None else [topic, *topics]
    if not union:
        raise InvalidDraft("topics", "is empty")
    checked: dict[str, None] = {}
    for each in union:
        checked[plain_text(check_topic(each, "topics"))] = None
        if len(checked) > MAX_TOPICS_PER_NOTIFICATION:  # before the next one: a megabyte has very many
            raise InvalidDraft("topics", f"has more than {MAX_TOPICS_PER_NOTIFICATION} topics")
    return tuple(checked)


def _type(type: object) -> str:
    why = ""
    if not isinstance(type, str) or not type:
        why = "is not a string with at least one character"
    elif _CONTROL.search(type):
        why = "has a control character"
    elif type.startswith("hub."):
        why = "begins with 'hub.', which is the hub's own"
    elif not _is_utf8(type):
        why = "is not valid UTF-8 text: it has a lone surrogate"
    elif type == "error":
        why = "is 'error', which a browser reserves for a lost connection"
    else:
        why = f"is longer than {MAX_TYPE_BYTES} bytes" if len(type.encode()) > MAX_TYPE_BYTES else ""
    if why or not isinstance(type, str):
        raise InvalidDraft("type", why)
    return type if type.__class__ is str else plain_text(type)


def _retry(retry: object) -> int:
    if not isinstance(retry, int) or isinstance(retry, bool) or not 0 <= retry <= MAX_RETRY:
        raise InvalidDraft("retry", f"is not a whole number of milliseconds from 0 to {MAX_RETRY:,}")
    return int(retry)


def _private(private: object) -> bool:
    if not isinstance(private, bool):
        raise InvalidDraft("private", "is neither true nor false")
    return private


def _key(key: object) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidDraft("key", f"is not a string of 1 to {MAX_KEY_LENGTH} characters")
    if not _is_utf8(key):
        raise InvalidDraft("key", "is not valid UTF-8 text: it has a lone surrogate")
    return plain_text(key)


def _tags(tags: object) -> Mapping[str, Any]:
    if not isinstance(tags, Mapping) or len(tags) > MAX_TAGS:
        raise InvalidDraft("tags", f"is not an object with at most {MAX_TAGS} entries")
    for name, value in tags.items():
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_TAG_LENGTH:
            raise InvalidDraft("tags", f"has a name that is not a string of 1 to {MAX_TAG_LENGTH} characters")
        if value is not None and not isinstance(value, str | int | float | bool):
            raise InvalidDraft("tags", f"{_shown(name)} is not a string, number, true, false or null")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidDraft("tags", f"{_shown(name)} is not a finite number, which JSON has no word for")
        if isinstance(value, str) and len(value) > MAX_TAG_LENGTH:
            raise InvalidDraft("tags", f"{_shown(name)} is longer than {MAX_TAG_LENGTH} characters")
        if not _is_utf8(f"{name}{value}"):
            raise InvalidDraft("tags", f"{_shown(name)} is not valid UTF-8 text: it has a lone surrogate")
    return dict(tags)


class Notification(NamedTuple):
    """An accepted draft: it has a position and an SSE frame, and never changes.

    `chunk` is the frame with HTTP/1.1 chunk framing, encoded once and written unchanged to every receiver.
    """

    position: Position
    topics: tuple[str, ...]
    text: str
    is_json: bool
    chunk: bytes
    at: float
    type: str | None = None
    retry: int | None = None
    private: bool = False
    tags: Mapping[str, Any] | None = None

    @classmethod
    def accept(cls, draft: Draft, position: Position, at: float, topics: tuple[str, ...] | None = None) -> Notification:
        """Return *draft* as a notification with *position*; *at* is the time of acceptance in seconds since 1970.

        *topics* may give the topics of the draft again, as string objects that the log has already, to save memory.
        """
        own, text, is_json, type, retry, private, tags, _ = draft
        frame = block(text, type=type, id=f"{position[0]}-{position[1]}", retry=retry)
        return made(cls, (position, topics or own, text, is_json, chunk(frame), at, type, retry, private, tags))

    @property
    def id(self) -> str:
        """The SSE id: `epoch-offset`."""
        return str(self.position)

    @property
    def data(self) -> Any:
        """The data that was sent, decoded anew at each access, so that a change to it affects nobody else."""
        return json.loads(self.text) if self.is_json else self.text

    @property
    def frame(self) -> bytes:
        """The SSE block without chunk framing."""
        return unchunk(self.chunk)

    def envelope(self, topic: str) -> bytes:
        """Return the chunk for a receiver that asked for envelopes; *topic* is the topic that it subscribed to."""
        return chunk(block(self.enveloped(topic), type=self.type, id=self.id, retry=self.retry))

    def enveloped(self, topic: str) -> str:
        """Return the data of that chunk."""
        inner = self.text if self.is_json else compact_json(self.text)
        return f'{{"topic":{compact_json(topic)},"data":{inner}}}'

    @property
    def size(self) -> int:
        """Memory in bytes that it takes in a log, without its topics, which it shares with others."""
        _, topics, text, _, chunk, _, type, _, _, tags = self
        size = _OVERHEAD + _OVERHEAD_PER_TOPIC * len(topics) + len(chunk) + _text_size(text)
        if type is not None:
            size += _OVERHEAD_OF_TYPE + _text_size(type)
        return size + _tags_size(tags) if tags else size


def _text_size(text: str) -> int:
    """Return the bytes of *text* in memory: CPython uses 1, 2 or 4 for each character, as the widest one needs."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode("latin-1"))
    except UnicodeEncodeError:
        twice = 2 * len(text)
        return twice if len(text.encode("utf-16-le")) == twice else 2 * twice


def _tags_size(tags: Mapping[str, Any]) -> int:
    texts = [*tags, *(value for value in tags.values() if isinstance(value, str))]
    return _OVERHEAD_OF_TAGS + _OVERHEAD_PER_TAG * len(tags) + sum(map(_text_size, texts))
