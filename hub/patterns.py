"""Patterns of segments, and the names that match them.

There are two ways to match, for two purposes:

- `Patterns`: a few patterns that are compared with many names; used for replay, retention and gaps.
- `PatternTrie`: many patterns that are added and removed, and compared with one name; used for fan-out and event bus.

The module does no I/O and imports nothing of the hub: the processes of a log load it without the rest of the package.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

COMPILED = 16

T = TypeVar("T")


def canonical(segments: Sequence[str]) -> Sequence[str]:
    """Return *segments* with each run of wildcards in its shortest form: first all its `*`, then at most one `**`."""
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
    """An immutable set of compiled patterns (plain names too) that can be compared with names.

    All patterns are matched at the same time by bit-parallel simulation: one number has a bit for each segment of each
    pattern, and for its end, which is set while the name matches up to there. A segment of the name shifts the bits of
    the pattern segments that it matches; the bit before a `**` also stays set. So a name costs a few operations per
    segment, whatever the patterns are: there is no exponential case.

    Attributes:
        exact: the plain names among the patterns.
        single: names that match and are known without a search.
        ranges: the ranges that contain all other matching names, in the order of code points: each from its first text
            on and before its second one, which is None for an open end. They do not overlap.
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
        """Assign bits to a pattern, from *bit* on; return the next free bit."""
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
        """Return whether *name* matches one of the patterns."""
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
    """Return the ranges of the names that begin with one of *heads* (whole segments) and have more segments."""
    if "" in heads:
        return [("", None)]
    ranges: list[tuple[str, str | None]] = []
    # '0' is the character after '/': all names that begin with the head and a '/' are between the two.
    for low, high in sorted((f"{head}/", f"{head}0") for head in heads):
        if not ranges or not low.startswith(ranges[-1][0]):
            ranges.append((low, high))
    return ranges


@lru_cache(maxsize=COMPILED)
def compiled(patterns: frozenset[str]) -> Patterns:
    """Return the *patterns*, compiled; the 16 sets that were used last are cached."""
    return Patterns(patterns)


class _Node(Generic[T]):
    __slots__ = ("children", "items", "repeats")

    def __init__(self, *, repeats: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.items: dict[T, None] = {}
        self.repeats = repeats  # whether this is a `**` node, which stays active for further segments


class PatternTrie(Generic[T]):
    """A trie of items under patterns; the cost of a match depends on the nodes that it visits, not on all items.

    Patterns and names are sequences of segments; the caller splits them, topics at `/`, event names at `.`.
    """

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def __bool__(self) -> bool:
        return bool(self._root.children)

    def add(self, segments: Sequence[str], item: T) -> None:
        """Store *item* under the pattern *segments*; storing it again changes nothing."""
        node = self._root
        for segment in segments:
            child = node.children.get(segment)
            if child is None:
                child = node.children[segment] = _Node(repeats=segment == "**")
            node = child
        node.items[item] = None

    def remove(self, segments: Sequence[str], item: T) -> None:
        """Remove *item* under *segments*, and every branch that becomes empty; do nothing if it is not there."""
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
        """Add the `**` nodes below *nodes*, which match zero segments too."""
        todo = list(nodes)
        while todo:
            repeat = todo.pop().children.get("**")
            if repeat is not None and repeat not in nodes:
                nodes[repeat] = None
                todo.append(repeat)
        return nodes
