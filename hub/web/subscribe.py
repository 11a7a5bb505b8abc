"""`/notifications/subscribe`: from a request to a connection."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial

from aiohttp import web
from multidict import MultiMapping

from hub.access.identity import Identity
from hub.connections.client_stream import CloseReason
from hub.connections.connection import Connection, PresenceView, Subscription
from hub.encoding import SSE, Encoding, Envelope, retry_between
from hub.errors import Forbidden, InvalidInput, Unauthorized
from hub.hub import Hub
from hub.state.tickets import Admission
from hub.topics import check_wanted, topic_of
from hub.web.access import Access
from hub.web.body import check_fields, read_json
from hub.web.denials import SUBSCRIBE, note_denial
from hub.web.endpoint import cors, opens_stream
from hub.web.limits import holder_of
from hub.web.query import Parameters
from hub.web.stream import LINES, MEDIA_TYPE, EventStream, accepts_lines, first_retry, is_chunked, sent_away
from hub.web.stream_cookie import stream_cookies
from hub.wires import Lines

_sse, _lines = lru_cache(maxsize=None)(SSE), lru_cache(maxsize=None)(Lines)  # few, and each connection holds one
_ENVELOPES = {"0": Envelope.NONE, "1": Envelope.TOPIC, "topics": Envelope.TOPICS, "all": Envelope.ALL}
_FIELDS = ("topics", "lastEventId")
_OPTIONS = ("lastEventId", "envelope", "presence")
_GET = Parameters("topic", *_OPTIONS, "rooms", "ticket")
_POST = Parameters(*_OPTIONS, "rooms", elsewhere={"topic": "a POST names its topics in the body"})
_NO_ROOMS = "is for /notifications/subscribe: this stream has one topic"
_ONE_TOPIC = Parameters(*_OPTIONS, elsewhere={"topic": "the path names the topic here", "rooms": _NO_ROOMS})


@opens_stream
async def subscribe(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open a stream of the topics in the query."""
    query = _GET.read(request)
    return await _open(hub, request, query, query.getall("topic", []))


async def subscribe_by_post(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open a stream of the topics in the body: `{"topics": […], "lastEventId": "…"}`."""
    query = _POST.read(request)
    access = Access.of(request)
    access.policy.check_may_read(await access.identity(request))  # before the body is read
    body = await read_json(request)
    if not isinstance(body, dict):
        raise InvalidInput("body", "is not a JSON object")
    check_fields(body, _FIELDS)
    topics, last_event_id = body.get("topics", []), body.get("lastEventId")
    if not isinstance(topics, list):
        raise InvalidInput("topics", "is not a list of topics")
    if last_event_id is not None and not isinstance(last_event_id, str):
        raise InvalidInput("lastEventId", "is not a string")
    return await _open(hub, request, query, topics, last_event_id)


@opens_stream
async def subscribe_user(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open the stream of one user: the topic `user/{userId}`."""
    return await open_stream(hub, request, topic_of("user", request.match_info["userId"], "userId"))


async def open_stream(hub: Hub, request: web.Request, topic: str) -> web.StreamResponse:
    """Open a stream of *topic*, which the path names, or send the client away for a while.

    Raises:
        InvalidInput: a parameter of the query breaks its rule.
    """
    return await _open(hub, request, _ONE_TOPIC.read(request), [topic])


async def _open(
    hub: Hub,
    request: web.Request,
    query: MultiMapping[str],
    topics: Sequence[str],
    last_event_id: str | None = None,
) -> web.StreamResponse:
    began = time.monotonic()
    rooms, encoding = flag(query, "rooms"), _encoding(request, query)
    wanted = check_wanted(topics) if topics or not rooms else ()
    access, ticket, admission = Access.of(request), query.get("ticket"), None
    try:
        if ticket is None or access.tickets is None:
            reading = await access.read(request, wanted, rooms=rooms, opens=True)
        else:
            admission, reading = await access.admit(request, ticket, wanted, rooms=rooms)
    except (Unauthorized, Forbidden) as error:
        note_denial(hub, request, SUBSCRIBE, error, wanted)
        raise
    identity = reading.identity
    subscription = Subscription(
        reading.topics,
        request.headers.get("Last-Event-ID") or last_event_id or query.get("lastEventId"),
        encoding,
        reading.visibility,
        presence_view(access, identity) if flag(query, "presence") else PresenceView.NOTHING,
        rooms,
        first_retry(request, 2, 4),
        began,
    )
    holder = holder_of(hub, request, identity, None if admission is None else admission.within)
    lines = isinstance(encoding, Lines)
    if lines:
        away = sent_away(hub, request, holder, Lines(chunked=False).end, LINES)
    else:
        away = sent_away(hub, request, holder)
    if away is not None:
        return away
    response = EventStream(request, LINES) if lines else EventStream(request)
    response.headers.update(cors(request, hub.settings.cors_origins))
    connection = Connection(subscription, hub.wiring, holder=holder)
    connection.name(wanted)
    access.check(identity)
    begin = partial(response.hand_over, request, connection, partial(access.settle, connection, reading))
    if admission is None:
        await begin()
    else:
        await _begin_with_ticket(hub, request, response, admission, begin)
    if reading.held is not None and hub.connections.get(connection.id) is connection:
        hub.rooms.catch_up(connection, reading.held, reading.listed)
    try:
        access.check(identity)  # what was revoked before the stream was counted did not end it
    except Unauthorized:
        if hub.connections.get(connection.id) is connection:
            connection.end(CloseReason.REVOKED, retry_between(10, 60))
    return response


async def _begin_with_ticket(
    hub: Hub,
    request: web.Request,
    response: EventStream,
    admission: Admission,
    begin: Callable[[], Awaitable[bool]],
) -> None:
    """Begin the stream that *admission* allows; a cookie lets the browser come back with the same URL."""
    tickets = Access.of(request).tickets
    assert tickets is not None
    cookie = await tickets.begin(admission)
    if cookie is not None:
        for line in stream_cookies(hub, request, cookie):
            response.headers.add("Set-Cookie", line)
    if not await begin():
        await tickets.take_back(admission)


def _encoding(request: web.Request, query: MultiMapping[str]) -> Encoding:
    """Return the encoding that *request* asks for."""
    if not accepts_lines(request):
        return _sse(_envelope(query), is_chunked(request))
    if "envelope" in query:
        raise InvalidInput("envelope", f"is for {MEDIA_TYPE}: each line of {LINES} has the topics")
    return _lines(is_chunked(request))


def presence_view(access: Access, identity: Identity | None) -> PresenceView:
    """Return what a stream of *identity* is told of who is on its topics, if it asks for that."""
    return PresenceView.NAMES if access.names(identity) else PresenceView.NUMBERS


def _envelope(query: MultiMapping[str]) -> Envelope:
    envelope = _ENVELOPES.get(query.get("envelope", "0"))
    if envelope is None:
        raise InvalidInput("envelope", f"is none of {', '.join(_ENVELOPES)}")
    return envelope


def flag(query: MultiMapping[str], name: str) -> bool:
    """Return whether the parameter *name* of *query* is 1.

    Raises:
        InvalidInput: it is neither 0 nor 1.
    """
    value = query.get(name, "0")
    if value not in {"0", "1"}:
        raise InvalidInput(name, "is neither 0 nor 1")
    return value == "1"
