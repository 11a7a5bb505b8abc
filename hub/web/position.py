"""`/notifications/position`: where a stream begins that is opened for a page that is rendered now."""

from __future__ import annotations

from aiohttp import web

from hub.eventstream import compact_json
from hub.hub import Hub
from hub.web.access import Access


async def position(hub: Hub, request: web.Request) -> web.Response:
    """Return the newest position, to whoever may read anything: `hub.open` of any stream tells as much."""
    access = Access.of(request)
    access.policy.check_may_read(await access.identity(request))
    facts = {"position": str(hub.notifications.position)}
    return web.json_response(facts, dumps=compact_json, headers={"Cache-Control": "no-store"})
