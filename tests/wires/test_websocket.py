"""What only a WebSocket does: the handshake, who speaks, what a client asks for, closing."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import msgpack
import pytest
import websockets
from aiohttp import web
from jsonschema import Draft202012Validator
from websockets.typing import Subprotocol
from wsproto.frame_protocol import Opcode

from hub import Identity
from hub.connections.client_stream import UNREAD_BYTES, CloseReason
from hub.connections.connection import Connection, Subscription
from hub.connections.holders import NOBODY
from hub.web import conversation
from hub.web.openapi.messages import websocket_schema
from hub.web.websocket import socket as sockets
from hub.web.websocket.socket import MAX_MESSAGE_BYTES, WebSocket
from hub.wires import Messages
from hub.wires import Opcode as Sent
from tests.connections.test_connection import Desk
from tests.fakes import FakeTransport
from tests.web.client import Client, StreamEnded, until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server
from tests.wires.frames import Frames, close, frames, masked, messages, ping, pong, said, text
from tests.wires.test_wires import subscribed
from tests.wires.wire import UPGRADE, Message, SocketReader

SECRET = "a secret of the tests, which has more than 32 bytes"
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "websocket.schema.json"
PAGE = SCHEMA.with_name("websocket.md")


def token(user: str = "eve", *, seconds: float = 3600, **rights: Any) -> str:
    claims = {"sub": user, "iat": int(time.time()) - 1, "exp": time.time() + seconds, "jti": rights.pop("jti", "x")}
    rights = {"subscribe": ["orders/*"], "publish": ["orders/*"], **rights}
    return jwt.encode({**claims, "hub": rights}, SECRET, "HS256")


async def connected(server: Server, *topics: str, **options: Any) -> SocketReader:
    """Return a WebSocket that has subscribed to *topics*, and has been answered."""
    reader = SocketReader(server, *topics, **options)
    await reader.open()
    if topics:
        await subscribed(server, 1)
    return reader


async def handshake(server: Server, path: str = "/notifications/ws", **changes: str | None) -> Client:
    """Return a client that has asked for a WebSocket, with changes to its headers, and read the headers."""
    named = {name.replace("_", "-"): text for name, text in changes.items()}
    headers = {name: text for name, text in {**UPGRADE, **named}.items() if text is not None}
    client = await server.client()
    await client.request("GET", path, headers=headers)
    await client.head()
    return client


# ---- the handshake ----


async def test_the_answer_is_that_of_the_standard(server: Server) -> None:
    client = await handshake(server, Sec_WebSocket_Protocol="other, hub.v1.json")
    assert client.status == 101
    assert client.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
    assert client.headers["Sec-WebSocket-Protocol"] == "hub.v1.json"
    assert (client.headers["Upgrade"], client.headers["Connection"]) == ("websocket", "Upgrade")
    assert not {"Content-Length", "Transfer-Encoding", "Sec-WebSocket-Extensions"} & set(client.headers)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Upgrade": None}, 426),
        ({"Connection": "keep-alive"}, 426),
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, 400),
        ({"Sec_WebSocket_Key": "no base64 at all, but long"}, 400),
        ({"Sec_WebSocket_Protocol": "mqtt"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"}, 403),
    ],
)
async def test_what_is_no_request_for_a_websocket_is_refused(
    server: Server, changes: dict[str, str | None], status: int
) -> None:
    client = await handshake(server, "/notifications/ws", **changes)
    assert client.status == status
    assert (await client.json())["status"] == status
    if status == 426:
        assert client.headers["Sec-WebSocket-Version"] == "13"


async def test_a_client_that_offers_msgpack_is_told_that_the_extra_is_missing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    client = await handshake(server, Sec_WebSocket_Protocol="hub.v1.msgpack")
    assert client.status == 400
    assert "needs the extra msgpack" in (await client.json())["detail"]
    client = await handshake(server, Sec_WebSocket_Protocol="hub.v1.msgpack, hub.v1.json")
    assert client.headers["Sec-WebSocket-Protocol"] == "hub.v1.json"


async def test_too_many_topics_in_several_messages_are_named_as_the_message_names_them(server: Server) -> None:
    reader = await connected(server, *(f"a/{n}" for n in range(100)))
    answer = await reader.answer({"op": "subscribe", "topics": [f"b/{n}" for n in range(100)]})
    assert (answer["code"], answer["field"]) == ("invalid_input", "topics")
    assert answer["detail"].startswith("topics: makes more than 128")


@pytest.mark.parametrize("path", ["?token=x", "?topic=a", "?ticket=x", "?presence=yes"])
async def test_nothing_secret_and_no_topics_are_in_the_url(server: Server, path: str) -> None:
    client = await handshake(server, f"/notifications/ws{path}")
    assert client.status == (101 if path == "?token=x" else 400)  # what is not the hub's is ignored


async def test_a_page_of_an_allowed_origin_may_connect(serve: Serve) -> None:
    server = await serve(cors_origins=("https://app.example",))
    assert (await handshake(server, Origin="https://app.example")).status == 101


async def test_foreign_clients_get_on_with_it(serve: Serve) -> None:
    """As users have them; both offer compression."""
    server = await serve(websocket_deflate=True)
    url = f"127.0.0.1:{server.address[1]}/notifications/ws"
    long = "x" * 1_000
    async with aiohttp.ClientSession() as session:
        mine = await session.ws_connect(f"http://{url}", protocols=["hub.v1.json"], compress=15)
        async with websockets.connect(f"ws://{url}", subprotocols=[Subprotocol("hub.v1.json")]) as theirs:
            await mine.send_json({"op": "subscribe", "topics": ["a"]})
            await theirs.send(json.dumps({"op": "subscribe", "topics": ["a"]}))
            await subscribed(server, 2)
            await theirs.send(json.dumps({"op": "publish", "topic": "a", "data": long}))
            while (message := await mine.receive_json(timeout=10)).get("data") != long:
                assert message["op"] in {"hub.open", "hub.topics", "ok"}
            while (message := json.loads(await asyncio.wait_for(theirs.recv(), 10))).get("data") != long:
                assert message["op"] in {"hub.open", "hub.topics", "ok"}
            drain = asyncio.create_task(server.hub.drain(1))
            await asyncio.wait_for(theirs.wait_closed(), 10)
            assert (theirs.close_code, theirs.close_reason) == (1001, "shutdown")
        while (told := await mine.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert (told.type, told.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        await mine.close()
        await drain


# ---- who speaks ----


@pytest.fixture
async def guarded(serve: Serve) -> Server:
    """A hub that knows users by tokens, and lets anybody read the news."""
    return await serve(jwt_secret=SECRET, setup={"routes": None}, anonymous_subscribe=("news",), heartbeat=0.3)


async def test_the_token_comes_in_the_first_message(guarded: Server) -> None:
    reader = await connected(guarded)
    answer = await reader.answer({"op": "auth", "ref": 7, "token": token("eve")})
    assert answer == {"op": "ok", "ref": 7, "user": "eve"}
    assert (await reader.next("hub.open"))["topics"] == []
    (stream,) = guarded.subscriptions
    assert stream.holder.user == "eve"
    assert (await reader.answer({"op": "subscribe", "topics": ["orders/1"]}))["topics"] == ["orders/1"]
    assert (await reader.answer({"op": "auth", "token": token("bob")}))["code"] == "invalid_input"
    await guarded.hub.revoke_user("eve")
    assert (await reader.ended())[-1]["reason"] == "revoked"


@pytest.mark.parametrize("by", ["Authorization", "Cookie"])
async def test_the_token_comes_with_the_request(guarded: Server, by: str) -> None:
    headers = {by: f"Bearer {token()}" if by == "Authorization" else f"hub_token={token()}"}
    reader = await connected(guarded, headers=headers)
    await reader.next("hub.open")
    assert guarded.subscriptions[0].holder.user == "eve"


async def test_a_cookie_does_not_count_for_a_page_of_another_site(guarded: Server) -> None:
    client = await handshake(guarded, Cookie=f"hub_token={token()}", Origin="https://evil.example")
    assert client.status == 403


async def test_a_page_is_told_over_the_socket_why_it_is_refused(guarded: Server) -> None:
    own = f"http://127.0.0.1:{guarded.address[1]}"
    headers = {"Cookie": "hub_token=nonsense", "Origin": own, "Host": own.removeprefix("http://")}
    reader = SocketReader(guarded, "news", headers=headers)
    await reader.open()
    (told,) = await reader.ended()
    assert (told["op"], told["reason"], reader.code) == ("hub.close", "token_invalid", 1008)
    assert guarded.hub.metrics.unauthorized == 1
    client = await handshake(guarded, Authorization="Bearer nonsense")
    assert (client.status, (await client.json())["code"]) == (401, "token_invalid")


@pytest.mark.parametrize(
    "code",
    ["token_invalid", "token_expired"],
)
async def test_a_token_that_is_refused_ends_the_socket(guarded: Server, code: str) -> None:
    reader = await connected(guarded)
    shown = "nonsense" if code == "token_invalid" else token(seconds=-60)
    assert (await reader.answer({"op": "auth", "token": shown}))["code"] == code
    assert (await reader.ended())[-1]["reason"] == code
    assert reader.code == 1008


async def test_anybody_may_do_what_anybody_may(guarded: Server) -> None:
    reader = await connected(guarded, "news")
    await reader.next("hub.open")
    guarded.send("hello", topic="news")
    assert (await reader.answer({"op": "ping"}))["op"] == "ok"
    assert [each["data"] for each in [await reader.message(), await reader.message()] if "data" in each] == ["hello"]
    for asked in ({"op": "subscribe", "topics": ["orders/1"]}, {"op": "publish", "topic": "news", "data": 1}):
        assert (await reader.answer(asked))["status"] in {401, 403}


async def test_without_rights_for_anybody_the_first_message_has_to_say_who_speaks(serve: Serve) -> None:
    server = await serve(jwt_secret=SECRET, setup={"routes": None})
    reader = await connected(server)
    answer = await reader.answer({"op": "ping"})
    assert answer["code"] == "unauthorized"
    assert answer["detail"] == 'it is not known who you are: send {"op": "auth", "token": …} first'
    assert (await reader.ended())[-1]["reason"] == "unauthorized"


async def test_whoever_does_not_say_who_it_is_has_five_seconds(
    guarded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "KNOWN_SECONDS", 0.1)
    reader = await connected(guarded)
    (told,) = await reader.ended()
    assert (told["op"], told["reason"], reader.code) == ("hub.close", "unauthorized", 1008)
    await guarded.deserted()


async def test_whoever_does_not_say_who_it_is_may_send_64_kib(guarded: Server) -> None:
    reader = await connected(guarded)
    await reader.client.send(said({"op": "auth", "token": "x" * 2 * UNREAD_BYTES}))
    assert await reader.ended() == []
    await guarded.deserted()


async def test_topics_that_somebody_adds_wait_until_it_is_known_who_speaks(guarded: Server) -> None:
    """An administrator sees the socket before it has said who it is."""
    reader = await connected(guarded)
    await until(lambda: len(guarded.subscriptions) == 1)
    (stream,) = guarded.subscriptions
    change = asyncio.create_task(guarded.hub.change_topics(stream.id, add=["orders/1"]))
    assert (await reader.answer({"op": "auth", "token": token()}))["op"] == "ok"
    assert (await change).topics == ("orders/1",)
    assert [(await reader.message())["op"] for _ in range(2)] == ["hub.open", "hub.topics"]
    guarded.send("x", topic="orders/1")
    assert await reader.data(1) == ["x"]


async def test_a_token_that_ends_ends_the_socket(guarded: Server) -> None:
    reader = SocketReader(guarded, "orders/1", token=token(seconds=3))
    await reader.open()
    assert (await reader.ended())[-1]["reason"] == "token_expired"


async def test_of_one_user_only_so_many_also_if_the_token_comes_later(serve: Serve) -> None:
    server = await serve(jwt_secret=SECRET, setup={"routes": None}, max_per_user=1)
    await (await connected(server, token=token())).next("hub.open")
    second = await connected(server, token=token())
    told = (await second.ended())[-1]
    assert (told["reason"], told["limit"], second.code) == ("capacity", "max_per_user", 1013)


# ---- what a client asks for ----


async def test_it_begins_without_topics_and_may_have_none_again(server: Server) -> None:
    first, *_ = server.send(1, 2, topic="a")
    reader = await connected(server)
    assert (await reader.next("hub.open"))["topics"] == []
    answer = await reader.answer({"op": "subscribe", "ref": "r", "topics": ["a"], "lastEventId": first})
    assert answer == {"op": "ok", "ref": "r", "topics": ["a"], "from": first}
    assert (await reader.next("hub.topics"))["from"] == first
    assert await reader.data(1) == [2]
    assert (await reader.answer({"op": "unsubscribe", "topics": ["a"]}))["topics"] == []
    server.send(3, topic="a")
    # Anew from an id that lies behind the last one: with ids, for the cursor is what the client says.
    assert (await reader.answer({"op": "subscribe", "topics": ["a"], "lastEventId": first}))["from"] == first
    heard = [await reader.message() for _ in range(4)]
    assert [each.get("data", each["op"]) for each in heard] == ["hub.topics", "hub.topics", 2, 3]
    assert all("id" in each for each in heard[2:])


async def test_what_an_added_topic_brings_from_before_moves_no_cursor(server: Server) -> None:
    old, *_ = server.send("old", topic="b")
    reader = await connected(server, "a")
    server.send("new", topic="a")
    assert (await reader.answer({"op": "subscribe", "topics": ["b"], "lastEventId": "earliest"}))["op"] == "ok"
    server.send("live", topic="b")
    heard: list[Message] = []
    while not heard or heard[-1]["data"] != "live":
        heard += [message] if (message := await reader.message())["op"] == "notification" else []
    assert [(each["data"], each.get("earlier")) for each in heard] == [("new", None), ("old", old), ("live", None)]


async def test_a_publish_is_answered_with_its_position_and_a_key_counts_once(server: Server) -> None:
    reader = await connected(server, "a")
    draft = {"op": "publish", "topic": "a", "data": {"x": 1}, "type": "t", "key": "k"}
    first, second = await reader.answer({**draft, "ref": 1}), await reader.answer({**draft, "ref": 2})
    assert first == {"op": "ok", "ref": 1, "id": first["id"], "topics": ["a"]}
    assert second == {**first, "ref": 2, "repeated": True}
    assert (await reader.answer({"op": "publish", "topic": "a", "data": "last"}))["op"] == "ok"
    heard = [message for _ in range(4) if (message := await reader.message())["op"] == "notification"]
    assert (heard[0]["id"], heard[0]["data"]) == (first["id"], {"x": 1})
    assert [each["data"] for each in heard] == [{"x": 1}, "last"]


async def test_requests_are_answered_in_order(server: Server) -> None:
    reader = await connected(server)
    asked = [{"op": "publish", "topic": "a", "data": number, "ref": number} for number in range(200)]
    await reader.client.send(b"".join(map(said, [*asked, {"op": "ping", "ref": "end"}])))
    await reader.next("hub.open")
    answers: list[Message] = []
    while len(answers) < 201:
        await reader._more()
        answers += reader._waiting
        reader._waiting.clear()
    assert [each["ref"] for each in answers] == [*range(200), "end"]
    offsets = [int(each["id"].rpartition("-")[2]) for each in answers[:-1]]
    assert offsets == sorted(offsets)


WRONG: list[tuple[Any, str, str | None]] = [
    (b"{", "invalid_input", "message"),
    ([], "invalid_input", "message"),
    ({}, "invalid_input", "op"),
    ({"op": "subscripe"}, "invalid_input", "op"),
    ({"op": ["ping"]}, "invalid_input", "op"),
    ({"op": "ping", "more": 1}, "invalid_input", "more"),
    ({"op": "ping", "ref": {}}, "invalid_input", "ref"),
    ({"op": "ping", "ref": "\ud800"}, "invalid_input", "ref"),
    ({"op": "ping", "ref": "x" * 257}, "invalid_input", "ref"),
    ({"op": "ping", "ref": True}, "invalid_input", "ref"),
    ({"op": "subscribe", "topics": "a"}, "invalid_input", "topics"),
    ({"op": "subscribe", "topics": [1]}, "invalid_topic", "topics"),
    ({"op": "subscribe", "topics": ["a//b"]}, "invalid_topic", "topics"),
    ({"op": "subscribe", "topics": [f"a/{n}" for n in range(129)]}, "invalid_input", "topics"),
    ({"op": "subscribe", "topics": ["a"], "lastEventId": 1}, "invalid_input", "lastEventId"),
    ({"op": "subscribe", "topic": "a"}, "invalid_input", "topic"),
    ({"op": "unsubscribe"}, "invalid_input", "topics"),
    ({"op": "unsubscribe", "topics": ["a//b"]}, "invalid_topic", "topics"),
    ({"op": "publish"}, "invalid_draft", "data"),
    ({"op": "publish", "data": 1, "topic": "a/*"}, "invalid_topic", "topic"),
    ({"op": "publish", "data": 1, "tpic": "a"}, "invalid_draft", "tpic"),
    ({"op": "publish", "data": 1, "type": "hub.open"}, "invalid_draft", "type"),
    ({"op": "join", "room": "x"}, "not_there", None),
    ({"op": "leave", "room": "x"}, "not_there", None),
    ({"op": "presence"}, "invalid_topic", "topic"),
    ({"op": "presence", "topic": 5}, "invalid_topic", "topic"),
    ({"op": "presence", "topic": "a", "limit": 0}, "invalid_input", "limit"),
    ({"op": "presence", "topic": "a", "after": 0}, "invalid_input", "after"),
    ({"op": "auth", "token": "x"}, "invalid_input", "op"),
]


async def test_what_is_wrong_is_named_and_the_socket_stays_open(server: Server) -> None:
    reader = await connected(server)
    for asked, code, field in WRONG:
        if isinstance(asked, bytes):
            await reader.client.send(text(asked.decode()))
            answer = await _answer(reader)
        else:
            await reader.say(asked)
            answer = await _answer(reader)
        assert (answer["op"], answer["code"], answer.get("field")) == ("error", code, field), (asked, answer)
        assert answer["status"] < 500
    assert (await reader.answer({"op": "ping", "ref": 0})) == {"op": "ok", "ref": 0}


async def _answer(reader: SocketReader) -> Message:
    while True:
        await reader._more()
        for message in reader._waiting:
            if message["op"] in {"ok", "error"}:
                reader._waiting.clear()
                return message


async def test_a_user_joins_and_leaves_where_the_application_lets_him(serve: Serve) -> None:
    asked: list[tuple[str, str, bool]] = []

    async def authorize_join(identity: Any, room: str, publish: bool) -> bool:
        asked.append((identity.user, room, publish))
        return room != "closed"

    server = await serve(jwt_secret=SECRET, setup={"routes": None, "authorize_join": authorize_join})
    reader = SocketReader(server, token=token())
    reader.query["rooms"] = "1"
    await reader.open()
    await reader.next("hub.open")
    joined = await reader.answer({"op": "join", "ref": 1, "room": "lobby", "publish": True})
    assert (joined["room"], joined["from"]) == ("lobby", str(server.hub.fanout.newest))
    assert (await reader.next("hub.topics"))["topics"] == ["room/lobby"]
    assert (await reader.answer({"op": "publish", "topic": "room/lobby", "data": "hi"}))["op"] == "ok"
    assert (await reader.next())["data"] == "hi"
    refused = await reader.answer({"op": "join", "room": "closed"})
    assert (refused["code"], refused["status"], refused["topic"]) == ("forbidden", 403, "room/closed")
    assert (await reader.answer({"op": "leave", "room": "lobby"}))["left"] is True
    assert (await reader.answer({"op": "publish", "topic": "room/lobby", "data": "hi"}))["code"] == "forbidden"
    assert asked == [("eve", "lobby", True), ("eve", "closed", False)]


async def test_without_the_hook_nobody_joins(guarded: Server) -> None:
    reader = await connected(guarded, token=token())
    assert (await reader.answer({"op": "ping"}))["op"] == "ok"
    for op in ("join", "leave"):
        assert (await reader.answer({"op": op, "room": "lobby"}))["code"] == "forbidden"


async def test_it_tells_who_is_there(serve: Serve) -> None:
    server = await serve(jwt_secret=SECRET, setup={"routes": None})
    watching = SocketReader(server, "orders/1", token=token("ann", presence=True))
    watching.query["presence"] = "1"
    await watching.open()
    while (message := await watching.message())["op"] != "hub.presence":
        assert message["op"] in {"hub.open", "hub.topics"}
    assert [each["id"] for each in message["users"]] == ["ann"]
    await connected(server, "orders/1", token=token("bob"))
    while (message := await watching.message())["op"] != "hub.join":
        assert message["op"] in {"hub.topics", "hub.presence"}
    assert message["user"] == "bob"
    answer = await watching.answer({"op": "presence", "topic": "orders/1"})
    assert (answer["count"], [each["id"] for each in answer["users"]]) == (2, ["ann", "bob"])


async def test_a_socket_does_nothing_that_the_application_has_not_mounted(serve: Serve) -> None:
    """Where nobody is asked who they are, whoever may subscribe could publish, too."""
    server = await serve(setup={"routes": ["subscribe"]})
    reader = await connected(server, "a")
    newest = server.hub.fanout.newest
    asked: list[Message] = [{"op": "publish", "topic": "a", "data": 1}, {"op": "presence", "topic": "a"}]
    asked += [{"op": op, "room": "r"} for op in ("join", "leave")]
    for each in asked:
        answer = await reader.answer(each)
        assert (answer["code"], answer["status"]) == ("not_there", 404)
    assert server.hub.fanout.newest == newest
    assert (await reader.answer({"op": "subscribe", "topics": ["b"]}))["topics"] == ["a", "b"]
    assert (await reader.answer({"op": "ping"}))["op"] == "ok"


async def test_what_the_application_takes_back_does_not_count_over_an_open_socket(serve: Serve) -> None:
    """Also if its client may read as before, so that the socket stays open."""
    publish = ["orders/*"]

    async def login(request: web.Request) -> Identity:
        return Identity(user="ann", subscribe=("orders/*",), publish=tuple(publish))

    async def recheck(identity: Identity) -> Identity:
        return Identity(user="ann", subscribe=("orders/*",), publish=tuple(publish))

    server = await serve(setup={"authenticate": login, "recheck": recheck, "routes": None}, recheck=1)
    reader = await connected(server, "orders/1")
    sent = {"op": "publish", "topic": "orders/1", "data": 1}
    assert (await reader.answer(sent))["op"] == "ok"
    publish.clear()
    (stream,) = server.subscriptions
    await until(lambda: stream.holder.identity is not None and not stream.holder.identity.publish)
    assert (await reader.answer(sent))["code"] == "forbidden"
    assert (await reader.answer({"op": "ping"}))["op"] == "ok"


async def test_publishes_are_limited_as_over_http(serve: Serve) -> None:
    server = await serve(jwt_secret=SECRET, setup={"routes": None}, publish_rate=1)
    reader = await connected(server, token=token())
    codes = [
        answer.get("code")
        for _ in range(20)
        if (answer := await reader.answer({"op": "publish", "topic": "orders/1", "data": 1}))
    ]
    assert codes[0] is None
    assert codes[-1] == "too_many_publishes"
    assert server.hub.metrics.limited >= 1


async def test_refusals_are_counted_and_one_too_many_is_not_looked_at(serve: Serve) -> None:
    server = await serve(jwt_secret=SECRET, setup={"routes": None}, refuse_rate=1)
    reader = await connected(server, token=token())
    codes = {(await reader.answer({"op": "subscribe", "topics": ["secret"]}))["code"] for _ in range(20)}
    assert codes == {"forbidden", "capacity"}  # as the problem over HTTP


# ---- messages and their description ----


def validator(name: str) -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{name}"})


def test_the_schema_of_the_reference_is_that_of_the_code() -> None:
    Draft202012Validator.check_schema(websocket_schema())
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == websocket_schema()


def test_the_page_names_every_message() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, schema in websocket_schema()["$defs"].items():
        for each in schema.get("oneOf", [schema]):
            if "op" in each.get("properties", {}):
                assert f"`{each['properties']['op']['const']}`" in page, name


def test_the_examples_of_the_page_are_messages() -> None:
    page = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^([→←]) (\{.*\})$", page, re.MULTILINE)
    assert len(lines) > 5
    for arrow, line in lines:
        name = "FromClient" if arrow == "→" else "FromHub"
        assert [error.message for error in validator(name).iter_errors(json.loads(line))] == [] or "*" in line, line


async def test_all_that_is_said_is_described(serve: Serve) -> None:
    server = await serve(
        jwt_secret=SECRET, setup={"routes": None}, heartbeat=0.1, retain_count=3, buffer_bytes=64 * 1024
    )
    server.hub.notifications.send_notification({"a": [1]}, topic="orders/1", type="t", retry=1, tags={"x": 1})
    heard: list[Message] = []
    reader = SocketReader(server, token=token(presence=True), cursor="x-1")
    reader.query["presence"] = "1"
    reader._move = heard.append  # type: ignore[method-assign,assignment]  # all of them, heartbeats and answers too
    reader.topics = ("orders/1",)
    await reader.open()
    for asked, *_ in WRONG:
        if not isinstance(asked, bytes):
            await reader.say(asked)
    for asked in (
        {"op": "publish", "topic": "orders/1", "data": 1, "key": "k", "ref": 1},
        {"op": "publish", "topic": "orders/1", "data": 1, "key": "k"},
        {"op": "presence", "topic": "orders/1"},
        {"op": "subscribe", "topics": ["orders/2"], "lastEventId": "earliest"},
        {"op": "unsubscribe", "topics": ["orders/2"]},
    ):
        assert [error.message for error in validator("FromClient").iter_errors(asked)] == []
        await reader.say(asked)

    async def hear() -> None:
        while True:
            await reader.message()

    hearing = asyncio.create_task(hear())
    await until(lambda: {"hub.heartbeat", "hub.gap", "hub.presence"} <= {each["op"] for each in heard})
    other = await connected(server, "orders/1", token=token("bob"))
    await until(lambda: any(each["op"] == "hub.join" for each in heard))
    await other.aclose()
    await server.hub.revoke_user("eve")
    await until(lambda: any(each["op"] == "hub.close" for each in heard))
    hearing.cancel()
    await asyncio.wait([hearing])
    check = validator("FromHub")
    for each in heard:
        assert [error.message for error in check.iter_errors(each)] == [], each


# ---- closing, time, room ----


async def test_the_close_of_the_client_is_answered_behind_what_it_asked_for(server: Server) -> None:
    reader = await connected(server)
    await reader.next("hub.open")
    await reader.client.send(said({"op": "publish", "topic": "a", "data": 1}) + close(3001, "bye"))
    assert await reader.ended() == []
    assert reader.code == 3001
    assert server.hub.log.bounds().newest.offset == 1
    await server.deserted()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x02{}", 1002),  # without a mask
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that there is not
        (b"\x80\x80\0\0\0\0", 1002),  # a fragment of nothing
        (b"\x89\xfe\x00\x7e" + bytes(130), 1002),  # a ping of 126 bytes
        (b"\x88\x81\0\0\0\0x", 1002),  # half a code
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # the code 1005
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
        (b"\x82\x81\0\0\0\0x", 1003),
        (b"\x81\xff" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), 1009),
    ],
)
async def test_what_breaks_the_protocol_closes_with_its_code(server: Server, sent: bytes, code: int) -> None:
    reader = await connected(server)
    await reader.next("hub.open")
    await reader.client.send(sent)
    await reader.ended()
    assert reader.code == code
    await server.deserted()


async def test_a_client_that_does_not_answer_a_ping_is_cut(serve: Serve) -> None:
    server = await serve(heartbeat=0.1, peer_timeout=0.3)
    reader, silent = await connected(server, "a"), await connected(server, "a")
    silent.pongs = False
    hearing = [asyncio.create_task(each.ended()) for each in (reader, silent)]
    await asyncio.wait([hearing[1]], timeout=10)
    assert hearing[1].done()
    assert server.hub.metrics.peer_timeouts == 1
    assert not hearing[0].done()
    await reader.aclose()
    await asyncio.wait(hearing)


async def test_a_ping_is_answered(server: Server) -> None:
    reader = await connected(server)
    await reader.next("hub.open")
    await reader.client.send(ping(b"are you there"))
    (frame,) = frames(await reader.client.at_most(100))
    assert (frame.opcode, bytes(frame.payload)) == (Opcode.PONG, b"are you there")


async def test_a_socket_whose_client_does_not_answer_the_close_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.0)
    reader = await connected(server, "a")
    server.subscriptions[0].end(CloseReason.SHUTDOWN, 1_000)
    assert len(server.hub.connections) == 1
    server.hub.connections.sweep()
    await server.deserted()
    await reader.client.gone()


class Slow:
    """What answers when it is told to."""

    message_seconds = 30.0

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.answered: list[bytes] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def answer(self, socket: WebSocket, message: bytes) -> None:
        await self.go.wait()
        self.answered.append(message)
        socket.reply({"op": "ok"})

    def start(self, socket: WebSocket) -> None:
        self.tasks.append(asyncio.create_task(socket.work()))


class PausableTransport(FakeTransport):
    """A transport that can be told not to read."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def made(
    answering: Any,
    *,
    messages: Messages = Messages(),  # noqa: B008 - it is immutable
    **options: Any,
) -> tuple[WebSocket, PausableTransport]:
    options = {"holder": NOBODY, **options}
    stream = WebSocket(Subscription((), None, messages), Desk().wiring, answering, **options)
    transport = PausableTransport(stream)
    stream.connection_made(transport)
    return stream, transport


async def test_once_a_rule_is_broken_only_the_answer_of_the_client_closes_the_socket_at_once() -> None:
    answer = close(1002)
    closed = {}
    for data in (answer, answer + b"x", answer[:7], text("{}"), b"\x88"):
        stream, transport = made(Slow())
        stream.data_received(b"\x81\x02{}")
        assert not transport.is_closing()
        stream.data_received(data)
        closed[data] = transport.is_closing()
        stream.abort()
        stream.connection_lost(None)
    assert closed == {data: data == answer for data in closed}


async def test_what_waits_for_an_answer_is_bounded() -> None:
    slow = Slow()
    stream, transport = made(slow, holder=Connection(Subscription(()), Desk().wiring).holder)
    sent = 0
    while transport.reading:
        stream.data_received(said({"op": "ping", "ref": sent}))
        sent += 1
    assert sent * len('{"op": "ping", "ref": 0}') < sockets.WAITING_BYTES
    slow.go.set()
    await asyncio.wait(slow.tasks)
    assert len(slow.answered) == sent
    assert transport.reading
    assert stream._waits is None


@pytest.mark.parametrize("compressed", [False, True])
async def test_what_comes_at_once_is_read_only_as_far_as_there_is_room_for_it(compressed: bool) -> None:
    """A quarter of a megabyte may come in one piece, and unpack to a thousand times that."""
    slow = Slow()
    message = Messages(deflate=compressed)
    stream, transport = made(slow, messages=message)
    large = b"x" * 50_000
    number = 500 if compressed else 20
    stream.data_received(masked(message._framed(Sent.TEXT, large)) * number)
    assert stream._waiting_bytes <= sockets.WAITING_BYTES + len(large) + 200
    assert stream._waits is not None
    assert len(stream._waits) == 2
    assert not transport.reading
    slow.go.set()
    await asyncio.wait_for(until(lambda: len(slow.answered) == number), 20)
    assert transport.reading
    assert stream._reader is None


async def test_many_frames_at_once_are_read_in_several_turns() -> None:
    slow = Slow()
    stream, transport = made(slow)
    stream.data_received(ping(b"first") + ping() * (3 * sockets.FRAMES_AT_ONCE) + ping(b"last"))
    assert not transport.reading
    answered = len(frames(bytes(transport.received)))
    assert sockets.FRAMES_AT_ONCE <= answered <= sockets.FRAMES_AT_ONCE + 1
    await until(lambda: transport.reading)
    found = frames(bytes(transport.received))
    assert [bytes(each.payload) for each in found if each.opcode is Opcode.PONG and each.payload] == [b"first", b"last"]
    # Empty fragments are frames, too.
    stream.data_received(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * sockets.FRAMES_AT_ONCE)
    assert not transport.reading


async def test_one_that_has_ended_reads_on_to_the_close_of_its_client() -> None:
    slow = Slow()
    stream, transport = made(slow)
    stream.data_received(said({"op": "publish", "topic": "a", "data": "x" * 50_000}) * 3 + close(1001))
    assert not transport.reading
    stream.end(CloseReason.SHUTDOWN, 1_000)
    for _ in range(3):
        await asyncio.sleep(0)
    assert transport.is_closing()


async def test_a_message_that_does_not_come_to_its_end_ends_the_socket() -> None:
    slow = Slow()
    slow.go.set()
    stream, transport = made(slow)
    whole = said({"op": "ping"})
    stream.data_received(whole[:-1])
    begun = time.monotonic()
    stream.tend(begun + 29, 0)
    stream.data_received(whole[-1:] + whole[:3])  # it came, and the next one has begun
    stream.data_received(ping())
    assert stream.closed_because is None
    stream.tend(time.monotonic() + 29, 0)
    assert stream.closed_because is None
    stream.tend(time.monotonic() + 31, 0)
    assert stream.closed_because is CloseReason.PROTOCOL
    assert int(frames(bytes(transport.received))[-1].payload[0]) == 1008


async def test_whoever_does_not_read_its_answers_gets_no_more_of_them() -> None:
    slow = Slow()
    slow.go.set()
    stream, transport = made(slow, holder=Connection(Subscription(()), Desk().wiring).holder)
    transport.capacity, transport.high = 0, 100
    for number in range(300):
        stream.data_received(said({"op": "ping", "ref": number}))
    for _ in range(700):
        await asyncio.sleep(0)
    assert len(transport.unsent) < 300
    assert len(slow.answered) < 10
    transport.read(1 << 20)
    await asyncio.wait(slow.tasks)
    assert len(slow.answered) == 300


async def test_an_idle_socket_holds_little() -> None:
    """What the socket itself costs in the kernel and the loop is not counted here."""
    desk, slow = Desk(), Slow()
    holder = Connection(Subscription(()), desk.wiring).holder
    messages = Messages()

    def one() -> tuple[WebSocket, FakeTransport]:
        stream = WebSocket(Subscription((), None, messages), desk.wiring, slow, holder=holder)
        transport = FakeTransport(stream)
        stream.connection_made(transport)
        stream.data_received(pong())  # it has been spoken to, and forgets what it has read with
        transport.received.clear()
        return stream, transport

    kept = [one() for _ in range(100)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept += [one() for _ in range(1_000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 1_000 < 2_500  # with the fake transport
    assert len(kept) == 1_100


# ---- other formats ----


async def test_msgpack_carries_bytes_and_every_other_wire_base64(server: Server) -> None:
    client = await handshake(server, Sec_WebSocket_Protocol="hub.v1.msgpack")
    assert client.headers["Sec-WebSocket-Protocol"] == "hub.v1.msgpack"
    reader = await connected(server, "a")
    found = Frames()
    heard: list[Any] = []

    async def hear(number: int) -> None:
        while len(heard) < number:
            for each in found.feed(await client.at_most(1 << 16)):
                assert each.opcode is Opcode.BINARY
                heard.append(msgpack.unpackb(bytes(each.payload)))

    await hear(1)
    await client.send(said(msgpack.packb({"op": "subscribe", "topics": ["a"]})))
    await hear(3)
    for data in (b"\0\xff", {"base64": "no"}, "text"):
        await client.send(said(msgpack.packb({"op": "publish", "topic": "a", "data": data})))
    server.send({"n": [1 << 70, 1.5]}, topic="a")
    await hear(3 + 3 * 2 + 1)
    sent = [each["data"] for each in heard if each["op"] == "notification"]
    assert b"\0\xff" in sent
    assert {"base64": "no"} in sent
    assert {"n": [float(1 << 70), 1.5]} in sent
    heard_as_json = [message for _ in range(6) if (message := await reader.message())["op"] == "notification"]
    assert {"base64": "AP8="} in [each["data"] for each in heard_as_json]
    names = [{"op": "ping", b"x": 1}, {"op": "publish", "data": 1, b"x": 1, "y": 1}]
    objects = [[1], {"op": "ping", "ref": b"x"}, *names]
    for wrong in (b"\xc1", b"\x91", *map(msgpack.packb, objects)):
        heard.clear()
        await client.send(said(wrong))
        await hear(1)
        assert heard[0]["status"] == 400


async def test_compression_is_agreed_only_where_it_is_on(serve: Serve) -> None:
    offer = "permessage-deflate; client_max_window_bits"
    off, on = await serve(), await serve(websocket_deflate=True)
    assert "Sec-WebSocket-Extensions" not in (await handshake(off, Sec_WebSocket_Extensions=offer)).headers
    client = await handshake(on, Sec_WebSocket_Extensions=offer)
    agreed = client.headers["Sec-WebSocket-Extensions"]
    assert agreed == "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    small = "permessage-deflate; server_max_window_bits=9"
    assert "Sec-WebSocket-Extensions" not in (await handshake(on, Sec_WebSocket_Extensions=small)).headers
    broken = await handshake(on, Sec_WebSocket_Extensions="permessage-deflate; =")
    assert broken.status == 400


async def test_a_bomb_is_not_inflated(serve: Serve, complaints: Complaints) -> None:
    server = await serve(websocket_deflate=True)
    client = await handshake(server, Sec_WebSocket_Extensions="permessage-deflate")
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(b" " * (64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    await client.send(b"\xc1\xff" + len(bomb).to_bytes(8, "big") + b"\0\0\0\0" + bomb)
    found = Frames()
    told: list[Any] = []
    try:
        while not any(each.opcode is Opcode.CLOSE for each in told):
            told += found.feed(await client.at_most(1 << 16))
    except StreamEnded:
        pass
    assert int(told[-1].payload[0]) == 1009
    await client.send(close(1009))
    await server.deserted()


def test_long_messages_have_long_lengths() -> None:
    for size in (0, 125, 126, 65_535, 65_536, 200_000):
        framed = Messages().message({"text": "x" * size})
        assert messages(framed) == [{"text": "x" * size}]
