"""What somebody reads, page by page, and what was learned of it on the pages before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from hub.access.visibility import EVERYTHING, Floors, Visibility
from hub.patterns import compiled

FIND_STEPS = 10_000
REMEMBERED_SEARCHES = 32
SEARCHED_BYTES = 8 * 1024 * 1024
# CPython's objects for a topic in the memory log, beside the characters of its name.
_TOPIC_OVERHEAD = 300
_OVERHEAD = 150  # of a name beside its characters: an object, and its place in a dict or a set

Between = Callable[[str, str | None], Iterable[str]]
"""Returns the names that exist, in order: not before the first text, and before the second, or to the end."""


class Search:
    """The topics that are looked for.

    Attributes:
        patterns: what they have to match.
        names: all topics that match and had something at or before `known`; None: so many, or so hard to find, that it
            is better to walk over the notifications and judge each, or more than there is room for. Some may not exist.
        known: the offset up to which `names` is the truth: a topic that is made later only has greater ones.
        verdicts: whether a name matches, for those that were judged while there was room to remember it.
        newest: the newest offset of a name that counts, for a log that has to look that up; 0 if there is none. A
            negative number says how far that was looked for in vain: `~number` is the newest offset that may count.
        keeps: what is learned is kept for the next page.
        size: bytes that are taken by all of these; a name counts everywhere, as the log may remove it.
        dense: most of what was on the last page was found to match, and walking is better, unless that changes.
    """

    __slots__ = (
        "_names_size",
        "_searches",
        "dense",
        "keeps",
        "known",
        "names",
        "newest",
        "patterns",
        "size",
        "verdicts",
    )

    def __init__(self, topics: frozenset[str], searches: Searches, *, looks_back: bool = False) -> None:
        self.patterns = compiled(topics)
        self.keeps = bool(self.patterns.ranges) or looks_back
        self.names: Collection[str] | None = self.patterns.single
        self.known = -1 if self.patterns.ranges else 2**63 - 1  # plain names are found without looking
        self.verdicts: dict[str, bool] = {}
        self.newest: dict[str, int] = {}
        self.dense = False
        self.size = self._names_size = 0
        self._searches = searches

    def begin(self, after: int, floors: Floors) -> int:
        """Return the offset, not before *after*, behind which that begins what can be seen above *floors*."""
        if self.patterns.ranges:
            return after
        return max(after, min((floors.get(name, 0) for name in self.patterns.single), default=0))

    def judge(self, name: str) -> bool:
        """Tell whether *name*, which is not among the verdicts, matches."""
        verdict = self.patterns.match(name)
        if self.patterns.ranges and self._take(size_of(name)):
            self.verdicts[name] = verdict
        return verdict

    def note(self, name: str, newest: int) -> None:
        """Remember the *newest* offset of *name*, if there is room."""
        if self.keeps and (name in self.newest or self._take(size_of(name))):
            self.newest[name] = newest

    def _take(self, size: int) -> bool:
        """Take room for *size* bytes, or give it back if that is negative; tell whether there was so much."""
        if not self._searches.take(size):
            return False
        self.size += size
        return True

    def find(self, between: Between, newest: int) -> None:
        """Look for the names, in a bounded number of steps; *newest* is the newest offset there is."""
        self.known = newest
        self._take(-self._names_size)
        self._names_size = 0
        self.names = self._found(between)
        if self.names is not None and self.patterns.ranges:
            size = sum(map(size_of, self.names))
            if self._take(size):
                self._names_size = size
            else:
                self.names = None

    def _found(self, between: Between) -> Collection[str] | None:
        steps = FIND_STEPS
        found = set(self.patterns.single)
        for low, high in self.patterns.ranges:
            for name in between(low, high):
                steps -= cost(name)
                if steps < 0:
                    return None
                if self.patterns.match(name):
                    found.add(name)
        return found


def size_of(name: str) -> int:
    """Return what it costs to remember *name*, in bytes."""
    return _OVERHEAD + (len(name) if name.isascii() else 4 * len(name))


def cost(name: str) -> int:
    """Return how many steps it takes to judge *name*; a step is about what it takes to look at one notification."""
    return 2 + name.count("/")


def judging(topics: Iterable[str]) -> int:
    """Return how many steps it takes to judge whether a reader may see a private notification of *topics*."""
    return 1 + sum(map(cost, topics))


class Searches:
    """The last few searches that did not come to their end, and how much they may remember between them.

    Where there is no more room, a search goes on without remembering: to take it from another one that is under way
    would make both learn everything again and again. Plain names have nothing to remember, except where a reader may
    not see everything.
    """

    def __init__(self) -> None:
        self._searches: dict[object, Search] = {}
        self._left = SEARCHED_BYTES

    def of(self, topics: Collection[str], upto: int = 0, visibility: Visibility = EVERYTHING) -> Search:
        """Return the search for *topics*, and what it knows by now; with *upto*, one of its own for the newest there.

        Only then *visibility* counts.
        """
        wanted = frozenset(topics)
        key = (wanted, upto, visibility)
        search = self._searches.pop(key, None)
        if search is None:
            search = Search(wanted, self, looks_back=visibility.private is not None)
        if search.keeps:
            self._searches[key] = search  # the one that was asked for last is the last one of the dict
            if len(self._searches) > REMEMBERED_SEARCHES:
                self._forget(next(iter(self._searches)))
        return search

    def end(self, topics: Collection[str], upto: int = 0, visibility: Visibility = EVERYTHING) -> None:
        """Forget the search for *topics*, which was read to its end."""
        key = (frozenset(topics), upto, visibility)
        if key in self._searches:
            self._forget(key)

    def take(self, size: int) -> bool:
        """Take room for *size* bytes, or give it back if that is negative; tell whether there was so much."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def _forget(self, key: object) -> None:
        self._left += self._searches.pop(key).size


def topic_size(name: str) -> int:
    """Return what it costs that a topic exists, in bytes, while something is kept of it: its name and its index."""
    return _TOPIC_OVERHEAD + (len(name) if name.isascii() else 4 * len(name))
