"""Clients that leave are noticed at once, those that vanish soon, and nothing of them is kept."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
from aiohttp import web

from hub.connections.connection import Connection
from hub.connections.seam import State
from tests.chance import examples
from tests.web.client import Client, until
from tests.web.conftest import TLS, Serve
from tests.web.network import Network
from tests.web.server import Server

pytestmark = pytest.mark.both_loops

FILLER = "x" * 60_000
CROWD = examples(50, 500)


def the_connection(server: Server) -> Connection:
    (connection,) = server.subscriptions
    return connection


# ---- every way to leave, in every phase ----


class SlowSignal:
    """An application's `on_response_prepare` signal that takes its time."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.over = asyncio.Event()
        self.request: web.BaseRequest | None = None

    async def __call__(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        self.request = request
        self.reached.set()
        try:
            await self.go_on.wait()
        finally:
            self.over.set()

    @property
    def has_lost_its_client(self) -> bool:
        return self.request is not None and self.request.transport is None


@pytest.fixture
async def slow_signal() -> SlowSignal:
    return SlowSignal()


@pytest.fixture
async def slow_server(
    serve: Serve, slow_signal: SlowSignal, maybe_tls: TLS | None, handler_cancellation: bool
) -> AsyncIterator[Server]:
    app = web.Application()
    app.on_response_prepare.append(slow_signal)
    yield await serve(app=app, tls=maybe_tls, handler_cancellation=handler_cancellation)
    slow_signal.go_on.set()


async def test_a_client_that_leaves_before_the_headers_never_becomes_a_stream(
    slow_server: Server, slow_signal: SlowSignal, leave: Callable[[Client], None], handler_cancellation: bool
) -> None:
    client = await slow_server.client()
    await client.request("GET", slow_server.subscribe_path())
    await slow_signal.reached.wait()
    leave(client)
    await until(lambda: slow_signal.has_lost_its_client)
    if not handler_cancellation:
        slow_signal.go_on.set()
    await slow_signal.over.wait()
    await until(lambda: not slow_server.runner.server or not slow_server.runner.server.connections)
    assert slow_server.hub.metrics.connects == 0


async def test_a_client_that_leaves_just_when_the_headers_go_out_is_gone(
    slow_server: Server, slow_signal: SlowSignal, leave: Callable[[Client], None]
) -> None:
    client = await slow_server.client()
    await client.request("GET", slow_server.subscribe_path())
    await slow_signal.reached.wait()
    slow_signal.go_on.set()
    leave(client)
    await slow_signal.over.wait()
    await asyncio.sleep(0)
    await slow_server.deserted()


async def test_a_client_that_leaves_while_it_is_idle_is_noticed_at_once(
    serve: Serve, leave: Callable[[Client], None], maybe_tls: TLS | None, handler_cancellation: bool
) -> None:
    server = await serve(tls=maybe_tls, handler_cancellation=handler_cancellation)
    client = await server.subscribe("a", "b/*")
    assert the_connection(server).state is State.LIVE
    leave(client)
    await server.deserted()
    assert server.hub.metrics.disconnects == 1


def impatient(maybe_tls: TLS | None) -> dict[str, Any]:
    """Settings for clients that may half-close TLS, which its rules forbid (RFC 8446, section 6.1).

    While a write is blocked uvloop keeps such a FIN to itself, and it takes the peer timeout to notice.
    """
    return {"heartbeat": 0.1, "peer_timeout": 0.3} if maybe_tls else {}


async def test_a_client_that_leaves_during_its_replay_is_noticed_at_once(
    serve: Serve, leave: Callable[[Client], None], maybe_tls: TLS | None, handler_cancellation: bool
) -> None:
    server = await serve(tls=maybe_tls, handler_cancellation=handler_cancellation, **impatient(maybe_tls))
    first, *_ = server.send(*([FILLER] * 300))
    client = await server.subscribe(last_event_id=first, receive_buffer=8_192)
    client.stop_reading()
    connection = the_connection(server)
    await until(lambda: connection._paused)
    assert connection.state is State.REPLAYING
    leave(client)
    await server.deserted()


async def test_a_client_that_leaves_while_a_write_to_it_is_blocked_is_noticed_at_once(
    serve: Serve, leave: Callable[[Client], None], maybe_tls: TLS | None, handler_cancellation: bool
) -> None:
    server = await serve(
        tls=maybe_tls, handler_cancellation=handler_cancellation, slow="drop_oldest", **impatient(maybe_tls)
    )
    client = await server.subscribe(receive_buffer=8_192)
    client.stop_reading()
    connection = the_connection(server)
    while not (server.hub.metrics.dropped and connection._paused):
        server.send(FILLER)
        await asyncio.sleep(0)
    leave(client)
    await server.deserted()


async def test_the_others_notice_nothing_when_one_leaves(
    serve: Serve, leave: Callable[[Client], None], maybe_tls: TLS | None
) -> None:
    server = await serve(tls=maybe_tls)
    leaving, *staying = [await server.subscribe("same") for _ in range(4)]
    server.send("before", topic="same")
    leave(leaving)
    server.send("at that moment", topic="same")
    await until(lambda: len(server.hub.connections) == 3)
    server.send("after", topic="same")
    for client in staying:
        assert [event.data for event in await client.upto("after")] == ["before", "at that moment", "after"]


# ---- many ----


async def come_and_go(server: Server, number: int, chance: random.Random, newest: str) -> None:
    """Be a client that asks for this or that, stays for a moment, and leaves in one of many ways."""
    topics = chance.choice([(), ("a",), ("a", "b/*"), ("**",), (f"t/{number}", "a")])
    client = await server.client()
    await client.request(
        "GET",
        server.subscribe_path(*topics, **chance.choice([{}, {"envelope": "1"}])),
        headers=chance.choice([{}, {"Last-Event-ID": newest}, {"Last-Event-ID": "0123456789-1"}]),
        version=chance.choice(["1.1", "1.1", "1.0"]),
    )
    if chance.random() < 0.8:
        await client.head()
        await client.event()
    chance.choice([client.close, client.reset, client.half_close])()
    await client.gone()
    await client.aclose()


@pytest.mark.slow
async def test_of_many_clients_that_came_and_went_nothing_is_kept(serve: Serve) -> None:
    server = await serve(retain_count=300)
    ids = server.send(*("a" * 50), topic="a")
    files = psutil.Process().num_fds()
    others = living()  # of tests before this one, if they kept any
    chance = random.Random(1)
    for batch in range(10):
        clients = [come_and_go(server, number, chance, chance.choice(ids)) for number in range(CROWD)]
        publishing = asyncio.create_task(keep_publishing(server, "a", "b/1", "c"))
        await asyncio.gather(*clients)
        publishing.cancel()
        await asyncio.wait([publishing])
        server.clients.clear()
        await server.deserted()
        assert server.hub.metrics.connects <= CROWD * (batch + 1)
    assert server.hub.metrics.connects == server.hub.metrics.disconnects > 5 * CROWD
    assert server.runner.server is not None
    await until(lambda: not server.runner.server or not server.runner.server.connections)
    await until(lambda: psutil.Process().num_fds() <= files)
    assert not [each for each in living() if each not in others]


def living() -> list[object]:
    """The connections and requests that anything in this process still refers to."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Connection | web.BaseRequest)]


async def keep_publishing(server: Server, *topics: str) -> None:
    while True:
        for topic in topics:
            server.send("x", topic=topic)
        await asyncio.sleep(0.001)


# ---- peers that vanish or take nothing ----


async def behind(network: Network, server: Server, **query: Any) -> Client:
    """Return a stream between two sockets of *network*."""
    listening = network.listen()
    await web.SockSite(server.runner, listening).start()
    client = await Client.connect("", its_socket=network.connect(listening.getsockname()[1]))
    server.clients.append(client)
    await client.request("GET", server.subscribe_path("a"), **query)
    assert await client.head() == 200
    await client.next("hub.open")
    return client


@pytest.mark.slow
async def test_a_peer_that_vanishes_while_nothing_happens_is_gone_soon(serve: Serve, network: Network) -> None:
    server = await serve(heartbeat=0.3, peer_timeout=1.0)
    client = await behind(network, server)
    await client.block()  # a heartbeat: all is well
    network.go_dark()
    await server.deserted()


@pytest.mark.slow
async def test_a_peer_that_vanishes_while_it_is_written_to_is_gone_soon(serve: Serve, network: Network) -> None:
    server = await serve(heartbeat=0.3, peer_timeout=1.0, slow="drop_oldest")
    await behind(network, server)
    network.go_dark()
    publishing = asyncio.create_task(keep_publishing(server, "a"))
    await server.deserted()
    publishing.cancel()


@pytest.mark.slow
async def test_a_peer_that_vanishes_in_the_middle_of_its_replay_is_gone_soon(serve: Serve, network: Network) -> None:
    server = await serve(heartbeat=0.3, peer_timeout=1.0)
    first, *_ = server.send(*([FILLER] * 300), topic="a")
    client = await behind(network, server, headers={"Last-Event-ID": first})
    client.stop_reading()
    await until(lambda: the_connection(server)._paused)
    network.go_dark()
    await server.deserted()


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["disconnect", "drop_oldest", "conflate"])
async def test_a_reader_that_never_reads_is_cut_under_every_policy(
    serve: Serve, slow: str, maybe_tls: TLS | None
) -> None:
    server = await serve(tls=maybe_tls, slow=slow, heartbeat=0.1, peer_timeout=0.3)
    client = await server.subscribe("a", receive_buffer=8_192)
    client.stop_reading()
    connection = the_connection(server)
    while not connection._paused:
        server.send(FILLER, topic="a")
        await asyncio.sleep(0)
    await server.deserted()
    assert server.hub.metrics.peer_timeouts == 1 or connection.closed_because == "client"  # the kernel may be first
    assert server.hub.metrics.slow_disconnects == 0


async def test_a_reader_that_never_reads_its_replay_is_cut(serve: Serve, maybe_tls: TLS | None) -> None:
    server = await serve(tls=maybe_tls, heartbeat=0.1, peer_timeout=0.3)
    first, *_ = server.send(*([FILLER] * 300), topic="a")
    client = await server.subscribe("a", last_event_id=first, receive_buffer=8_192)
    client.stop_reading()
    connection = the_connection(server)
    await until(lambda: connection._paused)
    await server.deserted()
    assert connection.closed_because is not None


@pytest.mark.slow
async def test_a_reader_that_reads_at_all_is_kept(serve: Serve) -> None:
    servers = [await serve(slow=slow, heartbeat=0.2, peer_timeout=2) for slow in ("drop_oldest", "conflate")]
    clients = [await server.subscribe("a", receive_buffer=8_192) for server in servers]
    connections = [the_connection(server) for server in servers]
    for client, server in zip(clients, servers, strict=True):
        client.stop_reading()
        while not server.hub.metrics.dropped:
            server.send(FILLER, topic="a")
            await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    enough = loop.time() + 5
    while loop.time() < enough:
        for client, server in zip(clients, servers, strict=True):
            client.sip(20_000)
            server.send(FILLER, topic="a")
        await asyncio.sleep(0.02)
    assert [connection.closed_because for connection in connections] == [None, None]
