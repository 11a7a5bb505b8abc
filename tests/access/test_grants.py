"""What a grant covers, against every topic that there can be of a few segments, and at its most expensive."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hub.access.grants
from hub.access.grants import Grants, covers
from hub.topics import EVERY_TOPIC, MAX_SEGMENTS
from tests.chance import examples
from tests.test_patterns import most_expensive
from tests.test_topics import reaches

FEW = 5
TEXTS = ["a", "b", "user", "other"]  # the last one is in no pattern
TOPICS = ["/".join(segments) for number in range(1, FEW + 1) for segments in product(TEXTS, repeat=number)]

segments = st.sampled_from(["a", "a", "b", "user", "*", "*", "**", "**"])
patterns = st.lists(segments, min_size=1, max_size=FEW).map("/".join)
long = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=MAX_SEGMENTS).map("/".join)


@lru_cache(maxsize=4096)
def reached(pattern: str) -> frozenset[str]:
    return frozenset(topic for topic in TOPICS if reaches(pattern, topic))


def covers_few(grant: str, pattern: str) -> bool:
    """Ask as if no topic had more segments than those here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hub.access.grants, "MAX_SEGMENTS", FEW)
        return covers.__wrapped__(grant, pattern)


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(300, 10_000))
@given(grant=patterns, pattern=patterns)
def test_a_grant_covers_a_pattern_that_reaches_no_other_topic(grant: str, pattern: str):
    assert covers_few(grant, pattern) == (reached(pattern) <= reached(grant))


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(100, 3_000))
@given(pattern=st.lists(segments, min_size=1, max_size=FEW), data=st.data())
def test_a_grant_that_is_a_little_wider_or_narrower_is_told_apart(pattern: list[str], data: st.DataObject):
    """Of two patterns by chance hardly one covers the other; of two that are alike, often."""
    place = data.draw(st.integers(0, len(pattern) - 1))
    other = [*pattern[:place], *data.draw(st.lists(segments, max_size=2)), *pattern[place + 1 :]]
    assume(0 < len(other) <= FEW)
    asked, grant = "/".join(pattern), "/".join(other)
    assert covers_few(grant, asked) == (reached(asked) <= reached(grant))
    assert covers_few(asked, grant) == (reached(grant) <= reached(asked))


@settings(deadline=None)
@given(grant=long, pattern=long, topic=st.lists(st.sampled_from("abc"), min_size=1, max_size=MAX_SEGMENTS))
def test_no_topic_that_is_asked_for_is_beyond_the_grant_that_covers_it(grant: str, pattern: str, topic: list[str]):
    name = "/".join(topic)
    assert covers(grant, name) == reaches(grant, name)
    assert covers(pattern, pattern)
    assert reaches(grant, name) or not (covers(grant, pattern) and reaches(pattern, name))


@pytest.mark.parametrize(
    ("grant", "pattern", "covered"),
    [
        ("**", "**", True),
        ("**", "a/*", True),
        ("**", "user/1", False),
        ("**", "user/**", False),
        ("*/**", "**/*", True),
        ("**/*", "**", True),
        ("**", "**/user", True),
        ("*/**/user", "**/user", True),
        ("**/user", "user", False),
        ("user/**", "user/*", True),
        ("user/*", "user/**", False),
        ("user/**", "room/1", False),
        ("user/**", "**", False),
        ("*/7", "user/7", False),
        ("user/*", "user/7", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/*/b/**/b", True),
        ("a/*/**/b", "a/**/b", False),
        ("**/a/*/**", "**/a/**/a/**", True),
        ("**/a/*/**", "**/a/**/a/**/b", True),
        ("**/a/b/**", "a/**/b", False),
        ("a", "a/**", False),
        ("a/*/**", "a/**", False),
        ("**/a/*/*/**", "**/a/**/a/**", False),
        ("/".join("*" * 16), "/".join([*"*" * 14, "**"]), False),
        ("/".join("*" * 15), "/".join([*"*" * 15, "**"]), False),
        ("/".join([*"*" * 15, "a"]), "/".join(["**", *"*" * 14, "a"]), False),
    ],
)
def test_examples(grant: str, pattern: str, covered: bool):
    assert covers(grant, pattern) is covered


def test_the_patterns_for_every_topic_cover_each_a_part():
    assert [[covers(grant, asked) for asked in EVERY_TOPIC] for grant in EVERY_TOPIC] == [
        [row == column for column in range(4)] for row in range(4)
    ]


class Places:
    """Counts what is looked at for one answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = 0
        each = hub.access.grants._with_empty_repeats

        def counted(*asked: object) -> Iterator[tuple[int, int]]:
            for place in each(*asked):  # type: ignore[arg-type]  # what it is called with, whatever that is
                self.seen += 1
                yield place

        monkeypatch.setattr(hub.access.grants, "_with_empty_repeats", counted)


def expensive_grants() -> list[str]:
    """Grants that may be matched up to many places at once, by topics that they do not tell apart soon."""
    return ["/".join(["**", "a", *"*" * number, "a", "**"]) for number in range(1, 13)]


def test_the_most_expensive_patterns_are_told_apart_in_a_few_thousand_steps(monkeypatch: pytest.MonkeyPatch):
    asked = [pattern for each in most_expensive().values() for pattern in each[:8]]
    asked += ["/".join(["**", "a"] * 8), "/".join(["**", "*"] * 8), "/".join([*["**", "a"] * 7, "**"])]
    asked += ["**/*/" * 7 + "**", "**/a/" * 5 + "*/*/*/*/*/*"]
    places = Places(monkeypatch)
    most = 0
    for pattern in asked:
        for grant in [*asked, *expensive_grants()]:
            places.seen = 0
            covers.__wrapped__(grant, pattern)
            most = max(most, places.seen)
    assert 100 < most < 10_000


def test_grants_cover_what_one_of_them_covers():
    grants = Grants(["orders", "stock/*", "stock/**/trades", "user/7"])
    covered = ["orders", "stock/*", "stock/a", "stock/a/b/trades", "stock/*/*/trades", "user/7"]
    assert [each for each in covered if not grants.cover(each)] == []
    others = ["order", "*", "**", "stock/**", "stock/a/b", "stock/*/trade", "user/8", "user/*", "user"]
    assert [each for each in others if grants.cover(each)] == []


def test_grants_do_not_add_up():
    assert not Grants(["a", "a/*/**"]).cover("a/**")
    assert Grants(["a", "a/*/**"]).cover("a/*")
    assert not Grants().cover("a")


@settings(deadline=None)
@given(
    granted=st.lists(patterns, max_size=4),
    asked=patterns,
    topic=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=FEW),
)
def test_grants_together_cover_what_one_by_one_they_cover(granted: list[str], asked: str, topic: list[str]):
    for each in (asked, "/".join(topic)):
        assert Grants(granted).cover(each) == any(covers(grant, each) for grant in granted)


def test_a_long_list_of_topics_is_compared_with_many_grants_without_looking_for_containment(
    monkeypatch: pytest.MonkeyPatch,
):
    """16,000 topics and 128 grants are 2 million pairs; compiled, each topic is one comparison."""
    looked: list[str] = []

    def counted(grant: str, asked: str) -> bool:
        looked.append(asked)
        return covers(grant, asked)

    monkeypatch.setattr(hub.access.grants, "covers", counted)
    hub.access.grants._compiled.cache_clear()
    wild = [pattern for each in most_expensive().values() for pattern in each[:31]]
    grants = Grants([*wild, "x/**", "**/y", "z/*/*", "user/*"])
    assert all(grants.cover(f"x/{number}") for number in range(16_000))
    assert not any(grants.cover(f"user/{number}/x") for number in range(16_000))
    assert looked == []
    assert hub.access.grants._compiled.cache_info().misses == 1


def test_users_who_differ_in_plain_topics_share_what_is_compiled():
    hub.access.grants._compiled.cache_clear()
    for number in range(10):
        assert Grants(["orders/*", "news", f"user/{number}"]).cover("orders/1")
    assert hub.access.grants._compiled.cache_info().misses == 1


def test_equal_grants_are_one_key_and_can_not_be_changed():
    grants = Grants(["b", "a", "b"])
    assert {grants, Grants(["a", "b"])} == {Grants(("b", "a"))}
    assert grants.patterns == ("a", "b")
    with pytest.raises(AttributeError):
        grants.patterns = ()  # type: ignore[misc]  # it is frozen
