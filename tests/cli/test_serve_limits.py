"""`hub serve` as a real process: slow requests are cut, foreign names are refused, and no query is logged."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from tests.cli.commands import Serving
from tests.web.client import Client, until
from tests.web.process import ServeProcess

pytestmark = pytest.mark.slow

QUICK = ("--header-timeout", "0.4", "--body-timeout", "0.6")
POST = b"POST /notifications/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def slow_requests(hub: ServeProcess) -> int:
    """Return how many requests the hub has cut."""
    number = (await hub.site.ask("GET", "/notifications/stats")).json()["slow_requests"]
    assert isinstance(number, int)
    return number


async def trickle(client: Client, text: bytes) -> None:
    """Send *text* byte by byte, again and again, until the other end has closed the connection."""
    try:
        while True:
            for byte in text:
                await client.send(bytes([byte]))
                await asyncio.sleep(0.02)  # slowly is what is tested
    except OSError:
        return


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_connection_that_sends_no_complete_request_is_closed(serving: Serving, begun: bytes) -> None:
    hub = await serving(*QUICK)
    client = await hub.site.client()
    await client.send(begun)
    await client.gone()
    assert await slow_requests(hub) == 1
    hub.check_tidy()


async def test_a_byte_now_and_then_is_not_enough(serving: Serving) -> None:
    hub = await serving(*QUICK)
    client = await hub.site.client()
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
    trickling = asyncio.create_task(trickle(client, b"a"))
    await client.gone()
    await trickling
    assert await slow_requests(hub) == 1
    hub.check_tidy()


async def test_the_next_request_of_a_connection_is_cut_too_but_an_idle_connection_is_not(serving: Serving) -> None:
    hub = await serving(*QUICK)
    idle, slow = await hub.site.client(), await hub.site.client()
    for client in (idle, slow):
        await client.request("GET", "/healthz")
        assert await client.head() == 200
        await client.body()
    await slow.send(b"GET /healthz HTTP/1.1\r\nHo")
    await slow.gone()
    await idle.request("GET", "/healthz")
    assert await idle.head() == 200
    assert await slow_requests(hub) == 1
    hub.check_tidy()


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
async def test_a_body_that_comes_too_slowly_is_told_so(serving: Serving, framing: bytes) -> None:
    hub = await serving(*QUICK)
    client = await hub.site.client()
    await client.send(POST + framing)
    trickling = asyncio.create_task(trickle(client, b"1\r\n \r\n"))
    assert await client.head() == 408
    assert client.headers["Content-Type"] == "application/problem+json"
    problem = await client.json()
    assert problem["type"] == "urn:broadcast-hub:too-slow"
    await client.gone()
    await trickling
    assert await slow_requests(hub) == 1
    hub.check_tidy()


async def test_a_body_that_nobody_reads_ends_too(serving: Serving) -> None:
    hub = await serving(*QUICK)
    client = await hub.site.client()
    await client.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    assert await client.head() == 404
    await client.gone()
    assert await slow_requests(hub) == 1
    hub.check_tidy()


async def test_a_slow_body_that_comes_in_time_is_taken(serving: Serving) -> None:
    hub = await serving("--header-timeout", "0.4", "--body-timeout", "60")
    client = await hub.site.client()
    await client.send(POST + b"Content-Length: 10\r\n\r\n")
    other = await hub.site.client()
    await other.send(b"G")
    await other.gone()  # time enough for the headers has passed
    await client.send(b'{"data":1}')
    assert await client.head() == 201
    hub.check_tidy()


async def test_a_stream_is_no_slow_request(serving: Serving) -> None:
    hub = await serving(*QUICK, "--demo")
    streams = [await hub.site.subscribe("a"), await hub.site.client()]
    # Its body never comes, and nobody asks for it: the handler streams.
    await streams[1].send(b"POST /sse/test HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")
    assert await streams[1].head() == 200
    slow = await hub.site.client()
    await slow.send(POST + b"Content-Length: 5\r\n\r\n")
    assert await slow.head() == 408
    await hub.site.publish({"topic": "a", "data": "still here"})
    assert (await streams[0].next()).data == "still here"
    assert (await streams[1].event()).json()["content"]
    hub.check_tidy()


async def test_a_tls_handshake_that_does_not_come_is_cut(serving: Serving, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    hub = await serving(*QUICK, "--tls-cert", str(tmp_path / "server.pem"))
    silent = await hub.site.client()
    await silent.gone()
    hub.site.tls = ssl.create_default_context()
    authority.configure_trust(hub.site.tls)
    late = await hub.site.client()
    await late.send(b"GET /")
    await late.gone()
    assert await slow_requests(hub) == 1


async def test_a_crowd_of_slow_requests_leaves_nothing_behind(serving: Serving) -> None:
    hub = await serving(*QUICK)
    stream = await hub.site.subscribe("a")
    slow = [await hub.site.client() for _ in range(300)]
    for number, client in enumerate(slow):
        await client.send(b"GET /" if number % 2 else POST + b"Content-Length: 5\r\n\r\n1")
    await hub.site.publish({"topic": "a", "data": "quick"})
    assert (await stream.next()).data == "quick"
    for client in slow:
        await client.gone()
    assert await slow_requests(hub) == 300
    hub.check_tidy()


# ---- the names it answers to ----


async def test_on_loopback_it_answers_to_loopback_names_only(serving: Serving) -> None:
    hub = await serving("--demo")
    for path in ("/", "/healthz", "/metrics", "/notifications/subscribe", "/nowhere"):
        for method in ("GET", "POST", "OPTIONS"):
            answer = await hub.site.ask(method, path, headers={"Host": f"evil.example:{hub.port}"})
            assert (answer.status, answer.headers["Content-Type"]) == (421, "application/problem+json")
    for host in (f"localhost:{hub.port}", f"127.0.0.1:{hub.port}", "app.localhost", "[::1]"):
        assert (await hub.site.ask("GET", "/healthz", headers={"Host": host})).status == 200
    client = await hub.site.client()
    await client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert await client.head() == 200


async def test_names_that_are_allowed_are_answered_too(serving: Serving) -> None:
    hub = await serving("--allowed-hosts", "live.example.com,hub")
    for host, status in (("live.example.com", 200), ("hub", 200), ("localhost", 200), ("evil.example", 421)):
        assert (await hub.site.ask("GET", "/healthz", headers={"Host": host})).status == status


async def test_beyond_loopback_it_answers_to_any_name(serving: Serving) -> None:
    hub = await serving("--host", "0.0.0.0", "--insecure")
    assert (await hub.site.ask("GET", "/healthz", headers={"Host": "hub.example.com"})).status == 200


# ---- what it logs ----


WEIRD = [
    b"GET http://user:tell-tale@[::1?x=tell-tale HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //[?ticket=tell-tale HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://a:b:c/?ticket=tell-tale HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%zz?ticket=tell-tale HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz?ticket=tell-tale HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"CONNECT tell-tale:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer tell-tale\r\nCookie: a=tell-tale\r\n\r\n",
    b"GET /healthz?ticket=tell-tale HTTP/1.1\r\nHost: localhost\r\nExpect: tell-tale\r\n\r\n",
    b"POST /notifications/publish?ticket=tell-tale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",
    b"GET /healthz?ticket=tell-tale HTTP/1.1\r\nHost: localhost\r\n",
]


async def test_no_request_gets_a_secret_into_the_log(serving: Serving) -> None:
    hub = await serving("--access-log", "--log-level", "debug", *QUICK)
    for said in WEIRD:
        client = await hub.site.client()
        await client.send(said)
        client.half_close()
        await client.gone()
    await hub.site.ask("GET", "/the-last-one")
    await until(lambda: '"GET /the-last-one" 404' in hub.err)
    assert "tell-tale" not in hub.err
