"""Counters of limits: how many there were within a window."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

MOST = 100_000


class Counters:
    """Counters with a window each, in bounded memory: beyond *most* windows, the one that began first is forgotten.

    A key is kept as a digest, so that a long one costs what a short one does.

    Args:
        clock: seconds since 1970.
        most: how many windows are kept.
    """

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._windows: OrderedDict[bytes, tuple[float, int]] = OrderedDict()  # when it began, and how many there were

    def __len__(self) -> int:
        return len(self._windows)

    def count(self, key: str, window: float) -> int:
        """Count one more under *key* and return how many there are in its window of *window* seconds."""
        now = self._clock()
        digest = digest_of(key)
        began, number = self._windows.get(digest, (now, 0))
        if not began <= now < began + window:  # it has passed, or the clock was put back
            began, number = now, 0
        if not number:
            self._windows.pop(digest, None)  # so that it is the newest
        self._windows[digest] = (began, number + 1)
        if len(self._windows) > self._most:
            self._windows.popitem(last=False)
        return number + 1


def digest_of(key: str) -> bytes:
    """Return as what *key* is kept."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
