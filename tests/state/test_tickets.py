"""Tickets in the state: one stream begins with each, and comes back, on every home."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hub.access.identity import Identity
from hub.access.tickets import RETURN_SECONDS, cookie_name
from hub.errors import Forbidden, StateUnavailable, Unauthorized
from hub.state.memory import MemoryState
from hub.state.sqlite import SQLiteState
from hub.state.state import Revocation, State
from hub.state.tickets import TELL_SECONDS, Admission, StreamCookie, Tickets
from tests.contracts.conftest import Clock

ANN = Identity(user="ann", subscribe=("a", "b"), publish=("a",), issued=1_600_000_000.0, token="t1")


def covers(grant: str, pattern: str) -> bool:
    return grant in {pattern, "**"}


class Rack:
    """Tickets in a state, and a browser with its cookies.

    Attributes:
        cookies: what the browser has.
    """

    def __init__(self, state: State, clock: Clock) -> None:
        self.state = state
        self.tickets = Tickets(state, clock, covers)
        self.cookies: dict[str, str] = {}

    async def admit(self, text: str, asked: tuple[str, ...] = ("a", "b")) -> Admission:
        return await self.tickets.admit(text, self.cookies, asked, secure=False)

    async def connect(self, text: str, asked: tuple[str, ...] = ("a", "b")) -> Identity:
        """Open a stream, keep its cookie, and return whose it is."""
        admission = await self.admit(text, asked)
        cookie = await self.tickets.begin(admission)
        if cookie is not None:
            self.cookies[cookie_name(cookie.id, secure=False)] = cookie.value
        return admission.identity

    async def refusal(self, text: str, asked: tuple[str, ...] = ("a", "b")) -> str:
        """Try to connect, and return the code of the refusal; empty if there is none."""
        try:
            await self.connect(text, asked)
        except (Unauthorized, Forbidden) as error:
            return error.code
        return ""


@pytest.fixture(params=["memory", "sqlite"])
async def rack(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[Rack]:
    state: State = MemoryState(clock) if request.param == "memory" else SQLiteState(tmp_path / "state.db", clock)
    await state.open()
    yield Rack(state, clock)
    await state.aclose()


async def test_a_stream_begins_and_comes_back_again_and_again(rack: Rack, clock: Clock):
    text = await rack.tickets.mint(ANN)
    for _ in range(4):
        assert await rack.connect(text) == replace(ANN, publish=())
        clock.now += 3_600
    assert len(rack.cookies) == 1


async def test_until_a_stream_begins_a_ticket_may_be_shown_again(rack: Rack, clock: Clock):
    text = await rack.tickets.mint(ANN)
    for _ in range(3):
        await rack.admit(text)
        clock.now += 9
    assert await rack.refusal(text) == ""
    assert await rack.refusal(text) == ""
    rack.cookies.clear()
    assert await rack.refusal(text) == "token_invalid"


async def test_a_ticket_that_was_shown_in_vain_expires(rack: Rack, clock: Clock):
    text = await rack.tickets.mint(ANN)
    admission = await rack.admit(text)
    clock.now += 30
    assert await rack.refusal(text) == "token_invalid"
    with pytest.raises(Unauthorized):
        await rack.tickets.begin(admission)


async def test_of_all_who_show_a_ticket_at_once_one_begins(rack: Rack):
    text = await rack.tickets.mint(ANN)
    admitted = await asyncio.gather(*(rack.admit(text) for _ in range(20)))
    begun = await asyncio.gather(*map(rack.tickets.begin, admitted), return_exceptions=True)
    assert sum(isinstance(each, StreamCookie) for each in begun) == 1
    assert sum(isinstance(each, Unauthorized) for each in begun) == 19


async def test_two_tabs_do_not_disturb_each_other(rack: Rack):
    one, two = await rack.tickets.mint(ANN), await rack.tickets.mint(replace(ANN, user="bob"))
    for _ in range(3):
        assert (await rack.connect(one, ("a",))).user == "ann"
        assert (await rack.connect(two, ("b",))).user == "bob"
    mixed = dict(zip(rack.cookies, reversed(rack.cookies.values()), strict=True))
    rack.cookies.clear()
    rack.cookies.update(mixed)
    assert await rack.refusal(one, ("a",)) == "token_invalid"


async def test_over_tls_only_the_secure_cookie_counts(rack: Rack):
    text = await rack.tickets.mint(ANN)
    await rack.connect(text)
    with pytest.raises(Unauthorized):
        await rack.tickets.admit(text, rack.cookies, ("a", "b"), secure=True)
    secure = {f"__Secure-{name}": value for name, value in rack.cookies.items()}
    assert (await rack.tickets.admit(text, secure, ("a", "b"), secure=True)).ticket is None


async def test_a_narrower_ticket_opens_no_other_topic(rack: Rack):
    text = await rack.tickets.mint(ANN, ["a"])
    assert await rack.refusal(text, ("a", "b")) == "forbidden"
    assert await rack.refusal(text, ("a",)) == ""
    assert await rack.refusal(text, ("a",)) == ""
    assert await rack.refusal(text, ("b",)) == "forbidden"


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("revocation", [Revocation("user", "ann", 1_650_000_000.0), Revocation("token", "t1", 1.0)])
async def test_what_was_revoked_neither_begins_nor_comes_back(rack: Rack, begins: bool, revocation: Revocation):
    text = await rack.tickets.mint(ANN)
    if begins:
        await rack.connect(text)
    await rack.state.revoke(revocation)
    assert await rack.refusal(text) == "revoked"


async def test_a_stream_does_not_come_back_when_the_rights_have_ended(rack: Rack, clock: Clock):
    text = await rack.tickets.mint(replace(ANN, expires=clock.now + 100))
    await rack.connect(text)
    clock.now += 99.9
    assert await rack.refusal(text) == ""
    clock.now += 0.1
    assert await rack.refusal(text) == "token_expired"
    clock.now += 3_600
    assert await rack.refusal(text) == "token_invalid"


@pytest.mark.parametrize(("expires", "lasts"), [(100.0, 100.0), (None, RETURN_SECONDS)])
async def test_a_cookie_lasts_until_its_stream_would_not_even_be_told_why(
    rack: Rack, clock: Clock, expires: float | None, lasts: float
):
    ann = replace(ANN, expires=None if expires is None else clock.now + expires)
    text = await rack.tickets.mint(ann)
    cookie = await rack.tickets.begin(await rack.admit(text))
    assert cookie is not None
    assert cookie.seconds == pytest.approx(lasts + TELL_SECONDS)
    rack.cookies[cookie_name(cookie.id, secure=False)] = cookie.value
    clock.now += cookie.seconds - 1
    assert await rack.refusal(text) == "token_expired"
    clock.now += 1
    assert await rack.refusal(text) == "token_invalid"


async def test_an_answer_that_did_not_go_out_leaves_the_ticket_as_it_was(rack: Rack, clock: Clock):
    text = await rack.tickets.mint(ANN)
    admission = await rack.admit(text)
    lost = await rack.tickets.begin(admission)
    assert await rack.refusal(text) == "token_invalid"
    await rack.tickets.take_back(admission)
    assert lost is not None
    rack.cookies[cookie_name(admission.id, secure=False)] = lost.value
    assert await rack.refusal(text) == ""
    assert rack.cookies[cookie_name(admission.id, secure=False)] != lost.value
    assert await rack.refusal(text) == ""
    clock.now += 31
    await rack.tickets.take_back(admission)
    rack.cookies.clear()
    assert await rack.refusal(text) == "token_invalid"


@pytest.mark.parametrize("text", ["", "x", "a" * 12 + "." + "b" * 32, "ticket/../return", "é"])
async def test_what_was_never_minted_is_refused(rack: Rack, text: str):
    assert await rack.refusal(text) == "token_invalid"


# ---- the end of a process ----


async def restarted(path: Path, clock: Clock, act: Callable[[Rack], Awaitable[None]], cookies: dict[str, str]) -> None:
    state = SQLiteState(path, clock)
    await state.open()
    rack = Rack(state, clock)
    rack.cookies = cookies
    await act(rack)
    await state.aclose()


async def test_a_stream_comes_back_to_the_next_process_and_an_unused_ticket_is_forgotten(clock: Clock, tmp_path: Path):
    path, cookies, texts = tmp_path / "state.db", dict[str, str](), list[str]()

    async def before(rack: Rack) -> None:
        texts.extend([await rack.tickets.mint(ANN), await rack.tickets.mint(ANN)])
        await rack.connect(texts[0])

    async def after(rack: Rack) -> None:
        assert await rack.refusal(texts[0]) == ""
        assert await rack.refusal(texts[1]) == "token_invalid"

    await restarted(path, clock, before, cookies)
    for each in (*(text.partition(".")[2] for text in texts), *cookies.values()):
        assert each.encode() not in path.read_bytes()
    await restarted(path, clock, after, cookies)


async def test_what_another_version_wrote_is_unknown(clock: Clock, tmp_path: Path):
    path, cookies, texts = tmp_path / "state.db", dict[str, str](), list[str]()

    async def before(rack: Rack) -> None:
        texts.append(await rack.tickets.mint(ANN))
        await rack.connect(texts[0])

    async def after(rack: Rack) -> None:
        assert await rack.refusal(texts[0]) == "token_invalid"

    await restarted(path, clock, before, cookies)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE entry SET value = '{\"version\": 2}'")
    database.close()
    await restarted(path, clock, after, cookies)


class Failing(MemoryState):
    """A state whose home confirms nothing."""

    async def put(self, key: str, value: str, *, expires: float, owner: str, lasting: bool = False) -> None:
        await super().put(key, value, expires=expires, owner=owner, lasting=lasting)
        if lasting:
            raise StateUnavailable("its disk does not answer")


async def test_a_stream_begins_and_comes_back_although_the_home_confirms_nothing(clock: Clock):
    rack = Rack(Failing(clock), clock)
    text = await rack.tickets.mint(ANN)
    assert [await rack.refusal(text) for _ in range(3)] == ["", "", ""]
