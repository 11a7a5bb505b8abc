"""The rules of tickets, as arithmetic."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from hub.access.identity import Identity
from hub.access.tickets import RETURN_SECONDS, SECONDS, Return, Ticket, cookie_name, no_ticket, shown
from hub.errors import Forbidden, Unauthorized

NOW = 1_700_000_000.0
ANN = Identity(
    user="ann/\U0001f600",
    session="s1",
    subscribe=("orders/**", "room/*"),
    publish=("orders/**",),
    admin=True,
    presence=True,
    info={"name": "Ann", "tags": ["a", {"b": None}]},
    expires=NOW + 600,
    issued=NOW - 5,
    token="t1",
)


def covers(grant: str, pattern: str) -> bool:
    """Cover as little as the tests need: a first segment with whatever follows."""
    return grant == pattern or (grant.endswith("/**") and pattern.startswith(grant[:-2]))


def minted(identity: Identity = ANN, topics: tuple[str, ...] | None = None) -> tuple[str, Ticket]:
    return Ticket.mint(identity, topics, NOW)


def begun(identity: Identity = ANN, asked: tuple[str, ...] = ("b", "a", "b")) -> tuple[str, str, Return]:
    """Return a ticket, the cookie of its stream, and what is kept of that."""
    text, ticket = minted(identity)
    cookie, back = ticket.begin(asked, NOW)
    return text, cookie, back


def test_a_ticket_has_a_public_id_and_a_secret_of_at_least_128_bits():
    sizes: list[int] = []

    def random(size: int) -> str:
        sizes.append(size)
        return secrets.token_urlsafe(size)

    text, ticket = Ticket.mint(ANN, None, NOW, random)
    assert re.fullmatch(r"[A-Za-z0-9_-]{12}\.[A-Za-z0-9_-]{32}", text)
    assert text.startswith(ticket.id + ".")
    value, _ = ticket.begin(["a"], NOW, random)
    assert [size * 8 >= 128 for size in sizes] == [False, True, True]
    assert len({minted()[0] for _ in range(1_000)}) == 1_000
    assert len(cookie_name(ticket.id, secure=True) + "=" + value) < 80


def test_nothing_that_is_kept_or_shown_has_the_secret():
    text, cookie, back = begun()
    _, ticket = minted()
    secret = text.partition(".")[2]
    for each in (repr(shown(text)), repr(back), back.to_text(), repr(ticket), ticket.to_text()):
        assert secret not in each
        assert cookie not in each


def test_a_ticket_is_without_the_rights_that_no_stream_needs():
    _, ticket = minted()
    assert ticket.identity == replace(ANN, publish=(), admin=False)


def test_what_is_kept_can_be_written_down():
    _, _, back = begun()
    assert Return.from_text(back.to_text()) == back
    for topics in (None, (), ("a", "b/**")):
        _, ticket = minted(topics=topics)
        assert Ticket.from_text(ticket.to_text()) == ticket
    _, ticket = minted(Identity(user="bob"))
    assert Ticket.from_text(ticket.to_text()) == ticket


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "{}", '{"identity": {}}', '{"identity": {"user": "a", "x": 1}}'])
def test_what_nobody_wrote_is_refused(text: str):
    for kind in (Ticket, Return):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            kind.from_text(text)


def changed(text: str) -> str:
    return text[:-1] + ("A" if text[-1] != "A" else "B")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace(".", ""),
        lambda text: text.replace(".", "/"),
        lambda text: text.split(".")[0],
        lambda text: "é" + text[1:],
        lambda text: "\ud800" + text[1:],
        lambda text: "١" * 12 + text[12:],
        lambda text: text * 10_000,
    ],
)
def test_what_is_no_ticket_is_refused_without_a_look_at_what_is_kept(spoil: Callable[[str], str]):
    with pytest.raises(Unauthorized) as caught:
        shown(spoil(minted()[0]))
    assert caught.value.code == "token_invalid"


def refusal(check: Callable[..., None], *arguments: Any) -> tuple[str, str]:
    """Return the code of the refusal, and the topic that it names; nothing if there is none."""
    try:
        check(*arguments)
    except Unauthorized as error:
        return error.code, ""
    except Forbidden as error:
        return error.code, error.topic
    return "", ""


@pytest.mark.parametrize(
    ("after", "code"), [(0.0, ""), (SECONDS - 0.1, ""), (SECONDS, "token_invalid"), (700.0, "token_invalid")]
)
def test_a_stream_begins_within_30_seconds(after: float, code: str):
    text, ticket = minted()
    assert refusal(ticket.check, shown(text), ["x"], NOW + after, covers) == (code, "")


def test_a_ticket_counts_no_longer_than_the_rights():
    text, ticket = minted(replace(ANN, expires=NOW + 10))
    assert refusal(ticket.check, shown(text), ["x"], NOW + 9.9, covers) == ("", "")
    assert refusal(ticket.check, shown(text), ["x"], NOW + 10, covers) == ("token_expired", "")
    with pytest.raises(Unauthorized):
        minted(replace(ANN, expires=NOW))


def test_another_secret_with_the_same_id_does_not_count():
    text, ticket = minted()
    assert refusal(ticket.check, shown(changed(text)), ["x"], NOW, covers) == ("token_invalid", "")
    text, cookie, back = begun()
    assert refusal(back.check, shown(changed(text)), cookie, ["a", "b"], NOW) == ("token_invalid", "")


@pytest.mark.parametrize(
    ("topics", "asked", "topic"),
    [
        (None, ["anything", "user/1"], ""),
        ((), ["a"], "a"),
        (("a",), ["a"], ""),
        (("a",), ["a", "b"], "b"),
        (("a/**",), ["a/b", "a/**"], ""),
        (("a/b",), ["a/**"], "a/**"),
        (("a", "b/**"), ["b/c", "a", "c", "d"], "c"),
        (("a",), ["user/ann"], "user/ann"),
    ],
)
def test_a_ticket_is_for_its_topics(topics: tuple[str, ...] | None, asked: list[str], topic: str):
    text, ticket = minted(topics=topics)
    assert refusal(ticket.check, shown(text), asked, NOW, covers) == ("forbidden" if topic else "", topic)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["a", "b"], ("", "")),
        (["b", "a", "a"], ("", "")),
        (["a"], ("forbidden", "b")),
        (["a", "b", "c"], ("forbidden", "c")),
        (["**"], ("forbidden", "**")),
    ],
)
def test_a_stream_comes_back_for_the_same_topics(asked: list[str], expected: tuple[str, str]):
    text, cookie, back = begun()
    assert refusal(back.check, shown(text), cookie, asked, NOW + 60) == expected


@pytest.mark.parametrize("spoil", [changed, lambda cookie: "", lambda cookie: cookie + "x", lambda cookie: "\ud800é"])
def test_a_stream_comes_back_only_with_its_cookie(spoil: Callable[[str], str]):
    text, cookie, back = begun()
    assert refusal(back.check, shown(text), spoil(cookie), ["a", "b"], NOW) == ("token_invalid", "")
    other_text, other_cookie, _ = begun()
    assert refusal(back.check, shown(text), other_cookie, ["a", "b"], NOW) == ("token_invalid", "")
    assert refusal(back.check, shown(other_text), cookie, ["a", "b"], NOW) == ("token_invalid", "")


@pytest.mark.parametrize(
    ("expires", "after", "code"),
    [
        (NOW + 600, 599.9, ""),
        (NOW + 600, 600.0, "token_expired"),
        (None, RETURN_SECONDS - 1, ""),
        (None, RETURN_SECONDS, "token_expired"),
    ],
)
def test_a_stream_comes_back_until_the_rights_end(expires: float | None, after: float, code: str):
    text, cookie, back = begun(replace(ANN, expires=expires))
    assert refusal(back.check, shown(text), cookie, ["a", "b"], NOW + after) == (code, "")


def test_all_that_is_wrong_with_a_ticket_sounds_the_same():
    text, ticket = minted()
    said = set()
    for seen, now in ((shown(changed(text)), NOW), (shown(text), NOW + SECONDS)):
        with pytest.raises(Unauthorized) as caught:
            ticket.check(seen, ["x"], now, covers)
        said.add(str(caught.value))
    with pytest.raises(Unauthorized) as caught:
        shown("x")
    assert said == {str(caught.value)}


@pytest.mark.parametrize(("secure", "name"), [(False, "hub_stream_a-_b"), (True, "__Secure-hub_stream_a-_b")])
def test_the_cookie_has_the_public_id_in_its_name(secure: bool, name: str):
    assert cookie_name("a-_b", secure=secure) == name


def test_chance_decides_the_id_and_both_secrets():
    numbers = count()

    def random(size: int) -> str:
        return f"{next(numbers)}" * (size * 4 // 3)

    text, ticket = Ticket.mint(ANN, None, NOW, random)
    cookie, _ = ticket.begin(["a"], NOW, random)
    assert (text, cookie) == ("0" * 12 + "." + "1" * 32, "2" * 32)


def test_a_ticket_that_is_not_valid_says_what_to_do():
    assert str(no_ticket()) == (
        "the ticket is not valid: it was used already, is older than 30 seconds, or is unknown; get a new one"
    )
