"""A reactive broadcast hub: events from a Python backend to browsers, over Server-Sent Events.

The way of a notification, file by file:

    bus.emit("order.created", order)                       hub/events/bus.py
      └─ OrderListener                                     listeners/orders.py
           └─ notifications.send_notification(data, …)     hub/notifications.py   draft: topic and size checked
    POST /notifications/publish ───────┘                   hub/web/publish.py
                └─ Log.append(drafts)                      hub/log/               takes its place in the order
                     └─ Subject.on_next(notification)      hub/notifications.py   the trunk: fed only by the log
                          └─ Fanout.on_next                hub/fanout.py          topic index; one batch per flush
                               └─ Connection.on_next       hub/connections/       byte limit, slow policy; never waits
                                    └─ transport.write     one write per connection and flush

A request for a stream comes the other way. hub/web/subscribe.py reads it, hub/web/handover.py takes its socket from
aiohttp and gives it to a Connection (hub/connections/connection.py). The log finds the client's position, resume.py
decides where the stream begins, seam.py brings it from there to live, and page_cache.py reads each page of the history
once for all connections that ask for the same. registry.py knows every open stream, of whatever kind
(client_stream.py): it counts, sweeps and drains them.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hub.access.identity import Identity
    from hub.encoding import Present
    from hub.errors import HubError
    from hub.events.bus import EventBus
    from hub.events.event import Event, on_event
    from hub.eventstream import MessageEvent
    from hub.generations.generation import Generation
    from hub.generations.generation import Generation as TokenStream
    from hub.generations.providers.provider import Delta, Prompt, Provider, ProviderError
    from hub.hub import Hub
    from hub.log.receipt import Receipt
    from hub.notification import Draft, Notification, Position
    from hub.notifications import NotificationService
    from hub.presence.rooms import Rooms
    from hub.presence.service import PresenceService
    from hub.settings import Settings, SlowPolicy
    from hub.sse_events import from_sse
    from hub.state.state import Membership
    from hub.web.access_log import AccessLogger
    from hub.web.app import BUS, HUB, NOTIFICATIONS, PRESENCE, ROOMS, setup_hub
    from hub.web.handler_streams import sse
    from hub.web.token_cookie import clear_token_cookie, set_token_cookie

_HOMES = {
    "AccessLogger": "hub.web.access_log",
    "BUS": "hub.web.app",
    "Delta": "hub.generations.providers.provider",
    "Draft": "hub.notification",
    "Event": "hub.events.event",
    "EventBus": "hub.events.bus",
    "Generation": "hub.generations.generation",
    "HUB": "hub.web.app",
    "Hub": "hub.hub",
    "HubError": "hub.errors",
    "Identity": "hub.access.identity",
    "MessageEvent": "hub.eventstream",
    "NOTIFICATIONS": "hub.web.app",
    "Notification": "hub.notification",
    "NotificationService": "hub.notifications",
    "PRESENCE": "hub.web.app",
    "Position": "hub.notification",
    "Present": "hub.encoding",
    "PresenceService": "hub.presence.service",
    "Prompt": "hub.generations.providers.provider",
    "Provider": "hub.generations.providers.provider",
    "ProviderError": "hub.generations.providers.provider",
    "ROOMS": "hub.web.app",
    "Receipt": "hub.log.receipt",
    "Rooms": "hub.presence.rooms",
    "Membership": "hub.state.state",
    "Settings": "hub.settings",
    "SlowPolicy": "hub.settings",
    "TokenStream": "hub.generations.generation",
    "clear_token_cookie": "hub.web.token_cookie",
    "from_sse": "hub.sse_events",
    "on_event": "hub.events.event",
    "set_token_cookie": "hub.web.token_cookie",
    "setup_hub": "hub.web.app",
    "sse": "hub.web.handler_streams",
}
"""Where each public name is defined. It is imported when it is first asked for: whoever needs one module of the hub
(a client, a process of the log) does not load the server."""

_RENAMED = {"TokenStream": "Generation"}
"""Names of before, which go on working."""

__all__ = [
    "BUS",
    "HUB",
    "NOTIFICATIONS",
    "PRESENCE",
    "ROOMS",
    "AccessLogger",
    "Delta",
    "Draft",
    "Event",
    "EventBus",
    "Generation",
    "Hub",
    "HubError",
    "Identity",
    "Membership",
    "MessageEvent",
    "Notification",
    "NotificationService",
    "Position",
    "PresenceService",
    "Present",
    "Prompt",
    "Provider",
    "ProviderError",
    "Receipt",
    "Rooms",
    "Settings",
    "SlowPolicy",
    "TokenStream",
    "clear_token_cookie",
    "from_sse",
    "on_event",
    "set_token_cookie",
    "setup_hub",
    "sse",
]

if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        """Return the public name *name*, imported from its module (PEP 562)."""
        if name in _HOMES:
            value: object = getattr(import_module(_HOMES[name]), _RENAMED.get(name, name))
        else:
            value = _module(name)  # `import hub; hub.errors.HubError`
        globals()[name] = value
        return value


def _module(name: str) -> object:
    """Return the module *name* of this package."""
    wanted = f"{__name__}.{name}"
    try:
        return import_module(wanted) if not name.startswith("_") else sys.modules[wanted]
    except (ModuleNotFoundError, KeyError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != wanted:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
