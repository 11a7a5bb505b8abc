"""What a log remembers of what it no longer has, against everything that ever went."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.log.search import cost
from hub.log.trimmed import REMEMBERED_TOPICS, Trimmed, TrimmedState
from hub.patterns import Patterns
from tests.chance import examples
from tests.test_patterns import most_expensive
from tests.test_topics import names, patterns, reaches


class Everything:
    """Remembers everything, and is asked by walking it."""

    def __init__(self) -> None:
        self.overall = 0
        self.topics: dict[str, int] = {}

    def trim_oldest(self, topics: list[str], offset: int) -> None:
        self.overall = offset
        self.trim_topic(topics, offset)

    def trim_topic(self, topics: list[str], offset: int) -> None:
        self.topics |= {topic: max(self.topics.get(topic, 0), offset) for topic in topics}

    def newest(self, wanted: list[str], after: int) -> int:
        found = [offset for topic, offset in self.topics.items() if any(reaches(each, topic) for each in wanted)]
        newest = max([0, *found, self.overall if any("*" in each for each in wanted) else 0])
        return newest if newest > after else 0


@st.composite
def trims(draw: st.DrawFn) -> list[tuple[str, list[str], int]]:
    """What is trimmed overall, at offsets that only grow, and for topics' own bounds, beyond those."""
    overall = 0
    steps: list[tuple[str, list[str], int]] = []
    for kind in draw(st.lists(st.sampled_from(["oldest", "topic", "topic"]), max_size=12)):
        topics = draw(st.lists(names, min_size=1, max_size=3, unique=True))
        offset = overall + draw(st.integers(1, 9))
        overall = offset if kind == "oldest" else overall
        steps.append((kind, topics, offset))
    return steps


def remember(steps: list[tuple[str, list[str], int]]) -> tuple[Trimmed, Everything]:
    trimmed, everything = Trimmed(), Everything()
    for kind, topics, offset in steps:
        for memory in (trimmed, everything):
            (memory.trim_oldest if kind == "oldest" else memory.trim_topic)(topics, offset)
    return trimmed, everything


wishes = st.lists(names | patterns, min_size=1, max_size=4)


@given(steps=trims(), wanted=wishes, after=st.integers(0, 60))
def test_it_knows_what_everything_that_ever_went_tells(
    steps: list[tuple[str, list[str], int]], wanted: list[str], after: int
):
    trimmed, everything = remember(steps)
    assert trimmed.newest(wanted, after) == everything.newest(wanted, after)
    assert trimmed.newest(wanted) == everything.newest(wanted, 0)


@given(steps=trims(), more=trims(), wanted=wishes, after=st.integers(0, 60))
def test_what_another_home_is_told_is_all_there_is_to_know(
    steps: list[tuple[str, list[str], int]], more: list[tuple[str, list[str], int]], wanted: list[str], after: int
):
    trimmed, everything = remember(steps)
    heir = Trimmed()
    heir.trim_topic(["forgotten"], 99)
    heir.restore(trimmed.state())
    assert heir.state() == trimmed.state() == TrimmedState(everything.overall, everything.topics, 0)
    for kind, topics, offset in more:
        for memory in (heir, everything):
            (memory.trim_oldest if kind == "oldest" else memory.trim_topic)(topics, everything.overall + offset)
    assert heir.newest(wanted, after) == everything.newest(wanted, after)


@settings(max_examples=examples(100, 2_000))
@given(steps=trims(), wanted=wishes, after=st.integers(0, 60), room=st.integers(1, 4))
def test_what_it_has_no_room_for_may_be_gone_and_is_never_said_to_be_kept(
    steps: list[tuple[str, list[str], int]], wanted: list[str], after: int, room: int
):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hub.log.trimmed.REMEMBERED_TOPICS", room)
        trimmed, everything = remember(steps)
        known = trimmed.state()
        assert len(known.topics) <= room
        assert trimmed.newest(wanted, after) >= everything.newest(wanted, after)
        # And it says no more than what is forgotten could have been.
        assert trimmed.newest(wanted, after) <= max(everything.newest(wanted, after), known.forgotten)
        assert known.forgotten <= max(everything.topics.values(), default=0)
        heir = Trimmed()
        heir.restore(known)
        assert heir.newest(wanted, after) == trimmed.newest(wanted, after)


def test_the_topics_noted_longest_ago_are_forgotten_first():
    trimmed = Trimmed()
    for number in range(REMEMBERED_TOPICS + 1):
        trimmed.trim_topic([f"t/{number}"], number + 1)
        trimmed.trim_topic(["t/0"], number + 1)
    assert trimmed.newest(["t/0"]) == REMEMBERED_TOPICS + 1
    assert trimmed.newest(["t/1"]) == trimmed.newest(["never"]) == trimmed.state().forgotten == 2
    assert trimmed.newest(["t/2"]) == 3


def test_a_forgotten_topic_that_is_noted_again_is_still_judged_by_what_was_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.trimmed.REMEMBERED_TOPICS", 2)
    trimmed = Trimmed()
    for offset, topic in enumerate(["me", "a", "b"], start=10):
        trimmed.trim_topic([topic], offset)
    trimmed.trim_oldest(["me"], 1)  # where it stood beside another topic that kept it
    assert trimmed.newest(["me"]) >= 10
    heir = Trimmed()
    heir.restore(trimmed.state())
    assert heir.state() == trimmed.state()


def test_forgotten_topics_leave_nothing_behind():
    trimmed = Trimmed()
    for number in range(REMEMBERED_TOPICS + 500):
        trimmed.trim_topic([f"session/{number}/state"], number + 1)
    assert len(trimmed.state().topics) == len(trimmed._ahead) == len(trimmed._names) == REMEMBERED_TOPICS
    assert trimmed.newest(["session/*/state"], REMEMBERED_TOPICS + 499) == REMEMBERED_TOPICS + 500


@pytest.mark.parametrize("pattern", ["**/" * 15 + "never", "**/*/" * 7 + "never", "**/a/" * 7 + "never"])
def test_many_repeats_in_a_pattern_cost_no_explosion(pattern: str):
    trimmed = Trimmed()
    trimmed.trim_topic(["/".join("a" * 16), "/".join("a" * 15 + "b")], 1)
    for number in range(200):
        trimmed.trim_topic([f"{number % 7}/{number % 11}/{number}/d/e/f/g"], number + 2)
    assert trimmed.newest([pattern]) == 0
    assert trimmed.newest(["**/" * 15 + "g"]) == 201


def test_what_was_judged_for_some_patterns_is_not_judged_again(monkeypatch: pytest.MonkeyPatch):
    trimmed = Trimmed()
    for number in range(5_000):
        trimmed.trim_topic([f"state/{number}"], number + 1)
    judged: list[str] = []
    match = Patterns.match

    def counted(patterns: Patterns, name: str) -> bool:
        judged.append(name)
        return match(patterns, name)

    monkeypatch.setattr(Patterns, "match", counted)
    wanted = frozenset(["*/never", "*/4000", "chat/**"])
    assert trimmed.newest(wanted, 10) == 4_001
    assert len(judged) < 5_010
    judged.clear()
    assert [trimmed.newest(wanted, after) for after in (10, 4_000, 4_001, 9_000)] == [4_001, 4_001, 0, 0]
    trimmed.trim_topic(["state/7"], 6_000)
    trimmed.trim_topic(["chat/1", "never"], 6_001)
    assert [trimmed.newest(wanted, after) for after in (10, 6_000, 6_001)] == [6_001, 6_001, 0]
    assert len(judged) <= 3, "what was noted since"


@pytest.mark.parametrize("asked", most_expensive())
def test_where_judging_takes_too_long_something_may_be_gone(asked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.trimmed.JUDGED_STEPS", 100 * cost("/".join("c" * 16)))
    trimmed = Trimmed()
    wanted = [*most_expensive()[asked], "b/*"]
    for number in range(100):
        trimmed.trim_topic(["/".join(["c"] * 15 + [str(number)])], number + 1)
    assert trimmed.newest(wanted) == 0
    trimmed.trim_topic(["/".join(["c"] * 16)], 101)
    assert trimmed.newest(wanted, 1) == 0, "what was noted since is judged alone"
    assert trimmed.newest([*wanted, "d/*"]) == 101


def test_what_another_one_knows_is_added_and_what_it_forgot_before_takes_nobodys_place():
    trimmed = Trimmed()
    trimmed.restore(TrimmedState(3, {"a": 5, "b": 7}, 2))
    trimmed.learn(TrimmedState(4, {"old": 2, "a": 5, "c": 8, "b": 9}, 2))
    assert trimmed.state() == TrimmedState(4, {"a": 5, "c": 8, "b": 9}, 2)
    assert trimmed.newest(["**"]) == 9
    assert trimmed.newest(["old"]) == 2
