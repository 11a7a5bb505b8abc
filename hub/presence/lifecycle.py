"""What happens to streams, users and topics, as events on the bus. What nobody hears is not made.

    connection.opened  connection.closed     one client stream, of whatever kind
    user.online        user.offline          a user with the first stream, and 3 seconds after the last
    topic.occupied     topic.vacated         exactly that topic, with the first and the last live stream of any reader
    room.joined        room.left             a user who belongs to a room from now on, or no longer
    subscribe.denied   publish.denied        a request for topics that its sender may not read, or publish to

They are emitted in the next turn of the loop: a handler may publish, and streams begin and end in the middle of steps
that must not be divided.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from hub.connections.client_stream import ClientStream
from hub.errors import TryLater
from hub.events.bus import EventBus
from hub.fanout import Fanout
from hub.presence.presence import ONLINE, Change
from hub.topics import is_pattern


class Lifecycle:
    """Emits the events of streams, users and topics.

    Args:
        bus: where they are emitted.
        fanout: knows which topics somebody subscribes to.
    """

    def __init__(self, bus: EventBus, fanout: Fanout) -> None:
        self._bus, self._fanout = bus, fanout
        self._due: deque[tuple[str, dict[str, Any]]] = deque()
        self._turning: dict[str, bool] = {}  # topics that may turn, and whether they were occupied before
        self._emitting = False  # `_emit` is due in the next turn of the loop
        fanout.turning = self._turn

    def opened(self, stream: ClientStream) -> None:
        """Note that *stream* begins."""
        if self._bus.wants("connection.opened"):
            self._soon("connection.opened", _about(stream))

    def closed(self, stream: ClientStream) -> None:
        """Note that *stream* has ended."""
        if self._bus.wants("connection.closed"):
            facts = stream.facts()
            how = {
                "reason": str(facts.reason),
                "duration": time.time() - facts.opened,
                "delivered": facts.delivered,
                "dropped": facts.dropped,
            }
            self._soon("connection.closed", _about(stream) | how)

    def changed(self, changes: Iterable[Change]) -> None:
        """Note those of *changes* by which a user comes online or goes offline."""
        for place, who, came in changes:
            if place == ONLINE and self._bus.wants(name := "user.online" if came else "user.offline"):
                self._soon(name, {"user": who.id, "info": dict(who.info)})

    def note(self, name: str, payload: Callable[[], Mapping[str, Any]]) -> None:
        """Note that *name* has happened; the payload is made if somebody hears it."""
        if self._bus.wants(name):
            self._soon(name, payload())

    def _turn(self, topics: Iterable[str]) -> None:
        """Note that an audience of *topics* is about to appear or to go."""
        if not (self._bus.wants("topic.occupied") or self._bus.wants("topic.vacated")):
            return
        for topic in topics:
            if not is_pattern(topic):
                self._turning.setdefault(topic, self._fanout.occupied(topic))
        self._emit_soon()

    def _soon(self, name: str, payload: Mapping[str, Any]) -> None:
        self._due.append((name, dict(payload)))
        self._emit_soon()

    def _emit_soon(self) -> None:
        if not self._emitting:
            self._emitting = True
            asyncio.get_running_loop().call_soon(self._emit)

    def _emit(self) -> None:
        self._emitting = False
        turning, self._turning = self._turning, {}
        for topic, before in turning.items():
            occupied = self._fanout.occupied(topic)
            if occupied is not before:
                self._due.append(("topic.occupied" if occupied else "topic.vacated", {"topic": topic}))
        due, self._due = self._due, deque()
        for name, payload in due:
            with suppress(TryLater):  # the bus is closed, or full before it is open: its log says so
                self._bus.emit(name, payload)


def _about(stream: ClientStream) -> dict[str, Any]:
    facts = stream.facts()
    return {
        "connection": facts.id,
        "kind": str(facts.kind),
        "user": facts.user,
        "address": facts.address,
        "topics": list(facts.topics),
    }
