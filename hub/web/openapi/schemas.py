"""The schemas of the API: JSON Schema 2020-12, as OpenAPI 3.2 has it. A name here is a name in the document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hub.connections.client_stream import CloseReason, StreamKind
from hub.encoding import GapReason, Limit
from hub.errors import (
    AuthUnavailable,
    Forbidden,
    HubError,
    InvalidInput,
    LogUnavailable,
    TooLarge,
    TooManyGenerations,
    TooManyStreams,
    TooOften,
    Unauthorized,
)
from hub.generations.generation import MODEL_LENGTH, Phase
from hub.log.archive.format import VERSION
from hub.metrics import COUNTERS, HISTOGRAMS, HTTP_REQUESTS, OF_WORKERS, STREAMS_ENDED
from hub.notification import MAX_KEY_LENGTH, MAX_RETRY, MAX_TAG_LENGTH, MAX_TAGS, MAX_TYPE_BYTES
from hub.topics import MAX_SEGMENTS, MAX_TOPICS_PER_NOTIFICATION, MAX_TOPICS_PER_SUBSCRIPTION
from hub.web.problems import type_of
from hub.web.stream import Away

Schema = Mapping[str, Any]


def ref(name: str) -> Schema:
    """Return a reference to the schema *name*."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str = "", **more: object) -> dict[str, Any]:
    """Return the schema of a string."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def whole(description: str = "", *, least: int = 0, **more: object) -> dict[str, Any]:
    """Return the schema of a whole number from *least*."""
    return {
        "type": "integer",
        "minimum": least,
        **({"description": description} if description else {}),
        **more,
    }


def items(schema: Schema, description: str = "", **more: object) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, **({"description": description} if description else {}), **more}


def fields(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **more: object) -> Schema:
    """Return the schema of an object that has these members and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def event(
    data: Schema,
    *,
    type: Schema | None = None,
    id: Schema | None = None,
    retry: bool = False,
    optional: tuple[str, ...] = (),
    **more: object,
) -> Schema:
    """Return the schema of one event of a stream, with its fields as they are on the wire.

    Args:
        data: the schema of the data, decoded as JSON.
        type: the schema of the event type; None: the event has none, which is `message` for whoever reads it.
        id: the schema of its id; None: it has none of its own, and for whoever reads it that of the last one that had.
        retry: whether it has a reconnection time.
        optional: the fields that may be absent.
        more: further keywords of the schema.
    """
    optional += ("event",) * (type is None) + ("id",) * (id is None)
    there = {
        "event": type or _UNTYPED,
        "id": id or _LAST_ID,
        **({"retry": _RETRY} if retry else {}),
        "data": data if "contentMediaType" in data else as_text(data),
    }
    return fields(
        {name: schema for name, schema in there.items() if name not in optional},
        {name: schema for name, schema in there.items() if name in optional},
        **more,
    )


def as_text(schema: Schema) -> Schema:
    """Return the schema of a string that holds JSON."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


# ---- words ----

_NUMBER: Schema = {"type": "number", "minimum": 0}
_OF_PROCESSES: Mapping[str, Schema] = {
    "uptime": {**_NUMBER, "description": "seconds since the start"},
    "memory_bytes": whole("memory that the process has in use"),
    "cpu_seconds": {**_NUMBER, "description": "time of processors that it has used"},
    "log_answered_seconds_ago": {**_NUMBER, "description": "0 if the log is in the process"},
}
_SEGMENT, _ANY = r"[^/*\u0000-\u001f]+", r"\*\*?"
_REST = MAX_SEGMENTS - 1
_TIME = {"type": "string", "format": "date-time"}
_RETRY = whole("milliseconds after which a client that loses the stream comes back")
_NULL = {"type": "null"}
_LAST_ID = text("that of the last event that had one")
_UNTYPED = {"const": "message"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}


_GAP_FACTS = {
    "reason": {"enum": [*GapReason], "description": "why something is missing"},
    "oldest": ref("Id"),
}

_WORDS: dict[str, Schema] = {
    "Topic": text(
        "where a notification is addressed: segments with '/' between them, at most 256 bytes",
        minLength=1,
        maxLength=256,
        pattern=f"^{_SEGMENT}(/{_SEGMENT}){{0,{_REST}}}$",
        examples=["orders", "user/42", "room/lobby"],
    ),
    "TopicOrPattern": text(
        "a topic, or a pattern: '*' is exactly one segment, '**' any number; neither in the first place matches "
        "'user', 'room' and 'ai'",
        minLength=1,
        maxLength=256,
        pattern=f"^({_SEGMENT}|{_ANY})(/({_SEGMENT}|{_ANY})){{0,{_REST}}}$",
        examples=["orders/*"],
    ),
    "Id": text(
        "the position of a notification in the log",
        pattern="^[A-Za-z0-9]{1,32}-(0|[1-9][0-9]{0,17})$",
        examples=["8e844e1e90-1042"],
    ),
    "Topics": items(ref("TopicOrPattern"), "none means `notifications`", maxItems=MAX_TOPICS_PER_SUBSCRIPTION),
    "Tags": {
        "type": "object",
        "description": "kept with the notification, not sent to streams",
        "maxProperties": MAX_TAGS,
        "propertyNames": {"minLength": 1, "maxLength": MAX_TAG_LENGTH},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"], "maxLength": MAX_TAG_LENGTH},
    },
}

# ---- notifications ----

_TYPE = text(
    "the SSE event type", minLength=1, maxLength=MAX_TYPE_BYTES, pattern=r"^(?!hub\.)(?!error$)[^\u0000-\u001f\u007f]+$"
)
_DRAFT_RETRY = whole("sent to every receiver, in milliseconds", maximum=MAX_RETRY)
_PRIVATE = {
    "type": "boolean",
    "description": "only for readers who have a grant for one of its topics that they asked for",
}
_DATA = {"description": "any JSON, at most 1 MiB and 60 levels deep"}

_KEPT: dict[str, Schema] = {
    "id": ref("Id"),
    "topics": items(ref("Topic")),
    "data": _DATA,
    "type": _or_null(_TYPE),
    "retry": _or_null(_DRAFT_RETRY),
    "private": _PRIVATE,
    "tags": _or_null(ref("Tags")),
}

_NOTIFICATIONS: dict[str, Schema] = {
    "Draft": fields(
        {"data": _DATA},
        {
            "topic": ref("Topic"),
            "topics": items(
                ref("Topic"),
                "together with `topic`, at most 16; neither means `notifications`",
                minItems=1,
                maxItems=MAX_TOPICS_PER_NOTIFICATION - 1,
            ),
            "type": _or_null(_TYPE),
            "retry": _or_null(_DRAFT_RETRY),
            "private": {**_PRIVATE, "default": False},
            "tags": _or_null(ref("Tags")),
            "key": _or_null(text("the same key sends nothing a second time", minLength=1, maxLength=MAX_KEY_LENGTH)),
        },
        description="a notification that is not accepted yet",
    ),
    "Wanted": fields({}, {"topics": ref("Topics"), "lastEventId": {"type": ["string", "null"]}}),
    "Published": {"anyOf": [ref("Accepted"), items(ref("Accepted"))]},
    "Accepted": fields({"id": ref("Id"), "topics": items(ref("Topic"))}),
    "Notification": fields({**_KEPT, "at": {**_TIME, "description": "when it was accepted"}}),
    "HistoryPage": fields(
        {
            "notifications": items(ref("Notification"), "the oldest first"),
            "next": _or_null(ref("Id")),
            "recovered": {"type": "boolean", "description": "false: something is missing between `after` and `next`"},
        },
        _GAP_FACTS,
    ),
    "ArchiveLine": {
        "description": "a line of an archive: the first, one for each notification, and the last",
        "oneOf": [
            fields({"hub": {"const": "history"}, "version": {"const": VERSION}, "epoch": text()}),
            fields({**_KEPT, "at": {"type": "number", "description": "seconds since 1970"}}),
            fields(
                {
                    "newest": whole("the newest offset"),
                    "notifications": whole("the number of lines between the first and this one"),
                    "lost": fields(
                        {
                            "swept": whole(),
                            "topics": {"type": "object", "additionalProperties": whole()},
                            "forgotten": whole(),
                        },
                        description="the newest offsets that are no longer kept",
                    ),
                }
            ),
        ],
    },
}

# ---- events of a subscription ----

_CODES: Mapping[type[HubError], list[str]] = {
    Unauthorized: ["unauthorized", "token_invalid", "token_expired", "revoked"],
    Forbidden: [Forbidden.code],
    AuthUnavailable: [AuthUnavailable.code],
}
_ENDED_BY = (
    CloseReason.SHUTDOWN,
    CloseReason.REPLACED,
    CloseReason.TOKEN_EXPIRED,
    CloseReason.REVOKED,
    CloseReason.LOG_UNAVAILABLE,
)
ENDS = list(dict.fromkeys([*_ENDED_BY, *Away, *(code for codes in _CODES.values() for code in codes)]))

_CLOSE = fields(
    {"reason": {"enum": ENDS, "description": "why the hub ends the stream, or has none for this client now"}},
    {
        "limit": {"enum": [*Limit, "refuse_rate"], "description": "the limit that leaves no room"},
        "topic": text("the first topic or pattern that may not be read"),
    },
)

_EVENTS: dict[str, Schema] = {
    "Opened": event(
        fields(
            {
                "connection": text("a name for this stream"),
                "topics": items(ref("TopicOrPattern")),
                "recovered": {
                    "type": ["boolean", "null"],
                    "description": "null: no id was given; true: everything after it follows; false: there is a gap",
                },
            },
            _GAP_FACTS,
        ),
        type={"const": "hub.open"},
        id=ref("Id"),
        retry=True,
        description="the first event; everything after it has a greater id",
    ),
    "Gap": event(
        fields({"recovered": {"const": False}, **_GAP_FACTS}),
        type={"const": "hub.gap"},
        description="something that this subscription matches is no longer kept",
    ),
    "TopicsChanged": event(
        ref("Followed"), type={"const": "hub.topics"}, description="the topics of this stream were changed"
    ),
    "Dropped": event(
        fields({"dropped": whole("how many"), "after": ref("Id"), "before": ref("Id")}),
        type={"const": "hub.dropped"},
        description="notifications that were left out because this reader was too slow",
    ),
    "Closed": event(
        _CLOSE,
        type={"const": "hub.close"},
        retry=True,
        description="the last event of a stream that the hub ends, or the only one if it has none for this client now",
    ),
    "Sent": event(
        {
            "type": "string",
            "description": "a string as it was published, anything else as JSON; with `envelope` always JSON: "
            '`{"topic": …, "data": …}`, or `{"topics": […], "data": …}`',
            "contentMediaType": "text/plain",
        },
        type={**_TYPE, "description": "if the notification has a type"},
        id=ref("Id"),
        retry=True,
        optional=("event", "id", "retry"),
        description="a notification; older ones of a topic that was added have no id",
    ),
    "Presence": event(
        fields({"topic": ref("Topic"), "count": whole("how many")}, {"users": items(ref("Present"))}),
        type={"const": "hub.presence"},
        description="with `presence=1`: who is on a topic; only how many, for readers without the right to names",
    ),
    "Joined": event(
        ref("ComesOrGoes"), type={"const": "hub.join"}, description="with `presence=1`: a user has come to a topic"
    ),
    "Left": event(
        ref("ComesOrGoes"), type={"const": "hub.leave"}, description="with `presence=1`: a user is gone from a topic"
    ),
    "SubscriptionEvent": {
        "oneOf": [
            ref("Opened"),
            ref("Sent"),
            ref("TopicsChanged"),
            ref("Presence"),
            ref("Joined"),
            ref("Left"),
            ref("Gap"),
            ref("Dropped"),
            ref("Closed"),
        ],
        "description": "Idle streams also get comments, which are no events, with the newest id.",
    },
}

# ---- answers of an AI ----

_ROLES = fields(
    {"role": text("such as `user`, `assistant` or `system`")},
    {"content": {"type": ["string", "array"]}, "tool_calls": {"type": "array", "minItems": 1}},
    additionalProperties=True,
    anyOf=[{"required": ["content"]}, {"required": ["tool_calls"]}],
)
_PART_ID = text("`sessionId.part`, at the end of the answer `sessionId.part.end`")
_ENDED = {
    "finishReason": _or_null(text()),
    "usage": _or_null({"type": "object"}),
    "reason": text("why the answer failed"),
    "message": text("what went wrong"),
}

_AI: dict[str, Schema] = {
    "Question": {
        "type": "object",
        "description": "one `message`, or the `messages` of a conversation; further members go to the provider",
        "properties": {
            "message": text("the question", minLength=1, pattern=r"\S"),
            "messages": items(_ROLES, "the conversation; the last message is answered", minItems=1, maxItems=1_000),
            "model": text(maxLength=MODEL_LENGTH),
        },
        "oneOf": [{"required": ["message"]}, {"required": ["messages"]}],
    },
    "Begun": fields(
        {
            "sessionId": text(),
            "streamUrl": text("where it can be watched", format="uri-reference"),
            "cancelUrl": text("where it can be stopped", format="uri-reference"),
            "expiresAt": {**_TIME, "description": "the latest time until which it is kept"},
        }
    ),
    "Answer": fields(
        {
            "sessionId": text(),
            "phase": {"enum": [*Phase]},
            "text": text("what there is of it"),
            "lastEventId": text("the id after which a stream goes on"),
            "model": _or_null(text()),
            "createdAt": _TIME,
        },
        _ENDED,
    ),
    "Stopped": fields({"sessionId": text(), "phase": {"enum": [*Phase]}}),
    "AnswerStart": event(
        fields({"sessionId": text(), "model": _or_null(text()), "createdAt": _TIME}),
        type={"const": "start"},
        id=_PART_ID,
        retry=True,
    ),
    "AnswerPart": event(fields({"content": text()}), id=_PART_ID, description="more of the text"),
    "AnswerDone": event(
        fields({"finishReason": _ENDED["finishReason"], "usage": _ENDED["usage"]}), type={"const": "done"}
    ),
    "AnswerFailed": event(fields({"reason": _ENDED["reason"], "message": _ENDED["message"]}), type={"const": "failed"}),
    "AnswerCancelled": event(fields({}), type={"const": "cancelled"}),
    "AnswerFinished": event({"const": "[DONE]", "contentMediaType": "text/plain"}, id=_PART_ID, optional=("id",)),
    "AnswerClose": event(
        fields({"phase": {"enum": [each for each in Phase if each is not Phase.STREAMING]}}),
        type={"const": "close"},
        id=_PART_ID,
        description="the last event",
    ),
    "ForeignPart": event(
        {"type": "object", "anyOf": [{"required": [name]} for name in ("object", "type", "error")]},
        type={"enum": ["message", "hub.close"]},
        id=_PART_ID,
        retry=True,
        optional=("event", "id", "retry"),
        description="with `format=openai` a `chat.completion.chunk`, with `format=ai-sdk` a part of a message",
    ),
    "HtmlPart": event(
        {"type": "string", "contentMediaType": "text/html"},
        type={"enum": ["message", "start", "done", "failed", "cancelled", "close"]},
        id=_PART_ID,
        retry=True,
        optional=("event", "id", "retry"),
        description="with `format=html`: HTML, of which the plain messages are the text",
    ),
    "AnswerEvent": {
        "anyOf": [
            ref(name)
            for name in (
                "AnswerStart",
                "AnswerPart",
                "AnswerDone",
                "AnswerFailed",
                "AnswerCancelled",
                "AnswerFinished",
                "AnswerClose",
                "Closed",
                "ForeignPart",
                "HtmlPart",
            )
        ],
        "description": "Idle streams also get comments, which are no events.",
    },
}

# ---- administration ----

_ADMINISTRATION: dict[str, Schema] = {
    "Stream": fields(
        {
            "id": text(),
            "kind": {"enum": [*StreamKind]},
            "user": _or_null(text()),
            "address": text("the IP address of the client; empty: there is none"),
            "topics": items(ref("TopicOrPattern")),
            "opened": _TIME,
            "delivered": whole(),
            "dropped": whole("left out because its reader was too slow"),
            "buffered": whole("bytes that wait for the client"),
            "lag": whole("how many positions of the log it is behind the newest; 0: nothing waits for it"),
            "worker": text("the process of the hub that it is in"),
        }
    ),
    "TopicsChange": fields(
        {},
        {
            "add": items(ref("TopicOrPattern")),
            "remove": items(text(), "as they were asked for; others are ignored"),
            "after": {
                "type": ["string", "null"],
                "description": "an id, or `earliest`: what was sent to the added topics after it follows too; "
                "`latest`: the newest of each",
            },
        },
    ),
    "Followed": fields(
        {
            "topics": items(ref("TopicOrPattern"), "those that the stream has now"),
            "from": {**ref("Id"), "description": "everything after it follows"},
        }
    ),
    "StreamsPage": fields(
        {
            "connections": items(ref("Stream"), "the oldest first"),
            "next": _or_null(text("the `after` of the next page")),
        }
    ),
    "Present": fields(
        {
            "id": text("the user"),
            "info": {"type": "object", "description": "what others are told of the user"},
            "since": {**_TIME, "description": "when the user came"},
        }
    ),
    "ComesOrGoes": fields(
        {"topic": ref("Topic"), "user": text("its id")},
        {"info": {"type": "object", "description": "what others are told of the user"}},
    ),
    "NewestPosition": fields({"position": ref("Id")}),
    "PresencePage": fields(
        {"topic": ref("Topic"), "count": whole("how many users are there")},
        {"users": items(ref("Present")), "next": _or_null(text("the `after` of the next page"))},
    ),
    "Member": fields(
        {
            "id": text("the user"),
            "publish": {"type": "boolean", "description": "the member may publish to the room, too"},
            "since": {**_TIME, "description": "when the membership began"},
            "from": {**ref("Id"), "description": "what the member reads of the room stands after it"},
        }
    ),
    "MembersPage": fields({"members": items(ref("Member")), "next": _or_null(text("the `after` of the next page"))}),
    "Joining": fields({}, {"publish": {"type": "boolean", "default": False}}),
    "TicketTopics": fields({}, {"topics": ref("Topics")}),
    "NewTicket": fields({"ticket": text(), "expires_in": whole("seconds")}),
    "Statistics": fields(
        {
            "connections": whole("open subscriptions"),
            "streams": fields({kind: whole() for kind in StreamKind}),
            "topics": whole("exact topics that somebody wants"),
            "generations": whole("answers of an AI that are being generated"),
            "viewers": whole("open streams of such answers"),
            "processes": whole("processes of this hub that have answered; the figures are those of all of them"),
            **{name: whole(description) for name, description in COUNTERS.items()},
            "log": _or_null(
                fields(
                    {
                        "epoch": text(),
                        "oldest": ref("Id"),
                        "newest": ref("Id"),
                        "count": whole("notifications kept"),
                        "bytes": whole("bytes kept, everything counted"),
                    }
                )
            ),
            "draining": {"type": "boolean"},
            "streams_limit": whole("client streams that may be open; 0: no limit"),
            "streams_ended": {"type": "object", "additionalProperties": whole(), "description": STREAMS_ENDED},
            **{name: {**ref("Histogram"), "description": description} for name, description in HISTOGRAMS.items()},
            "http_request_seconds": {
                "type": "object",
                "additionalProperties": ref("Histogram"),
                "description": HTTP_REQUESTS,
            },
            **_OF_PROCESSES,
            "workers": {
                "type": "object",
                "additionalProperties": fields(
                    {
                        "streams": whole(),
                        **{name: whole() for name in COUNTERS},
                        **{name: ref("Histogram") for name in OF_WORKERS},
                        "http_requests": {"type": "object", "additionalProperties": whole()},
                        **_OF_PROCESSES,
                    }
                ),
                "description": "each process by its name",
            },
        }
    ),
    "Histogram": fields(
        {
            "count": whole("how many values there are"),
            "sum": _NUMBER,
            "p50": _or_null({**_NUMBER, "description": "estimated: half of the values are not greater"}),
            "p99": _or_null({**_NUMBER, "description": "likewise, of 100 values 99"}),
            "buckets": {
                "type": "object",
                "additionalProperties": whole(),
                "description": "by upper bound, the values beyond the bound before it",
            },
        }
    ),
    "Check": fields(
        {
            "time": {"type": "number", "description": "the clock of the process, seconds since 1970"},
            "streams": whole("open streams of the process, of every kind"),
            "limits": fields(
                {
                    "streams": whole("open streams at most; 0: as many as there can be files"),
                    "files": _or_null(whole("open files at most; null: any number")),
                    "backlog": _or_null(whole("connections that may wait at most; null: not known")),
                    "body": whole("bytes of a body at most"),
                }
            ),
            "log": fields(
                {
                    "kind": text("`memory`, `sqlite`, `redis` or `redis+private`"),
                    "answers": {"type": "boolean"},
                    "file_system": _or_null(text("on which the log's file is; null: not known, or not in a file")),
                    "network": {"type": "boolean", "description": "the file is on another machine"},
                }
            ),
            "access": fields(
                {
                    "known": {"type": "boolean", "description": "somebody can be asked who sends a request"},
                    "revocations": _or_null(
                        {"type": "boolean", "description": "what is revoked stays so when the process ends"}
                    ),
                }
            ),
            "timeouts": fields({name: {"type": "number"} for name in ("heartbeat", "drain", "peer")}),
            "request": fields(
                {
                    "peer": text("the address from which this request came"),
                    "client": text("the address of the client, by what trusted proxies say"),
                    "trusted": {"type": "boolean", "description": "the peer is a trusted proxy"},
                    "forwarded": {"type": "boolean", "description": "a proxy says who the client is, trusted or not"},
                    "secure": {"type": "boolean", "description": "the client came over TLS"},
                    "prefix": text("the path under which the client sees the hub"),
                }
            ),
            "draining": {"type": "boolean"},
        }
    ),
    "Alive": fields({"status": {"const": "alive"}}),
    "Ready": fields({"status": {"const": "ready"}}),
    "Emitted": fields({"id": text(), "name": text()}),
}

# ---- problems ----

PLAIN_PROBLEM = "Problem"
"""The schema of an error of HTTP itself, which has no type of its own."""


def problem(error: type[HubError]) -> Schema:
    """Return the schema of the answer for *error*."""
    required: dict[str, Schema] = {}
    optional: dict[str, Schema] = {}
    if issubclass(error, InvalidInput | TooLarge):
        required["field"] = text("which field is wrong")
    if issubclass(error, TooOften | TooManyStreams | TooManyGenerations):
        required["limit"] = text("the setting that says how many there may be")
    if error in _CODES:
        required["code"] = {"enum": _CODES[error]}
    if error is LogUnavailable:
        optional["outcome"] = {
            "enum": ["not_kept", "unknown"],
            "description": "of a publish: it was not kept, or that is unknown: a retry with the same key is safe",
        }
    if error is Forbidden:
        optional["topic"] = text("the first topic or pattern that no grant covers")
    return _problem(type_of(error), {"const": error.status}, required, optional, _said(error))


def _said(error: type[HubError]) -> str:
    return " ".join((error.__doc__ or "").partition("\n\n")[0].split())


def _problem(
    type: str, status: Schema, required: Mapping[str, Schema], optional: Mapping[str, Schema], description: str
) -> Schema:
    common = {
        "type": {"const": type},
        "title": text("the phrase of the status"),
        "status": status,
        "detail": text("a sentence for people"),
    }
    return fields({**common, **required}, optional, description=description)


SCHEMAS: dict[str, Schema] = {
    **_WORDS,
    **_NOTIFICATIONS,
    **_EVENTS,
    **_AI,
    **_ADMINISTRATION,
    PLAIN_PROBLEM: _problem("about:blank", whole(least=400, maximum=599), {}, {}, "An error of HTTP itself."),
}
"""All schemas but those of problems, by name."""


def used(paths: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *schemas* that *paths* refer to, directly or through each other."""
    used: set[str] = set()
    ahead = [*_named(paths)]
    while ahead:
        name = ahead.pop()
        if name not in used:
            used.add(name)
            ahead += _named(schemas[name])
    return {name: schema for name, schema in schemas.items() if name in used}


def _named(part: object) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(said := part.get("$ref"), str):
            yield said.rpartition("/")[2]
        for each in part.values():
            yield from _named(each)
    elif isinstance(part, list | tuple):
        for each in part:
            yield from _named(each)
