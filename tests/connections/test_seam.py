"""The way from where a client stands to live: no loss, no repeat, whatever races. Pure, without transport or loop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.connections.resume import Start
from hub.connections.seam import Beginning, Question, Seam, State, Step
from hub.connections.stretches import Stretches
from hub.encoding import Gap, GapReason
from hub.fanout import Batch
from hub.log.log import Frames
from hub.notification import Draft, Notification, Position


def at(offset: int) -> Position:
    return Position("e", offset)


def batch(*offsets: int) -> Batch:
    notifications = [Notification.accept(Draft.of("x"), at(offset), 0.0) for offset in offsets]
    return Batch(notifications, [each.chunk for each in notifications])


def page(reached: int, *offsets: int, hole: Any = 0, oldest: int = 1) -> Frames:
    return Frames(b"x" * len(offsets), len(offsets), offsets[0] if offsets else 0, reached, hole, oldest)


def seam(after: int = 2, tail: int = 5, *, bound: int = 1 << 20, **start: Any) -> Seam:
    stretches = Stretches.begin(after, ("t",), latest=tail if start.get("latest") else None)
    return Seam(Start(after, **{"known": True, **start}), at(tail), bound, stretches)


def test_a_known_id_begins_the_stream_before_anything_is_read():
    behind = seam()
    assert behind.beginning() == Beginning(at(2), recovered=True, gap=None)
    assert behind.beginning() is None


def test_what_is_asked_goes_as_far_as_the_fan_out_has_come():
    behind = seam(tail=5)
    assert behind.question(9) == Question(after=2, upto=9, bounded=False, latest=False)


def test_a_page_that_reaches_the_tail_ends_in_live():
    behind = seam()
    behind.beginning()
    behind.question(5)
    assert behind.take(page(5, 3, 4, 5)) is None
    assert behind.step(5, room=True) is Step.JOIN
    assert (behind.state, behind.cursor) == (State.LIVE, 5)


def test_a_page_that_does_not_reach_it_is_followed_by_the_next():
    behind = seam()
    behind.question(5)
    behind.take(page(4, 3, 4))
    assert behind.step(5, room=True) is Step.READ
    assert behind.question(7) == Question(4, 7, bounded=False, latest=False)


def test_what_comes_while_the_last_page_is_read_is_held_behind_it():
    behind = seam()
    behind.question(5)
    behind.take(page(5, 5))
    assert behind.step(7, room=True) is Step.JOIN_AND_READ
    assert behind.state is State.HOLDING
    assert behind.question(8) == Question(5, 7, bounded=True, latest=False)  # 8 will be in a batch
    assert behind.hold(batch(8, 9))
    assert behind.waiting > 0
    behind.take(page(7, 6, 7))
    assert behind.step(9, room=True) is Step.RELEASE
    assert [each.last for each in behind.release()] == [9]
    assert (behind.state, behind.cursor) == (State.LIVE, 9)


def test_a_hold_that_fills_is_given_up_for_the_log_has_it():
    behind = seam(bound=100)
    behind.question(5)
    behind.take(page(5, 5))
    behind.step(7, room=True)
    assert not behind.hold(batch(*range(8, 20)))
    assert (behind.state, behind.waiting) == (State.REPLAYING, 0)
    assert behind.question(19) == Question(5, 19, bounded=False, latest=False)


@pytest.mark.parametrize(("tail", "step"), [(5, Step.WAIT), (7, Step.WAIT)])
def test_a_reader_without_room_stays_where_nothing_can_be_lost(tail: int, step: Step):
    behind = seam()
    behind.question(5)
    behind.take(page(5, 5))
    assert behind.step(tail, room=False) is step
    assert behind.state is State.REPLAYING


def test_a_reader_who_has_no_room_for_the_last_page_leaves_the_fan_out_again():
    behind = seam()
    behind.question(5)
    behind.take(page(5, 5))
    behind.step(7, room=True)
    behind.hold(batch(8))
    behind.take(page(7, 6, 7))
    assert behind.step(8, room=False) is Step.LEAVE
    assert behind.question(8) == Question(7, 8, bounded=False, latest=False)


def test_a_stream_with_a_gap_begins_right_before_the_first_that_follows():
    behind = seam(0, gap=GapReason.EPOCH, known=False)
    assert behind.beginning() is None
    behind.question(5)
    assert behind.take(page(3, oldest=2)) is None  # nothing found so far
    assert behind.step(5, room=True) is Step.READ
    assert behind.take(page(5, 4, 5, oldest=2)) == Beginning(at(3), False, Gap(GapReason.EPOCH, at(2)))


def test_a_stream_with_a_gap_and_nothing_to_follow_begins_at_the_end():
    behind = seam(0, gap=GapReason.UNKNOWN, known=False)
    behind.question(5)
    assert behind.take(page(5, oldest=5)) == Beginning(at(5), False, Gap(GapReason.UNKNOWN, at(5)))


def test_what_is_trimmed_during_a_replay_is_told_once():
    behind = seam()
    behind.beginning()
    behind.question(9)
    assert behind.take(page(4, 4, hole="a", oldest=4)) == Gap(GapReason.TRIMMED, at(4))
    assert behind.take(page(5, 5, hole="a", oldest=4)) is None
    assert behind.take(page(6, 6, hole="b", oldest=6)) == Gap(GapReason.TRIMMED, at(6))


def test_the_newest_of_each_topic_is_asked_for_as_of_one_moment():
    behind = seam(0, tail=5, latest=True, known=False)
    assert behind.question(9) == Question(0, 5, bounded=True, latest=True)
    behind.take(page(5, 5))
    assert behind.step(9, room=True) is Step.JOIN_AND_READ
    assert behind.question(9) == Question(5, 9, bounded=True, latest=False)


def test_where_there_is_no_newest_of_any_topic_the_beginning_is_said_before_it_is_live():
    behind = seam(0, tail=5, latest=True, known=False)
    behind.question(5)
    assert behind.take(page(5)) is None
    assert behind.step(5, room=True) is Step.READ
    assert behind.question(5) == Question(5, 5, bounded=False, latest=False)
    assert behind.take(page(5)) == Beginning(at(5), True, None)
    assert behind.step(5, room=True) is Step.JOIN


class Walk:
    """An owner of a seam over a log, a fan-out and a transport that are nothing but numbers."""

    def __init__(self, after: int, newest: int, bound: int) -> None:
        self.newest = newest
        self.flushed = newest
        self.joined = False
        self.room = True
        self.sent: list[int] = []
        self.question: Question | None = None
        self.seam = Seam(Start(after, known=True), at(newest), bound, Stretches.begin(after, ("t",)))
        self.seam.beginning()
        self.unsent: list[int] = []

    def publish(self, number: int) -> None:
        self.newest += number

    def flush(self) -> None:
        brought = range(self.flushed + 1, self.newest + 1)
        self.flushed = self.newest
        if not (brought and self.joined):
            return
        if self.seam.state is State.LIVE:
            self.sent += brought
        elif not self.seam.hold(batch(*brought)):
            self.joined = False

    def ask(self) -> None:
        if self.question is None and self.room and self.seam.state is not State.LIVE:
            self.flush()
            self.question = self.seam.question(self.flushed)

    def answer(self, most: int) -> None:
        if self.question is None:
            return
        after, upto, *_ = self.question
        self.question = None
        reached = min(upto, after + most)
        offsets = range(after + 1, reached + 1)
        self.seam.take(page(max(reached, after), *offsets))
        self.sent += offsets
        self.flush()
        step = self.seam.step(self.flushed, room=self.room)
        if step in {Step.JOIN, Step.JOIN_AND_READ}:
            assert not self.joined
            self.joined = True
        elif step is Step.LEAVE:
            self.joined = False
        elif step is Step.RELEASE:
            assert self.joined
            self.sent += [each.position.offset for held in self.seam.release() for each in held.notifications]


MOVES = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 5)),
    st.tuples(st.just("answer"), st.integers(0, 12)),
    st.tuples(st.sampled_from(["flush", "ask", "room", "no room"]), st.just(0)),
)


@given(
    after=st.integers(0, 10),
    more=st.integers(0, 10),
    bound=st.sampled_from([0, 200, 1 << 20]),
    moves=st.lists(MOVES, max_size=60),
)
def test_whatever_races_nothing_is_lost_and_nothing_comes_twice(
    after: int, more: int, bound: int, moves: list[tuple[str, int]]
):
    walk = Walk(after, after + more, bound)
    for move, number in moves:
        if move == "publish":
            walk.publish(number)
        elif move == "answer":
            walk.answer(number)
        elif move in {"room", "no room"}:
            walk.room = move == "room"
        else:
            getattr(walk, move)()
        assert walk.sent == list(range(after + 1, after + 1 + len(walk.sent)))
    walk.room = True
    while walk.seam.state is not State.LIVE:  # nobody publishes any more: it gets there
        walk.ask()
        walk.answer(3)
    walk.flush()
    assert walk.sent == list(range(after + 1, walk.newest + 1))
