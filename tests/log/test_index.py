"""What the log in memory finds notifications by, against a list and a sorted set."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.log.index import Names, Offsets
from tests.chance import examples
from tests.test_patterns import names


@settings(max_examples=examples(100, 2_000))
@given(
    steps=st.lists(names, max_size=40),
    low=names | st.just(""),
    high=names | st.none(),
    block=st.integers(1, 3),
)
def test_names_are_found_in_order_whatever_was_added_and_removed(
    steps: list[str], low: str, high: str | None, block: int
):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hub.log.index.BLOCK", block)
        found, expected = Names(), set[str]()
        for name in steps:
            if name in expected:
                found.remove(name)
            else:
                found.add(name)
            expected ^= {name}
            within = [each for each in expected if low <= each and (high is None or each < high)]
            assert list(found.between(low, high)) == sorted(within)
            assert len(found) == len(expected)
            assert all(0 < len(each) <= 2 * block for each in found._blocks)


@given(
    steps=st.lists(st.integers(-1, 5), max_size=40), after=st.integers(0, 60), upto=st.integers(0, 60), most=st.just(3)
)
def test_offsets_are_those_of_a_list(steps: list[int], after: int, upto: int, most: int):
    offsets, expected, newest = Offsets(), list[int](), 0
    for step in steps:
        if step >= 0:
            newest += step + 1
            offsets.push(newest)
            expected.append(newest)
        elif expected:
            offsets.pop()
            del expected[0]
        within = [each for each in expected if after < each <= upto]
        assert len(offsets) == len(expected)
        assert list(offsets.after(after)) == [each for each in expected if each > after]
        assert (offsets.part(after, upto, most), offsets.count(after, upto)) == (within[:most], len(within))
        if expected:
            assert offsets.oldest == expected[0]
            assert offsets.newest(upto) == max((each for each in expected if each <= upto), default=0)
        assert len(offsets._items) <= 2 * len(expected) + 1, "what has gone costs no more than what is there"
