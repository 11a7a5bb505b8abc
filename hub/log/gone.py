"""What a log remembers of what it no longer has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from hub.topics import is_pattern

REMEMBERED_TOPICS = 20_000


class Lost(NamedTuple):
    """All that a log knows of what it no longer has; what another home needs to go on telling the truth.

    Attributes:
        swept: the newest offset that went because the log as a whole was full or it was too old.
        topics: per topic the newest offset that is gone, the longest ago noted first.
        forgotten: the newest offset of any topic that is no longer among them.
    """

    swept: int
    topics: Mapping[str, int]
    forgotten: int


class Gone:
    """Which offset was the newest to go, altogether and per topic as far as that is remembered.

    Patterns are judged by what the log as a whole let go of. Beside that topics may have bounds of their own, and
    lose something while the log is far from full: that is known exactly for patterns, too.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, int] = {}
        self._swept = 0
        self._forgotten = 0
        self._ahead = _Branch()  # the topics that lost something newer than `_swept`

    def sweep(self, topics: Iterable[str], offset: int) -> None:
        """Remember that what stood at *offset*, the oldest that was kept, is gone."""
        self._swept = max(self._swept, offset)  # what was taken over may begin before what was lost there
        self._remember(topics, offset)

    def lose(self, topics: Iterable[str], offset: int) -> None:
        """Remember that *topics* lost what stood at *offset*, for the sake of bounds of their own."""
        if offset <= self._swept:
            self._remember(topics, offset)
            return
        for topic in topics:
            self._remember((topic,), offset)
            self._ahead.put(topic.split("/"), offset)

    def _remember(self, topics: Iterable[str], offset: int) -> None:
        for topic in topics:
            before = self._by_topic.pop(topic, 0)  # so that the one noted last is the last one of the dict
            self._by_topic[topic] = max(before, offset)
        while len(self._by_topic) > REMEMBERED_TOPICS:
            topic = next(iter(self._by_topic))
            self._forgotten = max(self._forgotten, self._by_topic.pop(topic))
            self._ahead.remove(topic.split("/"))

    def restore(self, lost: Lost) -> None:
        """Begin with what an earlier process, or another home, knew."""
        self._swept, self._forgotten = lost.swept, lost.forgotten
        self._by_topic = {}
        self._ahead = _Branch()
        for topic, offset in lost.topics.items():
            self.lose((topic,), offset)

    def all(self) -> Lost:
        """Return everything that is known."""
        return Lost(self._swept, dict(self._by_topic), self._forgotten)

    def newest(self, topics: Collection[str], after: int = 0) -> int:
        """Return the newest offset beyond *after* that is gone and may have matched *topics*; 0 if none."""
        newest = after
        for topic in topics:
            if is_pattern(topic):
                newest = max(newest, self._swept, self._forgotten)
                newest = self._ahead.newest(topic.split("/"), newest)
            else:
                newest = max(newest, self._by_topic.get(topic, self._forgotten))
        return newest if newest > after else 0


class _Branch:
    """Topics by segment, where each branch knows the newest offset on it: a search leaves out what is too old."""

    __slots__ = ("_branches", "_offset", "_top")

    def __init__(self) -> None:
        self._branches: dict[str, _Branch] = {}
        self._offset = 0  # of the topic that ends here
        self._top = 0  # the newest on this branch; may outlive what was removed, which counts as forgotten then

    def put(self, segments: list[str], offset: int) -> None:
        branch = self
        branch._top = max(branch._top, offset)
        for segment in segments:
            branch = branch._branches.setdefault(segment, _Branch())
            branch._top = max(branch._top, offset)
        branch._offset = max(branch._offset, offset)

    def remove(self, segments: list[str]) -> None:
        path = [self]
        for segment in segments:
            branch = path[-1]._branches.get(segment)
            if branch is None:
                return
            path.append(branch)
        path[-1]._offset = 0
        for segment in reversed(segments):
            child = path.pop()
            if child._branches or child._offset:
                break
            del path[-1]._branches[segment]

    def newest(self, pattern: list[str], beyond: int) -> int:
        """Return the newest offset of a topic that *pattern* names, or *beyond* if none is newer."""
        seen: set[tuple[int, int]] = set()  # several `**` lead to the same place in ever so many ways
        todo = [(self, 0)]
        while todo:
            branch, place = todo.pop()
            if branch._top <= beyond or (id(branch), place) in seen:
                continue
            seen.add((id(branch), place))
            segment = pattern[place] if place < len(pattern) else None
            if segment is None:
                beyond = max(beyond, branch._offset)
            elif segment == "**" and place == len(pattern) - 1:
                beyond = branch._top
            elif segment == "**":
                todo.append((branch, place + 1))
                todo.extend((child, place) for child in branch._branches.values())
            elif segment == "*":
                todo.extend((child, place + 1) for child in branch._branches.values())
            elif segment in branch._branches:
                todo.append((branch._branches[segment], place + 1))
        return beyond
