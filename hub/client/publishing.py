"""What is published: drafts as bodies of requests, in batches, each with a key so that no retry publishes it twice."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hub.client.errors import ClientError
from hub.client.steps import Answer, Ask, Chance, Steps, persistent
from hub.errors import InvalidDraft
from hub.eventstream import JsonDefault, compact_json
from hub.notification import Position

PATH = "/notifications/publish"
MAX_DRAFTS = 1_000
MAX_BODY_BYTES = 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Batch(NamedTuple):
    """One request.

    Attributes:
        body: JSON: a draft, or a list of drafts.
        number: how many they are; None: one, not in a list.
    """

    body: bytes
    number: int | None


def draft_fields(
    data: object,
    *,
    topic: str | None,
    topics: Iterable[str] | None,
    type: str | None,
    retry: int | None,
    private: bool,
    tags: Mapping[str, Any] | None,
    key: str | None,
) -> dict[str, object]:
    """Return a draft as the hub takes it over HTTP: only what was said."""
    if topics is not None:
        topics = [topics] if isinstance(topics, str) else list(topics)
    fields = {"topic": topic, "topics": topics, "type": type, "retry": retry, "tags": tags, "key": key}
    said: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
    return {**said, **({"private": private} if private else {}), "data": data}


def one(fields: Mapping[str, object], json_default: JsonDefault | None) -> Batch:
    """Return the request for a single draft."""
    return Batch(_encoded(fields, json_default), None)


def batches(drafts: Iterable[Mapping[str, object]], json_default: JsonDefault | None) -> Iterator[Batch]:
    """Yield the requests for *drafts*: each has up to 1,000, and no more bytes than the hub takes.

    A draft that is too large by itself goes alone, and the hub says so.
    """
    bodies: list[bytes] = []
    size = 0
    for place, fields in enumerate(drafts):
        if not isinstance(fields, Mapping):
            raise InvalidDraft(f"[{place}]", "is not a draft: a mapping such as {'topic': …, 'data': …}")
        try:
            body = _encoded(fields, json_default)
        except InvalidDraft as error:
            raise InvalidDraft(f"[{place}].{error.field}", error.why) from None
        if bodies and (len(bodies) == MAX_DRAFTS or size + len(body) + 2 > MAX_BODY_BYTES):
            yield Batch(b"[%b]" % b",".join(bodies), len(bodies))
            bodies, size = [], 0
        bodies.append(body)
        size += len(body) + 1
    if bodies:
        yield Batch(b"[%b]" % b",".join(bodies), len(bodies))


def _encoded(fields: Mapping[str, object], json_default: JsonDefault | None) -> bytes:
    if fields.get("key") is None:
        fields = {**fields, "key": secrets.token_urlsafe(18)}
    try:
        return compact_json(fields, json_default).encode()
    except RecursionError:
        raise InvalidDraft("data", "is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise InvalidDraft("data", f"is not JSON: {str(error)[:200]}") from None


def publish_one(batch: Batch, patience: float, chance: Chance) -> Steps[Position]:
    """Return the position of the single draft in *batch*."""
    (position,) = yield from _publish(batch, patience, chance)
    return position


def publish_all(batches: Iterable[Batch], patience: float, chance: Chance) -> Steps[list[Position]]:
    """Return the positions of all drafts in *batches*, sent one after the other.

    An error has the positions of those that were accepted before.
    """
    positions: list[Position] = []
    try:
        for batch in batches:
            positions += yield from _publish(batch, patience, chance)
    except (ClientError, InvalidDraft) as error:  # a draft that is none is found when those before are published
        error.accepted = tuple(positions)
        raise
    return positions


def _publish(batch: Batch, patience: float, chance: Chance) -> Steps[Sequence[Position]]:
    def once(token: str | None) -> Steps[Sequence[Position]]:
        answer = yield Ask("POST", PATH, token, batch.body, {"Content-Type": "application/json"}, most=MAX_ANSWER_BYTES)
        return _positions(answer, batch.number)

    return (yield from persistent(once, patience, chance))


def _positions(answer: Answer, number: int | None) -> list[Position]:
    """Return the positions in *answer* to a publish of *number* drafts (None: one, not in a list)."""
    facts = answer.facts(200, 201)
    each = [facts] if number is None else facts
    if not isinstance(each, list) or len(each) != (1 if number is None else number):
        raise answer.not_a_hub()
    positions = [Position.parse(str(fact.get("id"))) if isinstance(fact, dict) else None for fact in each]
    found = [position for position in positions if position is not None]
    if len(found) != len(positions):
        raise answer.not_a_hub()
    return found
