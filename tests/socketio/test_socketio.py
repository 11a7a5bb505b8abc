"""Clients of Socket.IO: who speaks, what they ask for, what they are told, and how their sessions end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import jwt
import pytest
import socketio
from engineio.packet import Packet
from socketio.exceptions import ConnectionError as NotConnected

from hub.connections.client_stream import CloseReason, StreamKind
from hub.errors import InvalidSettings
from hub.web import conversation
from hub.web.socketio.outbox import MOST_FOREIGN, TAKEN_BYTES, Outbox
from hub.web.socketio.server import SocketIO
from tests.web.client import PATIENCE, StreamEnded, until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server

SECRET = "a secret of the tests, which has more than 32 bytes"
BOTH = pytest.mark.parametrize("transport", ["polling", "websocket"])


def token(user: str = "eve", *, seconds: float = 3600, **rights: Any) -> str:
    rights = {"subscribe": ["orders/*"], "publish": ["orders/*"], **rights}
    return jwt.encode(
        {"sub": user, "iat": int(time.time()) - 1, "exp": time.time() + seconds, "hub": rights}, SECRET, "HS256"
    )


def url(server: Server) -> str:
    return "http://{}:{}".format(*server.address)


class Talker:
    """A client of python-socketio, and what it has heard."""

    def __init__(self, server: Server, transport: str) -> None:
        self.server, self.transport = server, transport
        self.heard: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.left = asyncio.Event()
        self.refused: Any = None
        self.client = socketio.AsyncClient(reconnection=False)
        self.client.on("*", self._hear)
        self.client.on("disconnect", self._leave)
        self.client.on("connect_error", self._refuse)

    async def _hear(self, event: str, facts: dict[str, Any]) -> None:
        await self.heard.put((event, facts))

    async def _leave(self, *reason: str) -> None:
        self.left.set()

    async def _refuse(self, error: Any) -> None:
        self.refused = error

    async def connect(self, auth: Any = None, **headers: str) -> None:
        await self.client.connect(
            url(self.server),
            auth=auth,
            headers={name.replace("_", "-"): text for name, text in headers.items()},
            transports=[self.transport],
            socketio_path=f"{self.server.prefix}/socket.io",
            wait_timeout=PATIENCE,
        )

    async def ask(self, event: str, *said: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.client.call(event, *said, timeout=PATIENCE)
        return answer

    async def next(self, event: str = "notification") -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                name, facts = await self.heard.get()
                if name == event:
                    return facts

    async def gone(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.left.wait()


Connect = Callable[..., Awaitable[Talker]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A function that returns a client that has connected."""
    talkers: list[Talker] = []

    async def one(server: Server, transport: str = "websocket", auth: Any = None, **headers: str) -> Talker:
        talkers.append(Talker(server, transport))
        await talkers[-1].connect(auth, **headers)
        return talkers[-1]

    yield one
    for talker in talkers:
        await talker.client.disconnect()
        with suppress(AttributeError):
            await talker.client.eio.http.close()


@pytest.fixture
async def guarded(serve: Serve) -> Server:
    """A hub that knows users by their tokens, and lets them join rooms whose names do not begin with `closed`."""

    async def authorize_join(identity: object, room: str, publish: bool) -> bool:
        return not room.startswith("closed")

    return await serve(
        socketio=True, jwt_secret=SECRET, heartbeat=1, peer_timeout=10, setup={"authorize_join": authorize_join}
    )


# ---- topics ----


@BOTH
async def test_a_client_hears_what_it_subscribes_to(serve: Serve, connect: Connect, transport: str) -> None:
    server = await serve(socketio=True)
    talker = await connect(server, transport)
    opened = await talker.next("hub.open")
    assert opened["topics"] == []
    answered = await talker.ask("subscribe", {"topics": ["orders/*"]})
    assert (answered["ok"], answered["topics"]) == (True, ["orders/*"])
    (id,) = server.send({"number": 7}, topic="orders/7", type="order")
    assert await talker.next() == {"id": id, "topics": ["orders/7"], "type": "order", "data": {"number": 7}}
    assert (await talker.ask("unsubscribe", "orders/*"))["topics"] == []


@BOTH
async def test_what_a_client_publishes_reaches_others_on_every_wire(
    serve: Serve, connect: Connect, transport: str
) -> None:
    server = await serve(socketio=True)
    stream = await server.subscribe("orders")
    one, other = await connect(server, transport), await connect(server, transport)
    await other.ask("subscribe", "orders")
    text = "long enough for several frames, and a \x1e in it " * 2_000
    published = await one.ask("publish", {"topic": "orders", "data": text, "type": "order", "key": "k"})
    assert published["ok"], published
    assert (await stream.next("order")).data == text
    assert await other.next() == {"id": published["id"], "topics": ["orders"], "type": "order", "data": text}
    again = await one.ask("publish", {"topic": "orders", "data": text, "type": "order", "key": "k"})
    assert (again["repeated"], again["id"]) == (True, published["id"])


async def test_a_client_that_keeps_its_id_resumes_the_topics_that_it_names(serve: Serve, connect: Connect) -> None:
    server = await serve(socketio=True)
    first, *_ = server.send(0, 1, 2, topic="orders")
    talker = await connect(server)
    await talker.ask("subscribe", {"topics": ["orders"], "lastEventId": first})
    assert [(await talker.next())["data"] for _ in range(2)] == [1, 2]


# ---- who speaks ----


@BOTH
async def test_a_token_says_who_speaks(guarded: Server, connect: Connect, transport: str) -> None:
    by_auth = await connect(guarded, transport, {"token": token("ann")})
    by_header = await connect(guarded, transport, Authorization=f"Bearer {token('bob')}")
    by_cookie = await connect(guarded, transport, Cookie=f"hub_token={token('cid')}")
    for talker, user in ((by_auth, "ann"), (by_header, "bob"), (by_cookie, "cid")):
        assert (await talker.next("hub.open"))["topics"] == [f"user/{user}"]
        guarded.send(user, topic=f"user/{user}", private=True)
        assert (await talker.next())["data"] == user
    assert {each.holder.user for each in guarded.hub.connections} == {"ann", "bob", "cid"}


@BOTH
async def test_no_token_and_no_data_is_in_the_log(
    guarded: Server, connect: Connect, caplog: pytest.LogCaptureFixture, transport: str
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = token("ann")
    talker = await connect(guarded, transport, {"token": secret})
    await talker.ask("publish", {"topic": "orders/1", "data": "a matter of two"})
    refused = Talker(guarded, transport)
    with pytest.raises(NotConnected):
        await refused.connect({"token": f"x{secret}"})
    await refused.client.disconnect()
    logged = [each.getMessage() for each in caplog.records if each.name.startswith(("hub", "aiohttp"))]
    assert not [each for each in logged if secret in each or "a matter of two" in each or "sid=" in each]


@BOTH
@pytest.mark.parametrize(("auth", "code"), [
    (None, "unauthorized"), ({"token": "none"}, "token_invalid"), ({"token": token(seconds=-60)}, "token_expired"),
    ({"tokne": "x"}, "invalid_input"), (["token"], "invalid_input"), ({"token": 7}, "invalid_input"),
])  # fmt: skip
async def test_whoever_may_not_speak_is_told_why(guarded: Server, transport: str, auth: Any, code: str) -> None:
    talker = Talker(guarded, transport)
    with pytest.raises(NotConnected):
        await talker.connect(auth)
    assert talker.refused["message"] == talker.refused["data"]["code"] == code
    await talker.client.disconnect()
    await guarded.deserted()


@pytest.mark.parametrize("path", ["?EIO=4&transport=polling", "?EIO=4&transport=websocket"])
async def test_a_page_of_another_site_gets_no_session(guarded: Server, path: str) -> None:
    headers = {"Origin": "https://evil.test", "Cookie": f"hub_token={token()}"}
    assert (await guarded.ask("GET", f"/socket.io/{path}", headers=headers)).status == 403


async def test_each_thing_is_asked_for_by_right(guarded: Server, connect: Connect) -> None:
    talker = await connect(guarded, auth={"token": token()})
    for event, said in (
        ("subscribe", "secret"), ("publish", {"topic": "secret", "data": 1}), ("join", "closed"),
    ):  # fmt: skip
        answered = await talker.ask(event, said)
        assert (answered["ok"], answered["code"], answered["status"]) == (False, "forbidden", 403), event
    await talker.client.emit("publish", {"topic": "secret", "data": 1})
    assert (await talker.next("hub.error"))["code"] == "forbidden"


@pytest.mark.parametrize("said", [
    ("shout",), ("auth", {"token": "x"}), ("publish", {"topic": "orders/1"}), ("publish", 7), ("join", 7),
    ("join",), ("subscribe", {"topics": ["a//b"]}), ("subscribe", {"topic": "orders/1"}), ("ping", {"op": "ping"}),
    ("publish", {"topic": "orders/1", "data": 1, "retry": -1}), ("presence", [1]), ("ping", (1, 2)),
])  # fmt: skip
async def test_what_makes_no_sense_is_told_and_the_session_goes_on(
    guarded: Server, connect: Connect, said: tuple[Any, ...]
) -> None:
    talker = await connect(guarded, auth={"token": token()})
    answered = await talker.ask(*said)
    assert not answered["ok"]
    assert 400 <= answered["status"] < 500, answered
    assert (await talker.ask("ping")) == {"ok": True}


# ---- rooms ----


@BOTH
async def test_members_of_a_room_hear_each_other_until_they_leave(
    guarded: Server, connect: Connect, transport: str
) -> None:
    ann = await connect(guarded, transport, {"token": token("ann")})
    bob = await connect(guarded, transport, {"token": token("bob")})
    for talker in (ann, bob):
        assert (await talker.ask("join", {"room": "lobby", "publish": True}))["ok"]
        await talker.next("hub.topics")
    said = await ann.ask("publish", {"topic": "room/lobby", "data": "hello", "private": True})
    assert said["ok"], said
    assert (await bob.next())["data"] == "hello"
    assert (await bob.ask("leave", "lobby"))["left"]
    assert not (await bob.ask("publish", {"topic": "room/lobby", "data": "bye", "private": True}))["ok"]
    (stream,) = [each for each in guarded.subscriptions if each.holder.user == "bob"]
    assert list(stream.topics) == ["user/bob"]


# ---- the end ----


@BOTH
async def test_revoked_rights_end_a_session(guarded: Server, connect: Connect, transport: str) -> None:
    talker = await connect(guarded, transport, {"token": token("ann")})
    admin = {"Authorization": f"Bearer {token('root', admin=True)}"}
    assert (await guarded.ask("DELETE", "/notifications/users/ann/connections", headers=admin)).status == 204
    assert (await talker.next("hub.close"))["reason"] == "revoked"
    await talker.gone()
    await guarded.deserted()


@BOTH
async def test_the_oldest_session_of_a_user_makes_room(serve: Serve, connect: Connect, transport: str) -> None:
    server = await serve(socketio=True, jwt_secret=SECRET, max_per_user=1, per_user="oldest")
    oldest = await connect(server, transport, {"token": token("ann")})
    newest = await connect(server, transport, {"token": token("ann")})
    assert (await oldest.next("hub.close"))["reason"] == "replaced"
    await oldest.gone()
    assert (await newest.ask("ping"))["ok"]


async def test_a_poll_that_is_cut_ends_its_session_where_aiohttp_tells(serve: Serve) -> None:
    server = await serve(socketio=True, handler_cancellation=True)
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    client = await server.client()
    await client.request("GET", raw.path)
    (session,) = server.app[SocketIO.KEY]._sessions.values()
    await until(lambda: "polling" in session.ways)
    await client.aclose()
    await server.deserted()


@BOTH
async def test_a_client_that_leaves_is_forgotten(serve: Serve, connect: Connect, transport: str) -> None:
    server = await serve(socketio=True)
    talker = await connect(server, transport)
    await talker.ask("subscribe", "orders")
    assert [each.kind for each in server.hub.connections] == [StreamKind.SOCKETIO]
    assert server.hub.connections.count(StreamKind.SOCKETIO) == 1
    await talker.client.disconnect()
    await server.deserted()


@BOTH
async def test_a_drain_ends_sessions_with_a_last_word(serve: Serve, connect: Connect, transport: str) -> None:
    server = await serve(socketio=True, drain=2)
    talker = await connect(server, transport)
    await talker.next("hub.open")
    await server.hub.drain()
    assert (await talker.next("hub.close"))["reason"] == "shutdown"
    await talker.gone()
    answer = await server.ask("GET", "/socket.io/?EIO=4&transport=polling")
    assert (answer.status, answer.json()["type"]) == (503, "urn:broadcast-hub:shutting-down")


@BOTH
async def test_a_session_counts_against_the_limits(serve: Serve, connect: Connect, transport: str) -> None:
    server = await serve(socketio=True, max_connections=1)
    await connect(server, transport)
    answer = await server.ask("GET", "/socket.io/?EIO=4&transport=polling")
    assert (answer.status, answer.json()["type"]) == (503, "urn:broadcast-hub:too-many-streams")


class Raw:
    """A session over long-polls, request by request."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.path = "/socket.io/?EIO=4&transport=polling"

    async def open(self) -> None:
        opened = await self.poll()
        assert opened[0] == "0", opened
        self.path += f"&sid={json.loads(opened[1:])['sid']}"

    async def poll(self) -> str:
        answer = await self.server.ask("GET", self.path)
        assert answer.status == 200, answer
        return answer.body.decode()

    async def post(self, body: str | bytes) -> int:
        body = body.encode() if isinstance(body, str) else body
        headers = {"Content-Type": "text/plain;charset=UTF-8"}
        return (await self.server.ask("POST", self.path, headers=headers, body=body)).status

    async def subscribe(self, topic: str) -> None:
        assert await self.post("40") == 200
        assert await self.post(f'420["subscribe","{topic}"]') == 200
        said = ""
        while "430[" not in said:
            said += await self.poll()


async def test_what_waits_for_a_slow_reader_is_bounded(serve: Serve) -> None:
    server = await serve(socketio=True, buffer_bytes=256 * 1024)
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    (stream,) = server.subscriptions
    largest = 0
    for number in range(200):
        server.send(f"{number}" + "x" * 10_000, topic="orders")
        await asyncio.sleep(0)
        largest = max(largest, stream.facts().buffered)
    await server.deserted()
    assert stream.closed_because is CloseReason.SLOW
    assert largest <= 256 * 1024 + 64 * 1024
    assert server.hub.metrics.slow_disconnects == 1


async def test_a_slow_reader_with_drop_oldest_is_told_what_is_missing(serve: Serve) -> None:
    server = await serve(socketio=True, buffer_bytes=256 * 1024, slow="drop_oldest")
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    for number in range(200):
        server.send(f"{number}:" + "x" * 10_000, topic="orders")
        await asyncio.sleep(0)
    told = ""
    while '"199:' not in told:
        told += "\x1e" + await raw.poll()
    events = [json.loads(each[2:]) for each in told.split("\x1e") if each.startswith("42")]
    notifications = [int(facts["data"].split(":")[0]) for name, facts in events if name == "notification"]
    dropped = sum(facts["dropped"] for name, facts in events if name == "hub.dropped")
    assert notifications == sorted(set(notifications))
    assert dropped > 0
    assert len(notifications) + dropped == 200


async def test_one_request_may_bring_many_events(serve: Serve) -> None:
    server = await serve(socketio=True)
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    assert await raw.post("\x1e".join(f'42{number}["ping"]' for number in range(100))) == 200
    told = ""
    while "4399[" not in told:
        told += "\x1e" + await raw.poll()
    answers = [int(each[2:].partition("[")[0]) for each in told.split("\x1e") if each.startswith("43")]
    assert answers == list(range(100))


async def test_a_client_in_python_takes_many_notifications_by_polls(serve: Serve, connect: Connect) -> None:
    server = await serve(socketio=True)
    talker = await connect(server, "polling")
    await talker.ask("subscribe", "orders")
    server.send(*range(100), topic="orders")
    assert [(await talker.next())["data"] for _ in range(100)] == list(range(100))


async def test_refusals_that_nobody_takes_are_bounded(serve: Serve) -> None:
    server = await serve(socketio=True)
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    (stream,) = server.subscriptions
    async with aiohttp.ClientSession() as session:
        flood = b"\x1e".join([b"40/admin,{}"] * 10_000)
        headers = {"Content-Type": "text/plain"}
        posting = asyncio.create_task(session.post(f"{url(server)}{raw.path}", data=flood, headers=headers))
        await until(lambda: not stream.at_leisure)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not posting.done()
        assert stream.facts().buffered <= 2 * TAKEN_BYTES
        stream.abort()
        with pytest.raises(aiohttp.ClientError):
            await posting


async def test_packets_that_nobody_takes_are_bounded() -> None:
    outbox, cuts = Outbox(), []
    outbox.cut = lambda: cuts.append(outbox)
    for _ in range(MOST_FOREIGN):
        outbox.put_nowait(Packet(6))
    assert not cuts
    outbox.put_nowait(Packet(6))
    assert cuts == [outbox]
    assert outbox.get_write_buffer_size() == 0
    for _ in range(2):  # however many wait for it
        assert await outbox.get() is None


UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_session_has_one_websocket(serve: Serve, transport: str) -> None:
    server = await serve(socketio=True)
    raw = Raw(server)
    await raw.open()
    path = f"{url(server)}{raw.path}".replace("polling", "websocket")
    async with (
        aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE), session.ws_connect(path) as probe
    ):  # fmt: skip
        await probe.send_str("2probe")
        assert await probe.receive_str() == "3probe"
        second = await server.ask("GET", raw.path.replace("polling", transport), headers=UPGRADE)
        assert second.status == 400
        await probe.send_str("5")
        await probe.send_str("40")
        assert await probe.receive_str() == "6"  # for the poll that there is not
        assert (await probe.receive_str()).startswith("40")
        assert await raw.post("3") == 400
    await server.deserted()


async def test_who_does_not_connect_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "KNOWN_SECONDS", 0.1)
    server = await serve(socketio=True, heartbeat=0.3)
    raw = Raw(server)
    await raw.open()
    assert "unauthorized" in await raw.poll()
    await server.deserted()


async def test_who_does_not_answer_pings_is_ended(serve: Serve) -> None:
    server = await serve(socketio=True, heartbeat=0.2, peer_timeout=1)
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    (stream,) = server.subscriptions
    await server.deserted()
    assert stream.closed_because is CloseReason.PEER_TIMEOUT


BROKEN: tuple[str | bytes, ...] = (
    "x", "", "4", "49", "4" + "[" * 60_000, "42[" + "[" * 60_000, "42{}", "42[]", "42[7]", "b!!!", "bAAAA", "4" * 200,
    '451-["publish",{"_placeholder":true,"num":0}]', '42["publish",{"topic":"orders","data":NaN}]', "3probe", "5", "9",
    "41", "43", "44{}", "2\x1e" * 20 + "2", b"\xff\xfe", "40/admin,{}", "1", "40", "2", "6", "42" + "9" * 200 + "[]",
    "5\x1e" * 500 + "5",
    '42["publish",{"topic":"orders","data":"\\ud800"}]',
)  # fmt: skip


@pytest.mark.parametrize("known", [False, True])
async def test_no_packet_breaks_the_hub(serve: Serve, complaints: Complaints, *, known: bool) -> None:
    server = await serve(socketio=True, heartbeat=0.2, peer_timeout=1)

    async def by_poll(body: str | bytes) -> None:
        raw = Raw(server)
        await raw.open()
        if known:
            await raw.subscribe("orders")
        with suppress(StreamEnded, ConnectionError):  # the connection may be cut
            assert await raw.post(body) < 500, body

    async def by_websocket(body: str | bytes) -> None:
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(f"{url(server)}/socket.io/?EIO=4&transport=websocket")
            if known:
                await socket.send_str("40")
            await (socket.send_str(body) if isinstance(body, str) else socket.send_bytes(body))
            async for _ in socket:
                pass

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(by_poll, BROKEN), *map(by_websocket, BROKEN))
    await server.deserted()
    assert complaints.take() == []


async def test_a_websocket_that_is_only_tried_does_not_outlive_its_session(serve: Serve) -> None:
    server = await serve(socketio=True)
    raw = Raw(server)
    await raw.open()
    await raw.subscribe("orders")
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        probe = await session.ws_connect(f"{url(server)}{raw.path.replace('polling', 'websocket')}")
        assert await raw.post("1") == 200
        async for _ in probe:
            pass
    await server.deserted()


@pytest.mark.parametrize("query", ["", "?EIO=3", "?EIO=4&transport=carrier", "?EIO=4&transport=polling&j=0",
    "?EIO=4&transport=websocket", "?EIO=4&sid=none", "?EIO=4&transport=polling&token=x"])  # fmt: skip
async def test_a_request_that_makes_no_sense_gets_400(serve: Serve, query: str) -> None:
    server = await serve(socketio=True)
    assert (await server.ask("GET", f"/socket.io/{query}")).status == 400
    assert len(server.hub.connections) == 0


async def test_it_is_off_unless_it_is_asked_for(serve: Serve) -> None:
    server = await serve()
    assert (await server.ask("GET", "/socket.io/?EIO=4&transport=polling")).status == 404


async def test_a_prefix_stands_before_its_path(serve: Serve, connect: Connect) -> None:
    server = await serve(socketio=True, prefix="/live")
    talker = await connect(server)
    assert (await talker.ask("ping"))["ok"]


async def test_without_the_library_the_start_says_what_to_install(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hub.web.socketio.server", None)
    with pytest.raises(InvalidSettings, match=r"pip install '/path/to/broadcast-hub\[socketio\]'"):
        await serve(socketio=True)


async def test_a_churn_of_sessions_leaves_nothing(serve: Serve, connect: Connect) -> None:
    server = await serve(socketio=True)
    for transport in ("polling", "websocket") * 5:
        talker = await connect(server, transport)
        await talker.client.disconnect()
    await server.deserted()
    served = server.app[SocketIO.KEY]
    await until(lambda: not (served._sessions or served._began or served._engine.sockets or served._engine.tasks))
