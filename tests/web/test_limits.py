"""Limits over real sockets; the clients have other addresses because a trusted proxy says so."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from tests.web.client import Client
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server
from tests.web.test_all_streams import KINDS, forever

PROXY = "127.0.0.1"


async def asked(server: Server, kind: str, address: str) -> Client:
    """Return a client at *address* that has asked for a stream of *kind*, and got its first event."""
    client = await server.client()
    path = {"subscription": server.subscribe_path(), "handler": "/forever"}.get(kind)
    if path is None:
        generation = await server.hub.generations.begin()
        path = f"/ai/chat/stream/{generation.id}"
    await client.request("GET", path, headers={"X-Forwarded-For": address})
    assert await client.head() == 200
    client.opened = await client.event()
    return client


@pytest.fixture
def limited(serve: Serve) -> Any:
    """Start a server behind a proxy, with streams of every kind."""

    async def start(**settings: Any) -> Server:
        app = web.Application()
        app.router.add_get("/forever", forever)
        return await serve(app=app, ai_provider="simulated", **{"trusted_proxies": [PROXY], **settings})

    return start


def check_refused(client: Client, limit: str) -> None:
    """Check that *client* was told which limit it met, and when to come back, so that an `EventSource` does."""
    assert (client.opened.type, client.opened.json()) == ("hub.close", {"reason": "capacity", "limit": limit})
    assert client.decoder.retry is not None
    assert 10_000 <= client.decoder.retry <= 60_000


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_of_one_address_are_limited_whatever_their_kind(limited: Any, kind: str) -> None:
    server = await limited(max_per_address=2)
    for other in KINDS:
        if other != kind:
            await asked(server, other, "192.0.2.7")
    check_refused(await asked(server, kind, "192.0.2.7"), "max_per_address")
    assert (await asked(server, kind, "192.0.2.8")).opened.type != "hub.close"
    assert server.hub.metrics.refused == 1


async def test_ipv6_addresses_of_one_network_share_their_limit(limited: Any) -> None:
    server = await limited(max_per_address=1)
    await asked(server, "subscription", "2001:db8::1")
    check_refused(await asked(server, "subscription", "2001:db8::2"), "max_per_address")
    assert (await asked(server, "subscription", "2001:db8:0:1::1")).opened.type == "hub.open"


async def test_a_stream_that_has_gone_makes_room(limited: Any) -> None:
    server = await limited(max_per_address=1)
    (await asked(server, "subscription", "192.0.2.7")).reset()
    await server.deserted()
    assert (await asked(server, "subscription", "192.0.2.7")).opened.type == "hub.open"


@pytest.mark.parametrize("kind", KINDS)
async def test_connects_of_one_address_are_limited_whatever_their_kind(limited: Any, kind: str) -> None:
    server = await limited(connect_rate=0.2)  # five seconds' worth at once: one
    await asked(server, "handler", "192.0.2.7")
    check_refused(await asked(server, kind, "192.0.2.7"), "connect_rate")
    assert (await asked(server, kind, "192.0.2.8")).opened.type != "hub.close"


async def test_a_post_for_a_stream_is_told_which_limit_it_met_too(limited: Any) -> None:
    server = await limited(max_per_address=1)
    await asked(server, "subscription", "192.0.2.7")
    answer = await server.post("/notifications/subscribe", {"topics": ["a"]}, X_Forwarded_For="192.0.2.7")
    assert answer.status == 200
    assert b'{"reason":"capacity","limit":"max_per_address"}' in answer.body
    answer = await server.post("/ai/chat/stream", {"message": "Hello"}, X_Forwarded_For="192.0.2.7")
    assert (answer.status, answer.json()["limit"]) == (503, "max_per_address")
    assert int(answer.headers["Retry-After"]) >= 10


async def test_loopback_is_not_limited(serve: Serve) -> None:
    server = await serve(max_per_address=1, connect_rate=0.001, publish_rate=0.001)
    for _ in range(5):
        await server.subscribe()
        assert (await server.publish({"data": 1})).status == 201


async def test_nobody_escapes_a_limit_by_what_it_says_of_itself(limited: Any) -> None:
    server = await limited(max_per_address=1)
    await asked(server, "subscription", "192.0.2.7")
    for said in ("127.0.0.1, 192.0.2.7", "10.0.0.1,192.0.2.7", "nonsense, 192.0.2.7", "::1, 192.0.2.7:4711"):
        check_refused(await asked(server, "subscription", said), "max_per_address")


async def test_one_who_is_no_trusted_proxy_is_told_of_once(serve: Serve, complaints: Complaints) -> None:
    server = await serve(max_per_address=1)
    for _ in range(3):
        await asked(server, "subscription", "192.0.2.7")
    (warning,) = complaints.take()
    assert "X-Forwarded-For from 127.0.0.1 is ignored" in warning


async def test_publishes_of_one_address_are_limited_and_say_when_to_come_back(limited: Any) -> None:
    server = await limited(publish_rate=2)
    behind = {"X_Forwarded_For": "192.0.2.7"}
    drafts = [{"data": number} for number in range(9)]
    assert (await server.post("/notifications/publish", drafts, **behind)).status == 201
    refusal = await server.post("/notifications/publish", {"data": 1}, **behind)
    assert refusal.status == 429
    assert 1 <= int(refusal.headers["Retry-After"]) <= 5
    problem = refusal.json()
    assert (problem["type"], problem["limit"]) == ("urn:broadcast-hub:too-many-publishes", "publish_rate")
    assert (await server.post("/notifications/publish", drafts, X_Forwarded_For="192.0.2.8")).status == 201
    stats = (await server.ask("GET", "/notifications/stats")).json()
    assert (stats["published"], stats["limited"]) == (18, 1)


async def test_publishes_of_all_together_are_limited(serve: Serve) -> None:
    server = await serve(publish_rate_total=1)
    assert (await server.publish([{"data": 1}, {"data": 2}])).status == 201
    refusal = await server.publish({"data": 3})
    assert (refusal.status, refusal.json()["limit"]) == (429, "publish_rate_total")
    server.send("what the application itself sends is not limited", topic="a")


async def test_a_publish_that_breaks_a_rule_costs_nothing(serve: Serve) -> None:
    server = await serve(publish_rate_total=0.001)
    for _ in range(3):
        assert (await server.publish({"topic": "a/*", "data": 1})).status == 400
    assert (await server.publish({"data": 1})).status == 201


async def test_one_who_published_too_much_is_refused_before_its_body_is_read(serve: Serve) -> None:
    server = await serve(publish_rate_total=0.001)
    await server.publish({"data": 1})
    client = await server.client()
    head = (
        "POST /notifications/publish HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    await client.send(head.encode())
    assert await client.head() == 429


# ---- the names it answers to ----


@pytest.mark.parametrize("path", ["/healthz", "/notifications/subscribe", "/notifications/publish", "/no/where"])
async def test_allowed_hosts_are_the_only_names_besides_loopback(serve: Serve, path: str) -> None:
    server = await serve(allowed_hosts=["hub.example.com"], prefix="/live")
    for host in ("evil.example", "evil.example:80", "hub.example.com.evil.example", "192.0.2.7"):
        answer = await server.ask("GET", "/live" + path, headers={"Host": host})
        assert (answer.status, answer.json()["type"]) == (421, "urn:broadcast-hub:wrong-host")
    for host in ("hub.example.com", "HUB.example.com:8443", "localhost:8080", "127.0.0.1"):
        client = await server.client()
        await client.request("GET", "/live" + path, headers={"Host": host})
        assert await client.head() != 421


async def test_an_embedded_hub_answers_to_any_name_unless_told_otherwise(serve: Serve) -> None:
    server = await serve()
    assert (await server.ask("GET", "/healthz", headers={"Host": "shop.example.com"})).status == 200
