"""How things look to a client of Socket.IO: each is an event with one object, in an Engine.IO packet of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hub.connections.client_stream import CloseReason
from hub.encoding import Attendance, Drop, End, Gap, Opening, Present, Topics
from hub.eventstream import compact_json
from hub.notification import Notification, Position
from hub.wires import Lines

END = b"\x1e"
"""Ends each packet, as it divides them in a long-poll. No JSON has it: it is a control character."""
STAY_AWAY = frozenset({CloseReason.REPLACED, CloseReason.REVOKED})
"""After these a client is disconnected in a way after which its library does not come back by itself."""

_DISCONNECT = b"41" + END


def _event(line: bytes) -> bytes:
    """Return the event for *line*, an object whose first member is `op`: its name."""
    name, _, facts = line.removeprefix(b'{"op":').partition(b",")
    return b"42[%b,{%b]%b" % (name, facts, END)


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


class Packets(NamedTuple):
    """Packets of Socket.IO.

    Attributes:
        ids: notifications have their ids.
    """

    ids: bool = True

    @property
    def takes_chunks(self) -> bool:
        """False: a notification does not look like its SSE chunk."""
        return False

    @property
    def names_all_topics(self) -> bool:
        """True: a notification names all topics through which it is seen."""
        return True

    def without_ids(self) -> Packets:
        """Return the encoding in which a notification says `earlier` for `id`."""
        return Packets(ids=False)

    @property
    def _lines(self) -> Lines:
        return Lines(chunked=False, ids=self.ids)

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        """Return the event `notification`."""
        return _events(self._lines.notification(notification, topics))

    def opening(self, opening: Opening) -> bytes:
        """Return `hub.open`, and `hub.gap` behind it."""
        return _events(self._lines.opening(opening))

    def topics(self, topics: Topics) -> bytes:
        """Return `hub.topics`, and `hub.gap` behind it."""
        return _events(self._lines.topics(topics))

    def gap(self, gap: Gap) -> bytes:
        """Return `hub.gap`."""
        return _events(self._lines.gap(gap))

    def drop(self, drop: Drop) -> bytes:
        """Return `hub.dropped`."""
        return _events(self._lines.drop(drop))

    def attendance(self, attendance: Attendance) -> bytes:
        """Return `hub.presence`."""
        return _events(self._lines.attendance(attendance))

    def join(self, topic: str, who: Present) -> bytes:
        """Return `hub.join`."""
        return _events(self._lines.join(topic, who))

    def leave(self, topic: str, who: Present) -> bytes:
        """Return `hub.leave`."""
        return _events(self._lines.leave(topic, who))

    def heartbeat(self, newest: Position) -> bytes:
        """Return nothing: Engine.IO has its own pings, and a poll that is answered costs another request."""
        return b""

    def end(self, end: End) -> bytes:
        """Return `hub.close`, and what keeps the client's library away if the client is to stay away."""
        return _events(self._lines.end(end)) + (_DISCONNECT if end.reason in STAY_AWAY else b"")


def _events(lines: bytes) -> bytes:
    return b"".join([_event(line) for line in lines.removesuffix(b"\n").split(b"\n")])
