"""The judge of what readers have heard finds what is wrong with it."""

from __future__ import annotations

import pytest

from tests.cluster.heard import GAP, Item, Verdict, in_order, judge

ENDS = {0: 2, 1: 1}


ALL = {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


@pytest.mark.parametrize(
    ("heard", "verdict"),
    [
        ([(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)], Verdict()),
        ([(0, 0), (1, 0), (1, 1), (0, 2)], Verdict(lost=((0, 1),))),
        ([(0, 0), (0, 1), (1, 0), (0, 2)], Verdict(lost=((1, 1),))),
        ([(0, 0), (0, 1), (0, 1), (0, 2), (1, 0), (1, 1)], Verdict(doubled=((0, 1),))),
        ([(0, 1), (0, 0), (0, 2), (1, 0), (1, 1)], Verdict(lost=((0, 0),), doubled=((0, 0),))),
    ],
)
def test_what_is_missing_or_comes_again_is_found(heard: list[Item], verdict: Verdict):
    assert judge(heard, ENDS, ALL) == verdict
    assert judge(heard, ENDS, ()) == verdict, "without a gap nothing may be missing, whether it is kept or not"
    assert verdict.fine == (not verdict.lost and not verdict.doubled)


@pytest.mark.parametrize(
    ("heard", "gone", "verdict"),
    [
        # What is gone may be missing behind a gap, but what is kept has to come.
        ([(0, 0), (1, 0), GAP, (0, 2), (1, 1)], {(0, 1)}, Verdict(gaps=1, missed=1)),
        ([(0, 0), (1, 0), GAP, (0, 2), (1, 1)], set(), Verdict(lost=((0, 1),), gaps=1)),
        ([(1, 0), (0, 0), (0, 1), (0, 2), GAP], {(1, 1)}, Verdict(gaps=1, missed=1)),
        ([(1, 0), (0, 0), (0, 1), (0, 2), GAP], set(), Verdict(lost=((1, 1),), gaps=1)),
        # The gap says nothing of what comes later.
        ([GAP, (0, 0), (0, 2), (1, 0), (1, 1)], {(0, 1)}, Verdict(lost=((0, 1),), gaps=1)),
        # What came before may come again, once and in order, with or without what is gone.
        ([(1, 0), (1, 1), (0, 0), (0, 1), GAP, (0, 1), (0, 2)], set(), Verdict(gaps=1, again=1)),
        ([(1, 0), (1, 1), (0, 0), (0, 1), GAP, (0, 0), (0, 2)], {(0, 1)}, Verdict(gaps=1, again=1)),
        ([(0, 0), GAP, (0, 0), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], set(), Verdict((), ((0, 0),), 1, 0, 1)),
        ([(0, 0), (0, 1), GAP, (0, 1), (0, 0), (0, 2), (1, 0), (1, 1)], set(), Verdict((), ((0, 0),), 1, 0, 1)),
    ],
)
def test_a_gap_explains_what_is_gone_and_what_comes_again_and_nothing_else(
    heard: list[Item], gone: set[Item], verdict: Verdict
):
    assert judge(heard, ENDS, ALL - gone) == verdict


def test_another_order_is_found():
    history = [(0, 0), (1, 0), (0, 1)]
    assert in_order([(0, 0), (1, 0), GAP, (0, 1)], history)
    assert not in_order([(1, 0), (0, 0), (0, 1)], history)
