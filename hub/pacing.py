"""The rules for when the fan-out flushes what it has gathered. They use an injected clock and no event loop.

    RESTING ──a notification, and it is flushed──> TICKING ──a few quiet turns of the loop──> RESTING
        └────a notification soon after a flush───> WAITING ──its time is over, and it is flushed──> TICKING

In RESTING, a notification is flushed before its publisher continues. Right after a flush the next ones are gathered for
a few turns of the loop, because the pauses in a burst of the memory log are not longer than that; but never for longer
than the last flush took. If the last notifications came in a burst, the first of the next ones is gathered too.

A slower log leaves pauses of many turns between the notifications of a burst. So they may also be gathered by time,
until as much time has passed since the last flush as that flush took. Trials show now and then whether this gains
anything: to a publisher that waits for the delivery before the next publish, it would only add latency.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

GATHER_SECONDS = 0.010
"""Maximum time for which notifications are gathered, however long the last flush took."""
QUIET_TICKS = 4
"""Number of turns of the loop without a notification that end a burst."""
TRIAL = 0.5
"""Length of a trial of gathering by time, as a share of the duration of the last flush."""
TRIAL_EVERY = 32
"""Number of notifications without a trial after one that gained nothing."""


class Step(enum.Enum):
    """The next step of the fan-out."""

    NOTHING = enum.auto()  # a call of `tick` is scheduled already, or not needed
    FLUSH = enum.auto()  # flush, then call `flushed`
    TICK = enum.auto()  # call `tick` in the next turn of the loop
    WAIT = enum.auto()  # call `tick` in `pause` seconds


class _State(enum.Enum):
    RESTING = enum.auto()  # there was no flush recently
    TICKING = enum.auto()  # turns of the loop are counted
    WAITING = enum.auto()  # notifications are gathered until `_wait_until`


class Pacing:
    """The decision when to flush, from the notifications that arrive, the cost of a flush and the turns of the loop.

    Args:
        now: returns the seconds of a monotonic clock.
    """

    __slots__ = (
        "_arrived",
        "_bursts",
        "_by_time",
        "_cost",
        "_flushed_at",
        "_late",
        "_now",
        "_quiet",
        "_state",
        "_together",
        "_until",
        "_untried",
        "_wait_until",
    )

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._state = _State.RESTING
        self._quiet = 0  # number of further quiet turns of the loop that end the burst
        self._arrived = 0  # notifications since the last turn
        self._together = 0  # notifications since the state was last RESTING
        self._bursts = False  # whether there were several of them the last time
        self._flushed_at: float | None = None  # when the flush began whose cost is not known yet
        self._cost = 0.0  # seconds that the last flush took, with everything that the loop did for it
        self._until = 0.0  # until then gathering pays: the end of the last flush plus its cost
        self._wait_until = 0.0
        self._late = 0  # notifications that arrived while waiting
        self._by_time = False  # whether gathering by time gained something the last time
        self._untried = 0  # notifications until the next trial

    @property
    def resting(self) -> bool:
        """Whether there was no flush recently: `tick` is not due."""
        return self._state is _State.RESTING

    @property
    def pause(self) -> float:
        """Seconds until `tick` is due, after `Step.WAIT`."""
        return max(self._wait_until - self._now(), 0.0)

    def arrived(self, *, full: bool) -> Step:
        """Count a notification that has receivers, and return the next step; *full*: no more may be gathered."""
        self._arrived += 1
        if full:
            return Step.FLUSH
        if self._state is _State.TICKING:
            return Step.NOTHING
        if self._state is _State.WAITING:
            self._late += 1
            return Step.NOTHING
        if self._bursts:
            self._until = self._now() + min(self._cost, GATHER_SECONDS)
            return self._start_ticking()
        return self._wait() or Step.FLUSH

    def _start_ticking(self) -> Step:
        self._quiet = QUIET_TICKS
        already = self._state is _State.TICKING
        self._state = _State.TICKING
        return Step.NOTHING if already else Step.TICK

    def _wait(self) -> Step | None:
        """Begin to wait and return `Step.WAIT`, if that may pay; else return None."""
        now = self._now()
        if now >= self._until:
            return None
        if not self._by_time and self._untried > 0:
            self._untried -= 1
            return None
        self._state, self._late = _State.WAITING, 0
        self._wait_until = self._until if self._by_time else min(self._until, now + TRIAL * self._cost)
        return Step.WAIT

    def flushed(self, began: float) -> Step:
        """Take note of a flush that began at *began*, in seconds of the clock; return the next step."""
        self._flushed_at = began
        return self._start_ticking()

    def tick(self, *, gathered: bool) -> Step:
        """Take note of a turn of the loop or the end of a wait, and return the next step.

        *gathered*: whether there are notifications to flush.
        """
        if self._state is _State.WAITING:
            self._by_time, self._untried = self._late > 0, TRIAL_EVERY
            self._state = _State.RESTING
            return Step.FLUSH if gathered else Step.NOTHING
        now = self._now()
        if self._flushed_at is not None:
            # This is the first turn after a flush: everything that the loop did for it, the sends too, is done.
            self._cost, self._flushed_at = now - self._flushed_at, None
            self._until = now + min(self._cost, GATHER_SECONDS)
        self._quiet = QUIET_TICKS if self._arrived else self._quiet - 1
        self._together += self._arrived
        self._arrived = 0
        if gathered and now >= self._until:
            self._state = _State.RESTING
            return Step.FLUSH
        if self._quiet:
            return Step.TICK
        self._state = _State.RESTING
        if gathered:
            return self._wait() or Step.FLUSH
        self._bursts, self._together = self._together > 1, 0
        return Step.NOTHING
