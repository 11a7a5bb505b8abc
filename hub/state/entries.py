"""Entries that are kept until they are taken or expire, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import isfinite
from typing import NamedTuple

from hub.errors import InvalidInput, TooLarge

MOST = 100_000
MOST_BYTES = 64 * 1024 * 1024
MOST_OF_AN_OWNER = 256
KEY_BYTES = 1024  # of an owner, too
VALUE_BYTES = 64 * 1024

# What an entry costs beside its texts: itself, its places in two dictionaries (one of them its own, if its owner has no
# other one) and twice in the heap.
_COST = 990


class Entry(NamedTuple):
    """A text that is kept until it is taken or expires.

    Attributes:
        value: the text.
        expires: in seconds since 1970.
        owner: whose it is.
        lasting: whether it outlives the process, where the home can.
    """

    value: str
    expires: float
    owner: str
    lasting: bool = False


class Entries:
    """Entries by key, bounded: a number of each owner, a number and bytes of all. What was put first goes first.

    Args:
        clock: seconds since 1970.
        most: how many are kept.
        most_bytes: how many bytes they may cost, everything counted.
        most_of_an_owner: how many of them may be of one owner.

    Attributes:
        size: bytes that are used, about.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        most_of_an_owner: int = MOST_OF_AN_OWNER,
    ) -> None:
        self._clock = clock
        self._most, self._most_bytes, self._most_of_an_owner = most, most_bytes, most_of_an_owner
        self._kept: OrderedDict[str, Entry] = OrderedDict()
        self._owned: dict[str, OrderedDict[str, None]] = {}
        self._ends: list[tuple[float, str]] = []  # a heap; of what has gone otherwise, it may still know
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Entry | None:
        """Return the entry under *key*; None if there is none, or it has expired."""
        entry = self._kept.get(key)
        return entry if entry is not None and entry.expires > self._clock() else None

    def take(self, key: str) -> Entry | None:
        """Remove the entry under *key* and return it; None if there is none, or it has expired."""
        entry = self.get(key)
        if entry is not None:
            self._remove(key)
        return entry

    def put(self, key: str, entry: Entry) -> list[str]:
        """Keep *entry* under *key*, and return the keys of lasting entries that had to go for it.

        Raises:
            TooLarge: a text is too large.
            InvalidInput: a text can't be encoded in UTF-8, or *entry* never expires.
        """
        check_entry(key, entry)
        if key in self._kept:
            self._remove(key)
        self._kept[key] = entry
        self._owned.setdefault(entry.owner, OrderedDict())[key] = None
        self.size += _cost(key, entry)
        self._note_end(entry.expires, key)
        gone = [*self._expired(), *self._beyond_the_bounds(entry.owner)]
        return [each for each, was in gone if was.lasting]

    def _note_end(self, expires: float, key: str) -> None:
        if len(self._ends) > 2 * len(self._kept):
            self._ends = [(each.expires, key) for key, each in self._kept.items()]
            heapify(self._ends)
        else:
            heappush(self._ends, (expires, key))

    def _expired(self) -> Iterator[tuple[str, Entry]]:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            entry = self._kept.get(key)
            if entry is not None and entry.expires <= now:
                yield key, self._remove(key)

    def _beyond_the_bounds(self, owner: str) -> Iterator[tuple[str, Entry]]:
        owned = self._owned.get(owner, ())
        while len(owned) > self._most_of_an_owner:
            key = next(iter(owned))
            yield key, self._remove(key)
        while len(self._kept) > self._most or self.size > self._most_bytes:
            key = next(iter(self._kept))
            yield key, self._remove(key)

    def _remove(self, key: str) -> Entry:
        entry = self._kept.pop(key)
        owned = self._owned[entry.owner]
        del owned[key]
        if not owned:
            del self._owned[entry.owner]
        self.size -= _cost(key, entry)
        return entry


def check_entry(key: str, entry: Entry) -> None:
    """Raise if *entry* can't be kept under *key*; see `Entries.put`."""
    for name, text, most in (
        ("key", key, KEY_BYTES),
        ("owner", entry.owner, KEY_BYTES),
        ("value", entry.value, VALUE_BYTES),
    ):
        try:
            if len(text) > most or len(text.encode()) > most:
                raise TooLarge(name, most)
        except UnicodeEncodeError:
            raise InvalidInput(name, "is not valid UTF-8") from None
    if not isfinite(entry.expires):
        raise InvalidInput("expires", "is not a time")


def _cost(key: str, entry: Entry) -> int:
    return _COST + _bytes_of(key) + _bytes_of(entry.value) + _bytes_of(entry.owner)


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)
