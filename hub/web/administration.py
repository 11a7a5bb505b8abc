"""Routes to the open streams: who has which, what else they follow, and how they and the rights behind them end."""

from __future__ import annotations

from itertools import islice

from aiohttp import web

from hub.connections.changes import check_changed
from hub.connections.client_stream import StreamFacts
from hub.connections.holders import Holder
from hub.encoding import moment
from hub.errors import Forbidden, InvalidInput, NotThere, Unauthorized
from hub.hub import Hub
from hub.web.access import Access
from hub.web.body import check_fields, read_json
from hub.web.denials import SUBSCRIBE, note_denial
from hub.web.query import Parameters, page_limit

_CHANGE = ("add", "remove", "after")
_PARAMETERS = Parameters("limit", "after")


async def connections(hub: Hub, request: web.Request) -> web.Response:
    """Return a page of the open streams, the oldest first."""
    await Access.of(request).administer(request)
    query = _PARAMETERS.read(request)
    limit = page_limit(query)
    streams = iter(hub.connections)
    after = query.get("after")
    if after is not None and hub.connections.get(after) is not None:
        next((stream for stream in streams if stream.id == after), None)
    page = [stream.facts() for stream in islice(streams, limit)]
    more = next(streams, None) is not None
    return web.json_response({"connections": [*map(_shown, page)], "next": page[-1].id if page and more else None})


def _shown(facts: StreamFacts) -> dict[str, object]:
    shown = {**facts._asdict(), "opened": moment(facts.opened)}
    del shown["reason"]
    return shown


async def change_topics(hub: Hub, request: web.Request) -> web.Response:
    """Change the topics of one subscription, for the user who holds it or for an administrator."""
    id = request.match_info["id"]

    def holder() -> Holder:
        stream = hub.connections.get(id)
        if stream is None or stream.closed_because is not None:
            raise NotThere("connection")
        return stream.holder

    access = Access.of(request)
    sender = await access.changer(request, holder)
    body = await read_json(request)
    if not isinstance(body, dict):
        raise InvalidInput("body", "is not a JSON object")
    check_fields(body, _CHANGE)
    for field in ("add", "remove"):
        if not isinstance(body.get(field, []), list):
            raise InvalidInput(field, "is not a list of topics and patterns")
    after = body.get("after")
    if after is not None and not isinstance(after, str):
        raise InvalidInput("after", "is not a string")
    add, remove = check_changed(body.get("add", ()), "add"), body.get("remove", ())
    try:
        await access.check_added(sender, holder(), add)
        changed = await hub.change_topics(id, add=add, remove=remove, after=after)
    except (Unauthorized, Forbidden) as error:
        note_denial(hub, request, SUBSCRIBE, error, add)
        raise
    return web.json_response({"topics": changed.topics, "from": str(changed.position)})


async def end_connection(hub: Hub, request: web.Request) -> web.Response:
    """End one stream. The rights of its holder stay what they are."""
    await Access.of(request).administer(request)
    if not hub.end_connection(request.match_info["id"]):
        raise NotThere("connection")
    return web.Response(status=204)


async def revoke_user(hub: Hub, request: web.Request) -> web.Response:
    """Revoke all that a user was given until now, and end the streams of the user."""
    await Access.of(request).administer(request)
    await hub.revoke_user(request.match_info["userId"])
    return web.Response(status=204)


async def revoke_token(hub: Hub, request: web.Request) -> web.Response:
    """Revoke one token, and end the streams that it opened."""
    await Access.of(request).administer(request)
    await hub.revoke_token(request.match_info["jti"])
    return web.Response(status=204)


async def mint_ticket(hub: Hub, request: web.Request) -> web.Response:
    """Return a ticket with which whoever asks may open one stream within 30 seconds."""
    return web.json_response(
        await Access.of(request).ticket(request), status=201, headers={"Cache-Control": "no-store"}
    )
