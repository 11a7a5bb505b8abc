"""Both ways to match, against the grammar's meaning in the plainest words there are, and at their most expensive."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.patterns import COMPILED, RESERVED, Patterns, PatternTrie, canonical, compiled
from hub.topics import EVERY_TOPIC, MAX_SEGMENTS, MAX_TOPICS_PER_SUBSCRIPTION, check_pattern
from tests.chance import examples

segments = st.sampled_from(["a", "b", "c", "é", "-", "a!"])
reserved = st.sets(segments, max_size=3)
names = st.lists(segments, min_size=1, max_size=6).map("/".join)
patterns = st.lists(segments | st.sampled_from(["*", "**", "**"]), min_size=1, max_size=6).map("/".join)


def matches(pattern: Sequence[str], name: Sequence[str]) -> bool:
    """Say what the grammar says, one segment after the other."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(matches(pattern[1:], name[taken:]) for taken in range(len(name) + 1))
    return bool(name) and pattern[0] in {"*", name[0]} and matches(pattern[1:], name[1:])


def wanted(asked: Collection[str], name: str, reserved: Collection[str] = ()) -> set[str]:
    first = name.split("/", maxsplit=1)[0]
    named = asked if first not in reserved else [each for each in asked if each.split("/")[0] == first]
    return {pattern for pattern in named if matches(pattern.split("/"), name.split("/"))}


def found_by_trie(asked: Collection[str], name: str, reserved: Collection[str] = ()) -> set[str]:
    trie: PatternTrie[str] = PatternTrie(reserved)
    for pattern in asked:
        trie.add(pattern.split("/"), pattern)
    return set(trie.match(name.split("/")))


@settings(max_examples=examples(150, 5_000))
@given(asked=st.lists(patterns | names, max_size=8), name=names, reserved=reserved)
def test_both_ways_find_what_the_grammar_says(asked: list[str], name: str, reserved: set[str]):
    assert Patterns(asked).match(name) == bool(wanted(asked, name))
    assert found_by_trie(asked, name) == wanted(asked, name)
    assert Patterns(asked, reserved).match(name) == bool(wanted(asked, name, reserved))
    assert found_by_trie(asked, name, reserved) == wanted(asked, name, reserved)


@given(pattern=patterns, name=names)
def test_the_canonical_form_of_a_pattern_means_the_same(pattern: str, name: str):
    short = canonical(pattern.split("/"))
    assert matches(short, name.split("/")) == matches(pattern.split("/"), name.split("/"))
    assert len(short) <= pattern.count("/") + 1
    assert all(pair not in {("**", "**"), ("**", "*")} for pair in pairwise(short))
    assert canonical(short) == short


@given(asked=st.lists(patterns | names, max_size=8), existing=st.sets(names, max_size=20), reserved=reserved)
def test_what_matches_is_single_or_in_one_of_the_ranges(asked: list[str], existing: set[str], reserved: set[str]):
    ready = Patterns(asked, reserved)
    assert all(ready.match(name) for name in ready.single)

    def inside(ranges: Collection[tuple[str, str | None]]) -> list[str]:
        return [
            name for low, high in ranges for name in sorted(existing) if low <= name and (high is None or name < high)
        ]

    within = inside(ready.ranges)
    assert within == sorted(within)
    assert set(ready.whole) <= set(ready.ranges)
    assert all(map(ready.match, inside(ready.whole)))
    assert len(within) == len(set(within)), "the ranges do not overlap"
    assert {name for name in existing if ready.match(name)} <= ready.single | set(within)


@given(asked=st.lists(patterns, min_size=1, max_size=3), name=names, reserved=reserved)
def test_a_set_that_says_it_matches_everything_does(asked: list[str], name: str, reserved: set[str]):
    ready = Patterns(asked, reserved)
    assert ready.match(name) or not ready.everything
    but = ready.everything_but
    assert ready.match(name) or but is None or name.split("/", maxsplit=1)[0] in but
    assert but is None or set(but) <= reserved


@pytest.mark.parametrize("pattern", ["**", "**/**", "**/*", "*/**", "**/*/**"])
def test_what_matches_every_name_is_known_to(pattern: str):
    assert Patterns(["a", pattern]).everything
    assert not Patterns(["a", pattern + "/a", "*", "*/" + pattern + "/*"]).everything
    assert Patterns(["a", pattern], RESERVED).everything_but == list(RESERVED)
    assert Patterns([pattern, "user/**", "room/*", "ai/*/**", "ai"], {"user", "ai"}).everything
    assert Patterns([pattern, "user/**", "ai/*/**"], {"user", "ai"}).everything_but == ["ai"]


def test_the_topics_that_are_reserved_lie_in_no_range_of_a_wildcard():
    ready = compiled(frozenset(["**"]))
    assert [*ready.ranges[:3], ready.ranges[-1]] == [("", "ai"), ("ai\0", "ai/"), ("ai0", "room"), ("user0", None)]
    assert ready.whole == ready.ranges
    assert compiled(frozenset(EVERY_TOPIC)).everything


def most_expensive() -> dict[str, list[str]]:
    """Sets of patterns as large as one subscription may be, each the worst for some way to match."""
    chance = random.Random(7)

    def some(make: Callable[[], list[str]]) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < MAX_TOPICS_PER_SUBSCRIPTION:
            found[check_pattern("/".join(make()))] = None
        return list(found)

    return {
        "repeats between letters": some(lambda: [x for _ in range(8) for x in ("**", chance.choice("ab"))]),
        "wildcards in runs": some(lambda: [chance.choice(["*", "**"]) for _ in range(15)] + ["x"]),
        "a far place from the end": some(lambda: ["**", "a"] + [chance.choice(["*", "*", "a"]) for _ in range(14)]),
        "long tails": some(lambda: ["**"] + [chance.choice("ab") for _ in range(15)]),
    }


@pytest.mark.parametrize("kind", most_expensive())
def test_the_most_expensive_patterns_cost_no_more_than_their_segments(kind: str):
    """Backtracking, or states of an automaton that multiply, would not come to an end here."""
    asked = most_expensive()[kind]
    chance = random.Random(8)
    topics = ["/".join(chance.choice("ab") for _ in range(MAX_SEGMENTS)) for _ in range(300)]
    ready = Patterns(asked)
    found = {topic: ready.match(topic) for topic in topics}
    trie: PatternTrie[str] = PatternTrie()
    for pattern in asked:
        trie.add(pattern.split("/"), pattern)
    assert found == {topic: any(True for _ in trie.match(topic.split("/"))) for topic in topics}


def test_a_set_of_patterns_has_no_more_bits_than_segments_and_ends():
    for asked in most_expensive().values():
        ready = Patterns(asked)
        bits = max(ready._ends, ready._stars, ready._repeats).bit_length()
        assert bits <= sum(pattern.count("/") + 2 for pattern in asked)


def test_only_a_few_sets_are_kept_ready():
    first = compiled(frozenset(["a/*"]))
    assert compiled(frozenset(["a/*"])) is first
    for number in range(COMPILED):
        compiled(frozenset([f"{number}/*"]))
    assert compiled(frozenset(["a/*"])) is not first
