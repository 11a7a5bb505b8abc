"""Patterns of segments, and the names that match them.

There are two ways to match, for two purposes:

- `Patterns`: a few patterns that are compared with many names; used for replay, retention and gaps.
- `PatternTrie`: many patterns that are added and removed, and compared with one name; used for fan-out and event bus.

Both can be told first segments that are reserved: a name that begins with one of them is matched only by patterns that
begin with that segment itself, never by a wildcard in that place. Subscriptions are matched so; events and the bounds
of topics are not.

The module does no I/O and imports nothing of the hub: the processes of a log load it without the rest of the package.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

COMPILED = 16
RESERVED = frozenset({"user", "room", "ai"})
"""The first segments of topics that a subscription, or a grant, has to name."""

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
    segment, whatever the patterns are: there is no exponential case. What is left after the first segment is looked up.

    Args:
        patterns: the patterns.
        reserved: the first segments that no wildcard matches.

    Attributes:
        exact: the plain names among the patterns.
        single: names that match and are known without a search.
        ranges: the ranges that contain all other matching names, in the order of code points: each from its first text
            on and before its second one, which is None for an open end. They do not overlap.
        whole: those of the ranges in which every name matches.
        everything: whether every name matches.
        everything_but: the reserved segments whose names may not match, where all other names do; None: where not.
    """

    __slots__ = (
        "_begins",
        "_ends",
        "_masks",
        "_otherwise",
        "_repeats",
        "_stars",
        "everything",
        "everything_but",
        "exact",
        "ranges",
        "single",
        "whole",
    )

    def __init__(self, patterns: Collection[str], reserved: Collection[str] = ()) -> None:
        self.exact = frozenset(each for each in patterns if "*" not in each)
        self._masks: dict[str, int] = {}
        self._ends = self._stars = self._repeats = 0
        starts, bit = 0, 1
        heads: dict[str, bool] = {}  # what comes before the first wildcard, and whether anything may come after it
        for pattern in patterns:
            if "*" not in pattern:
                continue
            segments = canonical(pattern.split("/"))
            wild = next(place for place, segment in enumerate(segments) if segment in {"*", "**"})
            head = "/".join(segments[:wild])
            heads[head] = heads.get(head, False) or segments[wild:] in (["**"], ["*", "**"])
            starts |= bit
            bit = self._add(segments, bit)
        named = {first: (self._masks.get(first, 0) & starts & ~self._repeats) << 1 for first in reserved}
        for segment in self._masks:
            self._masks[segment] |= self._stars
        self._otherwise = self._after_first(starts, self._stars)
        begins = {segment: self._after_first(starts, mask) for segment, mask in self._masks.items()}
        self._begins = {segment: bits for segment, bits in begins.items() if bits != self._otherwise} | named
        self.single = self.exact.union(head for head in heads if head and self.match(head))
        self.ranges, self.whole = _ranges(heads, reserved)
        self.everything_but: Collection[str] | None = None
        if heads.get(""):
            self.everything_but = [each for each in reserved if not (heads.get(each) and each in self.single)]
        self.everything = self.everything_but is not None and not self.everything_but

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

    def _after_first(self, starts: int, mask: int) -> int:
        """Return the bits after the first segment of a name; *mask* has those of the pattern segments it matches."""
        return (starts & mask) << 1 | starts & self._repeats

    def match(self, name: str) -> bool:
        """Return whether *name* matches one of the patterns."""
        if name in self.exact:
            return True
        segments = iter(name.split("/"))
        bits = self._begins.get(next(segments), self._otherwise)
        stars, repeats = self._stars, self._repeats
        mask = self._masks.get
        for segment in segments:
            if not bits:
                return False
            bits = (bits & mask(segment, stars)) << 1 | bits & repeats
        return bits & self._ends != 0


_Range = tuple[str, str | None]


def _ranges(heads: Mapping[str, bool], reserved: Collection[str]) -> tuple[list[_Range], list[_Range]]:
    """Return the ranges of the names that begin with one of *heads* (whole segments) and have more segments.

    And those of them in which every name matches. The empty head stands for all names but the *reserved* ones.
    """
    ranges: list[_Range] = []
    named = heads if "" not in heads else [head for head in heads if head.partition("/")[0] in reserved]
    # '0' is the character after '/': all names that begin with the head and a '/' are between the two.
    for low, high in sorted((f"{head}/", f"{head}0") for head in named):
        if not ranges or not low.startswith(ranges[-1][0]):
            ranges.append((low, high))
    whole = [each for each in ranges if heads[each[0][:-1]]]
    if "" in heads:
        others = list(_all_but(reserved))
        ranges = sorted([*ranges, *others], key=lambda each: each[0])
        whole = [*others, *whole] if heads[""] else whole
    return ranges, whole


def _all_but(reserved: Collection[str]) -> Iterator[_Range]:
    """Yield the ranges of all names that do not begin with a *reserved* segment."""
    low = ""
    # The segment alone, up to the first text after it; and all that begins with it and a '/'.
    for begin, end in sorted(cut for each in reserved for cut in ((each, f"{each}\0"), (f"{each}/", f"{each}0"))):
        yield low, begin
        low = end
    yield low, None


@lru_cache(maxsize=COMPILED)
def compiled(patterns: frozenset[str]) -> Patterns:
    """Return the *patterns* of topics, compiled; the 16 sets that were used last are cached.

    A wildcard in the first segment does not match a reserved one.
    """
    return Patterns(patterns, RESERVED)


class _Node(Generic[T]):
    __slots__ = ("children", "items", "repeats")

    def __init__(self, *, repeats: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.items: dict[T, None] = {}
        self.repeats = repeats  # whether this is a `**` node, which stays active for further segments


class PatternTrie(Generic[T]):
    """A trie of items under patterns; the cost of a match depends on the nodes that it visits, not on all items.

    Patterns and names are sequences of segments; the caller splits them, topics at `/`, event names at `.`.

    Args:
        reserved: the first segments that no wildcard matches.
    """

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._root: _Node[T] = _Node()
        self._reserved = frozenset(reserved)

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
        if segments[0] in self._reserved:
            named = self._root.children.get(segments[0])
            if named is None:
                return
            nodes, segments = self._with_empty_repeats({named: None}), segments[1:]
        else:
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
