"""Who is there, over real sockets: whoever leaves, vanishes or is killed is gone within the stated time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hub import BUS, HUB, PRESENCE, Identity
from hub.connections.client_stream import CloseReason
from hub.presence import presence
from tests.access.jwt import SECRET
from tests.web.client import Client, until
from tests.web.conftest import TLS, Serve
from tests.web.network import Network
from tests.web.process import Process, ServeProcess
from tests.web.server import Server

PATH = "/notifications/presence"
USERS = {
    each.user: each
    for each in (
        Identity(user="ann", subscribe=("room/*", "orders"), presence=True, info={"name": "Ann"}),
        Identity(user="bob", subscribe=("room/*",), info={"name": "Bob"}),
        Identity(user="eve", subscribe=("room/*",), presence=True),
        Identity(user="out", subscribe=("else",), presence=True),
        Identity(user="root", admin=True),
    )
}


async def by_header(request: web.Request) -> Identity | None:
    return USERS.get(request.headers.get("X-User", ""))


@pytest.fixture
def quick_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a grace be over soon; how long it is, other tests measure with a clock of their own."""
    monkeypatch.setattr(presence, "GRACE", 0.05)


@pytest.fixture
async def server(serve: Serve) -> Server:
    """A hub that knows users by a header; anybody may read news."""
    return await serve(setup={"authenticate": by_header, "routes": None}, anonymous_subscribe=("news",))


async def stream(server: Server, user: str, *topics: str, **query: str) -> Client:
    return await server.subscribe(*topics, headers={"X-User": user} if user else {}, query=query)


async def ask(server: Server, user: str, query: str) -> Any:
    return await server.ask("GET", f"{PATH}?{query}", headers={"X-User": user} if user else {})


def ids(server: Server, topic: str) -> list[str]:
    return [each.id for each in server.hub.presence.users(topic)]


# ---- on request ----


async def test_whoever_may_know_names_gets_them_in_pages(server: Server) -> None:
    for user in ("ann", "bob", "eve"):
        await stream(server, user, "room/x", "room/*")
    first = (await ask(server, "ann", "topic=room/x&limit=2")).json()
    assert (first["topic"], first["count"], first["next"]) == ("room/x", 3, "bob")
    assert [(user["id"], user["info"]) for user in first["users"]] == [
        ("ann", {"name": "Ann"}),
        ("bob", {"name": "Bob"}),
    ]
    assert all(user["since"].endswith("Z") for user in first["users"])
    last = (await ask(server, "ann", "topic=room/x&limit=2&after=bob")).json()
    assert ([user["id"] for user in last["users"]], last["next"]) == (["eve"], None)


@pytest.mark.parametrize(
    ("user", "topic", "answer"),
    [
        ("", "room/x", 401),
        ("out", "room/x", 403),
        ("bob", "room/x", {"topic", "count"}),
        ("ann", "room/x", {"topic", "count", "users", "next"}),
        ("root", "room/x", {"topic", "count", "users", "next"}),
        ("root", "orders", {"topic", "count", "users", "next"}),
        ("", "news", {"topic", "count"}),
        ("bob", "news", {"topic", "count"}),
        ("ann", "user/bob", 403),
        ("root", "user/bob", {"topic", "count", "users", "next"}),
    ],
)
async def test_who_may_ask_is_told_names_or_a_number(server: Server, user: str, topic: str, answer: Any) -> None:
    await stream(server, "ann", "room/x")
    told = await ask(server, user, f"topic={topic}")
    assert (told.status if isinstance(answer, int) else set(told.json())) == answer
    assert told.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "topic"),
        ("topic=a&topic=b", "topic"),
        ("topic=room/*", "topic"),
        ("topic=", "topic"),
        ("topic=room/x&limit=0", "limit"),
        ("topic=room/x&limit=1001", "limit"),
        ("topics=room/x", "topics"),
    ],
)
async def test_a_question_that_has_no_answer_is_a_400_that_names_the_field(
    server: Server, query: str, field: str
) -> None:
    answer = await ask(server, "root", query)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_where_nobody_can_be_known_the_answer_is_nobody(serve: Serve) -> None:
    server = await serve()
    client = await server.subscribe("a", query={"presence": "1"})
    assert (await client.next("hub.presence")).json() == {"topic": "a", "count": 0, "users": []}
    assert (await server.ask("GET", f"{PATH}?topic=a")).json() == {"topic": "a", "count": 0, "users": [], "next": None}


async def test_the_route_is_there_where_it_is_named(serve: Serve) -> None:
    without = await serve(setup={"routes": ["subscribe"]})
    only = await serve(setup={"routes": ["presence"]})
    assert (await without.ask("GET", f"{PATH}?topic=a")).status == 404
    assert (await only.ask("GET", f"{PATH}?topic=a")).status == 200
    assert only.app[PRESENCE] is only.app[HUB].presence


# ---- in the stream ----


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.usefixtures("quick_grace")
async def test_a_stream_that_asks_is_told_who_is_there_who_comes_and_who_goes(server: Server, version: str) -> None:
    ann = await server.subscribe("room/x", headers={"X-User": "ann"}, query={"presence": "1"}, version=version)
    here = (await ann.next("hub.presence")).json()
    assert (here["count"], [user["id"] for user in here["users"]]) == (1, ["ann"])
    bob = await stream(server, "bob", "room/x")
    assert (await ann.next("hub.join")).json() == {"topic": "room/x", "user": "bob", "info": {"name": "Bob"}}
    bob.close()
    gone = await ann.next("hub.leave")
    assert gone.json() == {"topic": "room/x", "user": "bob", "info": {"name": "Bob"}}
    assert gone.id == ann.opened.id


async def test_a_stream_without_the_right_is_told_numbers(server: Server) -> None:
    await stream(server, "ann", "room/x", "news")
    for user, topic, count in (("bob", "room/x", 2), ("", "news", 1)):
        client = await stream(server, user, topic, presence="1")
        assert (await client.next("hub.presence")).json() == {"topic": topic, "count": count}


async def test_a_post_that_asks_is_told_and_a_stream_that_does_not_ask_is_not(server: Server) -> None:
    quiet = await stream(server, "ann", "room/x")
    client = await server.client()
    await client.request(
        "POST",
        "/notifications/subscribe?presence=1",
        headers={"X-User": "ann", "Content-Type": "application/json"},
        body=b'{"topics": ["room/x"]}',
    )
    assert await client.head() == 200
    await client.next("hub.open")
    assert (await client.next("hub.presence")).json()["count"] == 1
    await stream(server, "bob", "room/x")
    await client.next("hub.join")
    await server.hub.notifications.send_notification("end", topic="room/x")
    assert [event.data for event in await quiet.upto("end")] == ["end"]


async def test_topics_that_are_added_and_removed_bring_and_end_presence(server: Server) -> None:
    ann = await stream(server, "ann", "room/x", presence="1")
    await ann.next("hub.presence")
    await stream(server, "bob", "room/y")
    id = ann.opened.json()["connection"]
    await server.hub.change_topics(id, add=["room/y"], remove=["room/x"])
    await ann.next("hub.topics")
    told = (await ann.next("hub.presence")).json()
    assert (told["topic"], [user["id"] for user in told["users"]]) == ("room/y", ["ann", "bob"])


@pytest.mark.parametrize("value", ["2", "", "yes"])
async def test_a_flag_that_is_none_is_refused(server: Server, value: str) -> None:
    answer = await server.ask(
        "GET", f"/notifications/subscribe?topic=room/x&presence={value}", headers={"X-User": "ann"}
    )
    assert (answer.status, answer.json()["field"]) == (400, "presence")


# ---- whoever leaves, however, is gone ----


@pytest.mark.both_loops
@pytest.mark.usefixtures("quick_grace")
async def test_whoever_leaves_is_gone_and_a_second_tab_stays(
    serve: Serve, leave: Callable[[Client], None], maybe_tls: TLS | None, handler_cancellation: bool
) -> None:
    server = await serve(
        setup={"authenticate": by_header, "routes": None}, tls=maybe_tls, handler_cancellation=handler_cancellation
    )
    heard: list[str] = []
    server.app[BUS].on(["user.*", "topic.*"], lambda event: heard.append(event.name))
    one, other = [await stream(server, "ann", "room/x") for _ in range(2)]
    bob = await stream(server, "bob", "room/x")
    leave(bob)
    leave(one)
    await until(lambda: ids(server, "room/x") == ["ann"])
    assert [each.id for each in server.hub.presence.connections_of("ann")] == [other.opened.json()["connection"]]
    leave(other)
    await until(lambda: heard.count("user.offline") == 2)
    assert (ids(server, "room/x"), server.hub.presence.online) == ([], 0)
    await until(lambda: len(heard) == 6)
    assert sorted(heard) == sorted([*["user.online", "user.offline"] * 2, "topic.occupied", "topic.vacated"])


@pytest.mark.usefixtures("quick_grace")
async def test_whoever_is_sent_away_is_gone(server: Server) -> None:
    await stream(server, "ann", "room/x")
    bob = await stream(server, "bob", "room/x")
    server.hub.connections.end_of(CloseReason.REVOKED, lambda holder: holder.user == "bob")
    await bob.next("hub.close")
    await until(lambda: ids(server, "room/x") == ["ann"])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_grace")
async def test_whoever_vanishes_without_a_word_is_gone_within_heartbeat_and_peer_timeout(
    serve: Serve, network: Network
) -> None:
    setup = {"authenticate": by_header, "routes": None}
    server = await serve(setup=setup, heartbeat=0.3, peer_timeout=1.0)
    ann = await stream(server, "ann", "room/x", presence="1")
    await ann.next("hub.presence")
    listening = network.listen()
    await web.SockSite(server.runner, listening).start()
    bob = await Client.connect("", its_socket=network.connect(listening.getsockname()[1]))
    server.clients.append(bob)
    await bob.request("GET", server.subscribe_path("room/x"), headers={"X-User": "bob"})
    assert await bob.head() == 200
    await bob.next("hub.open")
    await ann.next("hub.join")
    network.go_dark()
    assert (await ann.next("hub.leave")).json()["user"] == "bob"
    assert ids(server, "room/x") == ["ann"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_grace")
async def test_after_a_churn_nobody_is_left(serve: Serve) -> None:
    server = await serve(setup={"authenticate": by_header, "routes": None})
    names = ["ann", "bob", "eve"]

    async def come_and_go(number: int) -> None:
        for turn in range(5):
            client = await stream(server, names[(number + turn) % 3], "room/x", f"room/{number}", presence="1")
            [client.close, client.reset, client.half_close][(number + turn) % 3]()

    await asyncio.gather(*(come_and_go(number) for number in range(30)))
    await server.deserted()
    service = server.hub.presence
    await until(lambda: not service._presence._places)
    await until(lambda: service._timer is None)
    assert (len(service._watchers), service._watchers._topics, service._watchers._fresh) == (0, {}, {})


@pytest.mark.slow
async def test_a_hub_that_was_killed_knows_who_is_there_when_they_are_back(tmp_path: Path) -> None:
    environ = {"HUB_JWT_SECRET": SECRET, "HUB_LOG": f"sqlite:///{tmp_path}/hub.db"}
    rights = ["--subscribe", "room/*", "--presence"]
    tokens = {}
    for user in ("ann", "bob"):
        making = await Process.start("token", "--sub", user, *rights, environ=environ)
        assert await making.end() == 0, making.err
        tokens[user] = {"Authorization": f"Bearer {making.out.strip()}"}

    async def start(port: int = 0) -> ServeProcess:
        process = await ServeProcess.start("serve", "--port", str(port), environ=environ)
        return await process.listening()

    async def subscribed(process: ServeProcess, user: str) -> Client:
        return await process.site.subscribe("room/x", headers=tokens[user], query={"presence": "1"})

    async def told(client: Client) -> list[str]:
        return [user["id"] for user in (await client.next("hub.presence")).json()["users"]]

    first = await start()
    try:
        ann, _ = await subscribed(first, "ann"), await subscribed(first, "bob")
        assert await told(ann) in (["ann"], ["ann", "bob"])
    finally:
        await first.aclose()  # SIGKILL
    second = await start()
    try:
        answer = await second.site.ask("GET", f"{PATH}?topic=room/x", headers=tokens["ann"])
        assert (answer.json()["count"], answer.json()["users"]) == (0, [])
        ann = await subscribed(second, "ann")
        assert await told(ann) == ["ann"]
        await subscribed(second, "bob")
        assert (await ann.next("hub.join")).json() == {"topic": "room/x", "user": "bob"}
    finally:
        await second.aclose()
