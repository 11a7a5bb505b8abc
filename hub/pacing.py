"""When the fan-out flushes what it has gathered. Pure rules with a clock of their own; they touch no loop.

    RESTING ──a notification, and it is flushed──> TICKING ──a few quiet turns of the loop──> RESTING
        └────a notification soon after a flush───> WAITING ──its time is over, and it is flushed──> TICKING

Resting, a notification is flushed before its publisher goes on. Right after a flush the next ones gather: for a few
turns of the loop, because a burst in memory has no pause longer than that, but no longer than the last flush took.
When they came in a burst the last time, the first of the next ones gathers too.

A log that takes time leaves pauses of many turns between the notifications of a burst. So they may also gather by
time, until as much time has passed since the last flush as that took. Whether this gains anything is tried now and
then: a publisher who waits for the delivery before the next publish would only lose by it.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

GATHER_SECONDS = 0.010
"""What is gathered waits no longer than this, however long the last flush took."""
QUIET_TICKS = 4
"""How many turns of the loop without a notification end a burst."""
TRIAL = 0.5
"""The part of the last flush's time for which gathering by time is tried."""
TRIAL_EVERY = 32
"""After a trial that brought nothing, so many notifications are not tried with."""


class Step(enum.Enum):
    """What the fan-out does next."""

    NOTHING = enum.auto()  # `tick` is already due to be called, or need not be
    FLUSH = enum.auto()  # flush, then call `flushed`
    TICK = enum.auto()  # call `tick` in the next turn of the loop
    WAIT = enum.auto()  # call `tick` in `pause` seconds


class _State(enum.Enum):
    RESTING = enum.auto()  # no flush was lately
    TICKING = enum.auto()  # turns of the loop are counted
    WAITING = enum.auto()  # something waits until a moment


class Pacing:
    """Decides when to flush, from what arrives, what a flush costs and how the loop turns.

    Args:
        now: seconds of a monotonic clock.
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
        self._quiet = 0  # how many more quiet turns of the loop until the burst counts as over
        self._arrived = 0  # how many notifications since the last turn
        self._together = 0  # how many since the fan-out last rested
        self._bursts = False  # they were several the last time
        self._flushed_at: float | None = None  # when the flush began whose cost is not known yet
        self._cost = 0.0  # seconds that the last flush took, with all that the loop did for it
        self._until = 0.0  # until then it pays to gather: the last flush's end and its cost
        self._wait_until = 0.0
        self._late = 0  # how many came while it was waiting
        self._by_time = False  # gathering by time brought something the last time
        self._untried = 0  # how many more notifications until it is tried again

    @property
    def resting(self) -> bool:
        """Whether no flush was lately: `tick` is not due."""
        return self._state is _State.RESTING

    @property
    def pause(self) -> float:
        """Seconds until `tick` is due, after `Step.WAIT`."""
        return max(self._wait_until - self._now(), 0.0)

    def arrived(self, *, full: bool) -> Step:
        """Count a notification that somebody wants; *full*: as much is gathered as may be."""
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
        """Begin to wait, where that may pay; else return None."""
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
        """Take note of a flush that began at *began*, in seconds of the clock."""
        self._flushed_at = began
        return self._start_ticking()

    def tick(self, *, gathered: bool) -> Step:
        """Take note of a turn of the loop, or of the end of a wait; *gathered*: something is to be flushed."""
        if self._state is _State.WAITING:
            self._by_time, self._untried = self._late > 0, TRIAL_EVERY
            self._state = _State.RESTING
            return Step.FLUSH if gathered else Step.NOTHING
        now = self._now()
        if self._flushed_at is not None:
            # The first turn after a flush: whatever the loop did for it, the sends too, lies behind.
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
