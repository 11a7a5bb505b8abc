"""Topics with bounds of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hub.topics import TopicIndex

REMEMBERED_LIMITS = 100_000


class Limits:
    """How many notifications are kept of a topic, said by pattern; where several match, the smallest counts."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts: TopicIndex[int] = TopicIndex()
        for pattern, count in counts.items():
            self._counts.add([pattern], count)
        self._by_topic: dict[str, float] = {}
        self._any = bool(counts)

    def __bool__(self) -> bool:
        """Tell whether any topic has a bound of its own."""
        return self._any

    def of(self, topic: str) -> float:
        """Return how many notifications of *topic* are kept; infinite if it has no bound of its own."""
        if topic not in self._by_topic:
            if len(self._by_topic) >= REMEMBERED_LIMITS:
                self._by_topic.clear()
            self._by_topic[topic] = min(self._counts.match([topic]), default=math.inf)
        return self._by_topic[topic]
