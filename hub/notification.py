"""What travels: a draft, the position the log gives it, and the notification they make together."""

from __future__ import annotations

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
# A page of the history puts three levels around it. The JSON reader with the narrowest bound takes 64 (.NET's);
# Python's own takes about 900, depending on how deep in its calls it is.
MAX_DATA_LEVELS = 60
MAX_TYPE_BYTES = 256
MAX_RETRY = 86_400_000
MAX_KEY_LENGTH = 256
MAX_TAGS = 32
MAX_TAG_LENGTH = 256
MAX_OFFSET = 10**18 - 1

# `Draft(…)` and `Notification(…)` would go through a function in Python: every publish makes one of each.
made = tuple.__new__

_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_POSITION = re.compile(r"([A-Za-z0-9]{1,32})-(0|[1-9][0-9]{0,17})", re.ASCII)
# What a notification costs beside its texts and its frame: the objects of CPython, and their place in the log. The
# names of its topics, and the index of those, are counted where they are kept: once, however many use them.
_OVERHEAD = 400
_OVERHEAD_PER_TOPIC = 18
_OVERHEAD_OF_TAGS = 160
_OVERHEAD_PER_TAG = 120
_OVERHEAD_OF_TYPE = 56


class Position(NamedTuple):
    """Where a notification stands in the log. A new epoch means the log was lost.

    Offsets of one epoch begin at 1 and only grow; 0 stands before the first.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that *text* names, or None if no hub can have written it."""
        match = _POSITION.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None


def new_epoch() -> str:
    """Return an epoch that no other log has."""
    return secrets.token_hex(5)


class Draft(NamedTuple):
    """A notification not yet accepted; everything in it has been checked.

    `text` is what goes out as `data`: the string as it was given, or compact JSON (then `is_json` is true).
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
            data: a string goes out as it is, anything else as compact JSON; at most 1 MiB encoded, and 60 levels of
                lists and objects. What pydantic can turn into JSON (`datetime`, `UUID`, dataclasses, models and more)
                is taken too.
            topic: one topic; with *topics*, their union in this order; with neither, `notifications`.
            topics: at most 16 altogether.
            type: the SSE event type; at most 256 bytes without control characters, not `error`, not `hub.…`.
            retry: the reconnection time in milliseconds, 0 to 86,400,000, sent along to every receiver.
            private: kept with the notification; only authorization, once there is one, gives it an effect.
            tags: up to 32 short scalar values by name, kept with the notification and not sent.
            key: idempotency key, 1 to 256 characters.
            json_default: returns something that can be sent instead of an object in *data* that pydantic does not know.

        Raises:
            InvalidTopic, InvalidDraft: names the field and its rule.
            TooLarge: *data* is over its bound.
        """
        # Members of a StrEnum and the like are strings too; the logs take nothing but plain ones.
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
        """Return the draft that a decoded JSON object describes.

        Raises:
            InvalidTopic, InvalidDraft: names the field and its rule; unknown fields are refused.
            TooLarge: `data` is over its bound.
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


_FIELDS = frozenset({"topic", "topics", "data", "type", "retry", "private", "tags", "key"})


def _shown(name: str) -> str:
    return ascii(name)[1:-1][:80]


def _json(data: object, default: JsonDefault | None) -> str:
    try:
        text = compact_json(data, default)
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError) as error:
        raise InvalidDraft("data", f"is not JSON: {str(error)[:200]}") from None
    # Most texts are too short for that many brackets, or have but one pair; and what is too large will be told so.
    if 2 * MAX_DATA_LEVELS < len(text) <= MAX_DATA_BYTES and (text.find("{", 1) > 0 or text.find("[", 1) > 0):
        _check_levels(text)
    return text


def _check_levels(text: str) -> None:
    """Check how deep lists and objects stand in each other in *text*, which is compact JSON."""
    if text.count("[") + text.count("{") <= MAX_DATA_LEVELS:
        return
    outside_strings = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    brackets = outside_strings.encode().translate(_ONE_KIND, _BUT_BRACKETS)
    for _ in range(MAX_DATA_LEVELS):
        brackets = brackets.replace(b"[]", b"")  # the innermost level is gone
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
    checked = dict.fromkeys(plain_text(check_topic(each, "topics")) for each in union)
    if len(checked) > MAX_TOPICS_PER_NOTIFICATION:
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
    """An accepted draft: it has a position and its SSE frame, and never changes.

    `chunk` is the frame with its HTTP/1.1 chunk framing, made once and written as it is to every receiver.
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
        """Give *draft* its *position*; *at* is the time of acceptance in seconds since 1970.

        *topics* are those of the draft, if the log has the same strings already.
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
        """What was sent, as a fresh value: changing it changes nothing for anybody else."""
        return json.loads(self.text) if self.is_json else self.text

    @property
    def frame(self) -> bytes:
        """The SSE block without chunk framing."""
        return unchunk(self.chunk)

    def envelope(self, topic: str) -> bytes:
        """Return the chunk for a receiver who asked for envelopes and wants this because of *topic*."""
        inner = self.text if self.is_json else compact_json(self.text)
        data = f'{{"topic":{compact_json(topic)},"data":{inner}}}'
        return chunk(block(data, type=self.type, id=self.id, retry=self.retry))

    @property
    def size(self) -> int:
        """What keeping this costs, in bytes; without the topics themselves, which it shares with others."""
        _, topics, text, _, chunk, _, type, _, _, tags = self
        size = _OVERHEAD + _OVERHEAD_PER_TOPIC * len(topics) + len(chunk) + _text_size(text)
        if type is not None:
            size += _OVERHEAD_OF_TYPE + _text_size(type)
        return size + _tags_size(tags) if tags else size


def _text_size(text: str) -> int:
    """Return what the characters of *text* cost: CPython keeps all of them in 1, 2 or 4 bytes, as the widest needs."""
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
