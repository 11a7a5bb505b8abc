"""Which notifications a reader may see, live and in every replay by the same rule.

A notification is seen if it has a topic that the subscription asked for, and through which it may reach the reader:

- the topic has no floor, or the notification stands after it;
- the notification is public, or private ones may come through this topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hub.errors import LogUnavailable
from hub.patterns import compiled

Floors = Mapping[str, int]
"""By topic, the offset beyond which notifications are seen through it; a topic that is not among them has none."""
NO_FLOORS: Floors = {}


class Visibility(NamedTuple):
    """The part of what matches a subscription that its reader may see.

    Equal visibilities see the same: they are part of what connections share by (an audience, a page of the history).

    Attributes:
        private: the topics and patterns through which a private notification may reach the reader; None: any.
        since: topics (not patterns), each with its floor: the position after which notifications are seen through it,
            of the log's present epoch.
    """

    private: frozenset[str] | None = None
    since: frozenset[tuple[str, tuple[str, int]]] = frozenset()

    def sees(self, topics: Iterable[str], *, private: bool) -> bool:
        """Return whether the reader may see a notification of *topics*, one of which is what it asked for.

        Where there are floors, *topics* are those that are `above` them.
        """
        if not private or self.private is None:
            return True
        return any(map(compiled(self.private).match, topics))

    def shown(self, topics: Iterable[str], *, private: bool) -> tuple[str, ...]:
        """Return those of *topics*, all of which the reader asked for, through which it sees a notification of them.

        Where there are floors, *topics* are those that are `above` them.
        """
        if not private or self.private is None:
            return tuple(topics)
        return tuple(filter(compiled(self.private).match, topics))

    def floors(self, epoch: str, after: int = 0) -> Floors:
        """Return the floors that matter to whoever reads what stands after the offset *after* in the present *epoch*.

        Raises:
            LogUnavailable: a floor is a position of another epoch: the history has just become another one, and
                nobody knows yet where the floor is in it.
        """
        if not self.since:
            return NO_FLOORS
        if any(position[0] != epoch for _, position in self.since):
            raise LogUnavailable("its history has just changed")
        return {topic: offset for topic, (_, offset) in self.since if offset > after}

    def beyond(self, epoch: str, after: int) -> Visibility:
        """Return the visibility of what stands after the offset *after* of *epoch*: floors up to there make none."""
        kept = frozenset(each for each in self.since if each[1][0] != epoch or each[1][1] > after)
        return self if len(kept) == len(self.since) else Visibility(self.private, kept)

    @property
    def live(self) -> Visibility:
        """The visibility of what is live: a floor was given out before it counts, so that all of them lie behind."""
        return Visibility(self.private) if self.since else self

    def granting(self, topic: str, since: tuple[str, int] | None = None) -> Visibility:
        """Return the visibility of a reader who asks for *topic* as well, and is granted it: all, or what is since."""
        floors = self.since if since is None else self.since | {(topic, since)}
        return Visibility(None if self.private is None else self.private | {topic}, floors)

    def floor(self, topic: str) -> tuple[str, int] | None:
        """Return the position after which notifications are seen through *topic*; None: it has no floor."""
        return next((position for each, position in self.since if each == topic), None)

    def through(self, topics: frozenset[str]) -> Visibility:
        """Return the visibility of a reader who asked only for *topics*, some of those that this one is for."""
        since = frozenset(each for each in self.since if each[0] in topics) if self.since else self.since
        if self.private is None:
            return Visibility(None, since)
        granted = self.private & topics
        return Visibility(None if granted == topics else granted, since)


EVERYTHING = Visibility()
"""The visibility of a reader who may see all notifications."""


def above(floors: Floors, topics: Iterable[str], offset: int) -> list[str]:
    """Return those of *topics* through which what stands at *offset* can be seen."""
    return [topic for topic in topics if offset > floors.get(topic, -1)]
