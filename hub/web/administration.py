"""Routes to the open streams: who has which, what else they follow, and how they and the rights behind them end."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from hub.access.tickets import as_values, from_values
from hub.connections.changes import CHANGE_SECONDS, check_changed
from hub.connections.client_stream import StreamKind
from hub.connections.elsewhere import Listed, Wanted
from hub.connections.holders import Holder
from hub.encoding import moment
from hub.errors import Forbidden, InvalidInput, NotThere, Unauthorized
from hub.hub import Hub
from hub.state.peers import ANSWER_SECONDS
from hub.web.access import Access
from hub.web.body import check_fields, read_json
from hub.web.denials import SUBSCRIBE, note_denial
from hub.web.query import Parameters, page_limit

CHANGE = "change topics"
_CHANGE = ("add", "remove", "after")
_PARAMETERS = Parameters("limit", "after", "order", *Wanted._fields)
_ORDERS = ("oldest", "slowest")


async def connections(hub: Hub, request: web.Request) -> web.Response:
    """Return a page of the open streams, the oldest first, or those for which most waits."""
    await Access.of(request).administer(request)
    query = _PARAMETERS.read(request)
    limit, order = page_limit(query), query.get("order", _ORDERS[0])
    wanted = Wanted(*(query.get(name) for name in Wanted._fields))
    if order not in _ORDERS:
        raise InvalidInput("order", f"is none of {', '.join(_ORDERS)}")
    if wanted.kind is not None and wanted.kind not in {*StreamKind}:
        raise InvalidInput("kind", f"is none of {', '.join(StreamKind)}")
    more = None
    if order == "oldest":
        page, more = await hub.elsewhere.page(query.get("after"), limit, wanted)
    else:
        page = await hub.elsewhere.slowest(limit, wanted)
    return web.json_response({"connections": [*map(_shown, page)], "next": more})


def _shown(listed: Listed) -> dict[str, object]:
    shown = {**listed.facts._asdict(), "opened": moment(listed.facts.opened), "worker": listed.worker}
    del shown["reason"]
    return shown


async def change_topics(hub: Hub, request: web.Request) -> web.Response:
    """Change the topics of one subscription, for the user who holds it or for an administrator."""
    id = request.match_info["id"]
    here = hub.connections.get(id) is not None
    elsewhere = None if here else await hub.elsewhere.find(id)

    def holder() -> Holder:
        return _holder(hub, id) if elsewhere is None else Holder(elsewhere.user)

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
        if elsewhere is None:
            await access.check_added(sender, holder(), add)
            changed = await hub.change_topics(id, add=add, remove=remove, after=after)
        else:
            facts = [id, None if sender is None else as_values(sender), add, remove, after]
            topics, position = await hub.peers.ask(
                elsewhere.peer, CHANGE, facts, seconds=CHANGE_SECONDS + ANSWER_SECONDS
            )
            return web.json_response({"topics": topics, "from": position})
    except (Unauthorized, Forbidden) as error:
        note_denial(hub, request, SUBSCRIBE, error, add)
        raise
    return web.json_response({"topics": changed.topics, "from": str(changed.position)})


def changes_by_rights(hub: Hub, access: Access) -> None:
    """Have the topics of streams change by what *access* says, also when another process asks for it."""

    async def change(facts: Any) -> Any:
        id, sender, add, remove, after = facts
        identity = None if sender is None else from_values(sender)
        await access.check_added(identity, _holder(hub, id), add)
        changed = await hub.change_topics(id, add=add, remove=remove, after=after)
        return [changed.topics, str(changed.position)]

    hub.changes.readable = access.readable
    hub.peers.answer(CHANGE, change)


def _holder(hub: Hub, id: str) -> Holder:
    stream = hub.connections.get(id)
    if stream is None or stream.closed_because is not None:
        raise NotThere("connection")
    return stream.holder


async def end_connection(hub: Hub, request: web.Request) -> web.Response:
    """End one stream. The rights of its holder stay what they are."""
    await Access.of(request).administer(request)
    if not await hub.elsewhere.end(request.match_info["id"]):
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
