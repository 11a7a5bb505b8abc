"""Topics, patterns, and the index that finds the subscribers of a topic.

A topic is `/`-separated segments (`stock/AAPL`). A pattern is a topic in which whole segments may be `*`
(exactly one segment) or `**` (zero or more segments), anywhere. A wildcard in the first segment does not match the
reserved `user`, `room` and `ai`: those have to be named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, TypeVar
from urllib.parse import unquote
from uuid import UUID

from hub.errors import InvalidInput, InvalidTopic
from hub.names import fault
from hub.patterns import RESERVED as RESERVED  # noqa: PLC0414 - said to mypy: with the rest of the grammar it is here
from hub.patterns import PatternTrie

MAX_SEGMENTS = 16
MAX_TOPICS_PER_NOTIFICATION = 16
MAX_TOPICS_PER_SUBSCRIPTION = 128
DEFAULT_TOPIC = "notifications"
EVERY_TOPIC = ("**", *(f"{first}/**" for first in sorted(RESERVED)))
"""The patterns that together match every topic there can be."""

_ROOM = "room/"
_TO_ENCODE = re.compile(r"[%/*\x00-\x1f\x7f-\x9f]")

T = TypeVar("T")


def check_topic(topic: str, field: str = "topic") -> str:
    """Return *topic* if it is a valid topic; *field* is the field that an error names.

    Raises:
        InvalidTopic: it breaks the grammar, or is a pattern.
    """
    why = fault(topic, "/", MAX_SEGMENTS)
    if not why and "*" in topic:
        why = "is a pattern: a notification needs a topic without '*'"
    if why:
        raise InvalidTopic(topic, why, field)
    return topic


def check_pattern(pattern: str, field: str = "topic") -> str:
    """Return *pattern* if it is a valid topic or pattern; *field* is the field that an error names.

    Raises:
        InvalidTopic: it breaks the grammar.
    """
    why = fault(pattern, "/", MAX_SEGMENTS)
    if why:
        raise InvalidTopic(pattern, why, field)
    return pattern


def check_wanted(topics: Iterable[str], field: str = "topic") -> tuple[str, ...]:
    """Return *topics* (patterns too), each once, if one subscription may have them; if empty, the default topic.

    *field* is the field that an error names.

    Raises:
        InvalidTopic: one breaks the grammar.
        InvalidInput: there are more than 128.
    """
    checked: dict[str, None] = {}
    for topic in topics:
        if type(topic) is str and topic in checked:
            continue
        checked[check_pattern(topic, field)] = None
        if len(checked) > MAX_TOPICS_PER_SUBSCRIPTION:  # before the next one: a megabyte has very many
            raise InvalidInput(field, f"has more than {MAX_TOPICS_PER_SUBSCRIPTION} topics")
    return tuple(checked) or (DEFAULT_TOPIC,)


def topic_of(kind: str, id: str | int | UUID, field: str = "") -> str:
    """Return the topic of one user or room, `user/{id}` or `room/{id}`; *field* is the field that an error names.

    The id becomes one segment: `%`, `/`, `*` and control characters are percent-encoded, so that no id is a pattern or
    the id of somebody else. A member of an enum of strings or numbers counts as its value.

    Raises:
        InvalidTopic: *id* is no string, whole number or UUID (None and booleans are not), is empty, or too long.
    """
    field = field or f"{kind}_id"
    return check_topic(f"{kind}/{_TO_ENCODE.sub(_percent_encoded, name_of(kind, id, field))}", field)


def name_of(kind: str, id: str | int | UUID, field: str = "") -> str:
    """Return the id of one user or room as text; *field* is the field that an error names.

    Raises:
        InvalidTopic: *id* is no string, whole number or UUID (None and booleans are not).
    """
    if isinstance(id, str):
        return str.__str__(id)
    if isinstance(id, int) and not isinstance(id, bool):
        return int.__repr__(id)
    if isinstance(id, UUID):
        return str(id)
    why = f"is not an id: a {kind}'s id is a string, a whole number or a UUID"
    raise InvalidTopic(id, why, field or f"{kind}_id")


def room_of(topic: str) -> str | None:
    """Return the name of the room whose topic is *topic*, which has been checked; None: it is no room's, or a pattern.

    What `topic_of` would spell otherwise is no room's.
    """
    if not topic.startswith(_ROOM):
        return None
    try:
        name = unquote(topic.removeprefix(_ROOM), errors="strict")
        return name if topic_of("room", name) == topic else None
    except (UnicodeDecodeError, InvalidTopic):
        return None


def _percent_encoded(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def is_pattern(topic: str) -> bool:
    """Return whether *topic*, which has been checked, is a pattern."""
    return "*" in topic


class TopicIndex(Generic[T]):
    """An index from topics to subscribers: exact topics in a dictionary, patterns in a trie; O(1) per change.

    Args:
        reserved: the first segments that no wildcard matches.
    """

    def __init__(self, reserved: Collection[str] = RESERVED) -> None:
        self._exact: dict[str, dict[T, None]] = {}
        self._patterns: PatternTrie[T] = PatternTrie(reserved)

    def add(self, topics: Iterable[str], item: T) -> None:
        """Subscribe *item* to each of *topics*, which may be patterns."""
        for topic in topics:
            if is_pattern(topic):
                self._patterns.add(topic.split("/"), item)
            else:
                self._exact.setdefault(topic, {})[item] = None

    def remove(self, topics: Iterable[str], item: T) -> None:
        """Undo `add` with the same arguments."""
        for topic in topics:
            if is_pattern(topic):
                self._patterns.remove(topic.split("/"), item)
            elif (items := self._exact.get(topic)) is not None:
                items.pop(item, None)
                if not items:
                    del self._exact[topic]

    def match(self, topics: Sequence[str]) -> dict[T, str]:
        """Return the subscribers of a notification with *topics*, each with the first of these that it subscribed to.

        The result is a copy: the index may be changed while it is iterated over.
        """
        if len(topics) == 1 and not self._patterns:  # the usual case
            return dict.fromkeys(self._exact.get(topics[0], ()), topics[0])
        wanted: dict[T, str] = {}
        for topic in topics:
            for item in self._exact.get(topic, ()):
                wanted.setdefault(item, topic)
            if self._patterns:
                for item in self._patterns.match(topic.split("/")):
                    wanted.setdefault(item, topic)
        return wanted

    def wants(self, topic: str) -> bool:
        """Return whether *topic* has a subscriber."""
        return topic in self._exact or bool(self._patterns and next(self._patterns.match(topic.split("/")), None))

    def __contains__(self, topic: str) -> bool:
        """Return whether something is subscribed to exactly *topic*, which is no pattern."""
        return topic in self._exact

    def __len__(self) -> int:
        """Return the number of exact topics that have subscribers."""
        return len(self._exact)
