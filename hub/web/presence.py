"""`/notifications/presence`: who is on a topic, or how many are."""

from __future__ import annotations

from aiohttp import web

from hub.errors import InvalidInput
from hub.eventstream import compact_json
from hub.hub import Hub
from hub.topics import check_topic
from hub.web.access import Access
from hub.web.query import Parameters, page_limit

_PARAMETERS = Parameters("topic", "after", "limit")


async def presence(hub: Hub, request: web.Request) -> web.Response:
    """Return how many users are on one topic, and a page of them for whoever may know their names."""
    query = _PARAMETERS.read(request)
    topics = query.getall("topic", [])
    if len(topics) != 1:
        raise InvalidInput("topic", "is to be given once: this tells who is on one topic")
    (topic,) = map(check_topic, topics)
    limit = page_limit(query)
    named = await Access.of(request).presence(request, topic)
    facts: dict[str, object] = {"topic": topic, "count": hub.presence.count(topic)}
    if named:
        users = hub.presence.users(topic, after=query.get("after", ""), limit=limit + 1)
        page = users[:limit]
        facts |= {"users": [user.facts() for user in page], "next": page[-1].id if len(users) > limit else None}
    return web.json_response(facts, dumps=compact_json, headers={"Cache-Control": "no-store"})
