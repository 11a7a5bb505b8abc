"""Who is there, against a model that keeps everything that has happened and looks it up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hub.presence.presence import GRACE, ONLINE, Change, Presence
from tests.presence.clock import Clock

SINCE_1970 = 1_700_000_000.0


def present(clock: Clock) -> Presence:
    return Presence(clock, lambda: SINCE_1970 + clock.now)


def said(changes: list[Change]) -> list[str]:
    """Return *changes* as `+user place` and `-user place`."""
    return [f"{'+' if change.came else '-'}{change.who.id} {change.place or 'online'}" for change in changes]


def ids(presence: Presence, place: str) -> list[str]:
    return [user.id for user in presence.users(place, limit=1_000)]


def test_a_user_comes_with_the_first_stream_and_is_gone_after_the_last_and_the_grace():
    presence = present(clock := Clock())
    assert said(presence.enter("ann", ["a"])) == ["+ann online", "+ann a"]
    assert presence.enter("ann", ["a"]) == []
    assert presence.leave("ann", ["a"]) == []
    assert presence.due is None
    assert presence.leave("ann", ["a"]) == []
    assert presence.due == GRACE
    clock.now = GRACE - 0.001
    assert presence.pass_time() == []
    assert (presence.count("a"), presence.is_there("ann")) == (1, True)
    clock.now = GRACE
    assert said(presence.pass_time()) == ["-ann online", "-ann a"]
    assert (presence.count("a"), presence.is_there("ann"), presence.due) == (0, False, None)


def test_a_user_who_loads_the_page_again_and_again_neither_leaves_nor_comes():
    presence = present(clock := Clock())
    presence.enter("ann", ["a"])
    for _ in range(10):
        presence.leave("ann", ["a"])
        clock.now += GRACE * 0.9
        assert presence.enter("ann", ["a"]) == []
    (ann,) = presence.users("a", limit=10)
    assert ann.since == SINCE_1970
    assert presence.due is None


def test_whoever_comes_back_after_the_grace_has_left_and_come_though_nobody_looked_meanwhile():
    presence = present(clock := Clock())
    presence.enter("ann", ["a"])
    presence.leave("ann", ["a"])
    clock.now = 10
    assert said(presence.enter("ann", ["a"])) == ["-ann online", "-ann a", "+ann online", "+ann a"]
    (ann,) = presence.users("a", limit=10)
    assert ann.since == SINCE_1970 + 10


def test_a_user_is_on_topics_not_on_patterns_and_online_with_whatever_stream():
    presence = present(Clock())
    assert said(presence.enter("ann", ["a/*", "**"])) == ["+ann online"]
    assert said(presence.enter("bob", [])) == ["+bob online"]
    assert presence.count("a/*") == presence.count("a/b") == 0
    assert ids(presence, ONLINE) == ["ann", "bob"]


def test_a_stream_whose_topics_change_is_on_the_new_ones():
    presence = present(clock := Clock())
    presence.enter("ann", ["a", "b"])
    assert said(presence.move("ann", ["a", "b"], ["b", "c", "d/*"])) == ["+ann c"]
    clock.now = GRACE
    assert said(presence.pass_time()) == ["-ann a"]
    presence.leave("ann", ["b", "c", "d/*"])
    clock.now *= 2
    assert said(presence.pass_time()) == ["-ann online", "-ann b", "-ann c"]
    assert (presence._places, presence.due) == ({}, None)


def test_the_newest_stream_says_what_others_are_told():
    presence = present(Clock())
    presence.enter("ann", ["a"], {"name": "Ann"})
    assert presence.enter("ann", ["a"], {"name": "Anna"}) == []
    assert [user.info for user in presence.users("a", limit=10)] == [{"name": "Anna"}]


@given(st.sets(st.text(min_size=1, max_size=3)), st.integers(1, 5))
def test_pages_have_every_user_once_by_id(users: set[str], limit: int):
    presence = present(Clock())
    for user in users:
        presence.enter(user, ["a"])
    found: list[str] = []
    while page := presence.users("a", after=found[-1] if found else "", limit=limit):
        assert len(page) <= limit
        found += [user.id for user in page]
    assert found == sorted(users)


class Model(RuleBasedStateMachine):
    """Random streams of four users on three topics, while time passes, against the record of all of it."""

    USERS = st.sampled_from(["ann", "bob", "eve", "kim"])
    TOPICS = st.frozensets(st.sampled_from(["a", "room/x", "user/ann", "a/*"]), max_size=4)

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.presence = present(self.clock)
        self.streams: list[tuple[str, frozenset[str]]] = []
        self.record: list[tuple[float, str, str, int]] = []  # when, who, where, one stream more or less
        self.told: set[tuple[str, str]] = set()  # who is where, by the changes alone
        self.since: dict[tuple[str, str], float] = {}

    def note(self, user: str, topics: frozenset[str], number: int) -> None:
        self.record += [(self.clock.now, user, place, number) for place in (ONLINE, *topics) if "*" not in place]

    def hear(self, changes: list[Change]) -> None:
        for place, who, came in changes:
            assert ((place, who.id) in self.told) is not came
            (self.told.add if came else self.told.remove)((place, who.id))

    def is_there(self, user: str, place: str, at: float) -> bool:
        """Look it up: some stream is there, or the last one has ended within the grace."""
        number, ended = 0, -GRACE
        for when, who, where, change in self.record:
            if (who, where) == (user, place):
                number += change
                ended = when if not number else ended
        return number > 0 or ended + GRACE > at

    @rule(user=USERS, topics=TOPICS, name=st.integers(0, 2))
    def enter(self, user: str, topics: frozenset[str], name: int) -> None:
        self.hear(self.presence.enter(user, topics, {"name": name}))
        self.note(user, topics, +1)
        self.streams.append((user, topics))

    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        if self.streams:
            user, topics = self.streams.pop(data.draw(st.integers(0, len(self.streams) - 1)))
            self.hear(self.presence.leave(user, topics))
            self.note(user, topics, -1)

    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.5, 2.5, 4.0]))
    def load_again(self, data: Any, seconds: float) -> None:
        if self.streams:
            user, topics = self.streams[data.draw(st.integers(0, len(self.streams) - 1))]
            self.hear(self.presence.leave(user, topics))
            self.note(user, topics, -1)
            self.clock.now += seconds
            self.hear(self.presence.enter(user, topics))
            self.note(user, topics, +1)

    @rule(data=st.data(), after=TOPICS)
    def move(self, data: Any, after: frozenset[str]) -> None:
        if self.streams:
            place = data.draw(st.integers(0, len(self.streams) - 1))
            user, before = self.streams[place]
            self.streams[place] = (user, after)
            self.hear(self.presence.move(user, before, after))
            self.record += [(self.clock.now, user, topic, +1) for topic in after - before if "*" not in topic]
            self.record += [(self.clock.now, user, topic, -1) for topic in before - after if "*" not in topic]

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.9, 3.0, 3.1]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def all_agree(self) -> None:
        self.hear(self.presence.pass_time())
        places = [ONLINE, "a", "room/x", "user/ann", "a/*"]
        users = ["ann", "bob", "eve", "kim"]
        expected = {(place, user) for place in places for user in users if self.is_there(user, place, self.clock.now)}
        assert self.told == expected
        assert {(place, user) for place in places for user in ids(self.presence, place)} == expected
        for place in places:
            assert self.presence.count(place) == len(ids(self.presence, place))
        assert set(self.presence._places) == {place for place, _ in expected}, "nothing is kept of those who are gone"
        held = {(place, user) for user, topics in self.streams for place in (ONLINE, *topics) if "*" not in place}
        assert set(self.presence._leaving) == expected - held
        due = self.presence.due
        assert due is None or self.clock.now < due <= self.clock.now + GRACE


TestModel = Model.TestCase
