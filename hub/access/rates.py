"""How often somebody may do something: token buckets, one for each who asks. Pure, under a clock from outside."""

from __future__ import annotations

import time
from collections.abc import Callable

from hub.errors import TooManyPublishes

MOST = 10_000
"""How many of those who asked lately are remembered."""

ROUNDING = 1e-6
"""Seconds by which sums of times may be wrong."""

Clock = Callable[[], float]


class Rates:
    """One token bucket for each key: it holds what may be spent at once, and fills at an even rate.

    What costs more than there is may still be spent as long as anything is there; the bucket is then in debt, and
    nothing goes until that is paid. So a list of a thousand costs what a thousand single ones cost, and is never
    refused for its length alone.

    A full bucket takes no memory. Of those that are not full, at most *most* are remembered; beyond that, the half that
    is nearest to full is forgotten, which lets them go a little earlier.

    Args:
        per_second: how many may be spent a second; 0: no limit.
        burst: how many seconds' worth a full bucket holds; at least one token.
        most: how many buckets are remembered.
        clock: seconds of `time.monotonic`, or a clock that is moved by hand.
    """

    def __init__(
        self, per_second: float, *, burst: float = 1.0, most: int = MOST, clock: Clock = time.monotonic
    ) -> None:
        self.per_second = per_second
        self._each = 1 / per_second if per_second else 0.0  # seconds in which a token comes
        self._slack = max(burst - self._each, 0.0) + ROUNDING
        self._most = most
        self._clock = clock
        self._full_at: dict[str, float] = {}  # when each bucket is full again: all that has to be known of it

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: str) -> float:
        """Return in how many seconds *key* may spend something; 0: now."""
        full_at = self._full_at.get(key)
        return 0.0 if full_at is None else max(full_at - self._clock() - self._slack, 0.0)

    def spend(self, key: str, number: int = 1) -> None:
        """Take *number* tokens from the bucket of *key*, whatever is in it."""
        if not self.per_second:
            return
        now = self._clock()
        if key not in self._full_at and len(self._full_at) >= self._most:
            self._forget(now)
        self._full_at[key] = max(self._full_at.get(key, now), now) + number * self._each

    def ask(self, key: str, number: int = 1) -> float:
        """Spend *number* if *key* may spend now; return 0, or in how many seconds it may."""
        wait = self.wait(key)
        if not wait:
            self.spend(key, number)
        return wait

    def _forget(self, now: float) -> None:
        """Forget the full buckets; if that is not enough, the half that is nearest to full."""
        left = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        if len(left) > self._most // 2:
            left = dict(sorted(left.items(), key=lambda item: item[1])[len(left) - self._most // 2 :])
        self._full_at = left


class PublishRates:
    """How many notifications may be published a second: by each publisher, and by all together.

    Args:
        each: how many one publisher may publish; 0: no limit.
        total: how many all of them may; 0: no limit.
        clock: as for `Rates`.
    """

    def __init__(self, each: float, total: float, *, clock: Clock = time.monotonic) -> None:
        self._each = Rates(each, clock=clock)
        self._total = Rates(total, clock=clock)

    def check(self, who: str) -> None:
        """Raise if *who* may publish nothing now; empty: somebody who is limited only together with all others.

        Raises:
            TooManyPublishes: too many were published; it says by whom, and when to come back.
        """
        if who and (wait := self._each.wait(who)):
            raise TooManyPublishes("publish_rate", self._each.per_second, wait)
        if wait := self._total.wait(""):
            raise TooManyPublishes("publish_rate_total", self._total.per_second, wait)

    def take(self, who: str, number: int) -> None:
        """Count *number* notifications of *who*, all of them or none.

        Raises:
            TooManyPublishes: as for `check`.
        """
        self.check(who)
        if who:
            self._each.spend(who, number)
        self._total.spend("", number)
