"""What a page of another site may do in the name of a user who is logged in: nothing, unless its origin is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from hub import Identity
from tests.web.client import Client
from tests.web.conftest import TLS, Serve
from tests.web.server import Server
from tests.web.test_rights import SECRET, token, with_ticket

ALLOWED = "https://app.example"
HUB = "hub.example:8080"


async def by_cookie(request: web.Request) -> Identity | None:
    """Return who the cookie of the application's own login says."""
    user = request.cookies.get("login")
    return None if user is None else Identity(user=user, subscribe=("**",), publish=("**",))


@pytest.fixture
async def server(serve: Serve) -> Server:
    return await serve(
        setup={"authenticate": by_cookie, "routes": None},
        jwt_secret=SECRET,
        cors_origins=[ALLOWED],
        anonymous_subscribe=("news",),
        ai_provider="simulated",
    )


def cookies() -> list[str]:
    """Return what a browser sends of a user who is logged in: a token, or the login of the application."""
    return [f"hub_token={token('tom', hub={'subscribe': ['**'], 'publish': ['**']})}", "login=tom"]


PAGES = [
    # what the browser says of the page, and whether it may
    ({}, True),  # not a browser
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": ALLOWED}, True),
    ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{HUB}"}, False),
    ({"Origin": ALLOWED}, True),
    ({"Origin": f"http://{HUB}"}, True),
    ({"Origin": f"https://{HUB}"}, True),  # a proxy may speak TLS for the hub
    ({"Origin": "https://hub.example"}, False),  # another port
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": f"https://{HUB}.evil.example"}, False),
    ({"Origin": f"ftp://{HUB}"}, False),
    ({"Origin": HUB}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": ""}, False),
]

Way = tuple[str, str, bytes | None]
WAYS: list[Way] = [
    ("GET", "/notifications/subscribe?topic=orders", None),
    ("POST", "/notifications/subscribe", b'{"topics": ["orders"]}'),
    ("GET", "/ai/chat/stream?message=hi", None),
    ("POST", "/ai/chat/stream/init", b'{"message": "hi"}'),
    ("POST", "/notifications/publish", b'{"data": 1, "topic": "orders"}'),
    ("POST", "/notifications/tickets", b"{}"),
]


async def asked(server: Server, way: Way, headers: dict[str, str]) -> Client:
    method, path, body = way
    client = await server.client()
    types = {"Content-Type": "application/json"} if body is not None else {}
    await client.request(method, path, headers={"Host": HUB, **types, **headers}, body=body)
    await client.head()
    return client


@pytest.mark.parametrize(("page", "allowed"), PAGES)
@pytest.mark.parametrize("way", WAYS)
async def test_who_is_known_by_a_cookie_is_asked_where_the_page_is(
    server: Server, way: Way, page: dict[str, str], allowed: bool
) -> None:
    for cookie in cookies():
        client = await asked(server, way, {"Cookie": cookie, **page})
        if allowed:
            assert client.status in {200, 201}
        else:
            assert client.status == 403
            assert b"urn:broadcast-hub:cross-site" in await client.body()
        client.reset()


@pytest.mark.parametrize("page", [page for page, allowed in PAGES if not allowed])
async def test_a_token_in_the_header_is_sent_by_no_page_that_does_not_know_it(
    server: Server, page: dict[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {token('tom')}", **page}
    ways: list[Way] = [("GET", "/notifications/subscribe?topic=orders/1", None)]
    ways += [("POST", "/notifications/subscribe", b'{"topics": ["orders/1"]}'), *WAYS[3:4], *WAYS[5:]]
    for way in ways:
        assert (await asked(server, way, headers)).status in {200, 201}


@pytest.mark.parametrize("page", [page for page, allowed in PAGES if not allowed])
async def test_what_anybody_may_read_any_page_may_open(server: Server, page: dict[str, str]) -> None:
    client = await asked(server, ("GET", "/notifications/subscribe?topic=news", None), page)
    assert client.status == 200


@pytest.mark.parametrize("page", [page for page, allowed in PAGES if not allowed])
async def test_an_event_source_of_another_site_is_told_by_status(server: Server, page: dict[str, str]) -> None:
    """Its page could not read the reason: an answer to another origin is an error to it, whatever it says."""
    headers = {"Cookie": "login=tom", "Accept": "text/event-stream", **page}
    assert (await asked(server, WAYS[0], headers)).status == 403
    assert len(server.hub.connections) == 0


async def test_a_page_of_another_site_does_not_use_a_ticket_up(server: Server) -> None:
    answer = await server.post("/notifications/tickets", {}, Cookie="login=tom")
    ticket = answer.json()["ticket"]
    path = f"/notifications/subscribe?topic=orders&ticket={ticket}"
    page = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert (await asked(server, ("GET", path, None), page)).status == 403
    assert (await with_ticket(server, ticket, "orders", cookie="login=tom")).status == 200


async def test_over_tls_a_page_that_came_without_is_another_site(serve: Serve, tls: TLS) -> None:
    server = await serve(setup={"authenticate": by_cookie, "routes": None}, tls=tls)
    statuses = []
    for scheme in ("http", "https"):
        headers = {"Cookie": "login=tom", "Origin": f"{scheme}://{HUB}"}
        statuses.append((await asked(server, WAYS[0], headers)).status)
    assert statuses == [403, 200]


@pytest.mark.parametrize(("trusted", "status"), [(["127.0.0.1"], 200), ([], 403)])
async def test_behind_a_trusted_proxy_the_host_is_the_one_that_it_tells(
    serve: Serve, trusted: list[str], status: int
) -> None:
    server = await serve(setup={"authenticate": by_cookie, "routes": None}, trusted_proxies=trusted)
    told: dict[str, Any] = {"X-Forwarded-Host": "live.example", "X-Forwarded-Proto": "https"}
    headers = {"Cookie": "login=tom", "Origin": "https://live.example", **told}
    assert (await asked(server, WAYS[0], headers)).status == status
