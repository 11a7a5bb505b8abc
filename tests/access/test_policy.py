"""What whom is allowed, rule by rule; what the rules mean on the wire is in tests/web/test_rules.py."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hub.access.identity import Identity
from hub.access.policy import Policy
from hub.access.visibility import EVERYTHING, Visibility
from hub.errors import Forbidden, Unauthorized

POLICY = Policy(anonymous_subscribe=("news/**",), anonymous_publish=("guestbook",))
ANN = Identity(user="ann", subscribe=("orders/**", "news/ann"), publish=("orders/*",))
BOB = Identity(user="bob", subscribe=("**",), publish=("**",))
STAR = Identity(user="*", subscribe=("room/lobby",))
ROOT = Identity(user="root", admin=True)
ASKED = [None, ANN, BOB, STAR, ROOT]


def refusal(identity: Identity | None, topics: Iterable[str], policy: Policy = POLICY) -> str:
    """Return the topic that is refused to a reader, `401` if nobody is known; empty if nothing is refused."""
    try:
        policy.read(identity, topics)
    except Unauthorized:
        return "401"
    except Forbidden as error:
        return error.topic
    return ""


# topics          nobody      ann           bob           *             root
READS = {
    "news/a":    ("",         "",           "",           "",           ""),
    "news/*":    ("",         "",           "",           "",           ""),
    "news/**/x": ("",         "",           "",           "",           ""),
    "orders/1":  ("401",      "",           "",           "orders/1",   "orders/1"),
    "orders/**": ("401",      "",           "",           "orders/**",  "orders/**"),
    "secrets":   ("401",      "secrets",    "",           "secrets",    "secrets"),
    "**":        ("401",      "**",         "",           "**",         "**"),
    "*/x":       ("401",      "*/x",        "",           "*/x",        "*/x"),
    "user/ann":  ("401",      "",           "user/ann",   "user/ann",   "user/ann"),
    "user/ann/x": ("401",     "user/ann/x", "user/ann/x", "user/ann/x", "user/ann/x"),
    "user/*":    ("401",      "user/*",     "user/*",     "user/*",     "user/*"),
    "user/%2A":  ("401",      "user/%2A",   "user/%2A",   "",           "user/%2A"),
    "room/lobby": ("401",     "room/lobby", "room/lobby", "",           "room/lobby"),
    "room/*":    ("401",      "room/*",     "room/*",     "room/*",     "room/*"),
    "ai/1":      ("401",      "ai/1",       "ai/1",       "ai/1",       "ai/1"),
}  # fmt: skip


@pytest.mark.parametrize("topic", READS)
def test_a_topic_is_read_by_whoever_has_a_grant_for_all_of_it(topic: str) -> None:
    assert tuple(refusal(each, [topic]) for each in ASKED) == READS[topic]


def test_the_first_topic_that_is_refused_is_named() -> None:
    assert refusal(ANN, ["news/a", "orders/1", "x", "y"]) == "x"
    assert refusal(None, ["news/a", "orders/1"]) == "401"


# topic           nobody   ann          bob           root
PUBLISHES = {
    "guestbook": ("",      "",          "",           ""),
    "news/a":    ("401",   "news/a",    "",           "news/a"),
    "orders/1":  ("401",   "",          "",           "orders/1"),
    "orders/1/2": ("401",  "orders/1/2", "",          "orders/1/2"),
    "user/ann":  ("401",   "user/ann",  "user/ann",   "user/ann"),
    "room/lobby": ("401",  "room/lobby", "room/lobby", "room/lobby"),
    "ai/1":      ("401",   "ai/1",      "ai/1",       "ai/1"),
}  # fmt: skip


@pytest.mark.parametrize("topic", PUBLISHES)
def test_a_topic_is_published_to_by_whoever_has_a_grant(topic: str) -> None:
    def refused(identity: Identity | None) -> str:
        try:
            POLICY.publish(identity, ["guestbook", topic])
        except Unauthorized:
            return "401"
        except Forbidden as error:
            return error.topic
        return ""

    assert tuple(refused(each) for each in (None, ANN, BOB, ROOT)) == PUBLISHES[topic]


def test_what_anybody_may_publish_to_is_for_public_notifications() -> None:
    POLICY.publish(ANN, ["orders/1"], private=True)
    POLICY.publish(BOB, ["guestbook"], private=True)
    with pytest.raises(Unauthorized):
        POLICY.publish(None, ["guestbook"], private=True)
    with pytest.raises(Forbidden) as caught:
        POLICY.publish(ANN, ["orders/1", "guestbook"], private=True)
    assert str(caught.value) == "guestbook: you may not send private notifications to it"


@pytest.mark.parametrize(
    ("identity", "topics", "visibility"),
    [
        (None, ["news/a"], Visibility(frozenset())),
        (ANN, ["orders/*", "user/ann"], EVERYTHING),
        (ANN, ["news/ann"], EVERYTHING),  # anybody may read it, but she has a grant
        (ANN, ["news/a"], Visibility(frozenset())),
        (ANN, ["news/a", "orders/*"], Visibility(frozenset({"orders/*"}))),
        (BOB, ["news/a", "orders/*"], EVERYTHING),
    ],
)
def test_private_notifications_are_seen_through_topics_that_were_asked_for_and_granted(
    identity: Identity | None, topics: list[str], visibility: Visibility
) -> None:
    assert POLICY.read(identity, topics) == visibility


@pytest.mark.parametrize(
    ("identity", "private", "shown"),
    [
        (None, False, ("news/a",)),
        (ANN, False, ("news/a", "orders/1", "user/ann")),
        (ANN, True, ("orders/1", "user/ann")),
        (BOB, True, ("news/a", "orders/1")),
    ],
)
def test_an_entry_shows_the_topics_that_its_reader_may_read(
    identity: Identity | None, private: bool, shown: tuple[str, ...]
) -> None:
    topics = ("news/a", "orders/1", "user/ann", "user/%2A", "room/lobby")
    assert POLICY.shown(identity, topics, private=private) == shown


def test_what_is_for_administrators_is_for_them_only() -> None:
    POLICY.administer(ROOT)
    with pytest.raises(Unauthorized):
        POLICY.administer(None)
    for each in (ANN, BOB):
        with pytest.raises(Forbidden, match="for administrators"):
            POLICY.administer(each)
    with pytest.raises(Unauthorized):
        POLICY.known(None)
    POLICY.known(ANN)


def test_where_whoever_reaches_the_hub_is_trusted_nothing_is_refused() -> None:
    trusted = Policy(trusted=True)
    assert trusted.read(None, ["user/ann", "**"]) == EVERYTHING
    trusted.publish(None, ["user/ann"])
    trusted.administer(None)
    trusted.known(None)
    assert trusted.shown(None, ("user/ann",), private=True) == ("user/ann",)


@pytest.mark.parametrize(
    ("topic", "sentence"),
    [
        ("secrets", "secrets: you may not read it"),
        ("secrets/*", "secrets/*: you may not read all that it matches: one grant has to cover it"),
        ("user/bob", "user/bob: you may not read it: user/ has to be granted by name"),
        ("room/*", "room/*: you may not read it: room/ has to be granted by name"),
    ],
)
def test_a_refusal_says_what_is_missing(topic: str, sentence: str) -> None:
    with pytest.raises(Forbidden) as caught:
        POLICY.read(ANN, [topic])
    assert str(caught.value) == sentence
