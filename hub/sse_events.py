"""Drafts from the events of other libraries: `datastar-py`, `sse-starlette`, FastAPI and the like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from hub.errors import InvalidDraft
from hub.eventstream import Decoder
from hub.notification import Draft

_BYTES = (bytes, bytearray, memoryview)


class _Fields(NamedTuple):
    data: object
    type: str | None
    retry: int | None


def from_sse(
    event: object,
    *,
    topic: str | None = None,
    topics: Iterable[str] | None = None,
    private: bool = False,
    tags: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> list[Draft]:
    """Return the drafts of *event*, for `NotificationService.publish`: one for each event in it, in order.

    Args:
        event: text or bytes in the SSE format, with any number of events, of which the last needs no empty line; or an
            object, or a mapping, with `data` and optionally `event` (or `type`) and `retry`; or an iterable of these.
            Text without data (a comment, a heartbeat) and an object whose data is None are no events: browsers ignore
            them. An `id` is ignored, because a notification has the id that the hub gives it.
        topic: one topic of each draft; with *topics*, their union; with neither, `notifications`.
        topics: several topics of each.
        private: only readers see it who asked for one of its topics and were granted that one.
        tags: short scalar values by name, stored with each and not sent.
        key: idempotency key of the first draft; the others have it with `#1`, `#2`, … behind it.

    Raises:
        InvalidTopic, InvalidDraft: a field breaks its rule, or *event* is none of these; an async iterable is none.
        TooLarge: the data of an event exceeds its bound.
    """
    wanted = None if topics is None else tuple(topics)  # an iterator would be used up by the first draft
    return [
        Draft.of(
            fields.data,
            topic=topic,
            topics=wanted,
            type=fields.type,
            retry=fields.retry,
            private=private,
            tags=tags,
            key=f"{key}#{place}" if key is not None and place else key,
        )
        for place, fields in enumerate(_events(event))
    ]


def _events(event: object) -> Iterator[_Fields]:
    if isinstance(event, str):
        yield from _decoded(_encoded(event))
    elif isinstance(event, _BYTES):
        yield from _decoded(bytes(event))
    elif isinstance(event, Mapping):
        yield from _of_fields(event)
    elif hasattr(event, "data"):
        names = ("data", "event", "type", "retry", "raw_data")
        yield from _of_fields({name: getattr(event, name, None) for name in names})
    elif isinstance(event, Iterable):
        for each in event:
            yield from _events(each)
    else:
        raise InvalidDraft("event", f"is {type(event).__name__}, which is neither text nor has it data")


def _decoded(text: bytes) -> Iterator[_Fields]:
    decoder = Decoder()
    for message in decoder.feed(text + b"\n\n"):
        retry, decoder.retry = decoder.retry, None
        yield _Fields(message.data, _type(message.type), retry)


def _of_fields(fields: Mapping[str, Any]) -> Iterator[_Fields]:
    data = fields.get("data")
    if data is None:
        data = fields.get("raw_data")  # FastAPI's name for data that is sent as it is
    if data is not None:
        if isinstance(data, _BYTES):
            data = _utf8(bytes(data))
        yield _Fields(data, _type(fields.get("event") or fields.get("type")), fields.get("retry"))


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidDraft("event", "is not valid UTF-8 text: it has a lone surrogate") from None


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidDraft("data", "is not UTF-8") from None


def _type(type: str | None) -> str | None:
    return None if type == "message" else type or None  # a browser takes a block without a type as `message`
