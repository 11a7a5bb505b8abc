"""What was refused, as events on the bus: `subscribe.denied` and `publish.denied`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web

from hub.connections.holders import Holder
from hub.errors import Forbidden, Unauthorized
from hub.hub import Hub
from hub.web.limits import IDENTITY

SUBSCRIBE, PUBLISH = "subscribe.denied", "publish.denied"


def note_denial(
    hub: Hub, request: web.Request, name: str, error: Unauthorized | Forbidden, topics: Iterable[object] = ()
) -> None:
    """Note that *request*, for *topics* as far as they are known, was refused with *error*: as the event *name*."""

    def who() -> Holder:
        identity = request.get(IDENTITY)
        address = hub.addresses.client(request.remote or "", request.headers.getall("X-Forwarded-For", ()))
        return Holder(None if identity is None else identity.user, address)

    note_denial_of(hub, who, name, error, topics)


def note_denial_of(
    hub: Hub, who: Callable[[], Holder], name: str, error: Unauthorized | Forbidden, topics: Iterable[object] = ()
) -> None:
    """Note that *who*, asked if somebody hears it, was refused *topics* with *error*: as the event *name*."""

    def facts() -> dict[str, object]:
        user, address, *_ = who()
        return {
            "user": user,
            "address": address,
            "topics": list(topics),
            "topic": error.topic if isinstance(error, Forbidden) else "",
            "code": error.code,
        }

    hub.lifecycle.note(name, facts)
