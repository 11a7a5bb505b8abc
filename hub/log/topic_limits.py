"""Topics with bounds of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hub.topics import TopicIndex


class TopicLimits:
    """How many notifications are kept of a topic, said by pattern; where several match, the smallest counts.

    A wildcard matches any segment here: what is kept is nobody's right.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts: TopicIndex[int] = TopicIndex(reserved=())
        for pattern, count in counts.items():
            self._counts.add([pattern], count)
        self._any = bool(counts)

    def __bool__(self) -> bool:
        """Tell whether any topic has a bound of its own."""
        return self._any

    def of(self, topic: str) -> float:
        """Return how many notifications of *topic* are kept; infinite if it has no bound of its own."""
        return min(self._counts.match([topic]), default=math.inf) if self._any else math.inf
