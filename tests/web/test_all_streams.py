"""Streams of every kind over real sockets: one limit, one count, one end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from hub.connections.client_stream import CloseReason
from hub.web.handler_streams import sse
from tests.web.client import Client, until
from tests.web.conftest import Serve
from tests.web.server import Server

KINDS = ["subscription", "handler", "generation"]


@sse
async def forever(request: web.Request) -> AsyncIterator[Any]:
    """Give one event, and wait until the client leaves."""
    yield "first"
    await asyncio.get_running_loop().create_future()


async def opened(server: Server, kind: str) -> Client:
    """Return a client with a stream of *kind* that has begun."""
    client = await server.client()
    if kind == "subscription":
        await client.request("GET", server.subscribe_path())
    elif kind == "handler":
        await client.request("GET", "/forever")
    else:
        generation = await server.hub.generations.begin()
        await client.request("GET", f"/ai/chat/stream/{generation.id}")
    assert await client.head() == 200
    return client


@pytest.fixture
def hub_with_all(serve: Serve) -> Any:
    """Start a server that has streams of every kind."""

    async def start(**settings: Any) -> Server:
        app = web.Application()
        app.router.add_get("/forever", forever)
        return await serve(app=app, ai_provider="simulated", **settings)

    return start


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_of_every_kind_share_one_limit(hub_with_all: Any, kind: str) -> None:
    server = await hub_with_all(max_connections=2)
    for other in KINDS:
        if other != kind:
            await (await opened(server, other)).event()
    away = await opened(server, kind)
    event = await away.event()
    assert (event.type, event.json()) == ("hub.close", {"reason": "capacity"})
    assert away.decoder.retry is not None
    assert 10_000 <= away.decoder.retry <= 60_000
    assert server.hub.metrics.refused == 1


async def test_streams_are_counted_by_kind(hub_with_all: Any) -> None:
    server = await hub_with_all()
    for number, kind in enumerate(KINDS, 1):
        for _ in range(number):
            await (await opened(server, kind)).event()
    stats = (await server.ask("GET", "/notifications/stats")).json()
    assert {kind: count for kind, count in stats["streams"].items() if count} == {
        "subscription": 1,
        "handler": 2,
        "generation": 3,
    }
    assert (stats["connections"], stats["viewers"], stats["connects"]) == (1, 3, 6)
    metrics = (await server.ask("GET", "/metrics")).body.decode()
    assert 'hub_streams{kind="handler"} 2.0' in metrics
    assert "hub_connections 1.0" in metrics


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_takes_nothing_of_the_end_is_cut(hub_with_all: Any, kind: str) -> None:
    """Its socket would otherwise stay open as long as the peer likes."""
    server = await hub_with_all(heartbeat=0.1, peer_timeout=0.3, buffer_bytes=64 << 20)
    client = await server.client(receive_buffer=8_192)
    if kind == "generation":
        generation = await server.hub.generations.begin()
        await client.request("GET", f"/ai/chat/stream/{generation.id}")
    else:
        await client.request("GET", server.subscribe_path("a") if kind == "subscription" else "/forever")
    await client.head()
    await client.event()
    client.stop_reading()
    (stream,) = server.hub.connections
    stream._transport.set_write_buffer_limits(64 << 20)  # so that it is never paused
    # The kernel has the same limit, and may be first where the sweep is late.
    its_socket = stream._transport.get_extra_info("socket")
    its_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    stream._write(b":" + b"x" * (16 << 20) + b"\n\n")
    assert not stream._paused
    stream.end(CloseReason.SHUTDOWN, 1_000)
    await until(lambda: not len(server.hub.connections))
    assert server.hub.metrics.peer_timeouts == 1
