"""The routes of the dashboard: its page, which holds no secrets, and for administrators what the page shows.

They belong to the page and change with it; what is for other programs is `/notifications/stats`, `/metrics` and
`/notifications/connections`.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from hub.errors import InvalidInput, Unauthorized
from hub.eventstream import compact_json
from hub.hub import Hub
from hub.topics import check_pattern
from hub.web.access import Access
from hub.web.body import check_fields, read_json
from hub.web.dashboard.dashboard import Dashboard
from hub.web.endpoint import Handler, opens_stream
from hub.web.handler_streams import HandlerStreams
from hub.web.limits import holder_of
from hub.web.pages import page
from hub.web.problems import from_error
from hub.web.query import Parameters, page_limit
from hub.web.stream import sent_away

PATH = "/dashboard"
POLICY = "hub-dashboard"
"""The Trusted Types policy of the page."""
HERE = Path(__file__).parent / "page"
LONGEST = 1_024
MOST_EXPLAINED = 64

_TOPICS = Parameters("q", "order", "offset", "limit")
_ORDERS = ("subscribers", "rate", "topic")
_EXPLAINED = ("user", "token", "subscribe", "publish", "topics")


async def facts(hub: Hub, request: web.Request) -> web.Response:
    """Return what differs from one hub to the next: who looks, and which of the page's parts have routes here."""
    identity = await Access.of(request).administer(request)
    there = {
        each.canonical.rpartition("/notifications/")[2]
        for each in request.app.router.resources()
        if "/notifications/" in each.canonical
    }
    return web.json_response(
        {
            "user": None if identity is None else identity.user,
            "guarded": Access.of(request).asks,
            "tail": "subscribe" in there,
            "publish": "publish" in there,
            "presence": "presence" in there,
            "rooms": "rooms/{room}/members" in there,
            "connections": "connections" in there,
            "settings": {
                "slow": hub.settings.slow,
                "buffer_bytes": hub.settings.buffer_bytes,
                "heartbeat": hub.settings.heartbeat,
            },
        }
    )


@opens_stream
async def feed(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Open a stream of the figures, one sample a second."""
    identity = await Access.of(request).administer(request)
    holder = holder_of(hub, request, identity)
    away = sent_away(hub, request, holder)
    if away is not None:
        return away
    streams = request.config_dict[HandlerStreams.KEY]
    return await streams.answer(request, Dashboard.of(request).feed.watch(), "end", "the dashboard", holder=holder)


async def figures(hub: Hub, request: web.Request) -> web.Response:
    """Return one sample: for a page that can't have a stream, because there are as many as may be."""
    await Access.of(request).administer(request)
    latest = Dashboard.of(request).feed.latest
    if latest is not None:
        return web.Response(text=latest, content_type="application/json")
    return web.json_response(await Dashboard.of(request).sample(), dumps=compact_json)


async def topics(hub: Hub, request: web.Request) -> web.Response:
    """Return a page of the topics, with their subscribers and what is published to them."""
    await Access.of(request).administer(request)
    query = _TOPICS.read(request)
    limit, order, containing = page_limit(query), query.get("order", _ORDERS[0]), query.get("q", "")
    if order not in _ORDERS:
        raise InvalidInput("order", f"is none of {', '.join(_ORDERS)}")
    if len(containing) > LONGEST:
        raise InvalidInput("q", f"has more than {LONGEST} characters")
    said = query.get("offset", "0")
    if not (said.isascii() and said.isdigit() and len(said) <= 9):
        raise InvalidInput("offset", "is not a whole number")
    found = await Dashboard.of(request).topics(containing=containing, order=order, offset=int(said), limit=limit)
    return web.json_response(found, dumps=compact_json)


async def failures(hub: Hub, request: web.Request) -> web.Response:
    """Return what went wrong in the last hour."""
    await Access.of(request).administer(request)
    return web.json_response({"failures": await Dashboard.of(request).failed()}, dumps=compact_json)


async def revocations(hub: Hub, request: web.Request) -> web.Response:
    """Return what was revoked lately."""
    await Access.of(request).administer(request)
    return web.json_response({"revocations": Dashboard.of(request).revocations()}, dumps=compact_json)


async def explain(hub: Hub, request: web.Request) -> web.Response:
    """Return why somebody may read or publish to some topics, or may not."""
    await Access.of(request).administer(request)
    body = await read_json(request)
    if not isinstance(body, dict):
        raise InvalidInput("body", "is not a JSON object")
    check_fields(body, _EXPLAINED)
    for field in ("user", "token"):
        if not isinstance(body.get(field, ""), str):
            raise InvalidInput(field, "is not a string")
    for field in ("subscribe", "publish", "topics"):
        _check_patterns(body, field)
    if not body.get("topics"):
        raise InvalidInput("topics", "is empty")
    try:
        said = await Dashboard.of(request).debugger.explain(body)
    except Unauthorized as error:
        # Of the token in the body. Raised, it would count as one of whoever asks, who is then asked to wait.
        return from_error(error)
    return web.json_response(said, dumps=compact_json)


def _check_patterns(body: dict[str, object], field: str) -> None:
    patterns = body.get(field, [])
    if not isinstance(patterns, list) or not all(isinstance(each, str) for each in patterns):
        raise InvalidInput(field, "is not a list of topics and patterns")
    if len(patterns) > MOST_EXPLAINED:
        raise InvalidInput(field, f"has more than {MOST_EXPLAINED} topics")
    for each in patterns:
        check_pattern(each, field)


def routes() -> dict[str, dict[str, Handler]]:
    """Return the handlers by path and method."""
    return {
        PATH: {"GET": page(HERE / "index.html", trusted=POLICY)},
        **{
            f"{PATH}/{file.name}": {"GET": page(file)}
            for file in sorted(HERE.iterdir())
            if file.suffix in {".css", ".js"}
        },
        f"{PATH}/facts": {"GET": facts},
        f"{PATH}/feed": {"GET": feed},
        f"{PATH}/figures": {"GET": figures},
        f"{PATH}/topics": {"GET": topics},
        f"{PATH}/failures": {"GET": failures},
        f"{PATH}/revocations": {"GET": revocations},
        f"{PATH}/explain": {"POST": explain},
    }
