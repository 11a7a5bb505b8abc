import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidInput, InvalidTopic
from hub.topics import EVERY_TOPIC, RESERVED, TopicIndex, check_pattern, check_topic, check_wanted

names = st.lists(st.sampled_from(["a", "b", "user", "ai"]), min_size=1, max_size=5).map("/".join)
patterns = st.lists(st.sampled_from(["a", "b", "user", "ai", "*", "**"]), min_size=1, max_size=5).map("/".join)


def matches(pattern: str, topic: str) -> bool:
    """The grammar's meaning in the plainest words there are: a regular expression over `/segment` groups."""
    parts = {"*": "(/[^/]+)", "**": "(/[^/]+)*"}
    return bool(re.fullmatch("".join(parts.get(s, re.escape("/" + s)) for s in pattern.split("/")), "/" + topic))


def reaches(pattern: str, topic: str) -> bool:
    """Say whether a subscription to *pattern* gets *topic*: no wildcard in the first segment matches a reserved one."""
    first = topic.split("/", maxsplit=1)[0]
    return matches(pattern, topic) and (first not in RESERVED or pattern.split("/", maxsplit=1)[0] == first)


@pytest.mark.parametrize(
    "topic", ["a", "orders", "user/42", "stock/AAPL", "房间/大厅", "a b", "x" * 256, "/".join("a" * 16)]
)
def test_a_topic_may_be(topic: str):
    assert check_topic(topic) == topic
    assert check_pattern(topic) == topic


@pytest.mark.parametrize(
    "topic",
    [
        *["", "/", "a/", "/a", "a//b", "a\nb", "a\r", "a\0", "a\u200bb", "\ufeffa", "a\x7f", "\ud800"],
        *["x" * 257, "é" * 129, "/".join("a" * 17), None, 7, ["a"], b"a"],
    ],
)
def test_a_topic_may_not_be(topic: object):
    with pytest.raises(InvalidTopic):
        check_topic(topic)  # type: ignore[arg-type]  # what a caller may hand in all the same
    with pytest.raises(InvalidTopic):
        check_pattern(topic)  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize("pattern", ["*", "**", "a/*", "**/b", "a/**/z", "**/**"])
def test_a_pattern_is_for_subscribing_only(pattern: str):
    assert check_pattern(pattern) == pattern
    with pytest.raises(InvalidTopic, match="is a pattern"):
        check_topic(pattern)


@pytest.mark.parametrize("pattern", ["a*", "*a", "***", "a/b*", "a*/b"])
def test_a_star_stands_for_whole_segments(pattern: str):
    with pytest.raises(InvalidTopic, match="whole segments"):
        check_pattern(pattern)


@given(pattern=patterns, topic=names)
def test_patterns_mean_what_the_grammar_says(pattern: str, topic: str):
    index: TopicIndex[int] = TopicIndex()
    index.add([pattern], 1)
    assert bool(index.match([topic])) == index.wants(topic) == reaches(pattern, topic)
    free: TopicIndex[int] = TopicIndex(reserved=())
    free.add([pattern], 1)
    assert bool(free.match([topic])) == free.wants(topic) == matches(pattern, topic)


@given(stored=st.lists(patterns | names, max_size=8), topics=st.lists(names, min_size=1, max_size=3))
def test_an_index_finds_each_once_with_the_first_topic_it_wants(stored: list[str], topics: list[str]):
    index: TopicIndex[int] = TopicIndex()
    for number, pattern in enumerate(stored):
        index.add([pattern], number)
    expected: dict[int, str] = {}
    for topic, (number, pattern) in itertools.product(topics, enumerate(stored)):
        if reaches(pattern, topic):
            expected.setdefault(number, topic)
    assert index.match(topics) == expected


@given(data=st.data())
def test_what_was_removed_leaves_no_trace(data: st.DataObject):
    index: TopicIndex[int] = TopicIndex()
    stored: dict[int, list[str]] = {}
    for number in range(data.draw(st.integers(0, 10))):
        stored[number] = data.draw(st.lists(patterns | names, min_size=1, max_size=3))
        index.add(stored[number], number)
    for number in data.draw(st.permutations(list(stored))):
        index.remove(stored.pop(number), number)
        topic = data.draw(names)
        assert index.match([topic]).keys() == {n for n, each in stored.items() if any(reaches(p, topic) for p in each)}
    assert not index._exact
    assert not index._patterns


@pytest.mark.parametrize("pattern", ["**", "*/7", "*/*", "**/7", "*/**", "**/user/7", "**/**/7"])
@pytest.mark.parametrize("first", sorted(RESERVED))
def test_a_wildcard_in_the_first_segment_reaches_nothing_reserved(pattern: str, first: str):
    index: TopicIndex[int] = TopicIndex()
    index.add([pattern], 1)
    assert not index.match([first, f"{first}/7", f"{first}/user/7"])
    assert not index.wants(f"{first}/7")
    index.add([f"{first}/**"], 2)
    assert index.match([f"{first}/7", first]) == {2: f"{first}/7"}


@given(topic=names)
def test_every_topic_is_reached_by_the_patterns_for_all(topic: str):
    index: TopicIndex[int] = TopicIndex()
    index.add(EVERY_TOPIC, 1)
    assert index.wants(topic)


def test_a_list_with_too_many_topics_is_not_read_to_its_end():
    read: list[int] = []

    def topics() -> Iterator[str]:
        for number in range(1_000):
            read.append(number)
            yield f"a/{number}"

    with pytest.raises(InvalidInput, match="more than 128"):
        check_wanted(topics())
    assert len(read) == 129


def test_a_topic_that_is_repeated_counts_once():
    assert check_wanted(["b", "a", "b"] * 1_000) == ("b", "a")
