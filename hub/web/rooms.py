"""`/notifications/rooms/{room}/members`: who belongs to a room, and how users join and leave."""

from __future__ import annotations

from aiohttp import web

from hub.encoding import moment
from hub.errors import InvalidInput
from hub.eventstream import compact_json
from hub.hub import Hub
from hub.state.state import Membership
from hub.topics import topic_of
from hub.web.access import Access
from hub.web.body import check_fields, read_json
from hub.web.query import Parameters, page_limit

_FIELDS = ("publish",)
_PARAMETERS = Parameters("limit", "after")


async def members(hub: Hub, request: web.Request) -> web.Response:
    """Return a page of the members of a room, by user."""
    await Access.of(request).administer(request)
    query = _PARAMETERS.read(request)
    limit = page_limit(query)
    found = await hub.rooms.members(request.match_info["room"], after=query.get("after", ""), limit=limit + 1)
    page = found[:limit]
    facts = {"members": [_shown(each) for each in page], "next": page[-1].user if len(found) > limit else None}
    return web.json_response(facts, dumps=compact_json)


def _shown(member: Membership) -> dict[str, object]:
    return {"id": member.user, "publish": member.publish, "since": moment(member.at), "from": str(member.since)}


async def join(hub: Hub, request: web.Request) -> web.Response:
    """Make a user a member of a room, for administrators, or for that user where the application allows it."""
    room, user = request.match_info["room"], request.match_info["userId"]
    access = Access.of(request)
    identity = await access.member(request, user)
    topic_of("room", room, "room")
    topic_of("user", user, "userId")
    publish = await _publish(request)
    await access.check_join(identity, room, publish=publish)
    await hub.rooms.join(user, room, publish=publish)
    return web.Response(status=204)


async def leave(hub: Hub, request: web.Request) -> web.Response:
    """End the membership of a user in a room, if there is one."""
    room, user = request.match_info["room"], request.match_info["userId"]
    await Access.of(request).member(request, user)
    topic_of("room", room, "room")
    topic_of("user", user, "userId")
    await hub.rooms.leave(user, room)
    return web.Response(status=204)


async def _publish(request: web.Request) -> bool:
    """Return what the body of *request* says, if it has one: `{"publish": true}`."""
    body = await read_json(request) if request.body_exists else {}
    if not isinstance(body, dict):
        raise InvalidInput("body", "is not a JSON object")
    check_fields(body, _FIELDS)
    publish = body.get("publish", False)
    if not isinstance(publish, bool):
        raise InvalidInput("publish", "is neither true nor false")
    return publish
