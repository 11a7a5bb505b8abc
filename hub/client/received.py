"""What a listener gets: notifications, gaps and drops."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hub.eventstream import Message

# Split as text, not as JSON, so that numbers keep every digit.
_STRING = r'"(?:[^"\\]|\\.)*"'
_TOPICS = rf'"(topics?)":({_STRING}|\[(?:{_STRING},?)*\])'
_ENVELOPE = re.compile(rf'\{{(?:"id":({_STRING}),)?{_TOPICS},"data":(.*)\}}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Received:
    """A notification.

    Attributes:
        id: its position, as text; `last_event_id` of a stream that is to begin after it.
        type: its type; `message` if it was sent without one, as in browsers.
        topics: all of its topics that the stream asked for and may see.
        text: the data as it was on the wire: a string as it was sent, anything else as JSON.
        is_json: whether `text` is JSON.
    """

    id: str
    type: str
    topics: tuple[str, ...]
    text: str
    is_json: bool

    @property
    def topic(self) -> str:
        """The first of its topics; empty if the hub names none."""
        return self.topics[0] if self.topics else ""

    @property
    def data(self) -> Any:
        """The data that was sent: a string, or what the JSON says, decoded anew at each access."""
        return json.loads(self.text) if self.is_json else self.text

    @classmethod
    def of(cls, message: Message) -> Received:
        """Return the notification in *message*, which came in an envelope."""
        found = _ENVELOPE.fullmatch(message.data)
        if not found:
            return cls(message.id, message.type, (), message.data, is_json=False)
        own, kind, named, data = found.groups()
        try:
            id = message.id if own is None else json.loads(own)  # older than the cursor, which it does not move
            topics = tuple(json.loads(named)) if kind == "topics" else (json.loads(named),)
            if data.startswith('"'):
                return cls(id, message.type, topics, json.loads(data), is_json=False)
        except ValueError:  # no hub has made it
            return cls(message.id, message.type, (), message.data, is_json=False)
        return cls(id, message.type, topics, data, is_json=True)


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that was published can no longer be had; what is still kept follows.

    Attributes:
        id: the position of the stream; the gap is before or after it.
        reason: `trimmed` (the hub no longer keeps it), `epoch` (its history was lost), `unknown` (no such id).
        oldest: the oldest id that is still kept.
    """

    id: str
    reason: str
    oldest: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """The hub left out *number* notifications between two ids, because this client read too slowly."""

    number: int
    after: str
    before: str


Item = Received | Gap | Dropped


def item_of(message: Message) -> Item | None:
    """Return what *message* is for a listener; None: it is another message of the hub itself."""
    if not message.type.startswith("hub."):
        return Received.of(message)
    facts = facts_of(message)
    if message.type == "hub.gap":
        return Gap(message.id, str(facts.get("reason", "")), str(facts.get("oldest", "")))
    if message.type == "hub.dropped":
        number = facts.get("dropped")
        after, before = (str(facts.get(name, "")) for name in ("after", "before"))
        return Dropped(number if isinstance(number, int) else 0, after, before)
    return None


def facts_of(message: Message) -> dict[str, object]:
    """Return the JSON object in *message*; empty if there is none."""
    try:
        facts = message.json()
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
