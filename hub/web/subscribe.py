"""`/notifications/subscribe`: from a request to a connection."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from hub.connection import Connection, Subscription
from hub.errors import InvalidInput
from hub.fanout import Shape
from hub.hub import Hub
from hub.topics import check_wanted, topic_of
from hub.web.body import read_json
from hub.web.resource import cors
from hub.web.stream import Away, EventStream, come_back, is_chunked


async def subscribe(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open a stream of the topics in the query."""
    query = request.query
    return await open_stream(hub, request, query.getall("topic", []), query.get("lastEventId"))


async def subscribe_by_post(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open a stream of the topics in the body: `{"topics": […], "lastEventId": "…"}`."""
    body = await read_json(request)
    if not isinstance(body, dict):
        raise InvalidInput("body", "is not a JSON object")
    unknown = sorted(body.keys() - {"topics", "lastEventId"})
    if unknown:
        raise InvalidInput(ascii(unknown[0])[1:-1][:80], "unknown field; there are topics and lastEventId")
    topics, last_event_id = body.get("topics", []), body.get("lastEventId")
    if not isinstance(topics, list):
        raise InvalidInput("topics", "is not a list of topics")
    if last_event_id is not None and not isinstance(last_event_id, str):
        raise InvalidInput("lastEventId", "is not a string")
    return await open_stream(hub, request, topics, last_event_id)


async def subscribe_user(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open the stream of one user: the topic `user/{userId}`."""
    topic = topic_of("user", request.match_info["userId"], "userId")
    return await open_stream(hub, request, [topic], request.query.get("lastEventId"))


async def open_stream(
    hub: Hub, request: web.Request, topics: Sequence[str], last_event_id: str | None
) -> web.StreamResponse:
    """Open a stream of *topics* on *request*, or send the client away for a while.

    Raises:
        InvalidInput: a topic, or a parameter of the query, breaks its rule.
    """
    subscription = Subscription(
        check_wanted(topics),
        request.headers.get("Last-Event-ID") or last_event_id,
        Shape(envelope=_flag(request, "envelope"), chunked=is_chunked(request)),
    )
    if hub.draining or hub.full:
        hub.metrics.refused += 1
        return come_back(Away.DRAINING if hub.draining else Away.CAPACITY)
    response = EventStream(request)
    response.headers.update(cors(request, hub.settings.cors_origins))
    await response.hand_over(request, Connection(subscription, hub.wiring))
    return response


def _flag(request: web.Request, name: str) -> bool:
    value = request.query.get(name, "0")
    if value not in {"0", "1"}:
        raise InvalidInput(name, "is neither 0 nor 1")
    return value == "1"
