"""Which notifications a reader may see."""

from __future__ import annotations

import pytest

from hub.access.visibility import EVERYTHING, Visibility


@pytest.mark.parametrize("private", [False, True])
def test_whoever_may_see_everything_sees_everything(private: bool) -> None:
    assert EVERYTHING.sees(["user/42"], private=private)


@pytest.mark.parametrize("through", [(), ("user/7",), ("user/*",)])
def test_what_is_public_is_seen_whatever_private_ones_are_seen_through(through: tuple[str, ...]) -> None:
    assert Visibility(frozenset(through)).sees(["orders"], private=False)


@pytest.mark.parametrize(
    ("through", "topics", "seen"),
    [
        ((), ["user/7"], False),
        (("user/7",), ["user/7"], True),
        (("user/8",), ["user/7"], False),
        (("user/8", "user/7"), ["orders", "user/7"], True),
        (("user/*",), ["user/7"], True),
        (("user/*",), ["user/7/x"], False),
        (("room/**",), ["orders", "room"], True),
    ],
)
def test_a_private_notification_is_seen_through_one_of_the_topics_for_it(
    through: tuple[str, ...], topics: list[str], seen: bool
) -> None:
    assert Visibility(frozenset(through)).sees(topics, private=True) is seen


def test_equal_visibilities_are_one_key() -> None:
    assert len({Visibility(frozenset({"a", "b"})), Visibility(frozenset({"b", "a"})), EVERYTHING, Visibility()}) == 2
