"""What the log in memory finds notifications by: the offsets of a topic, and the names of all topics in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

BLOCK = 256


class Offsets:
    """Offsets in order: they grow at their new end and shrink at their old one; any place in O(1)."""

    __slots__ = ("_head", "_items")

    def __init__(self, offsets: Iterable[int] = ()) -> None:
        self._items = list(offsets)
        self._head = 0

    def __len__(self) -> int:
        return len(self._items) - self._head

    @property
    def oldest(self) -> int:
        """The oldest; there must be one."""
        return self._items[self._head]

    def push(self, offset: int) -> None:
        """Add *offset*, which is greater than all others."""
        self._items.append(offset)

    def pop(self) -> None:
        """Remove the oldest."""
        self._head += 1
        if self._head * 2 >= len(self._items):  # what has gone costs no more than what is there
            del self._items[: self._head]
            self._head = 0

    def newest(self, upto: int) -> int:
        """Return the newest that is at most *upto*; 0 if there is none."""
        items = self._items
        if items[-1] <= upto:
            return items[-1]
        place = bisect_right(items, upto, lo=self._head)
        return items[place - 1] if place > self._head else 0

    def after(self, offset: int) -> Iterator[int]:
        """Return those greater than *offset*, in order."""
        return map(self._items.__getitem__, range(bisect_right(self._items, offset, lo=self._head), len(self._items)))

    def upto(self, offset: int, after: int = 0) -> Iterator[int]:
        """Return those that are greater than *after* and at most *offset*, the newest first."""
        newest = bisect_right(self._items, offset, lo=self._head) - 1
        oldest = bisect_right(self._items, after, lo=self._head) if after else self._head
        return map(self._items.__getitem__, range(newest, oldest - 1, -1))

    def part(self, after: int, upto: int, most: int) -> list[int]:
        """Return the first of those greater than *after* and at most *upto*, at most so many."""
        items = self._items
        begin = bisect_right(items, after, lo=self._head)
        end = min(begin + most, len(items))
        return items[begin : bisect_right(items, upto, lo=begin, hi=end)]

    def count(self, after: int, upto: int) -> int:
        """Return how many are greater than *after* and at most *upto*."""
        items, head = self._items, self._head
        return max(bisect_right(items, upto, lo=head) - bisect_right(items, after, lo=head), 0)


class Topic(Offsets):
    """The offsets of one topic.

    Attributes:
        alone: the topic, as the topics of a notification that has no other one: all those share this tuple.
        limit: how many it keeps.
    """

    __slots__ = ("alone", "limit")

    def __init__(self, alone: tuple[str], limit: float) -> None:
        super().__init__()
        self.alone, self.limit = alone, limit


class Names:
    """Names in the order of their code points, in blocks: adding and removing moves a part of one block."""

    __slots__ = ("_blocks", "_firsts")

    def __init__(self) -> None:
        self._blocks: list[list[str]] = []
        self._firsts: list[str] = []  # a text for each block, not after any of it and after all of the block before

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def add(self, name: str) -> None:
        """Add *name*, which is not among them."""
        if not self._blocks:
            self._blocks, self._firsts = [[]], [""]
        place = bisect_right(self._firsts, name) - 1
        block = self._blocks[place]
        insort(block, name)
        if len(block) > 2 * BLOCK:
            self._blocks.insert(place + 1, block[BLOCK:])
            self._firsts.insert(place + 1, block[BLOCK])
            del block[BLOCK:]

    def remove(self, name: str) -> None:
        """Remove *name*, which is one of them."""
        place = bisect_right(self._firsts, name) - 1
        block = self._blocks[place]
        del block[bisect_left(block, name)]
        if not block:
            del self._blocks[place]
            del self._firsts[place]
            if self._firsts:
                self._firsts[0] = ""

    def between(self, low: str, high: str | None) -> Iterator[str]:
        """Yield those that do not stand before *low*, and before *high*, or to the end."""
        first = max(bisect_right(self._firsts, low) - 1, 0)
        begin = bisect_left(self._blocks[first], low) if self._blocks else 0
        for block in self._blocks[first:]:
            for name in block[begin:]:
                if high is not None and name >= high:
                    return
                yield name
            begin = 0
