"""The state in Redis: several processes, each of which may lose it for a while, and a Redis that loses what it had."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from hub.access.identity import Identity
from hub.errors import StateUnavailable, TooManyMemberships
from hub.notification import Position
from hub.redis_url import RedisURL
from hub.state.memberships import MOST_OF_A_USER
from hub.state.redis import news
from hub.state.redis.state import RedisState
from hub.state.state import Membership, Revocation
from tests.chance import examples
from tests.contracts.conftest import Clock
from tests.contracts.test_state import STEPS, Model, walk_on
from tests.redis_server import RedisServer, servers

Open = Callable[..., Awaitable[RedisState]]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis", "--appendonly", "yes", "--appendfsync", "always")
        one.start_now()
        yield one


@pytest.fixture
async def opened(server: RedisServer) -> AsyncIterator[Open]:
    """Return an opener of states that are one, in processes of their own."""
    made: list[RedisState] = []
    clock = Clock()

    async def one() -> RedisState:
        state = RedisState(RedisURL.parse(server.url), "hub", clock, time=clock)
        await state.open()
        made.append(state)
        return state

    yield one
    for state in made:
        await state.aclose()


async def until(so: Callable[[], Any]) -> None:
    """Wait until something is *so*."""
    async with asyncio.timeout(20):
        while not so():  # noqa: ASYNC110 - a state of another process
            await asyncio.sleep(0.005)


def user(name: str) -> Identity:
    return Identity(user=name, issued=1.0)


def member(room: str, name: str, offset: int = 1, *, publish: bool = False) -> Membership:
    return Membership(room, name, publish, Position("e", offset), 1.5)


async def walk_in_two(steps: list[Any], server: RedisServer) -> None:
    """Take *steps* by turns in two processes, and with the model; all three must say the same."""
    clock = Clock()
    model = Model(clock)
    url, prefix = RedisURL.parse(server.url), secrets.token_hex(4)
    states = [RedisState(url, prefix, clock, time=clock) for _ in range(2)]
    for each in states:
        await each.open()
    try:
        for number, step in enumerate(steps):
            if step[0] == "again":
                await states[0].aclose()
                states = [states[1], RedisState(url, prefix, clock, time=clock)]
                await states[1].open()
            await walk_on(states[number % 2], model, number, step)
            await walk_on(states[1 - number % 2], model, number, ("nothing",))
    finally:
        for each in states:
            await each.aclose()


@settings(max_examples=examples(10, 200))
@given(STEPS)
def test_two_processes_do_what_the_model_does(redis_server: RedisServer, steps: list[Any]):
    asyncio.run(walk_in_two(steps, redis_server))


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis")
        one.start_now()
        yield one


async def test_what_one_process_does_is_announced_once_in_each(opened: Open):
    states = [await opened() for _ in range(3)]
    heard: list[list[Any]] = [[] for _ in states]
    for state, said in zip(states, heard, strict=True):
        state.announce_to(said.append)
        state.announce_members_to(said.append, lambda room, name, said=said: said.append((room, name)))  # type: ignore[misc]
    await states[0].join([member("r", "ann"), member("s", "ann")])
    await states[1].join([member("r", "ann", 9, publish=True)])
    await states[2].leave("ann", ["r", "s"])
    revocation = Revocation("user", "ann", 100.0, 200.0)
    await states[1].revoke(revocation)
    wanted = [member("r", "ann"), member("s", "ann"), ("r", "ann"), ("s", "ann"), revocation]
    await until(lambda: all(len(said) >= len(wanted) for said in heard))
    assert heard == [wanted] * 3
    assert all(state.revoked(user("ann")) for state in states)


async def test_of_two_who_join_at_once_one_has_begun_it_and_both_are_told_the_same(opened: Open):
    one, other = await opened(), await opened()
    for number in range(30):
        room = f"{number}"
        first, second = await asyncio.gather(one.join([member(room, "a", 1)]), other.join([member(room, "a", 2)]))
        assert first == second == await one.members(room) == await other.members(room)


async def test_a_bound_that_other_processes_have_filled_holds(opened: Open, monkeypatch: pytest.MonkeyPatch):
    one, other = await opened(), await opened()
    await one.join([member(f"{number}", "ann") for number in range(MOST_OF_A_USER - 1)])
    await other.rooms_of("ann")
    said = await asyncio.gather(
        one.join([member("x", "ann")]), other.join([member("y", "ann"), member("y", "bob")]), return_exceptions=True
    )
    assert sum(isinstance(each, TooManyMemberships) for each in said) == 1
    assert len(await one.rooms_of("ann")) == len(await other.rooms_of("ann")) == MOST_OF_A_USER
    assert len(await one.members("y")) == len(await other.members("y")) in {0, 2}


async def test_one_ticket_is_taken_once_in_all_processes(opened: Open):
    states = [await opened() for _ in range(3)]
    for number in range(20):
        await states[number % 3].put("k", "v", expires=2e9, owner="ann")
        taken = await asyncio.gather(*(state.take("k") for state in states * 3))
        assert sorted(taken, key=str) == [None] * 8 + ["v"]


async def test_a_process_that_comes_later_knows_everything(opened: Open):
    one = await opened()
    await one.join([member(f"{number % 7}", f"{number}\0", number) for number in range(300)])
    await one.carry_over("e", Position("f", 500), 100)
    await one.revoke(Revocation("token", "\ud800", 1.0))
    other = await opened()
    for number in range(7):
        assert await one.members(f"{number}") == await other.members(f"{number}") != []
    assert other.revoked(Identity(user="x", token="\ud800"))


async def test_what_is_changed_while_redis_is_away_counts_here_and_comes_to_all_when_it_is_back(
    opened: Open, server: RedisServer
):
    one, other = await opened(), await opened()
    await one.join([member("r", "bob")])
    server.kill()
    await until(lambda: not one.up and not other.up)
    with pytest.raises(StateUnavailable):
        await one.revoke(Revocation("user", "ann", 100.0))
    with pytest.raises(StateUnavailable):
        await one.join([member("r", "ann")])
    with pytest.raises(StateUnavailable):
        await one.leave("bob", ["r"])
    for read in (one.members("r"), one.get("k"), one.count("k", window=1)):
        with pytest.raises(StateUnavailable):
            await read
    assert one.revoked(user("ann"))
    assert not other.revoked(user("ann"))
    await server.start()
    await until(lambda: one.up and other.up and other.revoked(user("ann")))
    assert await one.members("r") == await other.members("r") == [member("r", "ann")]


async def test_a_redis_that_is_paused_answers_in_bounded_time_and_nothing_is_done_twice(
    opened: Open, server: RedisServer
):
    one, other = await opened(), await opened()
    heard: list[Any] = []
    other.announce_members_to(heard.append, lambda room, name: heard.append((room, name)))
    server.pause()
    try:
        for change in (one.join([member("r", "ann")]), one.leave("ann", ["r"]), one.join([member("r", "ann", 2)])):
            with pytest.raises(StateUnavailable):
                await change
    finally:
        server.resume()
    await until(lambda: len(heard) >= 3)
    assert await other.members("r") == await one.members("r") == [member("r", "ann", 2)]
    assert heard == [member("r", "ann"), ("r", "ann"), member("r", "ann", 2)]


async def test_a_change_whose_answer_was_lost_is_made_once(opened: Open, server: RedisServer):
    one, other = await opened(), await opened()
    heard: list[Any] = []
    other.announce_members_to(heard.append, lambda room, name: heard.append((room, name)))
    for number in range(20):
        connection = one._calls._connection
        joining = asyncio.ensure_future(one.join([member("r", f"{number}")]))
        while not one._calls._waiting or not one._calls._waiting[0].sent:  # noqa: ASYNC110 - until it is on its way
            await asyncio.sleep(0)
        if connection is not None:
            await connection.aclose()
        with contextlib.suppress(StateUnavailable):
            await joining
    await until(lambda: len(heard) >= 20)
    assert [each.user for each in await other.members("r", limit=100)] == sorted(f"{number}" for number in range(20))
    assert len(heard) == 20


async def test_a_redis_that_has_lost_everything_gets_the_revocations_again(opened: Open, server: RedisServer):
    one, other = await opened(), await opened()
    gone: list[Any] = []
    await one.revoke(Revocation("user", "ann", 100.0))
    await one.join([member("r", "bob")])
    await until(lambda: other.revoked(user("ann")))
    other.announce_members_to(lambda each: None, lambda room, name: gone.append((room, name)))
    await server.ask("FLUSHALL")
    assert await other.rooms_of("bob") == await one.rooms_of("bob") == []
    await until(lambda: gone)
    third = await opened()
    await until(lambda: third.revoked(user("ann")))
    assert one.revoked(user("ann"))
    await one.join([member("r", "cid")])
    assert await other.members("r") == [member("r", "cid")]


async def test_a_loss_is_noticed_though_as_much_came_since(
    opened: Open, server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(news, "BLOCK_SECONDS", 0.5)
    one = await opened()  # gives the history its name
    other = await opened()
    await one.revoke(Revocation("user", "ann", 100.0))
    await until(lambda: other.revoked(user("ann")))
    await server.ask("FLUSHALL")
    await one.revoke(Revocation("user", "bob", 100.0))
    await until(lambda: other.revoked(user("bob")))
    third = await opened()
    await until(lambda: third.revoked(user("ann")))


async def test_a_process_that_was_away_for_longer_than_the_news_are_kept_knows_what_it_has_missed(
    opened: Open, server: RedisServer
):
    one, other = await opened(), await opened()
    heard: list[Any] = []
    other.announce_to(heard.append)
    other.announce_members_to(heard.append, lambda room, name: heard.append((room, name)))
    await one.join([member("r", "bob"), member("r", "cid")])
    await until(lambda: len(heard) == 2)
    following = other._news._following
    assert following is not None
    following.cancel()
    await asyncio.wait([following])
    await one.revoke(Revocation("user", "ann", 100.0))
    await one.leave("bob", ["r"])
    await one.join([member("r", "dan")])
    await server.ask("XTRIM", "{hub}:state:news", "MAXLEN", 1)
    await other._news.open()
    await one.join([member("r", "eve")])
    await until(lambda: len(heard) == 6)
    assert heard[2:] == [Revocation("user", "ann", 100.0), ("r", "bob"), member("r", "dan"), member("r", "eve")]


async def test_a_login_that_is_refused_is_said(server: RedisServer):
    state = RedisState(RedisURL.parse(f"{server.url}?db=77"), "hub", Clock())
    with pytest.raises(StateUnavailable, match="out of range"):
        await state.open()
    await state.aclose()


async def test_what_is_kept_in_redis_is_bounded(opened: Open, server: RedisServer):
    state = await opened()
    for first in range(0, 900, 100):
        await asyncio.gather(
            *(state.put(f"{n}", "v", expires=2e9, owner=f"{n % 3}") for n in range(first, first + 100))
        )
    assert await server.ask("HLEN", "{hub}:state:facts") == await server.ask("ZCARD", "{hub}:state:owned") == 3 * 256
    for n in range(900):
        await state.take(f"{n}")
    kept = [
        await server.ask("EXISTS", f"{{hub}}:state:{key}") for key in ("facts", "entries", "owned", "order", "ends")
    ]
    assert kept == [0] * 5
    assert await server.ask("HGET", "{hub}:state:meta", "entrybytes") == b"0"
    for turn in range(4):
        await state.join([member(f"{n}", f"{turn}") for n in range(500)])
        await state.leave(f"{turn}", [f"{n}" for n in range(500)])
    keys = ("members", "counts", "eras", "began", "standing")
    assert [await server.ask("EXISTS", f"{{hub}}:state:{key}") for key in keys] == [0] * 5
