"""Patterns of segments, and the names that match them.

There are two ways to match, for two purposes:

- `Patterns`: few patterns, asked about many names. Replay, retention and gaps judge the topics of a log with it.
- `PatternTrie`: many patterns that come and go, asked which of them one name matches. Fan-out and event bus.

Pure, and nothing of the hub is imported: the processes of a log load this module without the package around it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

COMPILED = 16

T = TypeVar("T")


def canonical(segments: Sequence[str]) -> Sequence[str]:
    """Return *segments* with each run of wildcards in its one shortest form: its `*` first, then at most one `**`."""
    if "**" not in segments:
        return segments
    kept: list[str] = []
    repeats = False
    for segment in segments:
        if segment == "**":
            repeats = True
            continue
        if repeats and segment != "*":
            kept.append("**")
            repeats = False
        kept.append(segment)
    return [*kept, "**"] if repeats else kept


class Patterns:
    """A set of patterns (plain names too), made ready to judge names; never changed.

    All patterns are followed at once, as one number: each segment of a pattern, and its end, has a bit that says "a
    name may have come as far as here". A segment of the name moves the bits it fits by one; a bit before a `**` stays
    set, too. So a name costs a few operations per segment, whatever the patterns are, and nothing can explode.

    Attributes:
        exact: the plain names among them.
        single: names that match, found without looking at any other.
        ranges: where all other names that match are in an order by code points: not before the first text, and before
            the second, which may be None for no end. They do not overlap.
        everything: whether every name matches.
    """

    __slots__ = ("_ends", "_masks", "_repeats", "_stars", "_starts", "everything", "exact", "ranges", "single")

    def __init__(self, patterns: Collection[str]) -> None:
        self.exact = frozenset(each for each in patterns if "*" not in each)
        self._masks: dict[str, int] = {}
        self._starts = self._ends = self._stars = self._repeats = 0
        self.everything = False
        bit = 1
        heads: dict[str, None] = {}
        for pattern in patterns:
            if "*" not in pattern:
                continue
            segments = canonical(pattern.split("/"))
            wild = next(place for place, segment in enumerate(segments) if segment in {"*", "**"})
            heads["/".join(segments[:wild])] = None
            self.everything = self.everything or segments in (["**"], ["*", "**"])
            self._starts |= bit
            bit = self._add(segments, bit)
        for segment in self._masks:
            self._masks[segment] |= self._stars
        self.single = self.exact.union(head for head in heads if head and self.match(head))
        self.ranges = _ranges(heads)

    def _add(self, segments: Sequence[str], bit: int) -> int:
        """Give a pattern its bits, the first of them *bit*; return the next one that is free."""
        for segment in segments:
            if segment == "**":
                self._repeats |= bit
                continue
            if segment == "*":
                self._stars |= bit
            else:
                self._masks[segment] = self._masks.get(segment, 0) | bit
            bit <<= 1
        self._ends |= bit
        return bit << 1

    def match(self, name: str) -> bool:
        """Tell whether *name* matches one of the patterns."""
        if name in self.exact:
            return True
        bits, stars, repeats = self._starts, self._stars, self._repeats
        mask = self._masks.get
        for segment in name.split("/"):
            bits = (bits & mask(segment, stars)) << 1 | bits & repeats
            if not bits:
                return False
        return bits & self._ends != 0


def _ranges(heads: Collection[str]) -> list[tuple[str, str | None]]:
    """Return where the names are that begin with one of *heads*, each of them whole segments, and go on."""
    if "" in heads:
        return [("", None)]
    ranges: list[tuple[str, str | None]] = []
    # '0' is the character after '/': between the two is all that begins with the head and a '/'.
    for low, high in sorted((f"{head}/", f"{head}0") for head in heads):
        if not ranges or not low.startswith(ranges[-1][0]):
            ranges.append((low, high))
    return ranges


@lru_cache(maxsize=COMPILED)
def compiled(patterns: frozenset[str]) -> Patterns:
    """Return the *patterns* ready to judge names; those that were asked for last are at hand."""
    return Patterns(patterns)


class _Node(Generic[T]):
    __slots__ = ("children", "items", "repeats")

    def __init__(self, *, repeats: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.items: dict[T, None] = {}
        self.repeats = repeats  # a `**` node stays where it is while segments pass


class PatternTrie(Generic[T]):
    """Items under patterns of segments; a match costs what lies on its way, not what is stored.

    Segments are whatever the caller splits by: `/` for topics, `.` for event names.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def __bool__(self) -> bool:
        return bool(self._root.children)

    def add(self, segments: Sequence[str], item: T) -> None:
        """Store *item* under the pattern *segments*; twice is once."""
        node = self._root
        for segment in segments:
            child = node.children.get(segment)
            if child is None:
                child = node.children[segment] = _Node(repeats=segment == "**")
            node = child
        node.items[item] = None

    def remove(self, segments: Sequence[str], item: T) -> None:
        """Forget *item* under *segments* and every branch this leaves empty; what is not there is no error."""
        path = [self._root]
        for segment in segments:
            child = path[-1].children.get(segment)
            if child is None:
                return
            path.append(child)
        path[-1].items.pop(item, None)
        for parent, segment in zip(reversed(path[:-1]), reversed(segments), strict=True):
            if path.pop().children or parent.children[segment].items:
                break
            del parent.children[segment]

    def match(self, segments: Sequence[str]) -> Iterator[T]:
        """Yield each item whose pattern matches *segments*, once per pattern that does."""
        nodes = self._with_empty_repeats({self._root: None})
        for segment in segments:
            reached: dict[_Node[T], None] = {}
            for node in nodes:
                if node.repeats:
                    reached[node] = None
                for child in (node.children.get(segment), node.children.get("*")):
                    if child is not None:
                        reached[child] = None
            nodes = self._with_empty_repeats(reached)
            if not nodes:
                return
        for node in nodes:
            yield from node.items

    @staticmethod
    def _with_empty_repeats(nodes: dict[_Node[T], None]) -> dict[_Node[T], None]:
        """Add the `**` nodes behind *nodes*, which match without taking a segment."""
        todo = list(nodes)
        while todo:
            repeat = todo.pop().children.get("**")
            if repeat is not None and repeat not in nodes:
                nodes[repeat] = None
                todo.append(repeat)
        return nodes
