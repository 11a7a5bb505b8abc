"""Rooms over real sockets: who belongs to one, since when, and what follows for streams, pages and publishing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hub import ROOMS, Identity
from hub.errors import InvalidInput, InvalidTopic, NotASubscription, NotThere, TooManyMemberships
from hub.hub import Hub
from tests.web.client import Client, until
from tests.web.conftest import Complaints, Serve
from tests.web.handler_stream import Source, Stream
from tests.web.process import ServeProcess
from tests.web.server import Server
from tests.web.test_access import ask, said_by, stream_of
from tests.web.test_rights import SECRET, last_word, ticket_of, token, with_ticket

USERS = {
    "ann": Identity(user="ann", publish=("orders",)),
    "bob": Identity(user="bob", subscribe=("room/**",), publish=("room/*",)),
    "root": Identity(user="root", admin=True),
}
MEMBERS = "/notifications/rooms/lobby/members"


async def by_header(request: web.Request) -> Identity | None:
    """Return who the header says."""
    return USERS.get(request.headers.get("X-User", ""))


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


SETUP: dict[str, Any] = {"authenticate": by_header, "routes": None}


@pytest.fixture
async def server(serve: Serve, home: str) -> Server:
    """A hub that knows ann, bob (who may read and write in all rooms) and root by a header."""
    return await serve(setup=SETUP, log=home, anonymous_subscribe=("news",))


async def send(server: Server, data: str, *rooms: str, **options: Any) -> str:
    topics = [f"room/{room}" for room in rooms] or ["room/lobby"]
    return str(await server.hub.notifications.send_notification(data, topics=topics, **options))


async def follow(server: Server, user: str, *topics: str, **query: str) -> Client:
    """Return a stream of the rooms of *user*."""
    return await stream_of(server, user, *topics, rooms="1", **query)


async def data_upto(client: Client, last: str) -> list[str]:
    """Return the data of the notifications up to *last*."""
    return [event.data for event in await client.upto(last) if event.type == "message"]


async def topics_of(client: Client) -> list[str]:
    """Return the topics that the next event says the stream has."""
    event = await client.event()
    assert event.type == "hub.topics", event
    return list(event.json()["topics"])


async def page(server: Server, user: str, *rooms: str) -> Any:
    query = "&".join(f"topic=room/{room}" for room in rooms)
    return await ask(server, "GET", f"/notifications/history?{query}", user)


async def seen(server: Server, user: str, *rooms: str) -> list[str]:
    answer = await page(server, user, *rooms)
    assert answer.status == 200, answer.body
    return [each["data"] for each in answer.json()["notifications"]]


# ---- a membership is a right, from its beginning to its end ----


async def test_only_a_member_reads_a_room_and_only_what_was_sent_since(server: Server) -> None:
    await send(server, "before")
    assert (await page(server, "ann", "lobby")).status == 403
    since = await server.app[ROOMS].join("ann", "lobby")
    await send(server, "in")
    await send(server, "private", private=True)
    assert await seen(server, "ann", "lobby") == ["in", "private"]
    for query in ({"lastEventId": "earliest"}, {"lastEventId": f"{since.epoch}-0"}):
        client = await stream_of(server, "ann", "room/lobby", **query)
        assert await data_upto(client, "private") == ["in", "private"]
    newest = await stream_of(server, "ann", "room/lobby", lastEventId="latest")
    assert await data_upto(newest, "private") == ["private"]
    assert await server.app[ROOMS].leave("ann", "lobby") is True
    assert await server.app[ROOMS].leave("ann", "lobby") is False
    assert (await page(server, "ann", "lobby")).status == 403
    await send(server, "out")
    await server.app[ROOMS].join("ann", "lobby")
    await send(server, "again")
    assert await seen(server, "ann", "lobby") == ["again"], "nothing of the earlier membership"


async def test_what_waits_for_the_log_counts_by_the_order_of_the_calls(server: Server) -> None:
    notifications, rooms = server.hub.notifications, server.app[ROOMS]
    client = await follow(server, "ann")
    before = notifications.send_to_room("lobby", "before")
    joining = asyncio.ensure_future(rooms.join("ann", "lobby"))
    await asyncio.sleep(0)  # it has begun
    after = notifications.send_to_room("lobby", "after")
    since = await joining
    assert since == await before
    await after
    assert await topics_of(client) == ["room/lobby"]
    assert await data_upto(client, "after") == ["after"]
    assert await seen(server, "ann", "lobby") == ["after"]


async def test_a_grant_is_read_without_a_floor(server: Server) -> None:
    await send(server, "before")
    await server.app[ROOMS].join("bob", "lobby")
    await send(server, "in")
    assert await seen(server, "bob", "lobby") == ["before", "in"]
    assert await seen(server, "bob", "*") == ["before", "in"]
    client = await stream_of(server, "bob", "room/lobby")
    await server.app[ROOMS].leave("bob", "lobby")
    await send(server, "still")
    assert await data_upto(client, "still") == ["still"]


async def test_patterns_over_rooms_need_a_grant(server: Server) -> None:
    await server.app[ROOMS].join("ann", "lobby")
    for pattern in ("*", "**", "lobby/**", "lobby/x"):
        answer = await page(server, "ann", pattern)
        assert (answer.status, answer.json()["topic"]) == (403, f"room/{pattern}")


async def test_each_room_has_its_own_floor(server: Server) -> None:
    await send(server, "1", "a", "b")
    await server.app[ROOMS].join("ann", "a")
    await send(server, "2", "a", "b")
    await send(server, "3", "b")
    await server.app[ROOMS].join("ann", "b")
    await send(server, "4", "b")
    assert await seen(server, "ann", "a", "b") == ["2", "4"]
    shown = (await page(server, "ann", "a", "b")).json()["notifications"]
    assert [each["topics"] for each in shown] == [["room/a"], ["room/b"]]


async def test_what_anybody_reads_is_read_beside_a_room(server: Server) -> None:
    await server.app[ROOMS].join("ann", "lobby")
    client = await stream_of(server, "ann", "news", "room/lobby")
    for topics, private in ((["news"], True), (["news", "room/lobby"], True), (["news"], False)):
        await server.hub.notifications.send_notification(f"{topics} {private}", topics=topics, private=private)
    assert await data_upto(client, "['news'] False") == ["['news', 'room/lobby'] True", "['news'] False"]


@pytest.mark.parametrize(
    ("room", "topic"),
    [("lobby", "room/lobby"), ("a/b", "room/a%2Fb"), ("50%", "room/50%25"), ("*", "room/%2A"), ("ä ö", "room/ä ö")],
)
async def test_any_name_is_a_room(server: Server, room: str, topic: str) -> None:
    await server.app[ROOMS].join("ann", room)
    client = await follow(server, "ann")
    server_topics = list(server.subscriptions[0].topics)
    assert server_topics == [topic]
    await server.hub.notifications.send_to_room(room, "x")
    assert await data_upto(client, "x") == ["x"]


@pytest.mark.parametrize("user", ["ann", "bob"])
@pytest.mark.parametrize("room", ["lobby", "other"])
async def test_publishing_needs_a_grant_or_a_membership_that_says_so(server: Server, user: str, room: str) -> None:
    async def may(**options: Any) -> bool:
        draft = {"topic": f"room/{room}", "data": "x", **options}
        answer = await ask(server, "POST", "/notifications/publish", user, draft)
        assert answer.status in {201, 403}, answer.body
        return bool(answer.status == 201)

    granted = user == "bob"
    assert await may() is granted
    await server.app[ROOMS].join(user, "lobby")
    assert await may() is granted
    await server.app[ROOMS].join(user, "lobby", publish=True)
    member = granted or room == "lobby"
    assert [await may(), await may(private=True), await may(topics=["orders"])] == [
        member,
        member,
        member and not granted,
    ]
    assert await may(topics=["news"]) is False
    await server.app[ROOMS].join(user, "lobby")
    assert await may() is granted
    await server.app[ROOMS].join(user, "lobby", publish=True)
    await server.app[ROOMS].leave(user, "lobby")
    assert await may() is granted


async def test_who_belongs_to_what_can_be_asked(server: Server) -> None:
    rooms = server.app[ROOMS]
    for user in ("c", "a", "b"):
        await rooms.join(user, "lobby", publish=user == "b")
    await rooms.join("a", 7)
    assert [(each.user, each.publish) for each in await rooms.members("lobby")] == [
        ("a", False),
        ("b", True),
        ("c", False),
    ]
    assert [each.user for each in await rooms.members("lobby", after="a", limit=1)] == ["b"]
    assert [each.room for each in await rooms.rooms_of("a")] == ["7", "lobby"]
    assert await rooms.members("nowhere") == []


@pytest.mark.parametrize("name", ["", "a\ud800", "x" * 300, None, True])
async def test_a_name_that_no_topic_can_have_is_refused(server: Server, name: Any) -> None:
    rooms = server.app[ROOMS]
    for call in (rooms.join("ann", name), rooms.leave("ann", name), rooms.join(name, "lobby"), rooms.members(name)):
        with pytest.raises(InvalidTopic):
            await call


async def test_a_user_has_at_most_a_thousand_rooms_and_one_stream_follows_them_all(server: Server) -> None:
    rooms = server.app[ROOMS]
    since = await rooms.join("ann", "0")
    before = await send(server, "first", "0")
    for number in range(1, 1_000):
        await rooms.join("ann", number)
    with pytest.raises(TooManyMemberships):
        await rooms.join("ann", "one more")
    last = [await send(server, f"last {number}", str(number)) for number in (0, 999, 500)]
    client = await follow(server, "ann", lastEventId=str(since))
    assert await data_upto(client, "last 500") == ["first", "last 0", "last 999", "last 500"]
    await rooms.leave("ann", 500)
    assert len(await topics_of(client)) == 999
    await rooms.join("ann", "another")
    assert "room/another" in await topics_of(client)
    again = await follow(server, "ann", lastEventId=before)
    assert [each.id for each in await again.upto("last 999")] == last[:2]


# ---- open streams ----


async def test_the_streams_of_a_user_gain_and_lose_rooms_at_once(server: Server) -> None:
    tabs = [await follow(server, "ann"), await follow(server, "ann", "user/ann")]
    plain, other = await stream_of(server, "ann", "user/ann"), await follow(server, "bob")
    since = await server.app[ROOMS].join("ann", "lobby")
    for tab in tabs:
        event = await tab.event()
        assert (event.type, event.json()["from"]) == ("hub.topics", str(since))
    await send(server, "in")
    for tab in tabs:
        assert await data_upto(tab, "in") == ["in"]
    await server.app[ROOMS].leave("ann", "lobby")
    await send(server, "out")
    await server.hub.notifications.send_to_user("ann", "end")
    assert await topics_of(tabs[0]) == []
    assert await topics_of(tabs[1]) == ["user/ann"]
    for client in (tabs[1], plain):
        assert await data_upto(client, "end") == ["end"]
    await server.app[ROOMS].join("ann", "lobby")
    assert await topics_of(tabs[0]) == ["room/lobby"], "it could take nothing in between"
    await server.app[ROOMS].join("bob", "lobby")
    assert await topics_of(other) == ["room/lobby"]


async def test_a_stream_that_asked_for_the_room_loses_it_and_ends_without_another_topic(server: Server) -> None:
    await server.app[ROOMS].join("ann", "lobby")
    alone, beside = await stream_of(server, "ann", "room/lobby"), await stream_of(server, "ann", "room/lobby", "news")
    await server.app[ROOMS].leave("ann", "lobby")
    assert await last_word(alone) == "revoked"
    assert await topics_of(beside) == ["news"]
    await server.app[ROOMS].join("ann", "lobby")
    await server.hub.notifications.send_notification("end", topics=["news", "room/lobby"])
    assert (await beside.event()).data == "end", "it asked for no rooms"


async def test_a_reconnect_brings_what_was_missed_of_each_room(server: Server) -> None:
    await server.app[ROOMS].join("ann", "a")
    await follow(server, "ann")
    cursor = await send(server, "1", "a")
    await send(server, "2", "a", "b")
    await server.app[ROOMS].join("ann", "b")
    await send(server, "3", "b")
    await send(server, "4", "a")
    again = await follow(server, "ann", lastEventId=cursor)
    assert await data_upto(again, "4") == ["2", "3", "4"]
    await server.app[ROOMS].leave("ann", "a")
    late = await follow(server, "ann", lastEventId=cursor)
    await send(server, "end", "b")
    assert await data_upto(late, "end") == ["3", "end"]


async def test_a_member_adds_a_room_to_an_open_stream_from_his_floor_on(server: Server) -> None:
    old = await send(server, "before")
    client = await stream_of(server, "ann", "user/ann")
    path = f"/notifications/connections/{server.subscriptions[-1].id}"
    refused = await ask(server, "PATCH", path, "ann", {"add": ["room/lobby"]})
    assert (refused.status, refused.json()["topic"]) == (403, "room/lobby")
    since = await server.app[ROOMS].join("ann", "lobby")
    await send(server, "in")
    changed = await ask(server, "PATCH", path, "ann", {"add": ["room/lobby"], "after": f"{since.epoch}-0"})
    assert changed.json() == {"topics": ["room/lobby", "user/ann"], "from": old}
    await topics_of(client)
    assert (await client.event()).data == "in"
    await server.app[ROOMS].leave("ann", "lobby")
    assert await topics_of(client) == ["user/ann"]


async def test_a_stream_of_the_rooms_needs_a_user_and_no_topic(server: Server) -> None:
    refused = await ask(server, "GET", "/notifications/subscribe?rooms=1&topic=news", "")
    assert (refused.status, refused.json()["code"]) == (401, "unauthorized")
    refused = await ask(server, "GET", "/notifications/subscribe?rooms=2", "ann")
    assert (refused.status, refused.json()["field"]) == (400, "rooms")
    await server.app[ROOMS].join("ann", "lobby")
    client = await server.client()
    await client.request(
        "POST",
        "/notifications/subscribe?rooms=1",
        headers=said_by("ann", **{"Content-Type": "application/json"}),
        body=b'{"topics": ["news"]}',
    )
    assert await client.head() == 200
    assert (await client.event()).json()["topics"] == ["news", "room/lobby"]


async def test_nobody_has_rooms_where_nobody_is_known(serve: Serve) -> None:
    server = await serve()
    assert (await server.ask("GET", "/notifications/subscribe?rooms=1")).status == 401
    for call in (server.app[ROOMS].join("ann", "x"), server.app[ROOMS].members("x"), server.app[ROOMS].rooms_of("ann")):
        with pytest.raises(NotThere, match="nobody is known"):
            await call
    assert (await server.ask("GET", MEMBERS)).status == 404
    assert (await server.ask("PUT", f"{MEMBERS}/ann")).status == 404


async def test_other_streams_have_no_rooms(serve: Serve) -> None:
    server = await serve(demo=True)
    answer = await server.ask("GET", "/sse/42?rooms=1")
    assert (answer.status, answer.json()["field"]) == (400, "rooms")


async def test_a_ticket_brings_the_rooms_that_it_is_for(server: Server) -> None:
    for room in ("a", "b"):
        await server.app[ROOMS].join("ann", room)
    every, some = await ticket_of(server, "ann"), await ticket_of(server, "ann", {"topics": ["room/a", "news"]})
    opened = []
    for ticket in (every, some):
        client = await server.client()
        await client.request("GET", f"/notifications/subscribe?rooms=1&ticket={ticket}")
        assert await client.head() == 200
        opened.append(client)
    assert (await opened[0].event()).json()["topics"] == ["room/a", "room/b"]
    assert (await opened[1].event()).json()["topics"] == ["room/a"]
    await server.app[ROOMS].join("ann", "c")
    assert await topics_of(opened[0]) == ["room/a", "room/b", "room/c"]
    await server.app[ROOMS].leave("ann", "a")
    await server.app[ROOMS].join("ann", "a")
    assert [await topics_of(opened[1]) for _ in range(2)] == [[], ["room/a"]], "and nothing of c"
    cookie = opened[0].headers["Set-Cookie"].partition(";")[0]
    for client in opened:
        client.reset()
    await until(lambda: not server.subscriptions)
    other = await with_ticket(server, every, cookie=cookie)
    assert other.status == 403, "it began with rooms"
    client = await server.client()
    await client.request("GET", f"/notifications/subscribe?rooms=1&ticket={every}", headers={"Cookie": cookie})
    assert await client.head() == 401, "the login does not know who comes back, for a ticket has no header"


async def test_a_connection_joins_for_itself_only(server: Server) -> None:
    rooms = server.app[ROOMS]
    await send(server, "before")
    clients = [await stream_of(server, user, "news", lastEventId="earliest") for user in ("", "ann", "ann")]
    streams = server.subscriptions
    for stream in streams[:2]:
        await rooms.join(stream, "lobby")
    assert [await topics_of(client) for client in clients[:2]] == [["news", "room/lobby"]] * 2
    await send(server, "in", private=True)
    for client in clients[:2]:
        assert await data_upto(client, "in") == ["in"]
    assert (await page(server, "ann", "lobby")).status == 403, "it is no right of the user"
    assert await rooms.members("lobby") == []
    with pytest.raises(InvalidInput):
        await rooms.join(streams[0], "lobby", publish=True)
    path = f"/notifications/connections/{streams[1].id}"
    changed = await ask(server, "PATCH", path, "ann", {"add": ["user/ann"]})
    assert changed.json()["topics"] == ["news", "room/lobby", "user/ann"], "a change takes it along"
    assert await topics_of(clients[1]) == changed.json()["topics"]
    assert [await rooms.leave(stream, "lobby") for stream in streams] == [True, True, False]
    assert [await topics_of(client) for client in clients[:2]] == [["news"], ["news", "user/ann"]]
    clients[0].reset()
    await until(lambda: len(server.subscriptions) == 2)
    with pytest.raises(NotThere):
        await rooms.join(streams[0], "lobby")


async def test_a_connection_and_its_user_belong_to_a_room_each_for_itself(server: Server) -> None:
    rooms = server.app[ROOMS]
    client = await follow(server, "ann", "news")
    (stream,) = server.subscriptions
    await rooms.join("ann", "lobby")
    await send(server, "1")
    await rooms.join(stream, "lobby")
    await rooms.leave("ann", "lobby")
    await send(server, "2")
    await rooms.join("ann", "lobby")
    await rooms.leave(stream, "lobby")
    await send(server, "3")
    await rooms.leave("ann", "lobby")
    await send(server, "4")
    await server.hub.notifications.send_notification("end", topic="news")
    assert await data_upto(client, "end") == ["1", "2", "3", "end"]


async def test_what_a_stream_has_as_its_users_stays_when_it_leaves_by_itself_and_nothing_comes_twice(
    server: Server,
) -> None:
    rooms = server.app[ROOMS]
    await rooms.join("ann", "lobby")
    await send(server, "before the stream")
    client = await follow(server, "ann", "news")
    (stream,) = server.subscriptions
    await rooms.join(stream, "lobby")
    await send(server, "1")
    await rooms.leave(stream, "lobby")
    await send(server, "2")
    await server.hub.notifications.send_notification("end", topic="news")
    assert [event.data for event in await client.upto("end")] == ["1", "2", "end"], "and its topics stay the same"


async def test_a_stream_that_joined_before_its_user_goes_on_as_the_users_and_nothing_comes_twice(
    server: Server,
) -> None:
    rooms = server.app[ROOMS]
    client = await follow(server, "ann", "news")
    (stream,) = server.subscriptions
    await rooms.join(stream, "lobby")
    await send(server, "1")
    since = await rooms.join("ann", "lobby")
    await send(server, "2")
    await rooms.leave(stream, "lobby")
    await send(server, "3")
    await server.hub.notifications.send_notification("end", topic="news")
    assert await data_upto(client, "end") == ["1", "2", "3", "end"]
    assert stream.visibility.floor("room/lobby") == since


@pytest.mark.parametrize("user", ["ann", "bob"])
async def test_a_stream_that_never_asked_for_a_room_loses_it_when_it_leaves_by_itself(
    server: Server, user: str
) -> None:
    rooms = server.app[ROOMS]
    await rooms.join("ann", "lobby")
    client = await stream_of(server, user, "news")
    (stream,) = server.subscriptions
    await rooms.join(stream, "lobby")
    assert await topics_of(client) == ["news", "room/lobby"]
    await rooms.leave(stream, "lobby")
    assert await topics_of(client) == ["news"], "whatever its user may read"


async def test_a_stream_joins_a_room_again_that_was_removed_from_it(server: Server) -> None:
    rooms = server.app[ROOMS]
    client = await stream_of(server, "ann", "news")
    (stream,) = server.subscriptions
    await rooms.join(stream, "lobby")
    await server.hub.change_topics(stream.id, remove=["room/lobby"])
    await send(server, "meanwhile")
    await rooms.join(stream, "lobby")
    await send(server, "1")
    assert await data_upto(client, "1") == ["1"]
    assert stream.topics == {"news", "room/lobby"}


async def test_a_room_that_was_asked_for_by_name_and_is_granted_outlasts_the_membership(server: Server) -> None:
    rooms = server.app[ROOMS]
    client = await follow(server, "bob", "news", "room/lobby")
    (stream,) = server.subscriptions
    await rooms.join("bob", "lobby")
    await rooms.leave("bob", "lobby")
    await send(server, "1")
    assert [event.data for event in await client.upto("1")] == ["1"]
    await server.hub.change_topics(stream.id, remove=["room/lobby"])
    assert await topics_of(client) == ["news"]
    await rooms.join("bob", "lobby")
    await rooms.leave("bob", "lobby")
    assert [await topics_of(client), await topics_of(client)] == [["news", "room/lobby"], ["news"]]


async def test_a_stream_of_a_handler_joins_nothing(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable)
    await streaming.open()
    (held,) = streaming.server.hub.connections
    with pytest.raises(NotASubscription):
        await streaming.server.app[ROOMS].join(held, "lobby")


# ---- over HTTP ----


async def test_administrators_let_users_join_and_leave(server: Server) -> None:
    assert (await ask(server, "PUT", f"{MEMBERS}/ann", "root", {"publish": True})).status == 204
    assert (await ask(server, "PUT", f"{MEMBERS}/bob", "root")).status == 204
    first = (await ask(server, "GET", f"{MEMBERS}?limit=1", "root")).json()
    assert first["next"] == "ann"
    assert first["members"][0] | {"since": "", "from": ""} == {"id": "ann", "publish": True, "since": "", "from": ""}
    rest = (await ask(server, "GET", f"{MEMBERS}?after=ann", "root")).json()
    assert ([each["id"] for each in rest["members"]], rest["next"]) == (["bob"], None)
    await send(server, "x")
    assert await seen(server, "ann", "lobby") == ["x"]
    for _ in range(2):
        assert (await ask(server, "DELETE", f"{MEMBERS}/ann", "root")).status == 204
    assert (await page(server, "ann", "lobby")).status == 403


async def test_names_in_a_path_are_percent_encoded(server: Server) -> None:
    path = "/notifications/rooms/a%2Fb%25/members/c%2Fd"
    assert (await ask(server, "PUT", path, "root")).status == 204
    assert [(each.room, each.user) for each in await server.app[ROOMS].rooms_of("c/d")] == [("a/b%", "c/d")]
    assert (await ask(server, "DELETE", path, "root")).status == 204
    assert await server.app[ROOMS].rooms_of("c/d") == []


@pytest.mark.parametrize(("user", "status"), [("", 401), ("ann", 403), ("bob", 403)])
async def test_others_let_nobody_join(server: Server, user: str, status: int) -> None:
    for method in ("PUT", "DELETE"):
        assert (await ask(server, method, f"{MEMBERS}/ann", user)).status == status
    assert (await ask(server, "GET", MEMBERS, user)).status == status


@pytest.mark.parametrize(
    ("body", "field"), [([], "body"), ({"publsh": True}, "publsh"), ({"publish": 1}, "publish"), ("x", "body")]
)
async def test_a_wrong_body_is_refused(server: Server, body: Any, field: str) -> None:
    answer = await ask(server, "PUT", f"{MEMBERS}/ann", "root", body)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert await server.app[ROOMS].members("lobby") == []


async def test_a_user_joins_where_the_application_allows_it(serve: Serve, home: str) -> None:
    asked: list[Any] = []

    async def authorize_join(identity: Identity, room: str, publish: bool) -> bool:
        asked.append((identity.user, room, publish))
        return room == "lobby" and not publish

    server = await serve(setup=SETUP | {"authorize_join": authorize_join}, log=home)
    assert (await ask(server, "PUT", f"{MEMBERS}/ann", "ann")).status == 204
    refused = await ask(server, "PUT", f"{MEMBERS}/ann", "ann", {"publish": True})
    assert (refused.status, refused.json()["topic"]) == (403, "room/lobby")
    assert (await ask(server, "PUT", "/notifications/rooms/other/members/ann", "ann")).status == 403
    assert (await ask(server, "PUT", f"{MEMBERS}/ann", "bob")).status == 403
    assert (await ask(server, "PUT", f"{MEMBERS}/bob", "root", {"publish": True})).status == 204
    assert asked == [("ann", "lobby", False), ("ann", "lobby", True), ("ann", "other", False)]
    assert [(each.user, each.publish) for each in await server.app[ROOMS].members("lobby")] == [
        ("ann", False),
        ("bob", True),
    ]
    site = {"Sec-Fetch-Site": "cross-site"}
    assert (await ask(server, "DELETE", f"{MEMBERS}/ann", "ann", **site)).status == 403
    assert (await ask(server, "DELETE", f"{MEMBERS}/bob", "ann")).status == 403
    assert (await ask(server, "DELETE", f"{MEMBERS}/ann", "ann")).status == 204


# ---- the rooms that the application knows ----


class Book:
    """The rooms in the application's own database."""

    def __init__(self) -> None:
        self.rooms: Any = []
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def rooms_of(self, identity: Identity) -> Any:
        self.asked += 1
        answer = list(self.rooms) if isinstance(self.rooms, list) else self.rooms
        await self.go_on.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
async def loading(serve: Serve, home: str, book: Book) -> Server:
    """A hub whose application says to which rooms a user belongs."""
    return await serve(setup=SETUP | {"rooms_of": book.rooms_of}, log=home, anonymous_subscribe=("news",))


async def test_the_application_says_which_rooms_there_are(loading: Server, book: Book) -> None:
    rooms = loading.app[ROOMS]
    await rooms.join("ann", "own")
    book.rooms = ["a", ("b", True), ("c", False)]
    first = await follow(loading, "ann")
    assert list(loading.subscriptions[0].topics) == ["room/a", "room/b", "room/c", "room/own"] or frozenset(
        loading.subscriptions[0].topics
    ) == {"room/a", "room/b", "room/c", "room/own"}
    assert [each.room for each in await rooms.rooms_of("ann") if each.publish] == ["b"]
    await send(loading, "1", "a")
    book.rooms = ["b", "own"]
    second = await follow(loading, "ann")
    assert [each.json()["topics"] for each in [await first.event(), await first.event(), await first.event()][1:]] == [
        ["room/b", "room/c", "room/own"],
        ["room/b", "room/own"],
    ]
    assert [(each.room, each.publish, each.loaded) for each in await rooms.rooms_of("ann")] == [
        ("b", False, True),
        ("own", False, False),
    ]
    book.rooms = ["a", "b"]
    await follow(loading, "ann")
    await send(loading, "end", "own")
    assert await data_upto(second, "end") == ["end"], "it was a member again, of what was sent since"
    assert await seen(loading, "ann", "a") == []


async def test_it_is_asked_for_each_stream_of_a_user(loading: Server, book: Book) -> None:
    await stream_of(loading, "", "news")
    assert book.asked == 0
    book.rooms = ["a"]
    client = await stream_of(loading, "ann", "room/a")
    assert book.asked == 1
    await send(loading, "x", "a")
    assert await data_upto(client, "x") == ["x"]


@pytest.mark.parametrize("home", ["memory"], indirect=True)
@pytest.mark.parametrize("answer", [OSError("away"), ["ok", 7], "lobby", 7, ["ok", ""], [("a", 1)], [("a", True, 1)]])
async def test_an_answer_that_is_none_refuses_the_stream(
    loading: Server, book: Book, complaints: Complaints, answer: Any
) -> None:
    book.rooms = answer
    refused = await ask(loading, "GET", "/notifications/subscribe?rooms=1", "ann")
    assert (refused.status, refused.json()["code"]) == (503, "auth_unavailable")
    assert "rooms_of" in "".join(complaints.take())
    assert await loading.app[ROOMS].rooms_of("ann") == []


async def test_more_rooms_than_there_may_be_refuse_the_stream(
    loading: Server, book: Book, complaints: Complaints
) -> None:
    book.rooms = [str(number) for number in range(1_001)]
    refused = await ask(loading, "GET", "/notifications/subscribe?rooms=1", "ann", Accept="text/event-stream")
    assert (refused.status, b"auth_unavailable" in refused.body) == (200, True)
    assert "1,000" in "".join(complaints.take())


async def test_what_is_left_while_the_application_answers_is_not_joined(loading: Server, book: Book) -> None:
    rooms = loading.app[ROOMS]
    book.rooms = ["a", "b"]
    await follow(loading, "ann")
    book.go_on.clear()
    opening = asyncio.ensure_future(follow(loading, "ann"))
    await until(lambda: book.asked == 2)
    await rooms.leave("ann", "a")
    book.go_on.set()
    await opening
    assert [each.room for each in await rooms.rooms_of("ann")] == ["b"]
    await follow(loading, "ann")
    assert [each.room for each in await rooms.rooms_of("ann")] == ["a", "b"], "the next answer is of after that"


async def test_an_answer_to_an_earlier_question_does_not_count(loading: Server, book: Book) -> None:
    rooms = loading.app[ROOMS]
    book.rooms = ["old"]
    first, book.go_on = book.go_on, asyncio.Event()
    slow = book.go_on
    opening = asyncio.ensure_future(follow(loading, "ann"))
    await until(lambda: book.asked == 1)
    book.rooms, book.go_on = ["new"], first
    await follow(loading, "ann")
    slow.set()
    client = await opening
    assert [each.room for each in await rooms.rooms_of("ann")] == ["new"]
    await send(loading, "x", "new")
    assert await data_upto(client, "x") == ["x"]


# ---- what happens while something is waited for ----


class Gate:
    """The application thinks about topics until it is let go on."""

    def __init__(self, *topics: str) -> None:
        self.topics = set(topics)
        self.thinking, self.go_on = asyncio.Event(), asyncio.Event()
        self.asked: list[Sequence[str]] = []
        self.refused: set[str] = set()

    async def authorize(self, identity: Identity | None, topics: Sequence[str]) -> bool:
        self.asked.append(list(topics))
        if self.topics.intersection(topics):
            self.thinking.set()
            await self.go_on.wait()
        return not self.refused.intersection(topics)


@pytest.fixture
async def gate() -> Gate:
    return Gate("room/lobby", "orders/slow")


@pytest.fixture
async def gated(serve: Serve, home: str, gate: Gate) -> Server:
    """A hub whose application thinks about the lobby."""
    return await serve(setup=SETUP | {"authorize_subscribe": gate.authorize}, log=home, anonymous_subscribe=("**",))


@pytest.mark.parametrize("rooms", ["0", "1"])
@pytest.mark.parametrize("again", [False, True])
async def test_a_room_that_is_left_while_a_stream_is_opened(
    gated: Server, gate: Gate, rooms: str, *, again: bool
) -> None:
    await gated.app[ROOMS].join("ann", "lobby")
    await gated.app[ROOMS].join("ann", "other")
    await send(gated, "before")
    client = await gated.client()
    asked = "topic=news&topic=room/lobby" if rooms == "0" else "rooms=1&topic=news"
    path = f"/notifications/subscribe?lastEventId=earliest&{asked}"
    await client.request("GET", path, headers=said_by("ann"))
    await gate.thinking.wait()
    await gated.app[ROOMS].leave("ann", "lobby")
    if again:
        await gated.app[ROOMS].join("ann", "lobby")
    gate.go_on.set()
    status = await client.head()
    if rooms == "0" and not again:
        assert status == 403
        return
    opened = await client.event()
    assert ("room/lobby" in opened.json()["topics"]) is again
    await send(gated, "lobby")
    await gated.hub.notifications.send_notification("end", topic="news")
    assert await data_upto(client, "end") == (["lobby", "end"] if again else ["end"])


async def test_a_room_that_is_joined_while_a_stream_is_opened(gated: Server, gate: Gate) -> None:
    await gated.app[ROOMS].join("ann", "lobby")
    opening = asyncio.ensure_future(follow(gated, "ann"))
    await gate.thinking.wait()
    await gated.app[ROOMS].join("ann", "other")
    await send(gated, "x", "other")
    gate.go_on.set()
    client = await opening
    assert await data_upto(client, "x") == ["x"]


async def test_a_room_that_is_left_while_another_change_waits(gated: Server, gate: Gate) -> None:
    gate.topics = {"orders/slow"}
    rooms = gated.app[ROOMS]
    await rooms.join("ann", "lobby")
    client = await follow(gated, "ann", "news")
    path = f"/notifications/connections/{gated.subscriptions[0].id}"
    changing = asyncio.ensure_future(ask(gated, "PATCH", path, "ann", {"add": ["orders/slow"], "after": "earliest"}))
    await gate.thinking.wait()
    await rooms.leave("ann", "lobby")
    await send(gated, "out")
    gate.go_on.set()
    assert (await changing).json()["topics"] == ["news", "orders/slow"]
    await gated.hub.notifications.send_notification("end", topic="news")
    assert await data_upto(client, "end") == ["end"]


async def test_a_room_is_not_added_that_is_left_while_the_application_thinks(gated: Server, gate: Gate) -> None:
    await gated.app[ROOMS].join("ann", "lobby")
    await send(gated, "in")
    client = await stream_of(gated, "ann", "news")
    path = f"/notifications/connections/{gated.subscriptions[0].id}"
    changing = asyncio.ensure_future(ask(gated, "PATCH", path, "ann", {"add": ["room/lobby"], "after": "earliest"}))
    await gate.thinking.wait()
    await gated.app[ROOMS].leave("ann", "lobby")
    gate.go_on.set()
    assert (await changing).status == 403
    await gated.hub.notifications.send_notification("end", topic="news")
    assert await data_upto(client, "end") == ["end"]


async def test_the_application_is_asked_before_a_stream_gains_a_room(gated: Server, gate: Gate) -> None:
    rooms = gated.app[ROOMS]
    gate.refused = {"room/secret"}
    client = await follow(gated, "ann", "news")
    await rooms.join("ann", "secret")
    await rooms.join("ann", "lobby")
    await gate.thinking.wait()
    await send(gated, "while it thinks")
    await rooms.leave("ann", "lobby")
    await rooms.join("ann", "lobby")
    await send(gated, "in")
    gate.go_on.set()
    assert await data_upto(client, "in") == ["in"], "of the second membership only"
    assert "room/secret" not in gated.subscriptions[0].topics
    again = await follow(gated, "ann", "news")
    await until(lambda: len(gated.subscriptions) == 2)
    assert frozenset(gated.subscriptions[1].topics) == {"news", "room/lobby"}, "one that it refuses leaves the others"
    await send(gated, "end")
    assert await data_upto(again, "end") == ["end"]


async def test_a_stream_ends_if_nobody_can_tell_whether_it_may_follow_a_room(
    serve: Serve, complaints: Complaints
) -> None:
    async def fails(identity: Identity | None, topics: Sequence[str]) -> bool:
        if "room/lobby" in topics:
            raise OSError("the database is away")
        return True

    server = await serve(setup=SETUP | {"authorize_subscribe": fails}, anonymous_subscribe=("news",))
    client = await follow(server, "ann", "news")
    await server.app[ROOMS].join("ann", "lobby")
    assert await last_word(client) == "auth_unavailable"
    assert "authorize_subscribe failed" in complaints.take()[0]


async def test_a_page_of_a_room_that_is_left_while_it_is_read_is_not_given(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, log = server.app[ROOMS], server.hub.log
    await rooms.join("ann", "lobby")
    await send(server, "old")
    read = log.read

    def leave_and_read(*arguments: Any, **options: Any) -> Any:
        answer = asyncio.ensure_future(slowly(read(*arguments, **options)))
        monkeypatch.setattr(log, "read", read)
        return answer

    async def slowly(reading: Any) -> Any:
        found = await reading
        await rooms.leave("ann", "lobby")
        if again:
            await rooms.join("ann", "lobby")
            await send(server, "new")
        return found

    for again in (True, False):
        monkeypatch.setattr(log, "read", leave_and_read)
        answer = await page(server, "ann", "lobby")
        if again:
            assert [each["data"] for each in answer.json()["notifications"]] == ["new"]
        else:
            assert answer.status == 403


async def test_a_member_who_leaves_while_the_application_thinks_publishes_nothing(serve: Serve, home: str) -> None:
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def authorize_publish(identity: Identity | None, draft: Any) -> bool:
        thinking.set()
        await go_on.wait()
        return True

    server = await serve(setup=SETUP | {"authorize_publish": authorize_publish}, log=home)
    await server.app[ROOMS].join("ann", "lobby", publish=True)
    draft = {"topic": "room/lobby", "data": "x"}
    sending = asyncio.ensure_future(ask(server, "POST", "/notifications/publish", "ann", draft))
    await thinking.wait()
    await server.app[ROOMS].leave("ann", "lobby")
    go_on.set()
    assert (await sending).status == 403
    assert await seen(server, "bob", "lobby") == []


# ---- rights are asked about again ----


@pytest.mark.slow
async def test_streams_of_members_go_on_when_the_application_is_asked_again(serve: Serve) -> None:
    asked: Counter[str] = Counter()

    async def recheck(identity: Identity) -> Identity | None:
        asked[identity.user] += 1
        return USERS.get(identity.user)

    server = await serve(setup=SETUP | {"recheck": recheck}, recheck=1, anonymous_subscribe=("news",))
    await server.app[ROOMS].join("ann", "lobby")
    for user, topics in (("ann", ("room/lobby", "news")), ("bob", ("room/lobby",))):
        await stream_of(server, user, *topics)
        await follow(server, user)
    anonymous = await stream_of(server, "ann", "news")
    await server.app[ROOMS].join(server.subscriptions[-1], "other")
    await topics_of(anonymous)
    await stream_of(server, "ann", "news")
    await server.app[ROOMS].join(server.subscriptions[-1], "lobby")  # later than its user
    # What was asked before is answered when the same is asked again.
    asked.clear()
    await until(lambda: len(asked) == 2 and min(asked.values()) >= 2)
    assert len(server.subscriptions) == 6


# ---- on the bus ----


async def test_the_application_hears_who_joins_leaves_and_is_refused(server: Server) -> None:
    heard: list[Any] = []
    server.hub.bus.on(["room.*", "*.denied"], lambda event: heard.append((event.name, event.payload)))
    since = await server.app[ROOMS].join("ann", "lobby")
    await server.app[ROOMS].join("ann", "lobby", publish=True)
    await server.app[ROOMS].leave("ann", "lobby")
    await server.app[ROOMS].leave("ann", "lobby")
    await page(server, "ann", "lobby")
    await ask(server, "GET", "/notifications/subscribe?topic=news&topic=room/lobby", "ann")
    await ask(server, "GET", "/notifications/subscribe?topic=room/lobby", "")
    await ask(server, "POST", "/notifications/publish", "ann", {"topic": "room/lobby", "data": 1})
    await stream_of(server, "ann", "news")
    path = f"/notifications/connections/{server.subscriptions[0].id}"
    await ask(server, "PATCH", path, "ann", {"add": ["room/lobby"]})
    await until(lambda: len(heard) == 6)
    refused = {"user": "ann", "address": "127.0.0.1", "topic": "room/lobby", "code": "forbidden"}
    assert heard == [
        ("room.joined", {"room": "lobby", "user": "ann", "publish": False, "since": str(since)}),
        ("room.left", {"room": "lobby", "user": "ann"}),
        ("subscribe.denied", refused | {"topics": ["news", "room/lobby"]}),
        (
            "subscribe.denied",
            refused | {"user": None, "topics": ["room/lobby"], "topic": "", "code": "unauthorized"},
        ),
        ("publish.denied", refused | {"topics": []}),
        ("subscribe.denied", refused | {"topics": ["room/lobby"]}),
    ]


# ---- other histories, and the end of processes ----


async def test_memberships_go_on_in_another_history(serve: Serve, tmp_path: Path) -> None:
    """A log in memory, and a state that lasts: all that follows is seen."""
    settings: dict[str, Any] = {"state": tmp_path / "state.db"}
    first = await serve(setup=SETUP, **settings)
    await send(first, "old")
    await send(first, "old")
    await first.app[ROOMS].join("ann", "lobby", publish=True)
    await first.aclose_server()
    second = await serve(setup=SETUP, **settings)
    (membership,) = await second.app[ROOMS].rooms_of("ann")
    assert (membership.since.epoch, membership.since.offset, membership.publish) == (second.hub.log.epoch, 0, True)
    await send(second, "new")
    assert await seen(second, "ann", "lobby") == ["new"]


async def test_memberships_go_on_when_the_history_becomes_another_one(serve: Serve, tmp_path: Path) -> None:
    server = await serve(setup=SETUP, state=tmp_path / "state.db")
    await server.app[ROOMS].join("ann", "lobby")
    client = await follow(server, "ann")

    async def nothing() -> AsyncIterator[Any]:
        for _ in ():
            yield _

    await adopt(server.hub, nothing())
    assert await last_word(client) == "log_unavailable"
    again = await follow(server, "ann")
    await server.app[ROOMS].join("ann", "second")
    assert await topics_of(again) == ["room/lobby", "room/second"]
    (first, second) = await server.app[ROOMS].rooms_of("ann")
    assert (first.since.epoch, second.since.epoch) == ("another", "another")
    await send(server, "new")
    assert await data_upto(again, "new") == ["new"]
    assert await seen(server, "ann", "lobby") == ["new"]


async def adopt(hub: Hub, history: AsyncIterator[Any]) -> None:
    """Have the log become another one."""
    log: Any = hub.log
    await log.adopt("another", 7, log.trimmed_state(), history)


@pytest.mark.slow
async def test_memberships_outlive_a_hub_that_is_killed(tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/hub.db"
    arguments = ("serve", "--port", "0", "--log", log)
    said = {"Content-Type": "application/json", "Authorization": f"Bearer {token('root', hub={'admin': True})}"}
    ann = token("ann", hub={})
    environ = {"HUB_JWT_SECRET": SECRET}
    publisher = {**said, "Authorization": f"Bearer {token('bob', hub={'publish': ['room/*']})}"}

    async def publish(hub: ServeProcess, data: str) -> None:
        body = b'{"topic": "room/lobby", "data": "%s"}' % data.encode()
        assert (await hub.site.ask("POST", "/notifications/publish", headers=publisher, body=body)).status == 201

    async def stream(hub: ServeProcess, cursor: str) -> Client:
        client = await hub.site.client()
        headers = {"Authorization": f"Bearer {ann}", **({"Last-Event-ID": cursor} if cursor else {})}
        await client.request("GET", "/notifications/subscribe?rooms=1", headers=headers)
        assert await client.head() == 200
        assert (await client.event()).json()["topics"] == ["room/lobby"]
        return client

    first = await (await ServeProcess.start(*arguments, environ=environ)).listening()
    try:
        await publish(first, "before")
        for room in ("lobby", "left"):
            path = f"/notifications/rooms/{room}/members/ann"
            assert (await first.site.ask("PUT", path, headers=said, body=b'{"publish": true}')).status == 204
        assert (await first.site.ask("DELETE", path, headers=said)).status == 204
        await publish(first, "one")
        client = await stream(first, "earliest")
        event = await client.event()
        assert event.data == "one"
        await publish(first, "two")
        assert (await client.event()).data == "two"
    finally:
        await first.aclose()  # SIGKILL
    second = await (await ServeProcess.start(*arguments, environ=environ)).listening()
    try:
        for cursor, expected in ((event.id, ["two", "three"]), ("earliest", ["one", "two", "three"])):
            client = await stream(second, cursor)
            if cursor == event.id:
                await publish(second, "three")
            assert [(await client.event()).data for _ in expected] == expected
        members = (await second.site.ask("GET", MEMBERS, headers=said)).json()["members"]
        assert [(each["id"], each["publish"]) for each in members] == [("ann", True)]
    finally:
        await second.aclose()
