"""What every path of the hub does alike: what a cache may keep, who may call from where, what nobody answers."""

from __future__ import annotations

import pytest

from tests.web.conftest import Serve
from tests.web.server import Server

CHAT = "/ai/chat/stream"
JSON = {"Content-Type": "application/json"}
SHOP = "https://shop.example.com"


# ---- caches ----


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/healthz", None, 200),
        ("GET", "/readyz", None, 200),
        ("GET", "/metrics", None, 200),
        ("GET", "/notifications/stats", None, 200),
        ("GET", "/notifications/history", None, 200),
        ("GET", "/notifications/history?limit=0", None, 400),
        ("GET", "/notifications/subscribe?topic=*a", None, 400),
        ("GET", CHAT + "/unknown", None, 404),
        ("GET", CHAT + "/a?lastEventId=a.1.end", None, 204),
        ("GET", "/events/a.b", None, 405),
        ("HEAD", "/notifications/subscribe", None, 405),
        ("OPTIONS", "/notifications/publish", None, 204),
        ("POST", "/notifications/publish", b'{"data": 1}', 201),
        ("POST", "/notifications/publish", b"{", 400),
        ("POST", "/events/a.b", b"1", 202),
        ("POST", "/orders", b'{"amount": 1}', 201),
        ("POST", CHAT + "/init", b'{"message": "a"}', 201),
        ("DELETE", CHAT + "/unknown", None, 404),
        ("HEAD", "/sse/use-get-decorator", None, 405),
    ],
)
async def test_no_cache_keeps_what_is_true_only_now(
    serve: Serve, method: str, path: str, body: bytes | None, status: int
) -> None:
    server = await serve(demo=True, events_api=True)
    answer = await server.ask(method, path, headers=JSON, body=body)
    assert (answer.status, answer.headers.getall("Cache-Control")) == (status, ["no-store"])


async def test_a_stream_and_the_page_of_the_demo_say_so_themselves(serve: Serve) -> None:
    server = await serve(demo=True, max_connections=1)
    client = await server.subscribe()
    assert client.headers.getall("Cache-Control") == ["no-cache, no-transform"]
    away = await server.ask("GET", "/notifications/subscribe")
    assert away.headers.getall("Cache-Control") == ["no-cache, no-transform"]
    assert (await server.ask("GET", "/")).headers.getall("Cache-Control") == ["no-cache"]


# ---- cross-origin requests ----


@pytest.mark.parametrize(
    "asked",
    [
        "content-type",
        "hx-current-url, hx-request, hx-target",
        "datastar-request",
        "authorization,content-type,x-stainless-arch,x-stainless-retry-count",
    ],
)
async def test_a_page_that_may_call_may_send_whatever_headers_it_asks_for(serve: Serve, asked: str) -> None:
    server = await serve(ai_provider="simulated", cors_origins=(SHOP,))
    headers = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    answer = await server.ask("OPTIONS", CHAT, headers=headers)
    assert answer.status == 204
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert set(asked.replace(" ", "").split(",")) <= set(allowed)
    assert len(allowed) == len(set(allowed))
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert answer.headers["Vary"] == "Origin, Access-Control-Request-Headers"


@pytest.mark.parametrize("asked", ["", "a b", "a,,b", "a:b", "<a>", "a\tb", "*/*"])
async def test_what_are_no_names_of_headers_is_not_allowed(serve: Serve, asked: str) -> None:
    server = await serve(ai_provider="simulated", cors_origins=(SHOP,))
    headers = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    answer = await server.ask("OPTIONS", CHAT, headers=headers)
    assert answer.headers["Access-Control-Allow-Headers"].endswith(", Last-Event-ID")


async def test_a_page_that_may_not_call_is_told_nothing(serve: Serve) -> None:
    server = await serve(ai_provider="simulated", cors_origins=(SHOP,))
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Headers": "x-evil"}
    answer = await server.ask("OPTIONS", CHAT, headers=headers)
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]
    assert "Origin" in answer.headers["Vary"]


# ---- what a page of another site can't do ----

BEGIN = ("GET", CHAT + "?message=hi")


async def asked(server: Server, method: str, path: str, **headers: str) -> int:
    """Return the status that a request with these headers gets."""
    client = await server.client()
    await client.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    return await client.head()


@pytest.mark.parametrize(
    "said",
    [
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "image"},  # an <img>
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},  # a link
        {"Sec_Fetch_Site": "same-site"},  # another host of the domain, or another port
        {"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec_Fetch_Site": "nonsense"},
        {"Origin": "https://evil.example"},  # over plain HTTP browsers say no more
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("origins", [(), (SHOP,)])
async def test_a_page_of_another_site_begins_no_answer(
    serve: Serve, said: dict[str, str], origins: tuple[str, ...]
) -> None:
    server = await serve(ai_provider="simulated", cors_origins=origins)
    assert await asked(server, *BEGIN, **said) == 403
    assert not server.hub.generations.streaming
    answer = await server.ask(*BEGIN, headers={name.replace("_", "-"): text for name, text in said.items()})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:broadcast-hub:cross-site"


@pytest.mark.parametrize(
    "said",
    [
        {},  # no browser, or an old one
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},  # typed by the user
        {"Sec_Fetch_Site": "cross-site", "Origin": SHOP},
        {"Sec_Fetch_Site": "same-site", "Origin": SHOP},
        {"Origin": SHOP},
        {"Origin": "http://localhost"},  # as `Host` has it
    ],
)
async def test_the_hubs_own_pages_and_those_that_may_call_begin_one(serve: Serve, said: dict[str, str]) -> None:
    server = await serve(ai_provider="simulated", cors_origins=(SHOP,))
    assert await asked(server, *BEGIN, **said) == 200
    assert server.hub.generations.streaming == 1


async def test_a_page_of_another_site_stops_no_answer(serve: Serve) -> None:
    server = await serve(ai_provider="simulated", ai_simulated_first=600, cors_origins=(SHOP,))
    url = (await server.post(CHAT + "/init", {"message": "hi"})).json()["cancelUrl"]
    assert await asked(server, "POST", url, Sec_Fetch_Site="cross-site", Origin="https://evil.example") == 403
    assert server.hub.generations.streaming == 1
    # An old browser sends `Origin` with every POST: a proxy that rewrites `Host` must not make its own page a stranger.
    assert await asked(server, "POST", url, Origin="http://hub.lan") == 200
    assert not server.hub.generations.streaming


async def test_to_watch_changes_nothing_and_is_free(serve: Serve) -> None:
    server = await serve(ai_provider="simulated", ai_simulated_first=600)
    url = (await server.post(CHAT + "/init", {"message": "hi"})).json()["streamUrl"]
    assert await asked(server, "GET", url, Sec_Fetch_Site="cross-site") == 200


# ---- expectations ----


async def test_an_expectation_is_met_or_refused_with_a_problem(server: Server) -> None:
    client = await server.client()
    body = b'{"data": 1}'
    head = {**JSON, "Expect": "100-continue", "Content-Length": str(len(body))}
    await client.request("POST", "/notifications/publish", headers=head)
    assert await client.head() == 100
    await client.send(body)
    assert await client.head() == 201
    refused = await server.ask("POST", "/notifications/publish", headers={**JSON, "Expect": "magic"}, body=body)
    assert (refused.status, refused.headers["Content-Type"]) == (417, "application/problem+json")
