"""Topics with bounds of their own."""

from __future__ import annotations

from collections.abc import Mapping

from hub.topics import TopicIndex

REMEMBERED_LIMITS = 100_000


class Limits:
    """How many notifications are kept of a topic, said by pattern; where several match, the smallest counts."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts: TopicIndex[int] = TopicIndex()
        for pattern, count in counts.items():
            self._counts.add([pattern], count)
        self._by_topic: dict[str, int | None] = {}
        self._none = not counts

    def of(self, topic: str) -> int | None:
        """Return how many notifications of *topic* are kept; None if it has no bound of its own."""
        if self._none:
            return None
        if topic not in self._by_topic:
            if len(self._by_topic) >= REMEMBERED_LIMITS:
                self._by_topic.clear()
            self._by_topic[topic] = min(self._counts.match([topic]), default=None)
        return self._by_topic[topic]
