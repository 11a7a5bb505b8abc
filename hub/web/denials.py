"""What was refused, as events on the bus: `subscribe.denied` and `publish.denied`."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from hub.errors import Forbidden, Unauthorized
from hub.hub import Hub
from hub.web.limits import IDENTITY

SUBSCRIBE, PUBLISH = "subscribe.denied", "publish.denied"


def note_denial(
    hub: Hub, request: web.Request, name: str, error: Unauthorized | Forbidden, topics: Iterable[object] = ()
) -> None:
    """Note that *request*, for *topics* as far as they are known, was refused with *error*: as the event *name*."""

    def facts() -> dict[str, object]:
        identity = request.get(IDENTITY)
        return {
            "user": None if identity is None else identity.user,
            "address": hub.addresses.client(request.remote or "", request.headers.getall("X-Forwarded-For", ())),
            "topics": list(topics),
            "topic": error.topic if isinstance(error, Forbidden) else "",
            "code": error.code,
        }

    hub.lifecycle.note(name, facts)
