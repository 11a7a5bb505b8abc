"""The schemas of messages: the lines of NDJSON, and what goes over a WebSocket in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hub.connections.client_stream import CloseReason
from hub.encoding import GapReason, Limit
from hub.topics import MAX_TOPICS_PER_SUBSCRIPTION
from hub.web.openapi.schemas import ENDS, SCHEMAS, Schema, fields, items, ref, text, used, whole
from hub.web.query import MOST_ON_A_PAGE, ON_A_PAGE

_RETRY = whole("milliseconds after which a client that loses the connection comes back")
_TOPICS = items(ref("TopicOrPattern"), "all that it has now")
_GAP = {
    "reason": {"enum": [*GapReason], "description": "why something is missing"},
    "oldest": {**ref("Id"), "description": "the oldest that is kept"},
}
_LIMITS = {"enum": [*Limit, "refuse_rate"], "description": "the limit that leaves no room"}
_SENT = {
    "topics": items(ref("Topic"), "through which the reader sees it"),
    "data": {"description": 'any JSON; binary data as `{"base64": …}`, over `hub.v1.msgpack` as `bin`'},
}
_WITH = {"type": text("if it has one"), "retry": whole("milliseconds, if it has a time")}


def _said(
    op: str, required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: object
) -> Schema:
    return fields({"op": {"const": op}, **required}, optional, **more)


def _without_op(message: Schema) -> Schema:
    members = {name: each for name, each in message["properties"].items() if name != "op"}
    return {**message, "properties": members, "required": [each for each in message["required"] if each != "op"]}


def _with_type(notification: Schema) -> Schema:
    """Return the schema of *notification* where one without a type says `null`."""
    members = {**notification["properties"], "type": {"type": ["string", "null"]}}
    return {**notification, "properties": members, "required": [*notification["required"], "type"]}


_LINES: dict[str, Schema] = {
    "MessageOpen": _said(
        "hub.open",
        {
            "connection": text("its id"),
            "topics": _TOPICS,
            "recovered": {"type": ["boolean", "null"], "description": "false: something is missing"},
            "retry": _RETRY,
        },
        {
            "id": {**ref("Id"), "description": "everything after it follows; a WebSocket without topics has none"},
            **_GAP,
        },
    ),
    "MessageNotification": {
        "oneOf": [
            _said("notification", {"id": ref("Id"), **_SENT}, _WITH),
            _said(
                "notification",
                {"earlier": {**ref("Id"), "description": "its id, which moves no cursor"}, **_SENT},
                _WITH,
                description="one of an added topic that is older than what the client has",
            ),
        ]
    },
    "MessageTopics": _said(
        "hub.topics",
        {"topics": _TOPICS, "from": {**ref("Id"), "description": "where the added ones begin"}},
        {"recovered": {"const": False}, **_GAP},
    ),
    "MessageGap": _said("hub.gap", {"recovered": {"const": False}, **_GAP}),
    "MessageDropped": _said("hub.dropped", {"dropped": whole(least=1), "after": ref("Id"), "before": ref("Id")}),
    "MessagePresence": _said(
        "hub.presence", {"topic": ref("Topic"), "count": whole("how many")}, {"users": items(ref("Present"))}
    ),
    "MessageJoin": _said("hub.join", {"topic": ref("Topic"), "user": text("its id")}, {"info": {"type": "object"}}),
    "MessageLeave": _said("hub.leave", {"topic": ref("Topic"), "user": text("its id")}, {"info": {"type": "object"}}),
    "MessageHeartbeat": _said("hub.heartbeat", {"id": {**ref("Id"), "description": "the new cursor"}}),
    "MessageClose": _said(
        "hub.close",
        {
            "reason": {"enum": list(dict.fromkeys([*ENDS, CloseReason.UNAUTHORIZED])), "description": "why it ends"},
            "retry": _RETRY,
        },
        {"limit": _LIMITS},
    ),
}
_REF = {"ref": {"type": ["string", "integer"], "maxLength": 256, "description": "the answer repeats it"}}
_ANSWERS: dict[str, Schema] = {
    "MessageOk": _said(
        "ok",
        {},
        {
            **_REF,
            "user": {"type": ["string", "null"], "description": "of `auth`: who speaks"},
            "topics": items(ref("TopicOrPattern")),
            "from": ref("Id"),
            "id": ref("Id"),
            "repeated": {"const": True, "description": "of `publish`: the key was used before"},
            "room": text(),
            "left": {"type": "boolean", "description": "of `leave`: there was a membership"},
            "topic": ref("Topic"),
            "count": whole(),
            "users": items(ref("Present")),
            "next": {"type": ["string", "null"]},
        },
    ),
    "MessageError": _said(
        "error",
        {
            "code": text("a word for programs"),
            "status": whole("as over HTTP", least=400),
            "detail": text("a sentence for people"),
        },
        {
            **_REF,
            "field": text("which one is wrong"),
            "topic": text("the first that may not be used"),
            "limit": text("the setting that says how many there may be"),
            "outcome": {"enum": ["not_kept", "unknown"]},
            "retryAfter": whole("seconds"),
        },
    ),
}
_DRAFT = SCHEMAS["Draft"]["properties"]
_ROOM = {"room": text("its id; the topic is `room/{id}`")}
_WANTED = items(ref("TopicOrPattern"), maxItems=MAX_TOPICS_PER_SUBSCRIPTION)
_ASKED: dict[str, Schema] = {
    "AskAuth": _said("auth", {"token": text()}, _REF),
    "AskSubscribe": _said(
        "subscribe",
        {},
        {**_REF, "topics": ref("Topics"), "lastEventId": text("an id, `earliest` or `latest`; none: only what is new")},
    ),
    "AskUnsubscribe": _said("unsubscribe", {"topics": {**_WANTED, "minItems": 1}}, _REF),
    "AskPublish": _said(
        "publish", {"data": _DRAFT["data"]}, {**_REF, **{name: each for name, each in _DRAFT.items() if name != "data"}}
    ),
    "AskJoin": _said("join", _ROOM, {**_REF, "publish": {"type": "boolean", "default": False}}),
    "AskLeave": _said("leave", _ROOM, _REF),
    "AskPresence": _said(
        "presence",
        {"topic": ref("Topic")},
        {**_REF, "after": text(), "limit": whole(least=1, maximum=MOST_ON_A_PAGE, default=ON_A_PAGE)},
    ),
    "AskPing": _said("ping", {}, _REF),
}
_POLLED = fields(
    {
        "notifications": items(
            {"oneOf": [_with_type(_without_op(each)) for each in _LINES["MessageNotification"]["oneOf"]]}
        ),
        "cursor": {"anyOf": [ref("Id"), {"type": "null"}], "description": "the `lastEventId` of the next poll"},
    },
    {
        "gap": _without_op(_LINES["MessageGap"]),
        "close": _without_op(_LINES["MessageClose"]),
    },
)
MESSAGES: dict[str, Schema] = {
    "Polled": _POLLED,
    **_LINES,
    **_ANSWERS,
    **_ASKED,
    "Message": {"oneOf": [ref(name) for name in _LINES], "description": "a line of a stream as NDJSON"},
    "FromHub": {
        "oneOf": [ref(name) for name in (*_LINES, *_ANSWERS)],
        "description": "what the hub says over a WebSocket",
    },
    "FromClient": {"oneOf": [ref(name) for name in _ASKED], "description": "what a client says over a WebSocket"},
}


def websocket_schema() -> dict[str, Any]:
    """Return the JSON Schema of all that goes over a WebSocket, in one document."""
    both = {"oneOf": [ref("FromClient"), ref("FromHub")]}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages over /notifications/ws, subprotocols hub.v1.json and hub.v1.msgpack",
        **both,
        "$defs": used(both, SCHEMAS | MESSAGES),
    }
    return json.loads(json.dumps(schema).replace("#/components/schemas/", "#/$defs/"))  # type: ignore[no-any-return]
