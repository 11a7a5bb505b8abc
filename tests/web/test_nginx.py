"""Behind nginx as it comes, with nothing configured but where the hub is."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hub import HUB, sse
from hub.encoding import SSE
from hub.web.links import client_address
from tests.proxy import program
from tests.web.client import until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server, Site
from tests.web.test_links import check_they_lead_somewhere, links
from tests.wires.wire import SocketReader

pytestmark = pytest.mark.slow

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    server {{
        listen unix:{place}/socket;
        {location}
    }}
}}
"""
PLAIN = "location / { proxy_pass http://127.0.0.1:8080; }"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "run-behind-a-proxy.md"
BELOW_LIVE = re.findall(r"^```nginx\n(location /live/ .*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)[:3]
"""The blocks of the documentation that show the hub below `/live/`."""


@pytest.fixture
def nginx() -> str:
    """Where nginx is."""
    return program("nginx")


@pytest.fixture
async def server(serve: Serve) -> Server:
    return await serve(heartbeat=0.2, drain=0.2)


@pytest.fixture
async def proxy(server: Server, nginx: str, tmp_path: Path) -> AsyncIterator[Site]:
    """The hub as nginx shows it."""
    async with behind(server, nginx, tmp_path) as site:
        yield site


@asynccontextmanager
async def behind(server: Server, nginx: str, place: Path, location: str = PLAIN) -> AsyncIterator[Site]:
    """Put an nginx before *server*, with all its files in *place*, that shows it as *location* says."""
    location = location.replace(":8080", f":{server.address[1]}")
    (place / "nginx.conf").write_text(CONFIGURATION.format(place=place, location=location))
    process = await asyncio.create_subprocess_exec(
        *(nginx, "-p", str(place), "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")),
        stderr=asyncio.subprocess.PIPE,
    )
    site = Site(str(place / "socket"))
    await until(lambda: (place / "pid").exists() or process.returncode is not None)
    assert process.returncode is None, (place / "error.log").read_text()
    # A worker that belongs to nobody has to reach the socket: the master made it, and hands it down.
    try:
        yield site
    finally:
        await site.aclose()
        process.terminate()
        await process.communicate()
    errors = (place / "error.log").read_text()
    assert "[error]" not in errors
    assert "[crit]" not in errors


async def test_each_message_comes_through_at_once(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("a")
    assert client.headers["Content-Type"] == "text/event-stream"
    assert client.headers["Cache-Control"] == "no-cache, no-transform"
    for number in range(20):
        # The next one is sent only when this one has come through: were it kept back, nothing would.
        server.send(number, topic="a")
        assert (await client.next()).data == str(number)


async def test_the_stream_behind_nginx_is_bare_and_in_front_of_it_chunked(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("a")
    (connection,) = server.subscriptions
    assert connection._encoding == SSE(chunked=False)
    assert client.headers["Transfer-Encoding"] == "chunked"


async def test_heartbeats_come_through(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("quiet")
    (newest,) = server.send("x", topic="elsewhere")
    while client.decoder.last_event_id != newest:
        await client.block()
    assert client.decoder.comments


async def test_a_resume_comes_through(server: Server, proxy: Site) -> None:
    ids = server.send(*(f"{number} ".ljust(10_000, "x") for number in range(300)), topic="a")
    client = await proxy.subscribe("a", last_event_id=ids[0])
    assert client.opened.json()["recovered"] is True
    assert [(await client.next()).id for _ in ids[1:]] == ids[1:]


async def test_a_publish_comes_through(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("a")
    answers = [await proxy.publish({"topic": "a", "data": 1}), await proxy.publish({"topic": "a"})]
    assert [answer.status for answer in answers] == [201, 400]
    assert (await client.next()).id == answers[0].json()["id"]


async def test_a_client_that_leaves_nginx_leaves_the_hub(server: Server, proxy: Site) -> None:
    clients = [await proxy.subscribe("a") for _ in range(10)]
    clients[0].close()
    await until(lambda: len(server.hub.connections) == 9)
    for client in clients[1:]:
        client.reset()
    await server.deserted()


async def test_a_drain_comes_through_and_sends_away_those_who_come(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe("a")
    draining = asyncio.create_task(server.hub.drain())
    await until(lambda: server.hub.draining)
    answer = await proxy.ask("GET", "/notifications/subscribe")
    assert answer.status == 200
    assert answer.body.endswith(b'\nevent: hub.close\ndata: {"reason":"draining"}\n\n')
    assert (await client.next("hub.close")).json() == {"reason": "shutdown"}
    await client.body()
    assert client.complete
    await draining


# ---- the same under less friendly conditions ----


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("size", [3_000, 100_000], ids=["near a buffer", "beyond all buffers"])
async def test_each_large_message_comes_through_at_once_too(
    server: Server, proxy: Site, size: int, version: str
) -> None:
    client = await proxy.subscribe(version=version)
    for number in range(20):
        data = f"{number} {'x' * size}"
        server.send(data)
        assert (await client.next()).data == data


async def test_many_streams_each_get_everything_in_order(server: Server, proxy: Site) -> None:
    clients = [await proxy.subscribe() for _ in range(50)]
    ids = server.send(*range(200), "end")
    for client in clients:
        assert [event.id for event in await client.upto("end")] == ids


async def test_a_reader_that_pauses_gets_everything_in_the_end(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe()
    client.stop_reading()
    for number in range(50):
        server.send(f"{number} {'x' * 10_000}")
        await asyncio.sleep(0)
    server.send("end")
    client.read_on()
    events = await client.upto("end")
    assert [event.data.split()[0] for event in events[:-1]] == [str(number) for number in range(50)]


async def test_a_client_that_leaves_nginx_while_it_does_not_read_leaves_the_hub(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe()
    client.stop_reading()
    (connection,) = server.subscriptions
    while not connection._transport.get_write_buffer_size():
        server.send("x" * 30_000)
        await asyncio.sleep(0)
    client.close()
    await server.deserted()


async def test_a_client_that_was_cut_resumes_by_header_or_by_query(server: Server, proxy: Site) -> None:
    client = await proxy.subscribe()
    ids = server.send(*"abc")
    await client.upto("b")
    client.close()
    await server.deserted()
    server.send("d")
    for how in ({"last_event_id": ids[1]}, {"query": {"lastEventId": ids[1]}}):
        again = await proxy.subscribe(**how)
        assert (again.opened.id, again.opened.json()["recovered"]) == (ids[1], True)
        assert [(await again.next()).data for _ in "cd"] == ["c", "d"]


async def test_cut_at_any_place_a_client_misses_nothing_and_gets_nothing_twice(server: Server, proxy: Site) -> None:
    chance = random.Random(1)
    client = await proxy.subscribe()
    cursor = client.opened.id
    client.close()
    ids = server.send(*(f"{number} {'x' * chance.choice([1, 500, 5_000])}" for number in range(400)))
    seen: list[str] = []
    while len(seen) < len(ids):
        client = await proxy.subscribe(last_event_id=cursor)
        for _ in range(min(chance.randrange(1, 80), len(ids) - len(seen))):
            seen.append((await client.next()).id)
        cursor = seen[-1]
        chance.choice([client.close, client.half_close])()
    assert seen == ids
    await server.deserted()


class Breaking:
    """A socket whose peer is gone after it took one more piece."""

    def __init__(self, its_socket: socket.socket) -> None:
        self._socket = its_socket
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def send(self, data: bytes) -> int:
        self.sent += 1
        if self.sent > 1:
            raise ConnectionResetError
        return len(data)

    def sendmsg(self, parts: Sequence[bytes]) -> int:
        return self.send(b"".join(parts))


async def test_a_peer_that_is_gone_in_the_middle_of_its_replay_is_no_error(
    server: Server, complaints: Complaints
) -> None:
    ids = server.send(*(f"{number} {'x' * 30_000}" for number in range(300)))
    client = await server.subscribe(last_event_id=ids[0], receive_buffer=8_192)
    client.stop_reading()
    (connection,) = server.subscriptions
    await until(lambda: connection._paused)
    transport: Any = connection._transport
    transport._sock = Breaking(transport._sock)
    client.read_on()
    await server.deserted()
    await asyncio.sleep(0)
    assert transport._sock is None or transport._sock.sent > 1
    assert complaints.take() == []


async def test_a_stream_from_a_handler_comes_through_message_by_message(
    serve: Serve, nginx: str, tmp_path: Path
) -> None:
    say: asyncio.Queue[str] = asyncio.Queue()
    ended = asyncio.Event()

    @sse
    async def said(request: web.Request) -> AsyncIterator[str]:
        try:
            while True:
                yield await say.get()
        finally:
            ended.set()

    app = web.Application()
    app.router.add_get("/said", said)
    async with behind(await serve(app=app), nginx, tmp_path) as proxy:
        say.put_nowait("0")
        client = await proxy.client()
        await client.request("GET", "/said")
        assert await client.head() == 200
        assert (await client.next()).data == "0"
        for number in range(1, 10):
            say.put_nowait(str(number))
            assert (await client.next()).data == str(number)
        client.close()
        await ended.wait()


# ---- below a path of its own ----


@pytest.mark.parametrize(
    ("location", "settings"),
    [
        (BELOW_LIVE[0], {"root_path": "/live"}),
        (BELOW_LIVE[1], {"trusted_proxies": ("127.0.0.1",)}),
        (BELOW_LIVE[1], {"trusted_proxies": ("127.0.0.1",), "root_path": "/elsewhere"}),
    ],
)
async def test_every_link_leads_somewhere_through_the_blocks_of_the_documentation(
    serve: Serve, nginx: str, tmp_path: Path, location: str, settings: dict[str, Any]
) -> None:
    fast: dict[str, Any] = {"ai_simulated_first": 0, "ai_simulated_rate": 10_000, "ai_simulated_tokens": 3}
    server = await serve(ai_provider="simulated", **fast, **settings)
    async with behind(server, nginx, tmp_path, location) as proxy:
        found = await links(proxy, "/live")
        assert all(each.startswith("/live/") for each in found.values())
        await check_they_lead_somewhere(proxy, found)
        # What a client says about the prefix is no more than what it says.
        forged = await links(proxy, "/live", X_Forwarded_Prefix="/evil")
        assert all(each.startswith("/live/") for each in forged.values())


async def test_a_page_has_a_websocket_through_the_block_of_the_documentation(
    serve: Serve, nginx: str, tmp_path: Path
) -> None:
    server = await serve(trusted_proxies=("127.0.0.1",), root_path="/live")
    page = {"Host": "live.example.com", "Origin": "https://live.example.com"}
    async with behind(server, nginx, tmp_path, BELOW_LIVE[2]) as proxy:
        proxy.prefix = "/live"
        reader = SocketReader(proxy, "a", headers=page)
        await reader.open()
        assert (await reader.answer({"op": "publish", "topic": "a", "data": "x"}))["op"] == "ok"
        while (await reader.message()).get("data") != "x":
            pass
        await reader.aclose()


async def test_the_access_log_names_the_client_behind_nginx(serve: Serve, nginx: str, tmp_path: Path) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(client_address(request.app[HUB].proxies, request))
        return web.Response()

    app = web.Application()
    app.router.add_get("/seen", handler)
    location = BELOW_LIVE[1].replace("$proxy_add_x_forwarded_for", '"$http_x_forwarded_for, 192.0.2.7"')
    async with behind(await serve(app=app, trusted_proxies=("127.0.0.1",)), nginx, tmp_path, location) as proxy:
        await proxy.ask("GET", "/live/seen", headers={"X-Forwarded-For": "6.6.6.6"})
    assert seen == ["192.0.2.7"]
