"""Refusals are counted as what they are, and cost whoever causes them; behind a proxy, so that addresses differ."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from aiohttp import web

from hub import Identity
from tests.web.client import Client
from tests.web.conftest import Serve
from tests.web.server import Answer, Server
from tests.web.test_access import by_header

SECRET = "a secret of the tests, which has more than 32 bytes"
STREAM = {"Accept": "text/event-stream"}
HERE, THERE = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "192.0.2.8"}
ONE = 0.001
"""A rate at which one is allowed, and the next one not before the test is over."""


def bearer(user: str = "tom", **claims: Any) -> dict[str, str]:
    now = time.time()
    said = {"sub": user, "iat": int(now) - 1, "exp": now + 86_400, "hub": {"subscribe": ["orders"]}, **claims}
    return {"Authorization": f"Bearer {jwt.encode(said, SECRET, algorithm='HS256')}"}


BAD = {"Authorization": "Bearer no.such.token"}
BAD_COOKIE = {"Cookie": "hub_token=no.such.token"}


@pytest.fixture
def guarded(serve: Serve) -> Any:
    """Start a hub behind a proxy that knows users by a header and by tokens."""

    async def start(**settings: Any) -> Server:
        setup = {"authenticate": settings.pop("authenticate", by_header), "routes": None}
        return await serve(
            setup=setup,
            jwt_secret=SECRET,
            trusted_proxies=["127.0.0.1"],
            anonymous_subscribe=("news",),
            ai_provider="simulated",
            **settings,
        )

    return start


async def ask(server: Server, path: str, *headers: Mapping[str, str], method: str = "GET") -> Answer:
    said = {name: text for each in headers for name, text in each.items()}
    return await server.ask(method, path, headers=said)


def counted(server: Server) -> dict[str, int]:
    names = ("unauthorized", "forbidden", "auth_unavailable", "refused", "limited")
    return {name: number for name in names if (number := getattr(server.hub.metrics, name))}


SUBSCRIBE, HISTORY = "/notifications/subscribe?topic=orders", "/notifications/history?topic=orders"
TICKETS = "/notifications/tickets"

REFUSED: list[tuple[str, dict[str, str], str]] = [
    (HISTORY, {}, "unauthorized"),
    (HISTORY, BAD, "unauthorized"),
    (HISTORY, BAD_COOKIE, "unauthorized"),
    (HISTORY, {"X-User": "root"}, "forbidden"),
    (SUBSCRIBE, STREAM, "unauthorized"),
    (SUBSCRIBE, STREAM | BAD_COOKIE, "unauthorized"),
    (SUBSCRIBE, STREAM | {"X-User": "root"}, "forbidden"),
    (SUBSCRIBE + "&ticket=x", STREAM, "unauthorized"),
    (SUBSCRIBE, BAD, "unauthorized"),
    ("/notifications/stats", {}, "unauthorized"),
    ("/metrics", {"X-User": "ann"}, "forbidden"),
    ("/ai/chat/stream/x", STREAM, "unauthorized"),
]


@pytest.mark.parametrize("refuse", ["auto", "status"])
@pytest.mark.parametrize(("path", "headers", "counter"), REFUSED)
async def test_a_refusal_is_counted_as_what_it_is_however_it_is_told(
    guarded: Any, path: str, headers: dict[str, str], counter: str, refuse: str
) -> None:
    server = await guarded(refuse=refuse)
    answer = await ask(server, path, headers)
    in_stream = refuse == "auto" and "Accept" in headers
    assert answer.status == (200 if in_stream else {"unauthorized": 401, "forbidden": 403}[counter])
    assert counted(server) == {counter: 1}


async def test_what_can_not_be_told_is_counted_apart(guarded: Any, complaints: Any) -> None:
    async def broken(request: web.Request) -> Identity | None:
        raise RuntimeError

    server = await guarded(authenticate=broken)
    await ask(server, HISTORY)
    await ask(server, SUBSCRIBE, STREAM)
    assert counted(server) == {"auth_unavailable": 2}
    assert complaints.take()


@pytest.mark.parametrize(
    "path", ["/notifications/subscribe", "/notifications/publish", TICKETS, "/ai/chat/stream", "/ai/chat/stream/init"]
)
async def test_a_token_is_checked_before_a_body_is_read(guarded: Any, path: str) -> None:
    client = await (await guarded()).client()
    length = {"Content-Type": "application/json", "Content-Length": "1000000"}
    head = "".join(f"{name}: {text}\r\n" for name, text in (BAD | length).items())
    await client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    assert await client.head() == 401


# ---- who is refused too often ----


def check_not_looked_at(answer: Answer) -> None:
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1
    problem = answer.json()
    assert (problem["type"], problem["limit"]) == ("urn:broadcast-hub:too-many-refusals", "refuse_rate")
    assert "refuse_rate" in problem["detail"]


@pytest.mark.parametrize("headers", [BAD, BAD_COOKIE, {"X-User": "nobody"}])
async def test_an_address_that_is_refused_too_often_is_not_looked_at(guarded: Any, headers: dict[str, str]) -> None:
    asked: list[str] = []

    async def login(request: web.Request) -> Identity | None:
        asked.append(request.headers.get("X-User", ""))
        return await by_header(request)

    server = await guarded(refuse_rate=ONE, authenticate=login)
    assert (await ask(server, HISTORY, HERE, headers)).status == 401
    before = len(asked)
    for path in (HISTORY, "/notifications/stats", "/ai/chat/stream/x", SUBSCRIBE):
        check_not_looked_at(await ask(server, path, HERE, headers))
    check_not_looked_at(await ask(server, "/notifications/publish", HERE, headers, method="POST"))
    check_not_looked_at(await ask(server, TICKETS, HERE, headers, method="POST"))
    assert len(asked) == before, "the login is not asked"
    assert (await ask(server, HISTORY, THERE, headers)).status == 401, "another address is"
    assert counted(server) == {"unauthorized": 2, "limited": 6}


@pytest.mark.parametrize("refuse", ["auto", "status"])
async def test_an_event_source_that_is_not_looked_at_comes_back(guarded: Any, refuse: str) -> None:
    server = await guarded(refuse_rate=ONE, refuse=refuse)
    await ask(server, HISTORY, HERE, BAD)
    for path, headers in ((SUBSCRIBE, BAD_COOKIE), (SUBSCRIBE + "&ticket=x", {}), ("/ai/chat/stream/x", BAD_COOKIE)):
        client = await server.client()
        await client.request("GET", path, headers=HERE | STREAM | headers)
        assert await client.head() == 200
        event = await client.event()
        assert (event.type, event.json()) == ("hub.close", {"reason": "capacity", "limit": "refuse_rate"})
        assert 10_000 <= (client.decoder.retry or 0) <= 60_000
        await client.body()
        assert client.complete


async def test_who_is_known_already_is_not_kept_waiting_by_others_at_the_same_address(guarded: Any) -> None:
    server = await guarded(refuse_rate=ONE)
    known, new = bearer(), bearer("tim")
    assert (await ask(server, HISTORY, HERE, known)).status == 200
    await ask(server, HISTORY, HERE, BAD)
    check_not_looked_at(await ask(server, HISTORY, HERE, new))
    assert (await ask(server, HISTORY, HERE, known)).status == 200
    assert (await ask(server, HISTORY, THERE, new)).status == 200
    assert (await ask(server, HISTORY, HERE, new)).status == 200, "now it is known, too"


async def test_a_token_that_has_expired_is_not_known(guarded: Any) -> None:
    server = await guarded(refuse_rate=ONE, jwt_leeway=0)
    short = bearer(exp=time.time() + 0.5)
    assert (await ask(server, HISTORY, HERE, short)).status == 200
    while (answer := await ask(server, HISTORY, HERE, short)).status == 200:
        pass
    assert answer.json()["code"] == "token_expired"
    check_not_looked_at(await ask(server, HISTORY, HERE, short))


async def test_what_needs_no_check_goes_on(serve: Serve) -> None:
    server = await serve(
        setup={"routes": None},
        jwt_secret=SECRET,
        trusted_proxies=["127.0.0.1"],
        anonymous_subscribe=("news",),
        refuse_rate=ONE,
    )
    await ask(server, HISTORY, HERE, BAD)
    check_not_looked_at(await ask(server, HISTORY, HERE, BAD))
    assert (await ask(server, "/notifications/history?topic=news", HERE)).status == 200
    assert (await ask(server, "/healthz", HERE, BAD)).status == 200


async def test_a_user_who_is_refused_too_often_waits_alone(guarded: Any) -> None:
    server = await guarded(refuse_rate=ONE)
    tom, tim = bearer("tom"), bearer("tim")
    forbidden = "/notifications/history?topic=secrets"
    assert (await ask(server, forbidden, HERE, tom)).status == 403
    for address in (HERE, THERE):
        check_not_looked_at(await ask(server, HISTORY, address, tom))
        assert (await ask(server, HISTORY, address, tim)).status == 200


async def test_users_are_limited_on_loopback_too_but_addresses_are_not(serve: Serve) -> None:
    server = await serve(setup={"routes": None}, jwt_secret=SECRET, refuse_rate=ONE)
    for _ in range(3):
        assert (await ask(server, HISTORY, BAD)).status == 401
    assert (await ask(server, "/notifications/stats", bearer())).status == 403
    check_not_looked_at(await ask(server, "/notifications/stats", bearer()))


async def test_without_a_limit_every_refusal_says_why(guarded: Any) -> None:
    server = await guarded(refuse_rate=0)
    for _ in range(3):
        assert (await ask(server, HISTORY, HERE, BAD)).status == 401
    assert counted(server) == {"unauthorized": 3}


async def test_the_limit_ends_by_itself(guarded: Any) -> None:
    server = await guarded(refuse_rate=20)
    flood = [await ask(server, HISTORY, HERE, BAD) for _ in range(150)]  # more than five seconds' worth, if it is quick
    assert {answer.status for answer in flood} <= {401, 429}
    while (await ask(server, HISTORY, HERE, BAD)).status != 401:
        pass


# ---- tickets ----


async def test_tickets_are_limited_by_user(guarded: Any) -> None:
    server = await guarded(ticket_rate=ONE)
    assert (await ask(server, TICKETS, bearer("tom"), method="POST")).status == 201
    refusal = await ask(server, TICKETS, bearer("tom"), method="POST")
    assert (refusal.status, refusal.json()["limit"]) == (429, "ticket_rate")
    assert refusal.json()["type"] == "urn:broadcast-hub:too-many-tickets"
    assert int(refusal.headers["Retry-After"]) >= 1
    assert (await ask(server, TICKETS, bearer("tim"), method="POST")).status == 201
    assert counted(server) == {"limited": 1}


async def begin(server: Server, user: str = "tom") -> tuple[Client, str, str]:
    """Return a stream that began with a ticket, its path, and the cookie with which it comes back."""
    ticket = (await ask(server, TICKETS, bearer(user), method="POST")).json()["ticket"]
    path = f"{SUBSCRIBE}&ticket={ticket}"
    client = await server.client()
    await client.request("GET", path)
    assert await client.head() == 200
    return client, path, client.headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize("rate", [0, 5])
async def test_a_flood_of_tickets_takes_no_stream_its_return(guarded: Any, rate: float) -> None:
    """Not even without a limit: those that are not used yet have bounds of their own."""
    server = await guarded(ticket_rate=rate)
    client, path, cookie = await begin(server)
    statuses = {
        (await ask(server, TICKETS, bearer("tom"), method="POST")).status for _ in range(300)
    }  # an owner may have 256
    assert statuses == ({201} if rate == 0 else {201, 429})
    client.reset()
    again = await server.client()
    await again.request("GET", path, headers={"Cookie": cookie})
    assert await again.head() == 200
    assert (await again.event()).type == "hub.open"


async def test_at_the_default_rate_no_ticket_goes_before_its_time(guarded: Any) -> None:
    server = await guarded()
    first = (await ask(server, TICKETS, bearer("tom"), method="POST")).json()["ticket"]
    while (await ask(server, TICKETS, bearer("tom"), method="POST")).status == 201:
        pass
    client = await server.client()
    await client.request("GET", f"{SUBSCRIBE}&ticket={first}")
    assert await client.head() == 200
    assert (await client.event()).type == "hub.open"


# ---- answers of an AI ----


@pytest.mark.parametrize("limit", ["ai_per_user", "ai_total"])
async def test_too_many_answers_say_which_limit_and_when_to_come_back(guarded: Any, limit: str) -> None:
    server = await guarded(**{limit: 1, "ai_simulated_first": 60})
    said = {"X-User": "ann", "Content-Type": "application/json"}
    begun = [
        await server.ask("POST", "/ai/chat/stream/init", headers=said, body=b'{"message": "hi"}') for _ in range(2)
    ]
    assert [answer.status for answer in begun] == [201, 429]
    assert begun[1].json()["limit"] == limit
    assert int(begun[1].headers["Retry-After"]) >= 1
    client = await server.client()
    await client.request("GET", "/ai/chat/stream?message=hi", headers=said | STREAM)
    assert await client.head() == 200
    assert (await client.event()).json() == {"reason": "capacity", "limit": limit}
