"""Hubs that are one, on one Redis: whatever is done through one of them holds in all, over real sockets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from hub import BUS, Identity
from hub.presence import presence
from tests.redis_server import RedisServer, servers
from tests.web.client import Client, until
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.web.test_rights import last_word

USERS = {
    "ann": Identity(user="ann", subscribe=("orders", "x/*"), publish=("**",), presence=True, info={"name": "Ann"}),
    "bob": Identity(user="bob", subscribe=("orders", "x/*"), presence=True),
    "root": Identity(user="root", admin=True),
}
PRESENCE = "/notifications/presence?topic=orders"


async def by_header(request: web.Request) -> Identity | None:
    return USERS.get(request.headers.get("X-User", ""))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis")
        one.start_now()
        yield one


@pytest.fixture
def settings(redis: RedisServer) -> dict[str, Any]:
    return {"log": redis.url, "redis_prefix": secrets.token_hex(4)}


@pytest.fixture
async def hubs(serve: Serve, settings: dict[str, Any]) -> AsyncIterator[list[Server]]:
    """Two hubs that know ann, bob and root by a header."""
    yield await both(serve, settings)


async def both(serve: Serve, settings: dict[str, Any], **more: Any) -> list[Server]:
    """Return two hubs that know of each other."""
    setup = {"authenticate": by_header, "routes": None}
    found = [await serve(setup=setup, **settings, **more) for _ in range(2)]
    await until(lambda: all(each.hub.peers.others == 1 for each in found))
    return found


async def stream(server: Server, user: str, *topics: str, **query: str) -> Client:
    return await server.subscribe(*topics, headers={"X-User": user}, query=query)


async def ask(server: Server, user: str, method: str, path: str, body: bytes | None = None) -> Any:
    return await server.ask(
        method, path, headers={"X-User": user, **({"Content-Type": "application/json"} if body else {})}, body=body
    )


# ---- what is published ----


async def test_what_is_published_in_one_is_delivered_in_all_in_one_order_with_one_id(hubs: list[Server]) -> None:
    clients = [await stream(each, "ann", "orders") for each in hubs]
    sent = await asyncio.gather(
        *(hubs[number % 2].hub.notifications.send_notification(number, topic="orders") for number in range(50))
    )
    heard = [[(await client.event()).id for _ in range(50)] for client in clients]
    assert heard[0] == heard[1]
    assert sorted(heard[0]) == sorted(map(str, sent))
    again = await hubs[1].subscribe("orders", headers={"X-User": "ann"}, last_event_id=heard[0][30])
    assert [(await again.event()).id for _ in range(19)] == heard[0][31:]


# ---- presence ----


async def test_who_is_there_is_the_same_in_all(hubs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "GRACE", 0.05)
    heard: list[str] = []
    for each in hubs:
        for name in ("user.online", "user.offline"):
            each.app[BUS].on(name, lambda event: heard.append(f"{event.name} {event.payload['user']}"))
    watching = await stream(hubs[1], "bob", "orders", presence="1")
    await watching.next("hub.presence")
    ann, again = await stream(hubs[0], "ann", "orders"), await stream(hubs[1], "ann", "orders")
    joined = await watching.next("hub.join")
    assert joined.json() == {"topic": "orders", "user": "ann", "info": {"name": "Ann"}}
    await until(lambda: hubs[0].hub.presence.count("orders") == 2)
    answers = [(await ask(each, "ann", "GET", PRESENCE)).json() for each in hubs]
    assert answers[0] == answers[1]
    assert [each["id"] for each in answers[0]["users"]] == ["ann", "bob"]
    await again.aclose()
    assert all(each.hub.presence.is_online("ann") for each in hubs)
    await ann.aclose()
    assert (await watching.next("hub.leave")).json()["user"] == "ann"
    await until(lambda: not any(each.hub.presence.is_online("ann") for each in hubs))
    await watching.aclose()
    await until(lambda: len(heard) == 4)
    assert heard == ["user.online bob", "user.online ann", "user.offline ann", "user.offline bob"]


async def test_the_users_of_a_hub_that_ends_are_gone(
    serve: Serve, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "GRACE", 0.05)
    one, other = await both(serve, settings)
    await stream(one, "ann", "orders")
    await until(lambda: other.hub.presence.count("orders") == 1)
    await one.aclose_server()
    await until(lambda: other.hub.presence.count("orders") == 0)
    assert other.hub.peers.others == 0


# ---- rights ----


@pytest.mark.parametrize("through", [0, 1])
async def test_a_user_is_revoked_in_all(hubs: list[Server], through: int) -> None:
    clients = [await stream(each, "ann", "orders") for each in hubs]
    answer = await ask(hubs[through], "root", "DELETE", "/notifications/users/ann/connections")
    assert answer.status == 204
    assert [await last_word(client) for client in clients] == ["revoked", "revoked"]


async def test_a_ticket_of_one_opens_one_stream_in_another(hubs: list[Server]) -> None:
    ticket = (await ask(hubs[0], "ann", "POST", "/notifications/tickets")).json()["ticket"]
    path = "/notifications/subscribe?" + urlencode({"topic": "orders", "ticket": ticket})
    client = await hubs[1].client()
    await client.request("GET", path)
    assert await client.head() == 200
    await client.next("hub.open")
    assert (await hubs[0].ask("GET", path)).status == 401


# ---- rooms ----


@pytest.mark.parametrize("through", [0, 1])
async def test_whoever_joins_a_room_through_one_reads_it_in_all(hubs: list[Server], through: int) -> None:
    heard: list[str] = []
    for each in hubs:
        for name in ("room.joined", "room.left"):
            each.app[BUS].on(name, lambda event: heard.append(event.name))
    clients = [await stream(each, "ann", rooms="1") for each in hubs]
    for turn in range(10):
        await hubs[turn % 2].hub.notifications.send_notification("before", topic="room/lobby")
        member = "/notifications/rooms/lobby/members/ann"
        assert (await ask(hubs[through], "root", "PUT", member)).status == 204
        members = [await ask(each, "root", "GET", "/notifications/rooms/lobby/members") for each in hubs]
        assert [[each["id"] for each in said.json()["members"]] for said in members] == [["ann"]] * 2
        await hubs[(turn + 1) % 2].hub.notifications.send_notification(turn, topic="room/lobby")
        for client in clients:
            await client.next("hub.topics")
            assert (await client.event()).data == f"{turn}"
        assert (await ask(hubs[through], "root", "DELETE", member)).status == 204
        for client in clients:
            assert "room/lobby" not in (await client.next("hub.topics")).json()["topics"]
    await until(lambda: len(heard) == 20)
    assert heard == ["room.joined", "room.left"] * 10
