"""How a notification is written in Redis, and what the notices say that come with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from hub.eventstream import compact_json
from hub.notification import Draft, Notification, Position

FORMAT = "1"
ENTRY_SIZE = 60
PLACE_SIZE = 130
"""What Redis needs for a notification, and for each of its topics, beside the texts, in bytes (measured)."""


class Keys(NamedTuple):
    """The keys of a log."""

    meta: str
    log: str
    dir: str
    places: str
    dead: str
    gone: str
    used: str
    usedorder: str
    writers: str
    writerages: str

    @classmethod
    def of(cls, prefix: str, name: str) -> Keys:
        """Return the keys of the log *name* of the hub *prefix*, which is their hash tag."""
        begin = f"{{{prefix}}}:{name}:" if name else f"{{{prefix}}}:"
        return cls(*(begin + field for field in cls._fields))

    @property
    def read(self) -> tuple[str, ...]:
        """Those that are only read."""
        return (self.meta, self.log, self.dir, self.places, self.gone)


def facts(draft: Draft) -> str:
    """Return what there is to say of *draft* beside its topics and its text."""
    _, _, is_json, type, retry, private, tags, _ = draft
    head = ("j" if is_json else "s") + ("p" if private else "-")
    if type is None and retry is None and not tags:
        return head
    return head + compact_json([type, retry, dict(tags) if tags else None])


def size_of(topics: Sequence[str], joined: bytes, text: bytes, more: str) -> int:
    """Return what it costs to keep a notification in Redis, in bytes."""
    return ENTRY_SIZE + len(text) + 3 * len(joined) + len(more) + PLACE_SIZE * len(topics)


def notification_of(epoch: str, offset: int, head: bytes, topics: bytes, text: bytes) -> Notification:
    """Return the notification that stands at *offset* of *epoch*."""
    _, at, more = head.decode().split(" ", 2)
    type = retry = tags = None
    if len(more) > 2:
        type, retry, tags = json.loads(more[2:])
    draft = Draft(tuple(topics.decode().split("\n")), text.decode(), more[0] == "j", type, retry, more[1] == "p", tags)
    return Notification.accept(draft, Position(epoch, offset), float(at))


class Notes(NamedTuple):
    """How the log stands after a call, and what that call has trimmed.

    Attributes:
        oldest: the oldest offset that is kept.
        kept, size: how many there are, and their bytes.
        trims: how often something was trimmed, or the history rewound.
        topics: for the bounds of topics: each with the newest offset that went.
        whole: because the whole was full or something too old.
    """

    oldest: int
    kept: int
    size: int
    trims: int
    topics: list[tuple[str, int]]
    whole: list[tuple[str, int]]

    @classmethod
    def read(cls, text: bytes) -> Notes:
        """Return what *text*, written by the script, says."""
        if b"\n" not in text:  # most of them
            oldest, kept, size, trims = map(int, text.split(b" "))
            return cls(oldest, kept, size, trims, [], [])
        first, *lines = text.decode().split("\n")
        by_mark: dict[str, list[tuple[str, int]]] = {"T": [], "O": []}
        for line in lines:
            offset, _, topic = line[1:].partition(" ")
            by_mark[line[0]].append((topic, int(offset)))
        oldest, kept, size, trims = map(int, first.split(" "))
        return cls(oldest, kept, size, trims, by_mark["T"], by_mark["O"])


def ended_of(text: bytes) -> dict[str, int]:
    """Return how far each earlier epoch went, as the script writes it."""
    pairs = (line.split(" ") for line in text.decode().splitlines())
    return {epoch: int(last) for epoch, last in pairs}


def fields_of(entry: Any) -> tuple[bytes, list[bytes]]:
    """Return the id of an entry of a stream, and its fields: names and values by turns."""
    return entry[0], entry[1]
