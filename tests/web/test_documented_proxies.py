"""Behind nginx, Caddy and HAProxy with TLS, as the documentation configures them."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web

from hub import HUB, set_token_cookie
from hub.web.links import client_address
from tests.ports import free_port
from tests.proxy import Proxy, documented
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.server import Server, Site
from tests.web.test_links import check_they_lead_somewhere, links
from tests.wires.wire import SocketReader

pytestmark = pytest.mark.slow

ALL = ["nginx", "caddy", "haproxy"]
CLIENT = "127.0.0.9"
"""An address of a client; the proxies, which are trusted, have another one."""
TOKEN = jwt.encode({"sub": "ann", "exp": 2**32}, "a secret of the tests, which has more than 32 bytes", "HS256")
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
}
COMPRESSING = {
    "caddy": {"\treverse_proxy": "\tencode gzip\n\treverse_proxy"},
    "haproxy": {
        "    server hub": "    compression algo gzip\n    compression type text/event-stream text/plain\n    server hub"
    },
}


def port_of(server: Server) -> int:
    return int(server.address[1])


def site_of(proxy: Proxy) -> Site:
    return Site(("127.0.0.1", proxy.port), tls=proxy.tls)


@pytest.fixture
async def server(serve: Serve) -> Server:
    async def seen(request: web.Request) -> web.Response:
        address = client_address(request.app[HUB].proxies, request)
        answer = web.json_response({"client": address, "host": request.host})
        set_token_cookie(request, answer, TOKEN)
        return answer

    app = web.Application()
    app.router.add_get("/seen", seen)
    fast: dict[str, Any] = {"ai_simulated_first": 0, "ai_simulated_rate": 10_000, "ai_simulated_tokens": 3}
    return await serve(app=app, trusted_proxies=("127.0.0.1",), ai_provider="simulated", heartbeat=0.2, **fast)


@pytest.fixture(params=ALL)
async def proxy(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> AsyncIterator[Site]:
    """The hub as a proxy shows it whose timeouts are a minute on the page, and a second here."""
    changes = {
        "nginx": {"proxy_read_timeout 60s": "proxy_read_timeout 1s"},
        "caddy": {},
        "haproxy": {"timeout client 60s": "timeout client 1s", "timeout server 60s": "timeout server 1s"},
    }[request.param]
    async with documented(request.param, tmp_path, port_of(server), changes=changes) as running:
        site = site_of(running)
        try:
            yield site
        finally:
            await site.aclose()


async def test_each_message_comes_through_at_once_whatever_its_size(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("a")
    assert client.headers["Content-Type"] == "text/event-stream"
    assert client.headers["Cache-Control"] == "no-cache, no-transform"
    for number in range(20):
        # The next one is sent only when this one has come through: were it kept back, nothing would.
        data = f"{number} {'x' * (number % 2 * 100_000)}"
        server.send(data, topic="a")
        assert (await client.next()).data == data


async def test_heartbeats_keep_a_quiet_stream_open_beyond_the_timeouts(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("quiet")
    for _ in range(12):  # more than two seconds
        await client.block()
    server.send("still there", topic="quiet")
    assert (await client.next()).data == "still there"


async def test_a_page_has_a_websocket_which_pings_keep_open_beyond_the_timeouts(server: Server, proxy: Site) -> None:
    page = {"Host": "live.example.com", "Origin": "https://live.example.com"}
    reader = SocketReader(proxy, "a", headers=page)
    await reader.open()
    assert (await reader.answer({"op": "publish", "topic": "b", "data": 1}))["op"] == "ok"
    heartbeats = 0
    while heartbeats < 12:  # more than two seconds
        await reader._more()
        heartbeats = [each["op"] for each in reader._waiting].count("hub.heartbeat")
    server.send("still there", topic="a")
    while (await reader.message()).get("data") != "still there":
        pass
    reader.client.close()
    await server.deserted()


async def test_a_client_that_leaves_the_proxy_leaves_the_hub(server: Server, proxy: Site) -> None:
    clients = [await proxy.subscribe("a") for _ in range(10)]
    clients[0].close()
    await until(lambda: len(server.hub.connections) == 9)
    for client in clients[1:]:
        client.reset()
    await server.deserted()


async def test_the_hub_learns_who_asks_and_believes_nothing_that_a_client_says(server: Server, proxy: Site) -> None:
    its_socket = socket.socket()
    its_socket.setblocking(False)
    its_socket.bind((CLIENT, 0))
    await asyncio.get_running_loop().sock_connect(its_socket, proxy.address)
    client = await proxy.client(its_socket=its_socket)
    await client.request("GET", "/seen", headers=FORGED | {"Host": "live.example.com"})
    await client.head()
    assert await client.json() == {"client": CLIENT, "host": "live.example.com"}
    assert client.headers["Set-Cookie"].startswith("__Host-hub_token=")
    found = await links(proxy, **{name.replace("-", "_"): value for name, value in FORGED.items()})
    assert not any("evil" in each for each in found.values())


@pytest.mark.parametrize("name", ["caddy", "haproxy"])
async def test_every_link_leads_somewhere_below_a_path(server: Server, name: str, tmp_path: Path) -> None:
    async with documented(name, tmp_path, port_of(server), prefix=True) as running:
        proxy = site_of(running)
        found = await links(proxy, "/live", X_Forwarded_Prefix="/evil")
        assert all(each.startswith("/live/") for each in found.values())
        await check_they_lead_somewhere(proxy, found)
        await proxy.aclose()


@pytest.mark.parametrize("name", ["caddy", "haproxy"])
async def test_a_proxy_that_compresses_leaves_streams_alone(server: Server, name: str, tmp_path: Path) -> None:
    async with documented(name, tmp_path, port_of(server), changes=COMPRESSING[name]) as running:
        proxy = site_of(running)
        client = await proxy.subscribe("a", headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in client.headers
        for number in range(3):
            server.send(number, topic="a")
            assert (await client.next()).data == str(number)
        await proxy.aclose()


ENDING = {
    "nginx": ({"worker_shutdown_timeout 30s": "worker_shutdown_timeout 1s"}, signal.SIGQUIT),
    "caddy": ({"grace_period 30s": "grace_period 1s"}, signal.SIGTERM),
    "haproxy": ({"hard-stop-after 30s": "hard-stop-after 1s"}, signal.SIGUSR1),
}


@pytest.mark.parametrize("name", ALL)
async def test_a_proxy_that_shall_end_does_not_wait_for_streams_for_ever(
    server: Server, name: str, tmp_path: Path
) -> None:
    changes, softly = ENDING[name]
    async with documented(name, tmp_path, port_of(server), changes=changes) as running:
        proxy = site_of(running)
        client = await proxy.subscribe("a")
        running.process.send_signal(softly)
        await client.gone()
        async with asyncio.timeout(60):
            await running.process.wait()
        await proxy.aclose()


async def test_nginx_sends_a_stream_away_for_some_seconds_and_fails_a_publish_if_the_hub_is_not_there(
    tmp_path: Path,
) -> None:
    async with documented("nginx", tmp_path, free_port()) as running:
        proxy = site_of(running)
        client = await proxy.client()
        await client.request("GET", "/notifications/subscribe?topic=a")
        assert await client.head() == 200
        assert client.headers["Content-Type"] == "text/event-stream"
        assert client.headers["Cache-Control"] == "no-store"
        assert (await client.next("hub.close")).json() == {"reason": "shutdown"}
        assert client.decoder.retry in {1000, 2000, 3000, 4000}
        assert (await proxy.publish({"data": 1})).status == 502
        await proxy.aclose()
