"""`hub serve` with an address for administration, as a real process."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme

from tests.cli.commands import Serving
from tests.web.client import StreamEnded, until
from tests.web.process import ServeProcess
from tests.web.server import Answer, Site

pytestmark = pytest.mark.slow

SECRET = "a secret of the tests, which has more than 32 bytes"
ADMINISTRATION = re.compile(r"hub: administration on (https?)://(.+):([0-9]+)\n")
ARCHIVE = {"Accept": "application/x-ndjson"}

FOR_ADMINISTRATORS: list[tuple[str, str, dict[str, str], int]] = [
    # method, path, headers, the status that an administrator gets
    ("GET", "/notifications/stats", {}, 200),
    ("GET", "/notifications/connections", {}, 200),
    ("DELETE", "/notifications/connections/c_0", {}, 404),
    ("DELETE", "/notifications/users/nobody/connections", {}, 204),
    ("DELETE", "/notifications/tokens/one", {}, 204),
    ("GET", "/notifications/history", ARCHIVE, 200),
    ("POST", "/events/something.else", {"Content-Type": "application/json"}, 202),
]
FOR_ALL = ["/metrics", "/healthz", "/readyz"]
FOR_USERS = [
    ("GET", "/notifications/subscribe?topic=a"),
    ("POST", "/notifications/subscribe"),
    ("POST", "/notifications/publish"),
    ("POST", "/notifications/tickets"),
    ("GET", "/ai/chat/stream?message=x"),
    ("POST", "/ai/chat/stream/init"),
    ("GET", "/ai/chat/stream/x"),
    ("GET", "/"),
    ("GET", "/sse/ann"),
    ("GET", "/nowhere"),
]


def bearer(user: str, **rights: Any) -> dict[str, str]:
    claims = {"sub": user, "iat": int(time.time()), "exp": time.time() + 86_400, "hub": rights}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}


ROOT, TOM = bearer("root", admin=True, subscribe=["**"]), bearer("tom", subscribe=["**"], publish=["**"])


async def administration_of(hub: ServeProcess) -> Site:
    """Return the address for administration that *hub* has told."""
    await until(lambda: ADMINISTRATION.search(hub.out))
    match = ADMINISTRATION.search(hub.out)
    assert match is not None
    admin = Site(("127.0.0.1", int(match[3])))
    admin.clients = hub.site.clients  # they end with the process
    return admin


async def ask(site: Site, method: str, path: str, *headers: Mapping[str, str]) -> Answer:
    said = {name: text for each in headers for name, text in each.items()}
    return await site.ask(method, path, headers=said, body=b"{}" if method == "POST" else None)


async def test_each_address_has_what_it_is_for(serving: Serving) -> None:
    keys = {"HUB_JWT_SECRET": SECRET, "HUB_EVENTS_API": "1"}
    hub = await serving("--admin-port", "0", "--demo", environ=keys)
    admin = await administration_of(hub)
    for method, path, headers, status in FOR_ADMINISTRATORS:
        elsewhere = 405 if path.startswith("/notifications/connections/") else 404  # who has a stream may PATCH it
        assert (await ask(hub.site, method, path, headers, ROOT)).status == elsewhere, path
        statuses = [(await ask(admin, method, path, headers, who)).status for who in ({}, TOM, ROOT)]
        assert statuses == [401, 403, status], path
    for path in FOR_ALL:
        assert (await ask(admin, "GET", path)).status == 200
    assert b"hub_connections 0.0" in (await ask(admin, "GET", "/metrics")).body
    assert (await ask(hub.site, "GET", "/metrics", ROOT)).status == 404
    assert (await ask(hub.site, "GET", "/healthz")).status == 200
    for method, path in FOR_USERS:
        answer = await ask(admin, method, path, ROOT, {"Accept": "text/event-stream"})
        assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json"), path
    hub.check_tidy()


async def test_the_history_of_users_stays_where_they_are(serving: Serving) -> None:
    hub = await serving("--admin-port", "0", environ={"HUB_JWT_SECRET": SECRET})
    admin = await administration_of(hub)
    said = await hub.site.post("/notifications/publish", {"topic": "a", "data": "x"}, **TOM)
    page = await ask(hub.site, "GET", "/notifications/history?topic=a", TOM)
    assert [each["id"] for each in page.json()["notifications"]] == [said.json()["id"]]
    archive = (await ask(admin, "GET", "/notifications/history", ROOT)).body.splitlines()
    assert said.json()["id"] in [json.loads(line).get("id") for line in archive]


async def test_what_is_revoked_there_ends_here(serving: Serving) -> None:
    hub = await serving("--admin-port", "0", environ={"HUB_JWT_SECRET": SECRET})
    admin = await administration_of(hub)
    stream = await hub.site.subscribe("a", headers=TOM)
    (facts,) = (await ask(admin, "GET", "/notifications/connections", ROOT)).json()["connections"]
    assert (facts["user"], facts["topics"]) == ("tom", ["a"])
    assert (await ask(admin, "DELETE", "/notifications/users/tom/connections", ROOT)).status == 204
    assert (await stream.next("hub.close")).json() == {"reason": "revoked"}


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://app.example.com"},  # pages of it may use the hub, but not administer it
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
]


async def test_no_page_of_another_origin_administers(serving: Serving) -> None:
    keys = {"HUB_JWT_SECRET": SECRET, "HUB_CORS_ORIGINS": "https://app.example.com", "HUB_EVENTS_API": "1"}
    hub = await serving("--admin-port", "0", environ=keys)
    admin = await administration_of(hub)
    cookie = {"Cookie": f"hub_token={ROOT['Authorization'].removeprefix('Bearer ')}"}
    for method, path, headers, status in FOR_ADMINISTRATORS:
        for foreign in FOREIGN:
            answer = await ask(admin, method, path, headers, cookie, foreign)
            assert (answer.status, answer.json()["type"]) == (403, "urn:broadcast-hub:cross-site"), (path, foreign)
            assert "Access-Control-Allow-Origin" not in answer.headers
        own = {"Origin": f"http://127.0.0.1:{admin.address[1]}", "Host": f"127.0.0.1:{admin.address[1]}"}
        for known in (own, own | {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
            assert (await ask(admin, method, path, headers, cookie, known)).status == status
    preflight = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "DELETE"}
    assert (await ask(admin, "OPTIONS", "/notifications/tokens/one", preflight)).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_it_answers_to_its_own_names_only(serving: Serving, host: str) -> None:
    keys = {"HUB_JWT_SECRET": SECRET, "HUB_ALLOWED_HOSTS": "hub-admin"}
    hub = await serving("--admin-port", "0", "--admin-host", host, environ=keys)
    admin = await administration_of(hub)
    by_address = 200 if host == "0.0.0.0" else 421
    names = {"localhost": 200, "127.0.0.1:1": 200, "hub-admin:9090": 200, "evil.example": 421, "10.1.2.3": by_address}
    for name, status in names.items():
        for path in (*FOR_ALL, "/notifications/stats"):
            assert (await ask(admin, "GET", path, ROOT, {"Host": name})).status == status, (name, path)


async def test_where_nobody_is_known_whoever_reaches_it_administers(serving: Serving) -> None:
    hub = await serving("--admin-port", "0")
    admin = await administration_of(hub)
    assert (await ask(admin, "GET", "/notifications/stats")).status == 200
    assert (await ask(hub.site, "GET", "/notifications/stats")).status == 404
    assert (await ask(admin, "GET", "/notifications/stats", {"Host": "evil.example"})).status == 421


async def test_it_speaks_tls_where_the_hub_does(serving: Serving, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    hub = await serving("--admin-port", "0", "--tls-cert", str(tmp_path / "server.pem"))
    admin = await administration_of(hub)
    admin.tls = ssl.create_default_context()
    authority.configure_trust(admin.tls)
    assert (await ask(admin, "GET", "/healthz")).status == 200


async def test_a_slow_request_is_cut_there_too(serving: Serving) -> None:
    hub = await serving("--admin-port", "0", "--header-timeout", "0.4")
    admin = await administration_of(hub)
    slow = await admin.client()
    await slow.send(b"GET /healthz HTTP/1.1\r\n")
    await slow.gone()
    assert (await ask(admin, "GET", "/notifications/stats")).json()["slow_requests"] == 1


async def test_it_answers_until_the_drain_is_over(serving: Serving) -> None:
    hub = await serving("--admin-port", "0", "--drain", "60")
    admin = await administration_of(hub)
    stream = await hub.site.subscribe("a")
    hub.signal(signal.SIGTERM)
    await stream.next("hub.close")
    assert (await ask(admin, "GET", "/readyz")).status == 503
    assert (await ask(admin, "GET", "/notifications/stats")).json()["draining"] is True
    hub.signal(signal.SIGTERM)  # at once
    assert await hub.end() == 128 + signal.SIGTERM


async def test_both_addresses_close_at_the_end(serving: Serving) -> None:
    hub = await serving("--admin-port", "0", "--drain", "0")
    admin = await administration_of(hub)
    idle = await admin.client()
    await idle.request("GET", "/healthz")
    assert await idle.head() == 200
    await idle.body()
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    with pytest.raises(StreamEnded):
        await idle.head()
    for site in (hub.site, admin):
        with pytest.raises(ConnectionRefusedError):
            await site.client()
    hub.check_tidy()


async def test_an_address_in_use_is_named_with_its_setting(serving: Serving) -> None:
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = str(taken.sockets[0].getsockname()[1])
    hub = await ServeProcess.start("serve", "--port", "0", "--admin-port", port)
    assert await hub.end() == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use; choose another with --admin-port" in hub.err
    assert "Traceback" not in hub.err
    assert hub.out == ""
    taken.close()
    await taken.wait_closed()
