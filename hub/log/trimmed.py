"""What was trimmed, as far as a log remembers it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from hub.access.visibility import NO_FLOORS, Floors
from hub.log.index import Names
from hub.log.search import cost
from hub.patterns import Patterns, compiled
from hub.topics import is_pattern

REMEMBERED_TOPICS = 20_000
REMEMBERED_BYTES = 6 * 1024 * 1024
REMEMBERED_ANSWERS = 16
JUDGED_STEPS = 100_000
JUDGED_AGAIN = 1_000
# What it costs to remember a topic, beside its characters: the name, two numbers and a place for each, one in order.
_OVERHEAD = 280


class TrimmedState(NamedTuple):
    """All that a log knows of what was trimmed, and what another home needs to announce the same gaps.

    Attributes:
        overall: the newest offset that was trimmed because the log as a whole was full, or because of its age.
        topics: per topic the newest offset that was trimmed, the longest ago noted first.
        forgotten: the newest offset of any topic that is no longer among them.
    """

    overall: int
    topics: Mapping[str, int]
    forgotten: int


class _Answer(NamedTuple):
    """What was found for some patterns.

    Attributes:
        beyond: nothing at or before this offset was looked at.
        newest: the newest offset that was trimmed and matched; `beyond` if there was none.
        noted: how much had been noted by then.
    """

    beyond: int
    newest: int
    noted: int


class _Mark(NamedTuple):
    """When something that some patterns match was trimmed.

    Attributes:
        last: which note was the last one that matched; 0 if none is remembered.
        noted: how much had been noted by then.
    """

    last: int
    noted: int


class Trimmed:
    """The newest offset that was trimmed, overall and per topic as far as that is remembered.

    Patterns are judged by what was trimmed overall. What was trimmed for bounds of single topics, while the log as a
    whole had room, is known exactly for patterns, too, unless it takes too long to judge all topics. At most 20,000
    topics are remembered, and no more than fit into 6 MiB.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, int] = {}
        self._size = 0
        self._overall = 0
        self._forgotten = 0
        self._ahead: dict[str, None] = {}  # the topics of which something newer than `_overall` was trimmed
        self._names = Names()  # the same, in order
        self._noted = 1  # how often a topic was, and one more
        self._when: dict[str, int] = {}  # which note was a topic's last one
        self._forgotten_when = 1  # the same for the last one of those that were forgotten
        self._answers: dict[frozenset[str], _Answer] = {}
        self._marks: dict[frozenset[str], _Mark] = {}

    def trim_oldest(self, topics: Iterable[str], offset: int) -> None:
        """Remember that what stood at *offset*, the oldest that was kept, was trimmed."""
        self._overall = max(self._overall, offset)  # what was taken over may begin before what was trimmed there
        self._remember(topics, offset)

    def trim_topic(self, topics: Iterable[str], offset: int) -> None:
        """Remember that what stood at *offset* was trimmed in *topics*, which have bounds of their own."""
        if offset > self._overall:
            for topic in topics:
                if topic not in self._ahead:
                    self._ahead[topic] = None
                    self._names.add(topic)
        self._remember(topics, offset)

    def _remember(self, topics: Iterable[str], offset: int) -> None:
        for topic in topics:
            before = self._by_topic.pop(topic, None)  # so that the one noted last is the last one of the dict
            if before is None:
                before = self._forgotten  # it may have been among those, and was judged by that
                self._size += _cost(topic)
            self._by_topic[topic] = max(before, offset)
            self._noted += 1
            self._when[topic] = self._noted
        while len(self._by_topic) > REMEMBERED_TOPICS or self._size > REMEMBERED_BYTES:
            self._forget(next(iter(self._by_topic)))

    def _forget(self, topic: str) -> None:
        self._forgotten = max(self._forgotten, self._by_topic.pop(topic))
        self._forgotten_when = self._when.pop(topic)  # it was noted longest ago
        self._size -= _cost(topic)
        if topic in self._ahead:
            del self._ahead[topic]
            self._names.remove(topic)

    def restore(self, trimmed: TrimmedState) -> None:
        """Begin with what an earlier process, or another home, knew."""
        self._overall, self._forgotten = trimmed.overall, 0
        self._by_topic, self._size = {}, 0
        self._ahead, self._names, self._answers = {}, Names(), {}
        self._when, self._marks = {}, {}
        self._noted += 1
        self._forgotten_when = self._noted
        for topic, offset in trimmed.topics.items():
            self.trim_topic((topic,), offset)
        self._forgotten = max(self._forgotten, trimmed.forgotten)  # of the others: those above are known exactly

    def learn(self, trimmed: TrimmedState) -> None:
        """Add what another one knows of the same log and is not known here, in few steps if that is little."""
        self._overall = max(self._overall, trimmed.overall)
        self._forgotten = max(self._forgotten, trimmed.forgotten)
        known, forgotten = self._by_topic, self._forgotten
        for topic, offset in [item for item in trimmed.topics.items() if known.get(item[0], forgotten) < item[1]]:
            self.trim_topic((topic,), offset)

    def state(self) -> TrimmedState:
        """Return everything that is known."""
        return TrimmedState(self._overall, dict(self._by_topic), self._forgotten)

    def newest(self, topics: Collection[str], after: int = 0, floors: Floors = NO_FLOORS) -> int:
        """Return the newest offset beyond *after* that was trimmed and may have matched *topics*; 0 if none.

        A topic of the *floors*, which are greater than *after*, counts if something beyond its floor was trimmed.
        """
        if floors:
            topics = self._lost(topics, floors)
        newest = after
        patterns = False
        for topic in topics:
            if is_pattern(topic):
                patterns = True
            else:
                newest = max(newest, self._by_topic.get(topic, self._forgotten))
        if patterns:
            newest = max(newest, self._overall, self._forgotten)
            newest = self._newest_ahead(frozenset(topics), newest) if self._ahead else newest
        return newest if newest > after else 0

    def _lost(self, topics: Iterable[str], floors: Floors) -> list[str]:
        """Return *topics* without those of which nothing beyond their floor was trimmed."""
        return [
            topic
            for topic in topics
            if topic not in floors or self._by_topic.get(topic, self._forgotten) > floors[topic]
        ]

    def hole(self, topics: Collection[str], after: int, floors: Floors = NO_FLOORS) -> int:
        """Return 0 if `newest` does, else a mark: another one each time something that matches *topics* is trimmed."""
        if floors:
            topics = self._lost(topics, floors)
        if not self.newest(topics, after):
            return 0
        mark = max(
            (self._when.get(topic, self._forgotten_when) for topic in topics if not is_pattern(topic)), default=0
        )
        if any(map(is_pattern, topics)):
            # All that are remembered were noted after all that are not.
            mark = max(mark, self._last_noted(frozenset(topics)), self._forgotten_when)
        return mark

    def _last_noted(self, topics: frozenset[str]) -> int:
        """Return which note was the last one of a topic that matches; the last one of all if that takes too long."""
        wanted, known = compiled(topics), self._marks.pop(topics, _Mark(0, 0))
        last, steps = known.last, JUDGED_STEPS
        if known.noted < self._noted:
            for name in reversed(self._by_topic):
                when = self._when[name]
                if when <= known.noted:
                    break
                steps -= cost(name)
                if steps < 0 or wanted.match(name):
                    last = self._noted if steps < 0 else when
                    break
        self._marks[topics] = _Mark(last, self._noted)
        while len(self._marks) > REMEMBERED_ANSWERS:
            del self._marks[next(iter(self._marks))]
        return last

    def _newest_ahead(self, topics: frozenset[str], beyond: int) -> int:
        """Return the newest offset trimmed for a topic's own bound, or *beyond* if none is newer."""
        wanted, known = compiled(topics), self._answers.pop(topics, None)
        if known is None or known.beyond > beyond or self._noted - known.noted > JUDGED_AGAIN:
            known = _Answer(beyond, self._judged(self._found(wanted), wanted, beyond), self._noted)
        elif known.noted < self._noted:  # only what was noted since can be newer
            lately = islice(reversed(self._by_topic), self._noted - known.noted)
            known = _Answer(known.beyond, self._judged(lately, wanted, known.newest), self._noted)
        self._answers[topics] = known
        while len(self._answers) > REMEMBERED_ANSWERS:
            del self._answers[next(iter(self._answers))]
        return max(beyond, known.newest)

    def _found(self, wanted: Patterns) -> Iterator[str]:
        """Yield the topics that may match."""
        for low, high in wanted.ranges:
            yield from self._names.between(low, high)
        yield from (name for name in wanted.single if name in self._ahead)

    def _judged(self, names: Iterable[str], wanted: Patterns, beyond: int) -> int:
        """Return the newest offset trimmed of those of *names* that match, or *beyond* if none is newer."""
        steps = JUDGED_STEPS
        for name in names:
            offset = self._by_topic[name]
            if offset > beyond:
                steps -= cost(name)
                if steps < 0:  # it may be any of the others
                    return max(self._by_topic.values())
                if wanted.match(name):
                    beyond = offset
        return beyond


def _cost(topic: str) -> int:
    return _OVERHEAD + (len(topic) if topic.isascii() else 4 * len(topic))
