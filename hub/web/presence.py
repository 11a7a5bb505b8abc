"""`/notifications/presence`: who is on a topic, or how many are."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from hub.access.identity import Identity
from hub.errors import InvalidInput
from hub.eventstream import compact_json
from hub.hub import Hub
from hub.topics import check_topic
from hub.web.access import Access
from hub.web.query import Parameters, page_limit

_PARAMETERS = Parameters("topic", "after", "limit")


class Users(NamedTuple):
    """Which users are wanted: the first *limit* whose ids come after *after*."""

    after: str
    limit: int


async def presence(hub: Hub, request: web.Request) -> web.Response:
    """Return how many users are on one topic, and a page of them for whoever may know their names."""
    query = _PARAMETERS.read(request)
    topics = query.getall("topic", [])
    if len(topics) != 1:
        raise InvalidInput("topic", "is to be given once: this tells who is on one topic")
    (topic,) = map(check_topic, topics)
    limit, access = page_limit(query), Access.of(request)
    facts = await present(hub, access, await access.identity(request), topic, Users(query.get("after", ""), limit))
    return web.json_response(facts, dumps=compact_json, headers={"Cache-Control": "no-store"})


async def present(hub: Hub, access: Access, identity: Identity | None, topic: str, wanted: Users) -> dict[str, object]:
    """Return how many users are on *topic*, and those that are *wanted* if *identity* may know their names.

    Raises:
        Unauthorized, Forbidden, AuthUnavailable: as for `Access.presence`.
    """
    named = await access.presence(identity, topic)
    facts: dict[str, object] = {"topic": topic, "count": hub.presence.count(topic)}
    if named:
        after, limit = wanted
        users = hub.presence.users(topic, after=after, limit=limit + 1)
        page = users[:limit]
        facts |= {"users": [user.facts() for user in page], "next": page[-1].id if len(users) > limit else None}
    return facts
