"""How much is published to which topic, counted only while somebody looks."""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from reactivex import Subject
from reactivex.abc import DisposableBase

from hub.notification import Notification

logger = logging.getLogger("hub.dashboard")

SECONDS = 10
MOST_TOPICS = 10_000


class Traffic:
    """Notifications per second and topic, over the last ten seconds.

    How long a second was is measured: a sample that waits for another process comes later.

    It is a tap on the trunk from `start` to `stop`. In each second it tells at most 10,000 topics apart; of what is
    sent to others then, only the number is known.

    Args:
        trunk: brings every notification of the hub, whichever process it was published in.
        clock: says seconds that only grow.

    Attributes:
        others: notifications of the last ten seconds whose topics were not told apart.
    """

    def __init__(self, trunk: Subject[Notification], clock: Callable[[], float] = time.monotonic) -> None:
        self._trunk, self._clock = trunk, clock
        self._tap: DisposableBase | None = None
        self._second: Counter[str] = Counter()
        self._seconds: deque[tuple[Counter[str], int, float]] = deque()
        self._begun = 0.0
        self._sums: Counter[str] = Counter()
        self._left_out = self.others = 0

    @property
    def counts(self) -> bool:
        """Whether it counts now."""
        return self._tap is not None

    @property
    def rates(self) -> Mapping[str, float]:
        """Notifications per second by topic; topics without any are not there."""
        seconds = self._length()
        return {topic: number / seconds for topic, number in self._sums.items()}

    def busiest(self, most: int) -> list[tuple[str, float]]:
        """Return the *most* topics with the most notifications, and how many a second each had."""
        seconds = self._length()
        found = heapq.nlargest(most, self._sums.items(), key=lambda each: (each[1], each[0]))
        return [(topic, round(number / seconds, 3)) for topic, number in found]

    def _length(self) -> float:
        return sum(lasted for _, _, lasted in self._seconds) or 1.0

    def start(self) -> None:
        """Count from now on."""
        if self._tap is None:
            self._begun = self._clock()
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
        """Note that a second is over, if it counts."""
        if self._tap is None:
            return
        now = self._clock()
        self._seconds.append((self._second, self._left_out, now - self._begun))
        self._begun = now
        self._sums.update(self._second)
        self.others += self._left_out
        self._second, self._left_out = Counter(), 0
        if len(self._seconds) > SECONDS:
            gone, left_out, _ = self._seconds.popleft()
            self.others -= left_out
            for topic, number in gone.items():
                self._sums[topic] -= number
                if not self._sums[topic]:
                    with suppress(KeyError):
                        del self._sums[topic]
