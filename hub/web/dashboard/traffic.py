"""How much is published to which topic, counted only while somebody looks."""

from __future__ import annotations

import heapq
import logging
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress

from reactivex import Subject
from reactivex.abc import DisposableBase

from hub.notification import Notification

logger = logging.getLogger("hub.dashboard")

SECONDS = 10
MOST_TOPICS = 10_000


class Traffic:
    """Notifications per second and topic, over the last ten seconds.

    It is a tap on the trunk from `start` to `stop`. In each second it tells at most 10,000 topics apart; of what is
    sent to others then, only the number is known.

    Args:
        trunk: brings every notification of the hub, whichever process it was published in.

    Attributes:
        others: notifications of the last ten seconds whose topics were not told apart.
    """

    def __init__(self, trunk: Subject[Notification]) -> None:
        self._trunk = trunk
        self._tap: DisposableBase | None = None
        self._second: Counter[str] = Counter()
        self._seconds: deque[tuple[Counter[str], int]] = deque()
        self._sums: Counter[str] = Counter()
        self._left_out = self.others = 0

    @property
    def counts(self) -> bool:
        """Whether it counts now."""
        return self._tap is not None

    @property
    def rates(self) -> Mapping[str, float]:
        """Notifications per second by topic; topics without any are not there."""
        seconds = max(len(self._seconds), 1)
        return {topic: number / seconds for topic, number in self._sums.items()}

    def busiest(self, most: int) -> list[tuple[str, float]]:
        """Return the *most* topics with the most notifications, and how many a second each had."""
        seconds = max(len(self._seconds), 1)
        found = heapq.nlargest(most, self._sums.items(), key=lambda each: (each[1], each[0]))
        return [(topic, round(number / seconds, 3)) for topic, number in found]

    def start(self) -> None:
        """Count from now on."""
        if self._tap is None:
            self._tap = self._trunk.subscribe(self._count)

    def stop(self) -> None:
        """Count no more, and forget what was counted."""
        if self._tap is not None:
            self._tap.dispose()
            self._tap = None
        self._second, self._sums = Counter(), Counter()
        self._seconds.clear()
        self._left_out = self.others = 0

    def _count(self, notification: Notification) -> None:
        for topic in notification.topics:
            if topic in self._second or len(self._second) < MOST_TOPICS:
                self._second[topic] += 1
            else:
                self._left_out += 1

    def tick(self) -> None:
        """Note that a second is over."""
        self._seconds.append((self._second, self._left_out))
        self._sums.update(self._second)
        self.others += self._left_out
        self._second, self._left_out = Counter(), 0
        if len(self._seconds) > SECONDS:
            gone, left_out = self._seconds.popleft()
            self.others -= left_out
            for topic, number in gone.items():
                self._sums[topic] -= number
                if not self._sums[topic]:
                    with suppress(KeyError):
                        del self._sums[topic]
