"""Hubs that are one, on one Redis: whatever is done through one of them holds in all, over real sockets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web

from hub import BUS, Identity
from hub.presence import presence
from tests.redis_server import RedisServer, servers
from tests.web.chat import PATH, Chat
from tests.web.client import Client, until
from tests.web.conftest import Complaints, Serve
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
async def hubs(serve: Serve, settings: dict[str, Any]) -> list[Server]:
    """Two hubs that know ann, bob and root by a header."""
    return await both(serve, settings)


async def both(serve: Serve, settings: dict[str, Any], **more: Any) -> list[Server]:
    """Return two hubs that know of each other."""
    setup = {"authenticate": by_header, "routes": None, **more.pop("setup", {})}
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


# ---- streams of another process ----


async def test_a_stream_is_listed_changed_and_ended_through_any(hubs: list[Server]) -> None:
    clients = [await stream(hubs[number % 2], "ann", "orders") for number in range(5)]
    ids = [client.opened.json()["connection"] for client in clients]
    for each in hubs:
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            answer = (await ask(each, "root", "GET", f"/notifications/connections?limit=2&{after}")).json()
            found += [row["id"] for row in answer["connections"]]
            after = None if answer["next"] is None else urlencode({"after": answer["next"]})
        assert found == ids, "the oldest first"
        stats = (await ask(each, "root", "GET", "/notifications/stats")).json()
        assert (stats["connections"], stats["processes"], stats["connects"]) == (5, 2, 5)
        assert b"hub_connections 5.0" in (await ask(each, "root", "GET", "/metrics")).body
    path = f"/notifications/connections/{ids[0]}"
    answer = await ask(hubs[1], "ann", "PATCH", path, b'{"add": ["x/1"]}')
    assert (answer.status, answer.json()["topics"]) == (200, ["orders", "x/1"])
    assert (await clients[0].next("hub.topics")).json() == answer.json()
    for user, body, status in (
        ("ann", b'{"add": ["secret"]}', 403),
        ("bob", b'{"add": ["x/1"]}', 403),
        ("ann", b'{"remove": ["x/1", "orders"]}', 400),
        ("", b'{"add": ["x/1"]}', 401),
    ):
        assert (await ask(hubs[1], user, "PATCH", path, body)).status == status
    await hubs[1].hub.notifications.send_notification("one", topic="x/1")
    assert (await clients[0].event()).data == "one"
    assert (await ask(hubs[1], "ann", "DELETE", path)).status == 403
    assert (await ask(hubs[1], "root", "DELETE", path)).status == 204
    assert await last_word(clients[0]) == "revoked"
    for method in ("DELETE", "PATCH"):
        missing = await ask(hubs[1], "root", method, "/notifications/connections/c_none", b'{"add": ["x/1"]}')
        assert missing.status == 404


async def test_what_is_not_known_of_a_silent_process_is_not_said(hubs: list[Server]) -> None:
    ann = await stream(hubs[0], "ann", "orders")
    path = f"/notifications/connections/{ann.opened.json()['connection']}"
    hubs[0].hub.peers._receive = lambda message: None  # type: ignore[attr-defined]  # as if it were stopped
    for answer in await asyncio.gather(
        ask(hubs[1], "root", "DELETE", path),
        ask(hubs[1], "ann", "PATCH", path, b'{"add": ["x/1"]}'),
        ask(hubs[1], "root", "GET", "/notifications/connections"),
    ):
        assert answer.status == 503
    assert (await ask(hubs[1], "root", "GET", "/notifications/stats")).json()["processes"] == 1


@pytest.mark.parametrize("policy", ["newest", "oldest"])
async def test_a_user_holds_so_many_streams_in_all(serve: Serve, settings: dict[str, Any], policy: str) -> None:
    one, other = hubs = await both(serve, settings, max_per_user=3, per_user=policy)
    clients = []
    for number in range(3):
        clients.append(await stream(hubs[number % 2], "ann", "orders"))
        await until(lambda: other.hub.connections.held_by("ann") == one.hub.connections.held_by("ann") == len(clients))
    more = await other.client()
    await more.request("GET", "/notifications/subscribe?topic=orders", headers={"X-User": "ann"})
    assert await more.head() == 200
    if policy == "newest":
        assert await last_word(more) == "capacity"
        await clients[1].aclose()
        await until(lambda: one.hub.connections.held_by("ann") == 2)
        await stream(one, "ann", "orders")
    else:
        await more.next("hub.open")
        assert await last_word(clients[0]) == "replaced"
        await until(lambda: other.hub.connections.held_by("ann") == one.hub.connections.held_by("ann") == 3)
    await stream(one, "bob", "orders")


# ---- answers of an AI ----


@pytest.fixture
async def chats(serve: Serve, settings: dict[str, Any]) -> list[Chat]:
    """Two hubs where anybody may do anything, whose providers are the test."""
    setup = {"authenticate": None, "routes": "all"}
    return [Chat(each) for each in await both(serve, settings, setup=setup, ai_provider="simulated", ai_window=0.0)]


async def told(client: Client, wanted: str) -> str:
    """Return the id with which *client* has been sent all of *wanted*."""
    said = ""
    while said != wanted:
        event = await client.next("message")
        said += event.json()["content"]
    return str(event.id)


async def test_an_answer_is_watched_and_resumed_through_any(chats: list[Chat]) -> None:
    id, answering = await chats[0].begin()
    watching = [await each.watch(id) for each in (*chats, chats[1])]
    for number in range(5):
        answering.say(f"{number} ")
        await chats[0].said(id, "".join(f"{each} " for each in range(number + 1)))
    cursors = [await told(client, "0 1 2 3 4 ") for client in watching]
    assert len(set(cursors)) == 1
    await watching[1].aclose()
    answering.say("5 ")
    resumed = await chats[1].watch(id, after=cursors[1])
    answering.finish()
    for client in (watching[0], watching[2], resumed):
        await told(client, "5 ")
        assert (await client.next("done")).json()["finishReason"] == "stop"
    snapshots = [
        (await each.server.ask("GET", f"{PATH}/{id}", headers={"Accept": "application/json"})).json() for each in chats
    ]
    assert snapshots[0] == snapshots[1]
    assert (snapshots[0]["text"], snapshots[0]["phase"]) == ("0 1 2 3 4 5 ", "done")


async def test_an_answer_is_cancelled_through_any(chats: list[Chat]) -> None:
    id, answering = await chats[0].begin()
    answering.say("a")
    watching = [await each.watch(id) for each in chats]
    for client in watching:
        await told(client, "a")
    answer = await chats[1].server.ask("DELETE", f"{PATH}/{id}")
    assert (answer.status, answer.json()["phase"]) == (200, "cancelled")
    await until(lambda: answering.closed)
    for client in watching:
        await client.next("cancelled")


async def test_an_answer_whose_process_died_has_failed_and_one_that_lives_has_not(
    chats: list[Chat], complaints: Complaints
) -> None:
    lost, dying = await chats[0].begin()
    other, living = await chats[1].begin()
    dying.say("a")
    living.say("b")
    watching, kept = await chats[1].watch(lost), await chats[1].watch(other)
    await told(watching, "a")
    await told(kept, "b")
    peers: Any = chats[0].server.hub.peers
    await peers._call("leave")  # as its lease does when it ends
    failed = await watching.next("failed")
    assert failed.json()["reason"] == "producer_lost"
    await until(lambda: dying.closed)
    await (await chats[0].server.hub.generations.find(lost)).ended()
    snapshot = await chats[0].server.ask("GET", f"{PATH}/{lost}", headers={"Accept": "application/json"})
    assert (snapshot.json()["phase"], snapshot.json()["reason"]) == ("failed", "producer_lost")
    (warning,) = complaints.take()
    assert "has lost its lease" in warning
    living.finish()
    assert (await kept.next("done")).json()["finishReason"] == "stop"


async def test_an_answer_that_could_not_be_kept_has_failed_in_all(
    chats: list[Chat], redis: RedisServer, complaints: Complaints
) -> None:
    id, answering = await chats[0].begin()
    answering.say("a")
    watching = [await each.watch(id) for each in chats]
    for client in watching:
        await told(client, "a")
    redis.pause()
    try:
        answering.say("b")
        assert (await watching[0].next("failed")).json()["reason"] == "unavailable"
    finally:
        redis.resume()
    event = await watching[1].event()
    if event.type == "message":  # it was not known whether this is kept
        assert event.json()["content"] == "b"
        event = await watching[1].event()
    assert (event.type, event.json()["reason"]) == ("failed", "unavailable")
    complaints.take()


async def test_an_answer_goes_on_while_the_process_that_watches_it_ends(chats: list[Chat]) -> None:
    id, answering = await chats[0].begin()
    answering.say("a")
    client = await chats[1].watch(id)
    cursor = await told(client, "a")
    await chats[1].server.aclose_server()
    assert (await client.next("hub.close")).json()["reason"] == "shutdown"
    answering.say("b")
    again = await chats[0].watch(id, after=cursor)
    await told(again, "b")
    answering.finish()
    await again.next("done")


async def test_a_key_is_one_answer_in_all_and_a_user_has_so_many_in_all(serve: Serve, settings: dict[str, Any]) -> None:
    more = {"ai_provider": "simulated", "ai_per_user": 2}
    chats = [Chat(each) for each in await both(serve, settings, **more)]

    async def begin(number: int, key: str) -> Any:
        path, body = f"{PATH}/init", b'{"message": "hi"}'
        headers = {"X-User": "ann", "Content-Type": "application/json", "Idempotency-Key": key}
        return await chats[number].server.ask("POST", path, headers=headers, body=body)

    first, again = await begin(0, "k"), await begin(1, "k")
    assert (first.status, again.status) == (201, 200)
    assert first.json()["sessionId"] == again.json()["sessionId"]
    at_once = await asyncio.gather(*(begin(number % 2, "n") for number in range(6)))
    assert len({each.json()["sessionId"] for each in at_once}) == 1
    assert sorted(each.status for each in at_once) == [200] * 5 + [201]
    await chats[0].server.ask("DELETE", f"{PATH}/{at_once[0].json()['sessionId']}", headers={"X-User": "ann"})
    hubs = [each.server.hub for each in chats]
    await until(lambda: hubs[1].generations._elsewhere["ann"] == 1)
    assert (await begin(1, "l")).status == 201
    await until(lambda: hubs[0].generations._elsewhere["ann"] == 1)
    assert [(await begin(number, "m")).status for number in (0, 1)] == [429, 429]
    (await chats[0].provider.answer()).finish()
    await until(lambda: not hubs[1].generations._elsewhere)
    assert (await begin(1, "m")).status == 201
