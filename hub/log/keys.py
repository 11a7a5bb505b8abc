"""The idempotency keys that were used lately."""

from __future__ import annotations

from collections.abc import Callable

from hub.log.receipt import Receipt

KEY_AGE = 300.0
KEY_COUNT = 100_000


class Keys:
    """The receipts of the keys used within five minutes, the newest 100,000 at most.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[str, tuple[float, Receipt]] = {}

    def get(self, key: str) -> Receipt | None:
        """Return the receipt of the first publish with *key*, if it still counts."""
        used = self._used.get(key)
        return used[1] if used is not None and used[0] > self._clock() else None

    def put(self, key: str, receipt: Receipt, expires: float | None = None) -> float:
        """Remember *receipt* as the one of *key* and return until when, in seconds since 1970."""
        now = self._clock()
        until = now + KEY_AGE if expires is None else expires
        self._used.pop(key, None)
        self._used[key] = (until, receipt)
        while len(self._used) > KEY_COUNT or next(iter(self._used.values()))[0] <= now:
            del self._used[next(iter(self._used))]
            if not self._used:
                break
        return until

    def forget(self, key: str, receipt: Receipt) -> None:
        """Forget *key* if it stands for *receipt*, which failed: a retry is welcome."""
        used = self._used.get(key)
        if used is not None and used[1] is receipt:
            del self._used[key]
