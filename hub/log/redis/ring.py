"""The newest notifications, as this process has heard them: most of what is read is among them."""

from __future__ import annotations

import math
from collections.abc import Collection

from hub.access.visibility import Visibility
from hub.log.log import Page
from hub.log.memory import MemoryLog
from hub.log.topic_limits import TopicLimits
from hub.log.trimmed import TrimmedState
from hub.notification import Notification


class _Unlimited(TopicLimits):
    """No bounds here; but topics do lose something to theirs, when Redis says so."""

    def __init__(self) -> None:
        super().__init__({})
        self._any = True

    def of(self, topic: str) -> float:
        return math.inf


class Ring(MemoryLog):
    """Holds the newest part of a log elsewhere, in so many bytes; what is trimmed there is trimmed here.

    Args:
        size: bytes.

    Attributes:
        begin: all that is kept elsewhere beyond this offset is here.
    """

    def __init__(self, size: int) -> None:
        super().__init__(count=10**9, size=size)
        self._limits = _Unlimited()
        self.begin = 0

    def restart(self, epoch: str, newest: int) -> None:
        """Hold nothing, and follow *epoch* from *newest* on."""
        self._empty()
        self.epoch, self._newest, self.begin = epoch, newest, newest
        self._trimmed.restore(TrimmedState(newest, {}, newest))

    def take(self, notification: Notification) -> Notification:
        """Hold *notification*, the next one; return it with topics that are shared with others."""
        self._newest = notification.position.offset
        notification = notification._replace(topics=self._shared(notification.topics))
        self._keep(notification)
        self.trim()
        return notification

    def _trim_oldest(self, notification: Notification) -> None:
        self.begin = max(self.begin, notification.position.offset)
        super()._trim_oldest(notification)

    def lose(self, topic: str, offset: int) -> None:
        """Trim what *topic* had up to *offset*."""
        while (place := self._by_topic.get(topic)) is not None and place.oldest <= offset:
            self._trim_topic(topic, place)

    def lose_before(self, oldest: int) -> None:
        """Trim everything before *oldest*."""
        while self._kept and (first := self._first()).position.offset < oldest:
            self._trim_oldest(first)

    def has(self, after: int, topics: Collection[str], oldest: int, visibility: Visibility) -> bool:
        """Return whether all is here that is kept beyond *after* and matches; *oldest* is the oldest that is kept."""
        return max(after, oldest - 1) >= self.begin or not self.trimmed(topics, after, visibility)

    def page(self, after: int, topics: Collection[str], upto: int, latest: bool, visibility: Visibility) -> Page:
        """Return the page; its hole and its oldest offset are those of this part only."""
        return self._page(after, topics, upto, latest, visibility)
