"""The processes of a hub: what each holds, who is gone, and what they ask one another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from hub.errors import Forbidden, NotThere, StateUnavailable
from hub.redis_url import RedisURL
from hub.state.peers import News
from hub.state.redis import news as redis_news
from hub.state.redis import peers as redis_peers
from hub.state.redis.peers import RedisPeers
from tests.redis_server import RedisServer, servers
from tests.state.redis.test_state import until

Open = Callable[..., Awaitable[RedisPeers]]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis", "--appendonly", "yes")
        one.start_now()
        yield one


@pytest.fixture
async def opened(server: RedisServer) -> AsyncIterator[Open]:
    made: list[RedisPeers] = []

    async def one(lease: float = 15.0) -> RedisPeers:
        peers = RedisPeers(RedisURL.parse(server.url), "hub", lease=lease)
        await peers.open()
        made.append(peers)
        return peers

    yield one
    for peers in made:
        await peers.aclose()


def following(peers: RedisPeers, kind: str = "k") -> list[News]:
    heard: list[News] = []
    peers.follow(kind, heard.append)
    return heard


def what(peers: RedisPeers, of: RedisPeers) -> Any:
    return peers._held.get(of.id)


async def test_what_one_holds_all_others_know_also_those_that_come_later(opened: Open):
    one, other = await opened(), await opened()
    heard = following(other)
    one.hold("k", "a", {"x": 1})
    one.hold("k", "b:c", 2)
    one.hold("other kind", "a", 3)
    await until(lambda: len(heard) == 2)
    one.hold("k", "a", {"x": 2})
    one.hold("k", "b:c", None)
    await until(lambda: len(heard) == 4)
    assert [each[1:] for each in heard] == [
        ("a", None, {"x": 1}, False),
        ("b:c", None, 2, False),
        ("a", {"x": 1}, {"x": 2}, False),
        ("b:c", 2, None, False),
    ]
    third = await opened()
    assert what(third, one) == {"k:a": {"x": 2}, "other kind:a": 3}
    assert third.holder("k", "a") == one.id
    assert third.holder("k", "b") is None
    await until(lambda: one.others == other.others == third.others == 2)
    assert [each.first for each in sorted((one, other, third), key=lambda each: each.id)] == [True, False, False]


async def test_more_than_one_call_carries_is_held_whole(opened: Open):
    one = await opened()
    for number in range(3 * redis_peers.PART + 7):
        one.hold("k", f"{number}", number + 1)
    other = await opened()
    await until(lambda: len(what(other, one)) == 3 * redis_peers.PART + 7)


async def test_what_a_process_held_that_ends_is_gone(opened: Open):
    one, other = await opened(), await opened()
    heard = following(other)
    one.hold("k", "a", 1)
    await until(lambda: heard)
    await one.aclose()
    await until(lambda: len(heard) == 2)
    assert heard[1] == News(one.id, "a", 1, None, died=False)
    assert other.others == 0


async def test_what_a_process_held_that_died_expires(opened: Open, server: RedisServer):
    one, other = await opened(lease=1.0), await opened(lease=1.0)
    heard = following(other)
    one.hold("k", "a", 1)
    await until(lambda: heard)
    assert one._telling is not None
    one._telling.cancel()  # it says nothing any more
    await until(lambda: len(heard) == 2)
    assert heard[1] == News(one.id, "a", 1, None, died=True)
    assert await server.ask("KEYS", f"*{one.id}*") == []


async def test_a_process_that_was_stopped_beyond_its_lease_says_everything_anew(opened: Open, server: RedisServer):
    one, other = await opened(), await opened()
    heard = following(other)
    one.hold("k", "a", 1)
    one.hold("k", "b", 2)
    await until(lambda: len(heard) == 2)
    await server.ask("ZADD", "{hub}:peers:leases", 1, one.id)  # as if its time were over
    other.hold("k", "mine", 1)
    await until(lambda: len(heard) == 6)
    assert {each[1:] for each in heard[2:4]} == {("a", 1, None, True), ("b", 2, None, True)}
    assert {each[1:] for each in heard[4:]} == {("a", None, 1, False), ("b", None, 2, False)}
    await until(lambda: what(one, other) == {"k:mine": 1})


@pytest.mark.parametrize("reads_anew", [False, True])
async def test_a_process_that_was_away_beyond_its_lease_learns_that_it_was_gone(
    opened: Open, server: RedisServer, reads_anew: bool
):
    one, other = await opened(lease=1.0), await opened(lease=1.0)
    gone: list[str] = []
    one.on_gone(gone.append)
    other.on_gone(gone.append)
    one.hold("k", "a", 1)
    await until(lambda: what(other, one) == {"k:a": 1})
    way, one._link._url = one._link._url, RedisURL.parse("redis+unix:///nowhere")
    for connection in (one._calls._connection, one._news._connection):
        assert connection is not None
        await connection.aclose()
    await until(lambda: gone == [one.id])
    if reads_anew:
        await server.ask("DEL", "{hub}:peers:news")
        one._news._server = None
    one._link._url = way
    await until(lambda: what(other, one) == {"k:a": 1})
    await until(lambda: gone == [one.id, one.id])
    await until(lambda: what(one, other) == {})
    assert gone == [one.id, one.id]


async def test_nobody_is_gone_because_redis_was_away_or_lost_everything(opened: Open, server: RedisServer):
    one, other = await opened(), await opened()
    heard = following(other)
    gone: list[str] = []
    for each in (one, other):
        each.on_gone(lambda peer, its=each.id: gone.append(peer) if peer == its else None)  # type: ignore[misc]
    one.hold("k", "a", 1)
    one.hold("k", "b", 1)
    await until(lambda: len(heard) == 2)
    server.kill()
    await until(lambda: bool(one._news.away and other._news.away))
    one.hold("k", "a", 2)
    one.hold("k", "b", None)
    assert what(other, one) == {"k:a": 1, "k:b": 1}
    await server.start()
    await until(lambda: what(other, one) == {"k:a": 2})
    for peers in (one, other):  # as if nobody had renewed for long
        await server.ask("ZADD", "{hub}:peers:leases", 1_000_000_000, peers.id)
    await server.ask("HSET", "{hub}:peers:meta", "beat", 999_999_999)
    one.hold("k", "c", 3)
    await until(lambda: what(other, one) == {"k:a": 2, "k:c": 3})
    assert not any(each.died for each in heard)
    await server.ask("FLUSHALL")
    one.hold("k", "d", 4)
    other.hold("k", "e", 5)
    await until(lambda: what(other, one) == {"k:a": 2, "k:c": 3, "k:d": 4} and what(one, other) == {"k:e": 5})
    assert gone == []


async def test_that_redis_lost_everything_is_noticed_while_questions_come(
    opened: Open, server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_news, "BLOCK_SECONDS", 0.5)
    one, other = await opened(), await opened()
    for number in range(10):
        one.hold("k", "a", number)
        await until(lambda n=number: what(other, one) == {"k:a": n})  # type: ignore[misc]  # each is told by itself

    async def ask() -> None:
        while True:
            await server.ask("XADD", f"{{hub}}:peers:inbox:{other.id}", "*", "f", '{"id": "x", "answer": 1}')

    asking = asyncio.create_task(ask())
    await server.ask("FLUSHALL")
    one.hold("k", "b", 1)
    await until(lambda: what(other, one) == {"k:a": 9, "k:b": 1})
    asking.cancel()


async def test_what_is_held_already_is_not_told_again(opened: Open, server: RedisServer):
    one, other = await opened(), await opened()
    one.hold("k", "a", {"x": 1})
    await until(lambda: what(other, one) == {"k:a": {"x": 1}})
    told = await server.ask("XLEN", "{hub}:peers:news")
    for _ in range(3):
        one.hold("k", "a", {"x": 1})
        one.hold("k", "never", None)
    one.hold("k", "b", 1)
    await until(lambda: what(other, one) == {"k:a": {"x": 1}, "k:b": 1})
    assert await server.ask("XLEN", "{hub}:peers:news") == told + 1
    assert b"k:a" not in (await server.ask("XREVRANGE", "{hub}:peers:news", "+", "-", "COUNT", 1))[0][1][5]


async def test_a_process_answers_what_another_one_asks(opened: Open):
    one, other = await opened(), await opened()
    await until(lambda: one.others == other.others == 1)

    async def double(facts: Any) -> Any:
        return [facts, facts]

    async def refuse(facts: Any) -> Any:
        raise Forbidden("a/b", "no")

    async def fail(facts: Any) -> Any:
        raise RuntimeError

    other.answer("double", double)
    other.answer("refuse", refuse)
    other.answer("fail", fail)
    assert await one.ask(other.id, "double", "ü") == ["ü", "ü"]
    with pytest.raises(Forbidden, match="no") as refused:
        await one.ask(other.id, "refuse")
    assert refused.value.topic == "a/b"
    for question in ("fail", "unknown"):
        with pytest.raises(StateUnavailable):
            await one.ask(other.id, question)
    third = await opened()
    third.answer("double", double)
    await until(lambda: one.others == 2)
    assert await one.ask_all("double", 1) == {other.id: [1, 1], third.id: [1, 1]}
    assert await one.ask_all("refuse", 1) == {}


async def test_a_process_that_does_not_answer_is_not_waited_for_long(opened: Open):
    one, other = await opened(), await opened()
    await until(lambda: one.others == 1)

    async def never(facts: Any) -> Any:
        await asyncio.Event().wait()

    other.answer("hang", never)
    with pytest.raises(StateUnavailable, match="does not answer"):
        await one.ask(other.id, "hang", seconds=0.1)
    assert await one.ask_all("hang", seconds=0.1) == {}
    with pytest.raises(StateUnavailable, match="has ended"):
        await one.ask("nobody", "hang")


def test_an_error_is_raised_as_what_it_was():
    assert isinstance(redis_peers._raised("NotThere", ["connection"]), NotThere)
    assert isinstance(redis_peers._raised("Forbidden", []), StateUnavailable)
    assert isinstance(redis_peers._raised("os", []), StateUnavailable)


async def test_of_all_who_claim_something_at_once_one_has_it(opened: Open):
    one, other = await opened(), await opened()
    said = await asyncio.gather(one.claim("a"), other.claim("a"), one.claim("b"))
    assert (sorted(said[:2]), said[2]) == ([False, True], True)
    loser, winner = (one, other) if said[1] else (other, one)
    await loser.release("a")
    assert not await loser.claim("a")
    await winner.release("a")
    assert await loser.claim("a")
