"""The rules of gathering, with a clock and a loop made of numbers."""

from __future__ import annotations

from hub.pacing import GATHER_SECONDS, QUIET_TICKS, TRIAL, TRIAL_EVERY, Pacing, Step

TURN = 0.00001


class Loop:
    """A fan-out and a loop of which only the clock is left: a flush takes *cost* seconds, a turn 10 microseconds.

    Attributes:
        now: seconds.
        flushes: how many notifications each flush brought.
        waited: how long the notification that waited longest for its flush did.
    """

    def __init__(self, cost: float = 0.005) -> None:
        self.now, self.cost = 100.0, cost
        self.pacing = Pacing(lambda: self.now)
        self.flushes: list[int] = []
        self.waited = 0.0
        self._gathered: list[float] = []
        self._due: float | None = None

    def publish(self, *, full: bool = False) -> None:
        self._gathered.append(self.now)
        self._take(self.pacing.arrived(full=full))

    def flush(self) -> None:
        if not self._gathered:
            return
        began = self.now
        self.flushes.append(len(self._gathered))
        self.waited = max(self.waited, began - self._gathered[0])
        self._gathered.clear()
        self.now += self.cost
        self._take(self.pacing.flushed(began))

    def _take(self, step: Step) -> None:
        if step is Step.FLUSH:
            self.flush()
        elif step is Step.TICK:
            self._due = self.now + TURN
        elif step is Step.WAIT:
            self._due = self.now + self.pacing.pause

    def pass_by(self, seconds: float) -> None:
        """Let time pass, with all the turns that are due."""
        end = self.now + seconds
        while self._due is not None and self._due <= end:
            self.now, self._due = max(self.now, self._due), None
            self._take(self.pacing.tick(gathered=bool(self._gathered)))
        self.now = max(self.now, end)

    def rest(self) -> None:
        self.pass_by(1.0)
        assert self.pacing.resting


def test_a_single_notification_is_flushed_at_once():
    loop = Loop()
    loop.publish()
    assert loop.flushes == [1]


def test_notifications_far_apart_never_wait():
    loop = Loop()
    for _ in range(100):
        loop.publish()
        loop.rest()
    assert loop.flushes == [1] * 100
    assert loop.waited == 0


def test_what_comes_within_the_turns_of_a_burst_goes_out_together():
    loop = Loop()
    for _ in range(50):
        loop.publish()
    loop.rest()
    assert loop.flushes == [1, 49]


def test_the_burst_after_a_burst_is_one_flush():
    loop = Loop()
    for _ in range(3):
        for _ in range(50):
            loop.publish()
        loop.rest()
    assert loop.flushes == [1, 49, 50, 50]


def test_one_that_comes_alone_ends_the_expectation_of_bursts():
    loop = Loop()
    for size in (2, 1, 1):
        for _ in range(size):
            loop.publish()
        loop.rest()
    assert loop.flushes == [1, 1, 1, 1]


def test_a_full_hand_is_flushed_whatever_the_state():
    loop = Loop()
    loop.publish()
    loop.publish(full=True)
    assert loop.flushes == [1, 1]


def test_nothing_waits_longer_than_a_flush_takes_though_more_arrives_at_every_turn():
    loop = Loop(cost=0.003)
    for _ in range(2_000):
        loop.publish()
        loop.pass_by(TURN)
    assert loop.waited <= loop.cost + 3 * TURN


def test_nothing_waits_longer_than_the_bound_however_long_a_flush_takes():
    loop = Loop(cost=0.5)
    for _ in range(200):
        loop.publish()
        loop.pass_by(0.001)
    loop.rest()
    assert loop.waited <= GATHER_SECONDS + 3 * TURN
    assert sum(loop.flushes) == 200


def test_a_burst_with_pauses_of_many_turns_gathers_while_the_last_flush_is_being_paid_for():
    """A log on a disk confirms one by one, each a commit later than the one before."""
    loop = Loop(cost=0.005)
    commit = 50 * TURN
    assert commit > QUIET_TICKS * TURN
    for _ in range(400):
        loop.publish()
        loop.pass_by(commit)
    loop.rest()
    assert sum(loop.flushes) == 400
    assert len(loop.flushes) < 400 / 7, "ten commits fit into the time of a flush"
    assert loop.waited <= loop.cost + 3 * TURN


def test_who_waits_for_the_delivery_before_the_next_publish_is_hardly_slowed_down():
    loop = Loop(cost=0.005)
    began, answer = loop.now, 10 * TURN
    for delivered in range(1, 331):
        loop.publish()
        while len(loop.flushes) < delivered:
            loop.pass_by(TURN)
        loop.pass_by(answer)
    taken = loop.now - began
    at_best = 330 * (loop.cost + answer)
    trials = 330 / TRIAL_EVERY + 1
    assert taken <= at_best + trials * TRIAL * loop.cost + 330 * TURN


def test_gathering_by_time_ends_with_the_burst():
    loop = Loop(cost=0.005)
    for _ in range(100):
        loop.publish()
        loop.pass_by(50 * TURN)
    loop.rest()
    before = len(loop.flushes)
    loop.publish()
    loop.rest()
    loop.publish()
    assert len(loop.flushes) == before + 2, "the second one found nothing to wait for"


def test_a_flush_from_outside_ends_a_wait():
    loop = Loop(cost=0.005)
    loop.publish()
    loop.pass_by(50 * TURN)
    loop.publish()
    assert loop.flushes == [1], "it waits, for a trial"
    loop.flush()
    assert loop.flushes == [1, 1]
    loop.rest()
    assert loop.flushes == [1, 1]
