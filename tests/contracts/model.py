"""What a log has to hold, as a plain list: the slowest and plainest log there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.access.visibility import NO_FLOORS
from tests.test_topics import matches, reaches


@dataclass
class Entry:
    """What was kept at an offset.

    Attributes:
        private: not every reader may see it.
        stands: those of its topics that have not lost it.
    """

    offset: int
    at: float
    topics: tuple[str, ...]
    private: bool = False
    stands: set[str] = field(default_factory=set)


class ListLog:
    """A list of all that is kept, looked through from end to end for whatever is asked.

    Args:
        count: how many it keeps.
        age: how many seconds it keeps them; None for ever.
        topics: by pattern, how many it keeps of each topic that matches.

    Attributes:
        given: the newest offset given out.
        newest: the newest one that was kept.
    """

    def __init__(
        self, count: int = 10**6, *, age: float | None = None, topics: Mapping[str, int] | None = None
    ) -> None:
        self._count, self._age, self._limits = count, age, topics or {}
        self._entries: list[Entry] = []
        self._trimmed: dict[str, int] = {}
        self._overall = 0
        self._keys: dict[str, int] = {}
        self.given = self.newest = 0

    # ---- in ----

    def append(self, wanted: Sequence[tuple[Any, ...]], now: float) -> list[int]:
        """Keep what has a new key or none: topics, a key, and whether it is private. Return the offset of each."""
        found: list[int] = []
        for topics, key, *private in wanted:
            offset = self._keys.get(key) if key is not None else None
            if offset is None:
                self.given += 1
                offset = self.newest = self.given
                if key is not None:
                    self._keys[key] = offset
                self.keep(Entry(offset, now, tuple(topics), private == [True]))
            found.append(offset)
        self.trim(now)
        return found

    def keep(self, entry: Entry) -> None:
        """Add what stands after everything else."""
        entry.stands = set(entry.topics)
        self._entries.append(entry)
        for topic in entry.topics:
            self._thin(topic)

    def lose(self, wanted: Sequence[tuple[Sequence[str], str | None]]) -> list[int | None]:
        """Give each that has a new key or none a place, and keep none; return the offsets of the others."""
        known = [self._keys.get(key) if key is not None else None for _, key in wanted]
        new = {key for _, key in wanted if key is not None and key not in self._keys}
        self.given += sum(key is None for _, key in wanted) + len(new)
        return known

    def restart(self, topics: Mapping[str, int] | None = None) -> None:
        """Forget the places that nothing was kept at; *topics* are the bounds of single topics from now on."""
        self.given = self.newest
        self._limits = topics or {}
        for topic in {topic for entry in self._entries for topic in entry.stands}:
            self._thin(topic)

    # ---- retention ----

    def _thin(self, topic: str) -> None:
        limit = min((count for pattern, count in self._limits.items() if matches(pattern, topic)), default=None)
        standing = [entry for entry in self._entries if topic in entry.stands]
        for entry in standing[: max(len(standing) - limit, 0)] if limit is not None else ():
            entry.stands.discard(topic)
            self._trimmed[topic] = max(self._trimmed.get(topic, 0), entry.offset)
        self._entries = [entry for entry in self._entries if entry.stands]

    def trim(self, now: float) -> None:
        """Let go of what is too much or too old."""
        while self._entries and (
            len(self._entries) > self._count or (self._age is not None and self._entries[0].at < now - self._age)
        ):
            entry = self._entries.pop(0)
            self._overall = entry.offset
            for topic in entry.topics:
                self._trimmed[topic] = max(self._trimmed.get(topic, 0), entry.offset)

    # ---- out ----

    @property
    def kept(self) -> list[int]:
        """The offsets of all that is kept."""
        return [entry.offset for entry in self._entries]

    @property
    def oldest(self) -> int:
        """The oldest offset kept; where there is none, the newest ever."""
        return self._entries[0].offset if self._entries else self.newest

    def seen(self, through: Collection[str] | None, floors: Mapping[str, int] = NO_FLOORS) -> list[Entry]:
        """Return what a reader may see to whom private ones come *through* these topics and patterns; None: any.

        A topic brings nothing up to its floor.
        """
        return [
            entry
            for entry in self._entries
            if through is None
            or not entry.private
            or any(
                reaches(each, topic)
                for each in through
                for topic in entry.topics
                if entry.offset > floors.get(topic, 0)
            )
        ]

    def read(
        self,
        after: int,
        wanted: Collection[str],
        upto: int,
        through: Collection[str] | None = None,
        floors: Mapping[str, int] = NO_FLOORS,
    ) -> list[int]:
        """Return what matches by a topic that brings it, and can be seen."""
        return [
            entry.offset
            for entry in self.seen(through, floors)
            if after < entry.offset <= upto
            and any(
                reaches(each, topic) for each in wanted for topic in entry.stands if entry.offset > floors.get(topic, 0)
            )
        ]

    def latest(
        self,
        after: int,
        wanted: Collection[str],
        upto: int,
        through: Collection[str] | None = None,
        floors: Mapping[str, int] = NO_FLOORS,
    ) -> list[int]:
        """Return the newest that each topic that matches brings, as of *upto*."""
        newest: dict[str, int] = {}
        for entry in self.seen(through, floors):
            brought = [topic for topic in entry.stands if floors.get(topic, 0) < entry.offset <= upto]
            newest |= dict.fromkeys(brought, entry.offset)
        found = {offset for topic, offset in newest.items() if any(reaches(each, topic) for each in wanted)}
        return sorted(offset for offset in found if offset > after)

    def trimmed(
        self, wanted: Collection[str], after: int = 0, floors: Mapping[str, int] = NO_FLOORS, *, exactly: bool = False
    ) -> int:
        """Return the newest offset beyond *after* that is gone and may have matched.

        A topic that is wanted by its name counts if something above its floor is gone; so does one that a pattern
        matches if this is to be said *exactly*, else its floor is not known.
        """
        patterns = [each for each in wanted if "*" in each]
        newest = self._overall if patterns else 0
        for topic, offset in self._trimmed.items():
            by_pattern = any(reaches(each, topic) for each in patterns)
            known = topic in floors and (exactly or not by_pattern)
            if (by_pattern or topic in wanted) and offset > (floors[topic] if known else 0):
                newest = max(newest, offset)
        return newest if newest > after else 0
