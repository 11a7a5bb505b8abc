"""Which notifications a reader may see."""

from __future__ import annotations

import pytest

from hub.access.visibility import EVERYTHING, Visibility, above
from hub.errors import LogUnavailable
from hub.notification import Position


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


# ---- floors ----


def since(private: frozenset[str] | None = None, epoch: str = "e", **floors: int) -> Visibility:
    return Visibility(private, frozenset((topic, Position(epoch, offset)) for topic, offset in floors.items()))


def test_a_private_notification_comes_through_no_topic_below_its_floor() -> None:
    visibility, floors = Visibility(frozenset({"a", "b"})), {"a": 5, "b": 3}
    seen = {offset: visibility.sees(above(floors, ["a", "b", "c"], offset), private=True) for offset in range(8)}
    assert [offset for offset, sees in seen.items() if sees] == [4, 5, 6, 7]


def test_only_floors_ahead_of_a_reader_matter_to_it() -> None:
    visibility = since(a=3, b=7)
    assert visibility.floors("e") == {"a": 3, "b": 7}
    assert visibility.floors("e", 3) == {"b": 7}
    assert not visibility.floors("e", 7)
    assert visibility.beyond("e", 2) == visibility
    assert visibility.beyond("e", 3) == since(b=7)
    assert visibility.beyond("e", 7) == EVERYTHING
    assert since(frozenset({"a"}), a=3).beyond("e", 3) == Visibility(frozenset({"a"}))


def test_floors_of_another_epoch_are_kept_and_never_compared() -> None:
    visibility = since(epoch="old", a=3)
    assert visibility.beyond("e", 7) == visibility
    for after in (0, 7):
        with pytest.raises(LogUnavailable):
            visibility.floors("e", after)


def test_live_all_floors_lie_behind() -> None:
    assert since(a=3).live == EVERYTHING.live == EVERYTHING
    assert since(frozenset({"a"}), a=3).live == Visibility(frozenset({"a"}))


def test_through_which_topics_one_can_be_seen() -> None:
    assert [above({"a": 1, "b": 3}, ["b", "a", "c"], offset) for offset in (1, 2, 4)] == [
        ["c"],
        ["a", "c"],
        ["b", "a", "c"],
    ]
