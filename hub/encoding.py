"""How things look on a wire.

The core says *notification, opening, topics, gap, drop, attendance, join, leave, heartbeat, end*; an `Encoding` makes
the bytes. A new wire is a new class, here or elsewhere, and nothing else changes: the fan-out asks it for the bytes of
each notification, once for all connections that share it, and a connection asks it for what concerns that connection
alone. Pure, no I/O.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from hub.eventstream import LAST_CHUNK, block, chunk, compact_json, unchunk
from hub.notification import Notification, Position

FEW_TOPICS = 4  # as most ask for; a list of 128 long ones would have the cache grow by megabytes


class GapReason(enum.StrEnum):
    """Why not everything after the asked id can be sent."""

    TRIMMED = "trimmed"  # something that matches was kept once, and is no longer
    EPOCH = "epoch"  # the id belongs to another log, or to more of an earlier epoch than this log has
    UNKNOWN = "unknown"  # no position of this log has that id


class Limit(enum.StrEnum):
    """The limit that leaves no room for a stream, beside that of all streams; named as the setting that sets it."""

    MAX_PER_USER = "max_per_user"
    MAX_PER_ADDRESS = "max_per_address"
    CONNECT_RATE = "connect_rate"
    AI_PER_USER = "ai_per_user"
    AI_TOTAL = "ai_total"


class Gap(NamedTuple):
    """Something is missing: why, and the oldest position that is still kept."""

    reason: GapReason
    oldest: Position


class Opening(NamedTuple):
    """What a stream begins with.

    Attributes:
        connection: the id of the connection.
        topics: the topics and patterns it asked for.
        position: where the stream begins; everything after it follows.
        recovered: None if the client asked for no position, else whether everything after that position follows.
        gap: what is missing before *position*; None if nothing is.
        retry: milliseconds after which the client comes back when it loses the stream.
    """

    connection: str
    topics: tuple[str, ...]
    position: Position
    recovered: bool | None
    gap: Gap | None
    retry: int


class Topics(NamedTuple):
    """The topics of an open stream have changed.

    Attributes:
        topics: those that it has now.
        position: those that were added count from here on: everything after it follows.
        gap: what is missing of them before *position*; None if nothing is.
    """

    topics: tuple[str, ...]
    position: Position
    gap: Gap | None


class Drop(NamedTuple):
    """*number* notifications were left out between two positions, because the reader was too slow."""

    number: int
    after: Position
    before: Position


class Present(NamedTuple):
    """A user who is on a topic.

    Attributes:
        id: the user.
        info: what others are told of the user; JSON values.
        since: when the user came, in seconds since 1970.
    """

    id: str
    info: Mapping[str, Any]
    since: float

    def facts(self) -> dict[str, object]:
        """Return what is told of the user, as JSON values."""
        return {"id": self.id, "info": dict(self.info), "since": moment(self.since)}


class Attendance(NamedTuple):
    """Who is on *topic*: the number of users, and which; None: the reader is not told which."""

    topic: str
    number: int
    users: Sequence[Present] | None


class End(NamedTuple):
    """The hub ends the stream: why, the milliseconds after which the client may come back, and the limit if one did."""

    reason: str
    retry: int
    limit: Limit | None = None


class Encoding(Protocol):
    """The bytes of a stream on one kind of wire.

    Encodings are immutable and hashable; connections with equal encodings share the bytes of notifications. So two
    kinds are never equal: named tuples would be.
    """

    @property
    def takes_chunks(self) -> bool:
        """Whether a notification looks like its ready-made `chunk`, so that whole pages of chunks can be sent."""
        ...

    def without_ids(self) -> Encoding:
        """Return the encoding in which notifications have no ids: for those that are older than the client's cursor."""
        ...

    @property
    def names_all_topics(self) -> bool:
        """Whether a notification names all topics through which it is seen; else the first of them is enough."""
        ...

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        """Return the bytes of *notification* for receivers that see it through *topics*, of which there is one."""
        ...

    def opening(self, opening: Opening) -> bytes:
        """Return the first bytes of a stream, those of its gap included.

        A client that is cut in the middle of them must not come back with a position behind the gap.
        """
        ...

    def topics(self, topics: Topics) -> bytes:
        """Return what a stream says when its topics change, the bytes of the gap included; without an id."""
        ...

    def gap(self, gap: Gap) -> bytes:
        """Return what stands in the place of notifications that were trimmed during a replay."""
        ...

    def drop(self, drop: Drop) -> bytes:
        """Return what stands in the place of notifications that a slow-reader policy left out."""
        ...

    def attendance(self, attendance: Attendance) -> bytes:
        """Return who is on a topic. Like what follows it, this moves no cursor."""
        ...

    def join(self, topic: str, who: Present) -> bytes:
        """Return that *who* has come to *topic*."""
        ...

    def leave(self, topic: str, who: Present) -> bytes:
        """Return that *who* is gone from *topic*."""
        ...

    def heartbeat(self, newest: Position) -> bytes:
        """Return a sign of life to a client that has been sent everything up to *newest*."""
        ...

    def end(self, end: End) -> bytes:
        """Return the last bytes of a stream."""
        ...


_WORDS = {None: "null", True: "true", False: "false"}
_few_as_json = lru_cache(maxsize=1024)(compact_json)


class Envelope(enum.IntEnum):
    """What the data of a notification is wrapped in."""

    NONE = 0
    TOPIC = 1  # {"topic": …, "data": …}: the first topic through which it is seen
    TOPICS = 2  # {"topics": […], "data": …}: all of them; "id" in front where the block has none
    ALL = 3  # {"topics": […], "type": …, "data": …}: the block has no type, so an EventSource hears each as `message`


@dataclass(frozen=True)
class SSE:
    """Server-Sent Events (WHATWG HTML, section 9.2).

    Attributes:
        envelope: what the data is wrapped in; True is `Envelope.TOPIC`.
        chunked: with HTTP/1.1 chunk framing (RFC 9112, section 7.1); False for HTTP/1.0.
        ids: notifications have their ids.
    """

    envelope: Envelope | bool = Envelope.NONE
    chunked: bool = True
    ids: bool = True

    @property
    def takes_chunks(self) -> bool:
        """Whether a notification looks like its ready-made `chunk`."""
        return self.chunked and not self.envelope and self.ids

    @property
    def names_all_topics(self) -> bool:
        """Whether a notification names all topics through which it is seen."""
        return self.envelope > Envelope.TOPIC

    def without_ids(self) -> SSE:
        """Return the encoding in which notifications have no ids, so that the client's cursor stays where it is."""
        return replace(self, ids=False)

    def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
        """Return the block of *notification*, in an envelope with *topics* if one was asked for."""
        if self.envelope > Envelope.TOPIC:
            return self._with_topics(notification, topics)
        if not self.ids:
            text = notification.enveloped(topics[0]) if self.envelope else notification.text
            return self.framed(block(text, type=notification.type, retry=notification.retry))
        framed = notification.envelope(topics[0]) if self.envelope else notification.chunk
        return framed if self.chunked else unchunk(framed)

    def _with_topics(self, notification: Notification, topics: Sequence[str]) -> bytes:
        id, type = notification.id, notification.type
        facts = "" if self.ids else f'"id":"{id}",'
        facts += f'"topics":{compact_json(topics)},'
        if self.envelope == Envelope.ALL and type is not None:
            facts, type = f'{facts}"type":{compact_json(type)},', None
        data = notification.text if notification.is_json else compact_json(notification.text)
        text = f'{{{facts}"data":{data}}}'
        return self.framed(block(text, type=type, id=id if self.ids else None, retry=notification.retry))

    def opening(self, opening: Opening) -> bytes:
        """Return `hub.open`, and `hub.gap` in the same chunk."""
        connection, topics, position, recovered, gap, retry = opening
        as_json = _few_as_json if len(topics) <= FEW_TOPICS else compact_json
        facts = f'"connection":"{connection}","topics":{as_json(topics)},"recovered":{_WORDS[recovered]}'
        if gap is not None:
            facts += f',"reason":"{gap.reason}","oldest":"{gap.oldest}"'
        body = f"retry: {retry}\nid: {position}\n".encode() + block(f"{{{facts}}}", type="hub.open")
        return self.framed(body if gap is None else body + _gap(gap))

    def topics(self, topics: Topics) -> bytes:
        """Return `hub.topics`, and `hub.gap` in the same chunk."""
        body = block(compact_json({"topics": topics.topics, "from": str(topics.position)}), type="hub.topics")
        return self.framed(body if topics.gap is None else body + _gap(topics.gap))

    def gap(self, gap: Gap) -> bytes:
        """Return `hub.gap`."""
        return self.framed(_gap(gap))

    def drop(self, drop: Drop) -> bytes:
        """Return `hub.dropped`."""
        facts = {"dropped": drop.number, "after": str(drop.after), "before": str(drop.before)}
        return self.framed(block(compact_json(facts), type="hub.dropped"))

    def attendance(self, attendance: Attendance) -> bytes:
        """Return `hub.presence`."""
        topic, number, users = attendance
        named = {} if users is None else {"users": [user.facts() for user in users]}
        return self.framed(block(compact_json({"topic": topic, "count": number, **named}), type="hub.presence"))

    def join(self, topic: str, who: Present) -> bytes:
        """Return `hub.join`."""
        return self.framed(block(_change(topic, who), type="hub.join"))

    def leave(self, topic: str, who: Present) -> bytes:
        """Return `hub.leave`."""
        return self.framed(block(_change(topic, who), type="hub.leave"))

    def heartbeat(self, newest: Position) -> bytes:
        """Return a comment with the id of *newest*, which moves the client's cursor on."""
        return _heartbeat(self, newest)

    def end(self, end: End) -> bytes:
        """Return `hub.close`, and the end of the HTTP body."""
        return self.last(closing(end))

    def framed(self, blocks: bytes) -> bytes:
        """Return SSE *blocks* as they go out in the middle of a stream."""
        return chunk(blocks) if self.chunked else blocks

    def last(self, blocks: bytes) -> bytes:
        """Return SSE *blocks*, or nothing, as they go out at the end of the HTTP body."""
        framed = self.framed(blocks) if blocks else b""
        return framed + LAST_CHUNK if self.chunked else framed


def closing(end: End) -> bytes:
    """Return `hub.close`, the last block of a stream, or the only one of a stream that may not begin."""
    facts = {"reason": end.reason} if end.limit is None else {"reason": end.reason, "limit": end.limit}
    return block(compact_json(facts), type="hub.close", retry=end.retry)


def moment(seconds: float) -> str:
    """Return *seconds* since 1970 as the text that JSON has (RFC 3339), with milliseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def _change(topic: str, who: Present) -> str:
    info = {"info": dict(who.info)} if who.info else {}
    return compact_json({"topic": topic, "user": who.id, **info})


def _gap(gap: Gap) -> bytes:
    facts = {"recovered": False, "reason": gap.reason, "oldest": str(gap.oldest)}
    return block(compact_json(facts), type="hub.gap")


@lru_cache(maxsize=16)  # thousands of connections get the same one in one sweep
def _heartbeat(sse: SSE, newest: Position) -> bytes:
    return sse.framed(block(comment="", id=str(newest)))


def retry_between(least: float, most: float) -> int:
    """Return a reconnection time in milliseconds, random so that clients do not all come back at once.

    Args:
        least: seconds.
        most: seconds.
    """
    return int(random.uniform(least, most) * 1000)
