"""What streams are told of who is there: once for each kind of reader, and never kept for one that can't take it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hub.encoding import SSE, Attendance, Present
from hub.presence import watchers as module
from hub.presence.presence import GRACE, Presence
from hub.presence.watchers import COUNT_EVERY, GATHER, MOST_NAMED, NAMED_AGAIN, Kind, Watchers
from tests.presence.clock import Clock
from tests.spec_decoder import SpecDecoder

BARE = SSE(chunked=False)
NAMES, NUMBERS = Kind(BARE, names=True), Kind(BARE, names=False)


class Reader:
    """A stream that takes what it is told, or not."""

    def __init__(self, *, straight: bool = True) -> None:
        self.straight = straight
        self.aborted = False
        self.fails = False
        self.writes: list[bytes] = []
        self.missed: Callable[[], object] | None = None

    def tell(self, framed: bytes, missed: Callable[[], object]) -> None:
        if self.fails:
            raise RuntimeError("mine")
        if self.straight:
            self.writes.append(framed)
        else:
            self.missed = missed

    def straighten(self) -> None:
        self.straight = True
        if self.missed is not None:
            missed, self.missed = self.missed, None
            missed()

    def abort(self) -> None:
        self.aborted = True

    def said(self) -> list[tuple[str, Any]]:
        """Return what it was told since the last call."""
        events = list(SpecDecoder().feed(b"".join(self.writes)))
        self.writes.clear()
        return [(event.type.removeprefix("hub."), event.json()) for event in events]


class Counting(SSE):
    """An encoding that counts what it encodes."""

    encoded: ClassVar[list[str]] = []

    def attendance(self, attendance: Attendance) -> bytes:
        self.encoded.append("attendance")
        return super().attendance(attendance)

    def join(self, topic: str, who: Present) -> bytes:
        self.encoded.append("join")
        return super().join(topic, who)


class Desk:
    """Presence and watchers under one clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.presence = Presence(self.clock, lambda: 0.0)
        self.watchers = Watchers(self.presence, now=self.clock, **options)

    def enter(self, *users: str, topics: tuple[str, ...] = ("a",), info: Mapping[str, Any] | None = None) -> None:
        for user in users:
            self.watchers.note(self.presence.enter(user, topics, info or {}))

    def leave(self, *users: str, topics: tuple[str, ...] = ("a",)) -> None:
        for user in users:
            self.watchers.note(self.presence.leave(user, topics))

    def watch(self, kind: Kind = NAMES, *topics: str, straight: bool = True) -> Reader:
        reader = Reader(straight=straight)
        self.watchers.watch(reader, kind, topics or ("a",))
        return reader

    def wait(self, seconds: float) -> None:
        """Let time pass; what is due meanwhile is told when it is due."""
        end = self.clock.now + seconds
        while True:
            due = min(x for x in (self.presence.due, self.watchers.due, end) if x is not None)
            self.clock.now = min(max(due, self.clock.now), end)
            self.watchers.note(self.presence.pass_time())
            self.watchers.flush()
            if self.clock.now >= end:
                return


def person(user: str, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"id": user, "info": dict(info or {}), "since": "1970-01-01T00:00:00.000Z"}


def test_a_reader_gets_a_snapshot_then_changes():
    desk = Desk()
    desk.enter("ann", info={"name": "Ann"})
    reader = desk.watch()
    assert reader.said() == []
    desk.wait(GATHER)
    assert reader.said() == [("presence", {"topic": "a", "count": 1, "users": [person("ann", {"name": "Ann"})]})]
    desk.enter("bob", info={"name": "Bob"})
    desk.leave("ann")
    desk.wait(GATHER)
    assert reader.said() == [("join", {"topic": "a", "user": "bob", "info": {"name": "Bob"}})]
    desk.wait(GRACE)
    assert reader.said() == [("leave", {"topic": "a", "user": "ann", "info": {"name": "Ann"}})]
    assert desk.watchers.due is None


def test_changes_are_gathered_and_go_out_in_one_write():
    desk = Desk()
    reader = desk.watch()
    desk.wait(GATHER)
    reader.said()
    desk.enter("ann", "bob", "eve")
    desk.wait(GATHER * 0.9)
    assert reader.writes == []
    desk.wait(GATHER)
    assert len(reader.writes) == 1
    assert [(what, facts["user"]) for what, facts in reader.said()] == [
        ("join", user) for user in ("ann", "bob", "eve")
    ]


def test_a_page_that_is_loaded_again_tells_nobody_anything():
    desk = Desk()
    desk.enter("ann")
    reader = desk.watch()
    desk.wait(GATHER)
    reader.said()
    desk.leave("ann")
    desk.wait(GRACE / 2)
    desk.enter("ann")
    desk.wait(GRACE * 2)
    assert reader.writes == []


def test_what_is_told_is_encoded_once_for_each_kind_of_reader():
    desk = Desk()
    Counting.encoded.clear()
    kind = Kind(Counting(chunked=False), names=True)
    readers = [desk.watch(kind) for _ in range(5)]
    desk.wait(GATHER)
    assert Counting.encoded == ["attendance"]
    desk.enter("ann")
    desk.wait(GATHER)
    assert Counting.encoded == ["attendance", "join"]
    assert {bytes(reader.writes[1]) for reader in readers} == {readers[0].writes[1]}
    assert readers[0].writes[1] is readers[4].writes[1]


def test_whoever_may_not_know_names_is_told_numbers_at_most_once_a_second():
    desk = Desk()
    reader = desk.watch(NUMBERS)
    desk.wait(GATHER)
    assert reader.said() == [("presence", {"topic": "a", "count": 0})]
    desk.enter("ann")
    desk.wait(GATHER)
    assert reader.said() == [("presence", {"topic": "a", "count": 1})]
    for user in ("bob", "eve", "kim"):
        desk.enter(user)
        desk.wait(COUNT_EVERY / 5)
    assert reader.said() == []
    desk.wait(COUNT_EVERY)
    assert reader.said() == [("presence", {"topic": "a", "count": 4})]
    assert desk.watchers.due is None


def test_patterns_are_not_watched_and_topics_each():
    desk = Desk()
    reader = desk.watch(NAMES, "b", "a", "c/*")
    desk.wait(GATHER)
    assert [facts["topic"] for _, facts in reader.said()] == ["a", "b"]
    desk.enter("ann", topics=("a", "c/x"))
    desk.wait(GATHER)
    assert [(what, facts["topic"]) for what, facts in reader.said()] == [("join", "a")]


def test_a_reader_that_can_take_nothing_now_gets_a_new_snapshot_when_it_can():
    desk = Desk()
    slow, quick = desk.watch(straight=False), desk.watch()
    desk.wait(GATHER)
    desk.enter("ann", "bob")
    desk.wait(GATHER)
    assert [what for what, _ in quick.said()] == ["presence", "join", "join"]
    slow.straighten()
    desk.enter("eve")
    desk.wait(GATHER)
    ((what, facts),) = slow.said()
    assert (what, [user["id"] for user in facts["users"]]) == ("presence", ["ann", "bob", "eve"])
    assert quick.said() == [("join", {"topic": "a", "user": "eve"})]
    slow.straight = False
    desk.enter("kim")
    desk.wait(GATHER)
    slow.straighten()
    desk.wait(GATHER)
    assert [(what, facts["count"]) for what, facts in slow.said()] == [("presence", 4)]


def test_other_topics_of_a_reader_bring_snapshots_of_the_new_ones_only():
    desk = Desk()
    desk.enter("ann", topics=("a", "b", "c"))
    reader = desk.watch(NAMES, "a", "b")
    desk.wait(GATHER)
    reader.said()
    desk.watchers.watch(reader, NAMES, ["b", "c"])
    desk.wait(GATHER)
    assert [(what, facts["topic"]) for what, facts in reader.said()] == [("presence", "c")]
    desk.enter("bob", topics=("a", "b"))
    desk.wait(GATHER)
    assert [(what, facts["topic"]) for what, facts in reader.said()] == [("join", "b")]


def test_nothing_is_told_to_whoever_was_forgotten_and_nothing_of_it_is_kept():
    desk = Desk()
    reader, late = desk.watch(), desk.watch(NUMBERS, straight=False)
    desk.wait(GATHER)
    desk.enter("ann")
    for each in (reader, late, reader):
        desk.watchers.forget(each)
    reader.said()
    late.straighten()
    desk.wait(2)
    assert (reader.writes, late.writes, desk.watchers.due) == ([], [], None)
    kept = [desk.watchers._topics, desk.watchers._watching, desk.watchers._fresh, desk.watchers._changed]
    assert not any([*kept, desk.watchers._uncounted])


def test_a_reader_that_fails_is_aborted_and_the_others_are_told(caplog: pytest.LogCaptureFixture):
    desk = Desk()
    broken, fine = desk.watch(), desk.watch()
    broken.fails = True
    with caplog.at_level(logging.ERROR):
        desk.wait(GATHER)
    assert (broken.aborted, fine.aborted, len(fine.said())) == (True, False, 1)
    assert "told who is there" in caplog.text


def test_many_users_are_told_in_numbers_until_there_are_few_again():
    desk = Desk()
    reader = desk.watch()
    desk.enter(*(users := [f"u{number:05}" for number in range(MOST_NAMED)]))
    desk.wait(GATHER)
    ((what, facts),) = reader.said()
    assert (what, len(facts["users"])) == ("presence", MOST_NAMED)
    desk.enter("one more")
    desk.wait(GATHER)
    assert reader.said() == [("presence", {"topic": "a", "count": MOST_NAMED + 1})]
    desk.wait(COUNT_EVERY)
    late = desk.watch()
    desk.leave("one more")
    desk.wait(GRACE + COUNT_EVERY)
    assert reader.said() == [("presence", {"topic": "a", "count": MOST_NAMED})]
    assert [set(facts) for _, facts in late.said()] == [{"topic", "count"}] * 2
    desk.leave(*users[NAMED_AGAIN:])
    desk.wait(GRACE + COUNT_EVERY)
    for each in (reader, late):
        ((what, facts),) = each.said()
        assert (what, facts["count"], len(facts["users"])) == ("presence", NAMED_AGAIN, NAMED_AGAIN)
    desk.enter("ann")
    desk.wait(GATHER)
    assert reader.said() == late.said() == [("join", {"topic": "a", "user": "ann"})]


def test_more_than_a_stream_takes_at_once_is_told_without_names():
    desk = Desk(most_bytes=2_000)
    reader = desk.watch()
    desk.wait(GATHER)
    reader.said()
    desk.enter(*[f"u{number}" for number in range(200)])
    desk.wait(GATHER)
    assert reader.said() == [("presence", {"topic": "a", "count": 200})]
    desk.enter("ann")
    desk.wait(GATHER)
    assert reader.said() == [("join", {"topic": "a", "user": "ann"})]


class Model(RuleBasedStateMachine):
    """Readers that keep what they are told know, when all is still, exactly who is there."""

    USERS = st.sampled_from(["ann", "bob", "eve", "kim", "zoe"])
    TOPICS = st.frozensets(st.sampled_from(["a", "b"]), max_size=2)

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "MOST_NAMED", 3)
        self.patch.setattr(module, "NAMED_AGAIN", 2)
        self.desk = Desk()
        self.streams: list[tuple[str, frozenset[str]]] = []
        self.readers: list[tuple[Reader, Kind, set[str]]] = []
        self.known: dict[tuple[int, str], set[str] | int] = {}

    @rule(user=USERS, topics=TOPICS)
    def enter(self, user: str, topics: frozenset[str]) -> None:
        self.streams.append((user, topics))
        self.desk.enter(user, topics=tuple(topics))

    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        if self.streams:
            user, topics = self.streams.pop(data.draw(st.integers(0, len(self.streams) - 1)))
            self.desk.leave(user, topics=tuple(topics))

    @rule(names=st.booleans(), topics=TOPICS, straight=st.booleans())
    def watch(self, names: bool, topics: frozenset[str], straight: bool) -> None:
        if len(self.readers) < 6:
            kind = NAMES if names else NUMBERS
            reader = Reader(straight=straight)
            self.desk.watchers.watch(reader, kind, topics)
            self.readers.append((reader, kind, set(topics)))

    @rule(data=st.data(), topics=TOPICS)
    def change(self, data: Any, topics: frozenset[str]) -> None:
        if self.readers:
            reader, kind, wanted = self.readers[data.draw(st.integers(0, len(self.readers) - 1))]
            self.desk.watchers.watch(reader, kind, topics)
            for topic in wanted - topics:
                self.known.pop((id(reader), topic), None)
            wanted.clear()
            wanted.update(topics)

    @rule(data=st.data(), straight=st.booleans())
    def turn(self, data: Any, straight: bool) -> None:
        if self.readers:
            reader, _, _ = self.readers[data.draw(st.integers(0, len(self.readers) - 1))]
            if straight:
                reader.straighten()
            else:
                reader.straight = False

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.desk.wait(seconds)

    @rule()
    def rest(self) -> None:
        """Let everybody read, and nothing happen for a while: then everybody knows."""
        for reader, _, _ in self.readers:
            reader.straighten()
        self.desk.wait(GRACE + COUNT_EVERY + GATHER)
        assert self.desk.watchers.due is None
        self.read()
        for reader, kind, wanted in self.readers:
            for topic in wanted:
                there = {user.id for user in self.desk.presence.users(topic, limit=100)}
                known = self.known[id(reader), topic]
                if kind.names and len(there) <= 2:
                    assert known == there
                else:
                    assert known in (there, len(there))
                    assert kind.names or known == len(there)

    @invariant()
    def read(self) -> None:
        for reader, kind, _ in self.readers:
            for what, facts in reader.said():
                key = (id(reader), facts["topic"])
                if what == "presence":
                    users = facts.get("users")
                    self.known[key] = facts["count"] if users is None else {user["id"] for user in users}
                    assert kind.names or users is None
                    assert users is None or len(users) == facts["count"] <= 3
                else:
                    known = self.known[key]
                    assert isinstance(known, set), "names follow names"
                    assert (facts["user"] in known) is (what == "leave")
                    (known.add if what == "join" else known.remove)(facts["user"])

    def teardown(self) -> None:
        self.patch.undo()


TestModel = Model.TestCase
