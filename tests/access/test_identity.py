"""Who asks, as the application or a token says."""

from __future__ import annotations

from typing import Any

import pytest

from hub.access.identity import Identity
from hub.errors import InvalidInput


def test_lists_of_topics_are_taken_and_identities_are_equal_and_hashable() -> None:
    given = Identity(user="ann", subscribe=["a", "b/*"], publish=iter(["a"]))  # type: ignore[arg-type]  # as applications do
    assert given == Identity(user="ann", subscribe=("a", "b/*"), publish=("a",))
    assert len({given, Identity(user="ann", subscribe=("a", "b/*"), publish=("a",))}) == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"user": ""}, "user"),
        ({"user": "x" * 257}, "user"),
        ({"user": 42}, "user"),
        ({"user": "ann", "subscribe": "orders"}, "subscribe"),
        ({"user": "ann", "subscribe": ["a//b"]}, "subscribe"),
        ({"user": "ann", "publish": [None]}, "publish"),
    ],
)
def test_what_can_not_be_an_identity_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        Identity(**fields)
