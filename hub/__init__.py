"""A reactive broadcast hub: events from a Python backend to browsers, over Server-Sent Events.

The way of a notification, file by file:

    bus.emit("order.created", order)                       hub/bus.py
      └─ OrderListener                                     listeners/orders.py
           └─ notifications.send_notification(data, …)     hub/notifications.py   draft: topic and size checked
    POST /notifications/publish ───────┘                   hub/web/publish.py
                └─ Log.append(drafts)                      hub/log/               takes its place in the order
                     └─ Subject.on_next(notification)      hub/notifications.py   the trunk: fed only by the log
                          └─ Fanout.on_next                hub/fanout.py          topic index; one batch per flush
                               └─ Connection.on_next       hub/connection.py      replay seam, byte limit, slow policy
                                    └─ transport.write     one write per connection

What a client asks for comes the other way: hub/web/subscribe.py reads it, hub/web/handover.py takes the socket out
of aiohttp's hands, hub/replay.py decides where the stream begins, hub/connection.py brings it there, with pages of the
history that hub/pages.py reads once for all who ask the same.
"""

from hub.bus import EventBus
from hub.errors import HubError
from hub.event import Event, on_event
from hub.generation import TokenStream
from hub.hub import Hub
from hub.log import Receipt
from hub.notification import Draft, Notification, Position
from hub.notifications import NotificationService
from hub.outbox import SlowPolicy
from hub.providers import Delta, Prompt, Provider, ProviderError
from hub.settings import Settings
from hub.sse import MessageEvent
from hub.web import BUS, HUB, NOTIFICATIONS, setup_hub, sse

__all__ = [
    "BUS",
    "HUB",
    "NOTIFICATIONS",
    "Delta",
    "Draft",
    "Event",
    "EventBus",
    "Hub",
    "HubError",
    "MessageEvent",
    "Notification",
    "NotificationService",
    "Position",
    "Prompt",
    "Provider",
    "ProviderError",
    "Receipt",
    "Settings",
    "SlowPolicy",
    "TokenStream",
    "on_event",
    "setup_hub",
    "sse",
]
