"""How things look to a client of Socket.IO: each is an event with one object, in an Engine.IO packet of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hub.connections.client_stream import CloseReason
from hub.encoding import End
from hub.eventstream import compact_json
from hub.notification import Position
from hub.wires import ObjectEncoding

END = b"\x1e"
"""Ends each packet, as it divides them in a long-poll. No JSON has it: it is a control character."""
STAY_AWAY = frozenset({CloseReason.REPLACED, CloseReason.REVOKED})
"""After these a client is disconnected in a way after which its library does not come back by itself."""

_DISCONNECT = b"41" + END


def _event(object: str) -> bytes:
    name, _, facts = object.removeprefix('{"op":').partition(",")
    return f"42[{name},{{{facts}]".encode() + END


def event(name: str, facts: Mapping[str, object]) -> bytes:
    """Return the event *name* with *facts*."""
    return f"42{compact_json([name, facts])}".encode() + END


def connected(id: str) -> bytes:
    """Return what answers a client that has connected: it has the *id*."""
    return f"40{compact_json({'sid': id})}".encode() + END


def not_connected(message: str, facts: Mapping[str, object], namespace: str = "") -> bytes:
    """Return what answers a client that may not connect: an error with a *message* and *facts* as its `data`."""
    return f"44{namespace}{compact_json({'message': message, 'data': facts})}".encode() + END


def answer(id: int, facts: Mapping[str, object]) -> bytes:
    """Return the acknowledgement of the event with this *id*."""
    return f"43{id}{compact_json([facts])}".encode() + END


@dataclass(frozen=True)
class Packets(ObjectEncoding):
    """Packets of Socket.IO: each object is an event, and its `op` the name of the event.

    Attributes:
        ids: notifications have their ids.
    """

    ids: bool = True

    def without_ids(self) -> Packets:
        """Return the encoding in which a notification says `earlier` for `id`."""
        return Packets(ids=False)

    def carried(self, *objects: str) -> bytes:
        """Return the event of each of *objects*."""
        return b"".join([_event(each) for each in objects])

    def heartbeat(self, newest: Position) -> bytes:
        """Return nothing: Engine.IO has its own pings, and a poll that is answered costs another request."""
        return b""

    def end(self, end: End) -> bytes:
        """Return `hub.close`, and what keeps the client's library away if the client is to stay away."""
        return super().end(end) + (_DISCONNECT if end.reason in STAY_AWAY else b"")
