"""What each method of each path takes and answers. A route without an entry here fails the tests.

What all of them have in common (refusals, bodies that are too large, expectations that can't be met) is not repeated:
`document` adds it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.connections.client_stream import StreamKind
from hub.errors import (
    CrossSite,
    EventBufferFull,
    GenerationExpired,
    HubError,
    InvalidDraft,
    InvalidEventName,
    InvalidInput,
    InvalidTopic,
    KeyReused,
    LogUnavailable,
    NotASubscription,
    NotAWebSocket,
    NotThere,
    ShuttingDown,
    StateUnavailable,
    TooManyGenerations,
    TooManyMemberships,
    TooManyPublishes,
    TooManyStreams,
    TooManyTickets,
    Unauthorized,
    UnknownGeneration,
)
from hub.log.archive.format import MEDIA_TYPE as ARCHIVE
from hub.web import client_files, history
from hub.web.dialects import DIALECTS
from hub.web.endpoint import Handler
from hub.web.generations import MAX_KEY_LENGTH
from hub.web.generations import PATH as CHAT
from hub.web.openapi.schemas import Schema, items, ref, text, whole
from hub.web.publish import MAX_DRAFTS
from hub.web.query import MOST_ON_A_PAGE, ON_A_PAGE
from hub.web.stream import LINES
from hub.web.stream import MEDIA_TYPE as EVENT_STREAM

JSON = "application/json"


class Rights(enum.Enum):
    """Who may use an operation, where users are known."""

    EVERYBODY = ""
    GRANTED = "Needs a grant for each topic."
    READER = "For whoever may read anything."
    KNOWN = "For users who are known."
    HOLDER = "For the user who opened the stream, and for administrators."
    MEMBER = "For administrators, and for the user himself where the application allows it."
    ADMINISTRATOR = "For administrators."


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an operation.

    Attributes:
        name: as it is spelled.
        place: `path`, `query` or `header`.
        schema: of its value.
        description: what it is for.
    """

    name: str
    place: str
    schema: Schema
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a body holds, in one media type.

    Attributes:
        schema: of all of it; None: it has no end, or is not JSON.
        item: of each of its items, if they come one after another.
        example: what it may look like; of an item sequence as it is on the wire.
    """

    schema: Schema | None = None
    item: Schema | None = None
    example: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is no problem.

    Attributes:
        description: when it is given.
        content: what it holds, by media type.
        headers: those that mean something to the client, with their descriptions.
    """

    description: str
    content: Mapping[str, Content] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one method of one path takes and answers.

    Attributes:
        id: its name in generated clients.
        tag: the group it is shown in.
        summary: what it does, in a few words.
        description: what else there is to know.
        rights: who may use it.
        parameters: all of them, those in the path too.
        body: the JSON body; None: it takes none.
        needs_body: whether the body has to be there.
        answers: by status.
        problems: the errors of its own.
        guarded: errors that it has only where users are known.
    """

    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    rights: Rights = Rights.EVERYBODY
    parameters: tuple[Parameter, ...] = ()
    body: Content | None = None
    needs_body: bool = True
    problems: tuple[type[HubError], ...] = ()
    guarded: tuple[type[HubError], ...] = ()

    @property
    def streams(self) -> bool:
        """Whether it opens a stream."""
        return any(EVENT_STREAM in answer.content for answer in self.answers.values())


def _json(description: str, schema: str, **headers: str) -> Answer:
    return Answer(description=description, content={JSON: Content(schema=ref(schema))}, headers=headers)


def _query(name: str, description: str, schema: Schema) -> Parameter:
    return Parameter(name, "query", schema, description)


def _path(name: str, description: str) -> Parameter:
    return Parameter(name, "path", text(minLength=1), description)


TAGS = {
    "notifications": "Streams of notifications, what was sent, and sending",
    "access": "Tickets, open streams, and the end of rights",
    "answers": "Answers of an AI, which are made once and can be watched from anywhere",
    "events": "Events of the application",
    "state": "How the hub is doing",
}

_TOPICS = _query("topic", "topics and patterns, each in a parameter of its own", ref("Topics"))
_FLAG = {"type": "string", "enum": ["0", "1"], "default": "0"}
_ENVELOPE = _query(
    "envelope",
    "`1`: wrap the data with its topic, `topics`: with all of its topics, `all`: and with its type",
    {"type": "string", "enum": ["0", "1", "topics", "all"], "default": "0"},
)
_ROOMS = _query("rooms", "`1`: the rooms of the user too, as they change; then no topic is needed", _FLAG)
_PRESENCE = _query("presence", "`1`: tell who is on its topics, and who comes and goes", _FLAG)
_CURSOR = text(examples=["8e844e1e90-1042", "earliest", "latest"])
_LAST_EVENT_ID = Parameter("Last-Event-ID", "header", _CURSOR, "resume after this id; browsers send it by themselves")
_LAST_EVENT_ID_QUERY = _query(
    "lastEventId",
    "resume after this id, or begin with the `earliest` or the `latest`; the header has precedence",
    _CURSOR,
)
_TICKET = _query("ticket", "a ticket, instead of a token or a login", text())
_COME_BACK = "or, if there is no stream for this client now, an event that says why and when to come back"

_OPENED = """retry: 3127
id: 8e844e1e90-1041
event: hub.open
data: {"connection":"c_5f7cd2c3468054ed","topics":["orders"],"recovered":null}

event: order.created
id: 8e844e1e90-1042
data: {"message":"new order","amount":99.5}

"""
_DRAFT = {"topic": "orders", "type": "order.created", "data": {"message": "new order", "amount": 99.5}}
_STREAM = Answer(
    description=f"the stream; {_COME_BACK}",
    content={
        EVENT_STREAM: Content(item=ref("SubscriptionEvent"), example=_OPENED),
        LINES: Content(item=ref("Message")),
    },
    headers={
        "X-Accel-Buffering": "`no`: a proxy sends each event at once",
        "Set-Cookie": "with a ticket: what a browser reconnects with",
    },
)
_SUBSCRIBING = (InvalidInput, InvalidTopic, Unauthorized)  # the last for rooms of nobody known

_ARCHIVE = "With `Accept: application/x-ndjson` all of it as an archive, for administrators."
_HISTORY = (
    _TOPICS,
    _query("after", "begin after this id; none, or `earliest`: with the oldest", text()),
    _query("limit", "most notifications", whole(least=1, maximum=history.MAX_LIMIT, default=history.DEFAULT_LIMIT)),
)


def _history(*, pages: bool, archive: bool) -> Operation:
    """Return the operation that has pages, the archive or both: on another address there may be the other one."""
    shown = {JSON: Content(schema=ref("HistoryPage"))} if pages else {}
    whole_of_it = {ARCHIVE: Content(item=ref("ArchiveLine"))} if archive else {}
    return Operation(
        id="history",
        tag="notifications",
        summary="Read what the log keeps",
        description=_ARCHIVE if archive else "",
        rights=Rights.GRANTED if pages else Rights.ADMINISTRATOR,
        parameters=_HISTORY if pages else (),
        answers={200: Answer(description="a page, or the archive", content=shown | whole_of_it)},
        problems=(
            *((InvalidInput, InvalidTopic) if pages else ()),
            *((ShuttingDown,) if archive else (NotThere,)),
            LogUnavailable,
        ),
    )


_NOTIFICATIONS: dict[str, dict[str, Operation]] = {
    "/notifications/subscribe": {
        "GET": Operation(
            id="subscribe",
            tag="notifications",
            summary="Open a stream of notifications",
            rights=Rights.GRANTED,
            parameters=(_TOPICS, _LAST_EVENT_ID_QUERY, _ENVELOPE, _PRESENCE, _ROOMS, _TICKET, _LAST_EVENT_ID),
            answers={200: _STREAM},
            problems=_SUBSCRIBING,
            guarded=(StateUnavailable,),
        ),
        "POST": Operation(
            id="subscribeByPost",
            tag="notifications",
            summary="Open a stream of many topics",
            rights=Rights.GRANTED,
            parameters=(_LAST_EVENT_ID_QUERY, _ENVELOPE, _PRESENCE, _ROOMS, _LAST_EVENT_ID),
            body=Content(schema=ref("Wanted"), example={"topics": ["orders", "user/42"]}),
            answers={200: _STREAM},
            problems=_SUBSCRIBING,
        ),
    },
    "/notifications/publish": {
        "POST": Operation(
            id="publish",
            tag="notifications",
            summary="Send notifications",
            description="One draft, or a list that is accepted as a whole or not at all. Kept when it is answered.",
            rights=Rights.GRANTED,
            body=Content(
                schema={"anyOf": [ref("Draft"), items(ref("Draft"), minItems=1, maxItems=MAX_DRAFTS)]}, example=_DRAFT
            ),
            answers={
                201: Answer(
                    description="kept; a list for a list",
                    content={
                        JSON: Content(schema=ref("Published"), example={"id": "8e844e1e90-1042", "topics": ["orders"]})
                    },
                    headers={"Location": "of one draft: a page of the history with this notification only"},
                ),
                200: _json("all of it was sent before, with the same keys", "Published"),
            },
            problems=(InvalidInput, InvalidTopic, InvalidDraft, TooManyPublishes, LogUnavailable, ShuttingDown),
        )
    },
    "/notifications/history": {"GET": _history(pages=True, archive=True)},
    "/notifications/poll": {
        "GET": Operation(
            id="poll",
            tag="notifications",
            summary="Wait for the next notifications",
            description="Answered at once if there are some, or if no id is given; else as soon as there are.",
            rights=Rights.GRANTED,
            parameters=(
                _query("topic", "topics and patterns", ref("Topics")),
                _query("lastEventId", "an id, `earliest` or `latest`: what follows it", text()),
                _query("wait", "seconds", whole(maximum=60, default=25)),
                _query("limit", "most notifications", whole(least=1, maximum=MOST_ON_A_PAGE, default=ON_A_PAGE)),
                _ROOMS,
            ),
            answers={200: _json("what has come, maybe nothing", "Polled")},
            problems=(InvalidInput, InvalidTopic, ShuttingDown, TooManyStreams, Unauthorized),
        )
    },
    "/notifications/ws": {
        "GET": Operation(
            id="websocket",
            tag="notifications",
            summary="Open a WebSocket",
            description=(
                "With the headers of RFC 6455; the subprotocols are `hub.v1.json` and `hub.v1.msgpack`. What is said "
                "over it stands in a JSON Schema of its own. A page learns over the socket why there is none."
            ),
            rights=Rights.READER,
            parameters=(
                _query("rooms", "`1`: the rooms of the user", _FLAG),
                _query("lastEventId", "where these begin", text()),
                _PRESENCE,
            ),
            answers={101: Answer(description="the socket is open, or says in its only message why not")},
            problems=(InvalidInput, NotAWebSocket, Unauthorized),
        )
    },
    "/notifications/position": {
        "GET": Operation(
            id="position",
            tag="notifications",
            summary="Ask for the newest position",
            description="The `lastEventId` of a page that is rendered now. Ask before you read what the page shows.",
            rights=Rights.READER,
            answers={200: _json("the newest position", "NewestPosition")},
            problems=(LogUnavailable,),
        )
    },
    "/notifications/presence": {
        "GET": Operation(
            id="presence",
            tag="notifications",
            summary="Ask who is on a topic",
            description="Names need the right `presence`; all others are told how many there are.",
            rights=Rights.GRANTED,
            parameters=(
                _query("topic", "one topic", ref("Topic")),
                _query("limit", "most users", whole(least=1, maximum=MOST_ON_A_PAGE, default=ON_A_PAGE)),
                _query("after", "begin after the user with this id", text()),
            ),
            answers={200: _json("who is there, in the order of their ids", "PresencePage")},
            problems=(InvalidInput, InvalidTopic),
        )
    },
}

_PAGE = (
    _query("limit", "most streams", whole(least=1, maximum=MOST_ON_A_PAGE, default=ON_A_PAGE)),
    _query("after", "begin after the stream with this id", text()),
)
_MEMBER = (_path("room", "its name"), _path("userId", "the user"))
_REVOKED = {204: Answer(description="it is revoked, and the streams get `hub.close`")}

_ACCESS: dict[str, dict[str, Operation]] = {
    "/notifications/tickets": {
        "POST": Operation(
            id="mintTicket",
            tag="access",
            summary="Get a ticket for one stream",
            description="For an `EventSource`, which can't send a token: the ticket goes into the query of its URL.",
            rights=Rights.KNOWN,
            body=Content(schema=ref("TicketTopics"), example={"topics": ["orders"]}),
            needs_body=False,
            answers={201: _json("the ticket", "NewTicket")},
            problems=(InvalidInput, InvalidTopic, NotThere),
            guarded=(TooManyTickets,),
        )
    },
    "/notifications/rooms/{room}/members": {
        "GET": Operation(
            id="members",
            tag="access",
            summary="List the members of a room",
            rights=Rights.ADMINISTRATOR,
            parameters=(
                _path("room", "its name"),
                _query("limit", "most members", whole(least=1, maximum=MOST_ON_A_PAGE, default=ON_A_PAGE)),
                _query("after", "begin after the user with this id", text()),
            ),
            answers={200: _json("the members, in the order of their ids", "MembersPage")},
            problems=(InvalidInput, InvalidTopic, NotThere),
            guarded=(LogUnavailable, StateUnavailable),
        )
    },
    "/notifications/rooms/{room}/members/{userId}": {
        "PUT": Operation(
            id="join",
            tag="access",
            summary="Make a user a member of a room",
            description="What is sent to the room from now on may be read. Open streams take part at once.",
            rights=Rights.MEMBER,
            parameters=_MEMBER,
            body=Content(schema=ref("Joining"), example={"publish": True}),
            needs_body=False,
            answers={204: Answer(description="the user belongs to it")},
            problems=(InvalidTopic, NotThere),
            guarded=(TooManyMemberships, LogUnavailable, StateUnavailable),
        ),
        "DELETE": Operation(
            id="leave",
            tag="access",
            summary="End a membership",
            description="Nothing more of the room is written to the streams of the user.",
            rights=Rights.MEMBER,
            parameters=_MEMBER,
            answers={204: Answer(description="the user does not belong to it")},
            problems=(InvalidTopic, NotThere),
            guarded=(StateUnavailable,),
        ),
    },
    "/notifications/connections": {
        "GET": Operation(
            id="connections",
            tag="access",
            summary="List the open streams",
            rights=Rights.ADMINISTRATOR,
            parameters=(
                *_PAGE,
                _query(
                    "order",
                    "`slowest`: those for which most waits; one page, without `next`",
                    {"enum": ["oldest", "slowest"]},
                ),
                _query("kind", "only streams of this kind", {"enum": [*StreamKind]}),
                _query("user", "only those of this user", text()),
                _query("address", "only those from this IP address", text()),
                _query("topic", "only those that asked for this topic or pattern, as it is written", text()),
            ),
            answers={200: _json("a page", "StreamsPage")},
            problems=(InvalidInput, StateUnavailable),
        )
    },
    "/notifications/connections/{id}": {
        "PATCH": Operation(
            id="changeTopics",
            tag="access",
            summary="Change the topics of an open stream",
            description="The stream says so too, with `hub.topics`.",
            rights=Rights.HOLDER,
            parameters=(_path("id", "of the stream, as `hub.open` says it"),),
            body=Content(schema=ref("TopicsChange"), example={"add": ["orders"]}),
            answers={200: _json("the topics that it has now", "Followed")},
            problems=(InvalidInput, InvalidTopic, NotThere, NotASubscription, LogUnavailable, StateUnavailable),
        ),
        "DELETE": Operation(
            id="endConnection",
            tag="access",
            summary="End a stream",
            description="The rights of its user stay what they are.",
            rights=Rights.ADMINISTRATOR,
            parameters=(_path("id", "of the stream"),),
            answers={204: Answer(description="it ends")},
            problems=(NotThere, StateUnavailable),
        ),
    },
    "/notifications/users/{userId}/connections": {
        "DELETE": Operation(
            id="revokeUser",
            tag="access",
            summary="Revoke what a user was given until now, and end the streams of the user",
            rights=Rights.ADMINISTRATOR,
            parameters=(_path("userId", "the user"),),
            answers=_REVOKED,
            problems=(NotThere,),
            guarded=(StateUnavailable,),
        )
    },
    "/notifications/tokens/{jti}": {
        "DELETE": Operation(
            id="revokeToken",
            tag="access",
            summary="Revoke a token, and end the streams that it opened",
            rights=Rights.ADMINISTRATOR,
            parameters=(_path("jti", "the id in the token"),),
            answers=_REVOKED,
            problems=(NotThere,),
            guarded=(StateUnavailable,),
        )
    },
}

_STATE: dict[str, dict[str, Operation]] = {
    "/notifications/stats": {
        "GET": Operation(
            id="statistics",
            tag="state",
            summary="Counters as JSON",
            rights=Rights.ADMINISTRATOR,
            answers={200: _json("the counters, and what the log holds", "Statistics")},
        )
    },
    "/notifications/check": {
        "GET": Operation(
            id="check",
            tag="state",
            summary="How it is run",
            rights=Rights.ADMINISTRATOR,
            answers={200: _json("limits, log and rights, and how the request came here", "Check")},
        )
    },
    "/metrics": {
        "GET": Operation(
            id="metrics",
            tag="state",
            summary="Counters for Prometheus",
            rights=Rights.ADMINISTRATOR,
            answers={
                200: Answer(description="Prometheus' text format", content={"text/plain": Content(schema=text())})
            },
        )
    },
    client_files.PATH: {
        "GET": Operation(
            id="clientFile",
            tag="notifications",
            summary="A file of the browser client",
            parameters=(
                Parameter("file", "path", {"type": "string", "enum": [*client_files.FILES]}, "its name"),
                Parameter("If-None-Match", "header", text(), "the `ETag` of what the client has"),
            ),
            answers={
                200: Answer(
                    description="the file",
                    content={
                        "text/javascript": Content(schema={"type": "string"}),
                        "text/plain": Content(schema={"type": "string"}),
                    },
                    headers={"ETag": "another one if the file has changed"},
                ),
                304: Answer(description="it is the one that the client has", headers={"ETag": "that of the file"}),
            },
            problems=(NotThere,),
        )
    },
    "/healthz": {
        "GET": Operation(
            id="alive",
            tag="state",
            summary="Is the process alive?",
            answers={200: _json("it is", "Alive")},
        )
    },
    "/readyz": {
        "GET": Operation(
            id="ready",
            tag="state",
            summary="Does the hub take new work?",
            answers={200: _json("it does", "Ready")},
            problems=(LogUnavailable, StateUnavailable, ShuttingDown),
        )
    },
    "/openapi.json": {
        "GET": Operation(
            id="description",
            tag="state",
            summary="This document",
            answers={200: Answer(description="the document", content={JSON: Content(schema={"type": "object"})})},
        )
    },
    "/events/{name}": {
        "POST": Operation(
            id="emit",
            tag="events",
            summary="Emit an event of the application",
            rights=Rights.ADMINISTRATOR,
            parameters=(_path("name", "segments with '.' between them, such as `order.created`"),),
            body=Content(schema={"description": "the payload, any JSON"}, example={"id": 7}),
            answers={202: _json("emitted", "Emitted")},
            problems=(InvalidInput, InvalidEventName, EventBufferFull, ShuttingDown),
        )
    },
}

_FORMAT = _query("format", "of the stream", {"enum": [*DIALECTS], "default": "events"})
_KEY = Parameter(
    "Idempotency-Key",
    "header",
    text(minLength=1, maxLength=MAX_KEY_LENGTH),
    "the same key begins no second answer, and names the first one",
)
_SESSION = _path("sessionId", "of the answer")
_ANSWER_ID = text(examples=["DP-KEK1t6P47IGctC6t92w.3"])
_AFTER_PART = Parameter("Last-Event-ID", "header", _ANSWER_ID, "go on after this id; browsers send it by themselves")
_AFTER_PART_QUERY = _query("lastEventId", "go on after this id; the header has precedence", _ANSWER_ID)
_ANSWERED = """retry: 2939
event: start
id: DP-KEK1t6P47IGctC6t92w.0
data: {"sessionId":"DP-KEK1t6P47IGctC6t92w","model":null,"createdAt":"2026-11-20T15:15:42.056Z"}

id: DP-KEK1t6P47IGctC6t92w.1
data: {"content":"Hello"}

event: done
data: {"finishReason":"stop","usage":null}

data: [DONE]

event: close
id: DP-KEK1t6P47IGctC6t92w.1.end
data: {"phase":"done"}

"""
_PARTS = Content(item=ref("AnswerEvent"), example=_ANSWERED)
_OVER = Answer(description="the id of an end was given: there is nothing more")
_QUESTION = Content(schema=ref("Question"), example={"message": "Hello"})
_ASKING = (InvalidInput, KeyReused, TooManyGenerations, LogUnavailable, StateUnavailable, ShuttingDown)
_STOP = (CrossSite, UnknownGeneration, GenerationExpired, LogUnavailable, StateUnavailable)


def _stop(id: str) -> Operation:
    return Operation(
        id=id,
        tag="answers",
        summary="Stop an answer",
        description="One that has ended stays as it is.",
        rights=Rights.KNOWN,
        parameters=(_SESSION,),
        answers={200: _json("how it ended", "Stopped")},
        problems=_STOP,
    )


_ANSWERS: dict[str, dict[str, Operation]] = {
    CHAT: {
        "GET": Operation(
            id="askAndWatch",
            tag="answers",
            summary="Begin an answer and stream it, for an EventSource",
            description="With the id of an earlier answer it goes on with that one, and begins none.",
            rights=Rights.KNOWN,
            parameters=(
                _query("message", "the question", text(minLength=1, pattern=r"\S")),
                _FORMAT,
                _AFTER_PART_QUERY,
                _AFTER_PART,
                _KEY,
            ),
            answers={
                200: Answer(
                    description=f"the answer as it grows; {_COME_BACK}",
                    content={EVENT_STREAM: _PARTS},
                    headers={"Content-Location": "where it can be watched"},
                ),
                204: _OVER,
            },
            problems=(InvalidInput, CrossSite, KeyReused),
        ),
        "POST": Operation(
            id="ask",
            tag="answers",
            summary="Begin an answer and stream it",
            rights=Rights.KNOWN,
            parameters=(_FORMAT, _KEY),
            body=_QUESTION,
            answers={
                200: Answer(
                    description="the answer as it grows",
                    content={EVENT_STREAM: _PARTS},
                    headers={"Content-Location": "where it can be watched"},
                )
            },
            problems=(*_ASKING, TooManyStreams),
        ),
    },
    CHAT + "/init": {
        "POST": Operation(
            id="beginAnswer",
            tag="answers",
            summary="Begin an answer",
            rights=Rights.KNOWN,
            parameters=(_KEY,),
            body=_QUESTION,
            answers={
                201: _json("it has begun", "Begun", Location="where it can be watched"),
                200: _json(
                    "the key was used before: this is what it began", "Begun", Location="where it can be watched"
                ),
            },
            problems=_ASKING,
        )
    },
    CHAT + "/{sessionId}": {
        "GET": Operation(
            id="watch",
            tag="answers",
            summary="Watch an answer",
            description="A stream; or with `Accept: application/json` what there is of it.",
            rights=Rights.KNOWN,
            parameters=(_SESSION, _FORMAT, _AFTER_PART_QUERY, _AFTER_PART),
            answers={
                200: Answer(
                    description=f"the answer; {_COME_BACK}",
                    content={EVENT_STREAM: _PARTS, JSON: Content(schema=ref("Answer"))},
                ),
                204: _OVER,
            },
            problems=(InvalidInput, UnknownGeneration, GenerationExpired, LogUnavailable, StateUnavailable),
        ),
        "DELETE": _stop("stop"),
    },
    CHAT + "/{sessionId}/cancel": {"POST": _stop("cancelByPost"), "DELETE": _stop("cancel")},
}

_OTHERS: Mapping[Handler, Operation] = {
    history.history_pages: _history(pages=True, archive=False),
    history.export: _history(pages=False, archive=True),
}


def operation_of(path: str, method: str, handler: Handler) -> Operation:
    """Return the operation of *method* on *path*, as far as *handler* does it."""
    return _OTHERS.get(handler) or OPERATIONS[path][method]


OPERATIONS: Mapping[str, Mapping[str, Operation]] = {**_NOTIFICATIONS, **_ANSWERS, **_ACCESS, **_STATE}
"""The operations by path and method."""
