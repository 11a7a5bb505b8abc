"""What a log remembers of what it no longer has, against everything that ever went."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.log.search import cost
from hub.log.trimmed import REMEMBERED_TOPICS, Gone, Lost
from hub.patterns import Patterns
from tests.test_patterns import most_expensive
from tests.test_topics import names, patterns, reaches


class Everything:
    """Remembers everything, and is asked by walking it."""

    def __init__(self) -> None:
        self.swept = 0
        self.topics: dict[str, int] = {}

    def sweep(self, topics: list[str], offset: int) -> None:
        self.swept = offset
        self.lose(topics, offset)

    def lose(self, topics: list[str], offset: int) -> None:
        self.topics |= {topic: max(self.topics.get(topic, 0), offset) for topic in topics}

    def newest(self, wanted: list[str], after: int) -> int:
        found = [offset for topic, offset in self.topics.items() if any(reaches(each, topic) for each in wanted)]
        newest = max([0, *found, self.swept if any("*" in each for each in wanted) else 0])
        return newest if newest > after else 0


@st.composite
def losses(draw: st.DrawFn) -> list[tuple[str, list[str], int]]:
    """Sweeps, whose offsets only grow, and what topics lose for the sake of their own bounds, beyond those."""
    swept = 0
    steps: list[tuple[str, list[str], int]] = []
    for kind in draw(st.lists(st.sampled_from(["sweep", "lose", "lose"]), max_size=12)):
        topics = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        offset = swept + draw(st.integers(1, 9))
        swept = offset if kind == "sweep" else swept
        steps.append((kind, topics, offset))
    return steps


def remember(steps: list[tuple[str, list[str], int]]) -> tuple[Gone, Everything]:
    gone, everything = Gone(), Everything()
    for kind, topics, offset in steps:
        for memory in (gone, everything):
            (memory.sweep if kind == "sweep" else memory.lose)(topics, offset)
    return gone, everything


wishes = st.lists(names | patterns, min_size=1, max_size=4)


@given(steps=losses(), wanted=wishes, after=st.integers(0, 60))
def test_it_knows_what_everything_that_ever_went_tells(
    steps: list[tuple[str, list[str], int]], wanted: list[str], after: int
):
    gone, everything = remember(steps)
    assert gone.newest(wanted, after) == everything.newest(wanted, after)
    assert gone.newest(wanted) == everything.newest(wanted, 0)


@given(steps=losses(), more=losses(), wanted=wishes, after=st.integers(0, 60))
def test_what_another_home_is_told_is_all_there_is_to_know(
    steps: list[tuple[str, list[str], int]], more: list[tuple[str, list[str], int]], wanted: list[str], after: int
):
    gone, everything = remember(steps)
    heir = Gone()
    heir.lose(["forgotten"], 99)
    heir.restore(gone.all())
    assert heir.all() == gone.all() == Lost(everything.swept, everything.topics, 0)
    for kind, topics, offset in more:
        for memory in (heir, everything):
            (memory.sweep if kind == "sweep" else memory.lose)(topics, everything.swept + offset)
    assert heir.newest(wanted, after) == everything.newest(wanted, after)


@settings(max_examples=200)
@given(steps=losses(), wanted=wishes, after=st.integers(0, 60), room=st.integers(1, 4))
def test_what_it_has_no_room_for_may_be_gone_and_is_never_said_to_be_kept(
    steps: list[tuple[str, list[str], int]], wanted: list[str], after: int, room: int
):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hub.log.trimmed.REMEMBERED_TOPICS", room)
        gone, everything = remember(steps)
        known = gone.all()
        assert len(known.topics) <= room
        assert gone.newest(wanted, after) >= everything.newest(wanted, after)
        # And it says no more than what is forgotten could have been.
        assert gone.newest(wanted, after) <= max(everything.newest(wanted, after), known.forgotten)
        assert known.forgotten <= max(everything.topics.values(), default=0)
        heir = Gone()
        heir.restore(known)
        assert heir.newest(wanted, after) == gone.newest(wanted, after)


def test_the_topics_noted_longest_ago_are_forgotten_first():
    gone = Gone()
    for number in range(REMEMBERED_TOPICS + 1):
        gone.lose([f"t/{number}"], number + 1)
        gone.lose(["t/0"], number + 1)
    assert gone.newest(["t/0"]) == REMEMBERED_TOPICS + 1
    assert gone.newest(["t/1"]) == gone.newest(["never"]) == gone.all().forgotten == 2
    assert gone.newest(["t/2"]) == 3


def test_a_forgotten_topic_that_is_noted_again_is_still_judged_by_what_was_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.trimmed.REMEMBERED_TOPICS", 2)
    gone = Gone()
    for offset, topic in enumerate(["me", "a", "b"], start=10):
        gone.lose([topic], offset)
    gone.sweep(["me"], 1)  # where it stood beside another topic that kept it
    assert gone.newest(["me"]) >= 10
    heir = Gone()
    heir.restore(gone.all())
    assert heir.all() == gone.all()


def test_forgotten_topics_leave_nothing_behind():
    gone = Gone()
    for number in range(REMEMBERED_TOPICS + 500):
        gone.lose([f"session/{number}/state"], number + 1)
    assert len(gone.all().topics) == len(gone._ahead) == len(gone._names) == REMEMBERED_TOPICS
    assert gone.newest(["session/*/state"], REMEMBERED_TOPICS + 499) == REMEMBERED_TOPICS + 500


@pytest.mark.parametrize("pattern", ["**/" * 15 + "never", "**/*/" * 7 + "never", "**/a/" * 7 + "never"])
def test_many_repeats_in_a_pattern_cost_no_explosion(pattern: str):
    gone = Gone()
    gone.lose(["/".join("a" * 16), "/".join("a" * 15 + "b")], 1)
    for number in range(200):
        gone.lose([f"{number % 7}/{number % 11}/{number}/d/e/f/g"], number + 2)
    assert gone.newest([pattern]) == 0
    assert gone.newest(["**/" * 15 + "g"]) == 201


def test_what_was_judged_for_some_patterns_is_not_judged_again(monkeypatch: pytest.MonkeyPatch):
    gone = Gone()
    for number in range(5_000):
        gone.lose([f"state/{number}"], number + 1)
    judged: list[str] = []
    match = Patterns.match

    def counted(patterns: Patterns, name: str) -> bool:
        judged.append(name)
        return match(patterns, name)

    monkeypatch.setattr(Patterns, "match", counted)
    wanted = frozenset(["*/never", "*/4000", "chat/**"])
    assert gone.newest(wanted, 10) == 4_001
    assert len(judged) < 5_010
    judged.clear()
    assert [gone.newest(wanted, after) for after in (10, 4_000, 4_001, 9_000)] == [4_001, 4_001, 0, 0]
    gone.lose(["state/7"], 6_000)
    gone.lose(["chat/1", "never"], 6_001)
    assert [gone.newest(wanted, after) for after in (10, 6_000, 6_001)] == [6_001, 6_001, 0]
    assert len(judged) <= 3, "what was noted since"


@pytest.mark.parametrize("asked", most_expensive())
def test_where_judging_takes_too_long_something_may_be_gone(asked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.trimmed.JUDGED_STEPS", 100 * cost("/".join("c" * 16)))
    gone = Gone()
    wanted = [*most_expensive()[asked], "b/*"]
    for number in range(100):
        gone.lose(["/".join(["c"] * 15 + [str(number)])], number + 1)
    assert gone.newest(wanted) == 0
    gone.lose(["/".join(["c"] * 16)], 101)
    assert gone.newest(wanted, 1) == 0, "what was noted since is judged alone"
    assert gone.newest([*wanted, "d/*"]) == 101


def test_what_another_one_knows_is_added_and_what_it_forgot_before_takes_nobodys_place():
    gone = Gone()
    gone.restore(Lost(3, {"a": 5, "b": 7}, 2))
    gone.learn(Lost(4, {"old": 2, "a": 5, "c": 8, "b": 9}, 2))
    assert gone.all() == Lost(4, {"a": 5, "c": 8, "b": 9}, 2)
    assert gone.newest(["**"]) == 9
    assert gone.newest(["old"]) == 2
