"""What a log remembers of what it no longer has."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hub.topics import is_pattern

REMEMBERED_TOPICS = 20_000


class Gone:
    """Which offset was the newest to go, altogether and per topic as far as that is remembered."""

    def __init__(self) -> None:
        self._by_topic: dict[str, int] = {}
        self._newest = 0
        self._forgotten = 0  # the newest offset of any topic that is no longer remembered

    def note(self, topics: Iterable[str], offset: int) -> None:
        """Remember that what stood at *offset*, the newest to go so far, is gone."""
        self._newest = offset
        for topic in topics:
            self._by_topic.pop(topic, None)  # so that the order of the dict is the order of the offsets
            self._by_topic[topic] = offset
        while len(self._by_topic) > REMEMBERED_TOPICS:
            self._forgotten = self._by_topic.pop(next(iter(self._by_topic)))

    def restore(self, remembered: Iterable[tuple[str, int]], forgotten: int, newest: int) -> None:
        """Begin with what an earlier process noted; *remembered* in ascending order of the offsets."""
        self._by_topic = dict(remembered)
        self._forgotten, self._newest = forgotten, newest

    def newest(self, topics: Collection[str]) -> int:
        """Return the newest offset that is gone and may have matched *topics*; 0 if none."""
        if any(map(is_pattern, topics)):
            return self._newest
        return max((self._by_topic.get(topic, self._forgotten) for topic in topics), default=0)
