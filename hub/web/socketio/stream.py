"""A client of Socket.IO that is connected: a subscription whose client sends, too."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from hub.connections.client_stream import CloseReason, Ending, StreamKind
from hub.connections.connection import ROOMS_OF_USER, PresenceView, Subscription, Wiring
from hub.connections.holders import Holder
from hub.encoding import retry_between
from hub.web import conversation
from hub.web.conversation import Asked, Conversation
from hub.web.socketio.packets import Packets, connected, not_connected


class SocketIOStream(Conversation):
    """One open session of Socket.IO; its transport is an `Outbox`, whichever way that is emptied.

    Attributes:
        socket: the Engine.IO socket, which knows when its client was asked for a sign of life.
    """

    kind: ClassVar[StreamKind] = StreamKind.SOCKETIO

    __slots__ = ("socket",)

    def __init__(self, socket: Any, wiring: Wiring, *, holder: Holder) -> None:
        super().__init__(Subscription((), None, Packets()), wiring, holder=holder, known=False)
        self.socket = socket

    def ask(self, asked: Asked) -> None:
        """Note what its client asks for as it connects."""
        self.asked = asked
        if asked.rooms:
            self.rooms = ROOMS_OF_USER

    def begin(self, presence: PresenceView) -> None:
        """Say that the client has connected, and begin."""
        self._write(connected(self.id))
        super().begin(presence)

    def refuse(self, message: str, facts: dict[str, object], reason: CloseReason) -> None:
        """Say why the client may not connect, and end."""
        if self.closed_because is None:
            self._write(not_connected(message, facts))
            self._close(reason)

    def reply(self, packet: bytes) -> None:
        """Send *packet*, unless the stream has ended."""
        if self.closed_because is None:
            self.say(packet)

    def depart(self) -> None:
        """End: the client has said that it leaves."""
        if self.closed_because is None:
            self._close(CloseReason.CLIENT)

    def tend(self, now: float, idle_since: float) -> None:
        """As every stream; and end that of a client that does not connect, or does not answer a ping."""
        pinged = self.socket.last_ping
        if self.closed_because is None and not self.known and now - self.begun >= conversation.KNOWN_SECONDS:
            self.end(CloseReason.UNAUTHORIZED, retry_between(10, 60))
        elif pinged and time.time() - pinged >= self._registry.peer_timeout:
            self.abort(CloseReason.PEER_TIMEOUT)
            return
        super().tend(now, idle_since)

    def _farewell(self, ending: Ending) -> bytes:
        if self.known:
            return super()._farewell(ending)
        return not_connected(ending.reason, {"code": ending.reason, "retry": ending.retry})
