"""The Python client: publish to a hub from any program, and listen to its topics.

    with HubClient("http://127.0.0.1:8080") as hub:
        hub.publish({"amount": 99.5}, topic="orders", type="order.created")

It needs neither an event loop nor the server: nothing of `hub.web` is loaded. What is to be sent, what answers mean and
when to try again is decided in pure code (`publishing`, `listening`), which yields what has to be done; `client` does
it in threads and `async_client` on an event loop.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hub.client.async_client import AsyncHubClient, AsyncListening
    from hub.client.async_socket import AsyncHubSocket, AsyncSocketListening
    from hub.client.client import HubClient, Listening
    from hub.client.errors import (
        Busy,
        ClientClosed,
        ClientError,
        NotAHub,
        NotAllowed,
        NotAuthenticated,
        NotValid,
        Refused,
        Unreachable,
    )
    from hub.client.received import Dropped, Gap, Received
    from hub.client.socket import HubSocket, SocketListening
    from hub.notification import Position

_HOMES = {
    "AsyncHubClient": "hub.client.async_client",
    "AsyncHubSocket": "hub.client.async_socket",
    "AsyncListening": "hub.client.async_client",
    "AsyncSocketListening": "hub.client.async_socket",
    "Busy": "hub.client.errors",
    "ClientClosed": "hub.client.errors",
    "ClientError": "hub.client.errors",
    "Dropped": "hub.client.received",
    "Gap": "hub.client.received",
    "HubClient": "hub.client.client",
    "HubSocket": "hub.client.socket",
    "Listening": "hub.client.client",
    "NotAHub": "hub.client.errors",
    "NotAllowed": "hub.client.errors",
    "NotAuthenticated": "hub.client.errors",
    "NotValid": "hub.client.errors",
    "Position": "hub.notification",
    "Received": "hub.client.received",
    "Refused": "hub.client.errors",
    "SocketListening": "hub.client.socket",
    "Unreachable": "hub.client.errors",
}
"""Where each public name is defined; imported when it is first asked for, as the names of `hub`."""

__all__ = [
    "AsyncHubClient",
    "AsyncHubSocket",
    "AsyncListening",
    "AsyncSocketListening",
    "Busy",
    "ClientClosed",
    "ClientError",
    "Dropped",
    "Gap",
    "HubClient",
    "HubSocket",
    "Listening",
    "NotAHub",
    "NotAllowed",
    "NotAuthenticated",
    "NotValid",
    "Position",
    "Received",
    "Refused",
    "SocketListening",
    "Unreachable",
]

if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        """Return the public name *name*, imported from its module (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
