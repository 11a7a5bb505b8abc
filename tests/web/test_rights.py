"""Rights that begin with a ticket, and rights that end while a stream is open."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from aiohttp import web

from hub import Identity
from hub.errors import InvalidInput, NotThere
from hub.web.hooks import HOOK_SECONDS
from hub.web.rights import STEPS, Schedule, Session
from tests.web.client import Client, until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server
from tests.web.test_access import ANN, USERS, ask, by_header, stream_of

SECRET = "a secret of the tests, which has more than 32 bytes"


@pytest.fixture
async def server(serve: Serve) -> Server:
    """A hub that knows ann, bob and root by a header, and others by a token."""

    async def recheck(identity: Identity) -> Identity | None:
        return USERS.get(identity.user)

    setup = {"authenticate": by_header, "recheck": recheck, "routes": None}
    return await serve(setup=setup, jwt_secret=SECRET, heartbeat=0.3)


def token(user: str, *, seconds: float = 3600, **claims: Any) -> str:
    now = time.time()
    claims = {"sub": user, "iat": int(now) - 1, "exp": now + seconds, **claims}
    return jwt.encode({**claims, "hub": claims.get("hub", {"subscribe": ["orders/*"]})}, SECRET, algorithm="HS256")


async def stream_with(server: Server, text: str, *topics: str) -> Client:
    """Return a stream that begins with the token *text*."""
    client = await server.client()
    query = urlencode([("topic", topic) for topic in topics])
    headers = {"Authorization": f"Bearer {text}"}
    await client.request("GET", f"/notifications/subscribe?{query}", headers=headers)
    assert await client.head() == 200
    assert (await client.event()).type == "hub.open"
    return client


async def last_word(client: Client) -> str:
    """Return the reason with which a stream ends."""
    return (await last_retry_and_word(client))[1]


async def last_retry_and_word(client: Client) -> tuple[int, str]:
    """Return when the client of a stream that ends is to come back, in milliseconds, and the reason."""
    while (event := await client.event()).type != "hub.close":
        pass
    await client.body()
    assert client.complete
    return client.decoder.retry or 0, str(event.json()["reason"])


# ---- tokens ----


async def test_a_token_gives_the_rights_that_it_says(server: Server) -> None:
    client = await stream_with(server, token("tom"), "orders/1", "user/tom")
    server.send("mine", topic="user/tom")
    assert (await client.event()).data == "mine"
    answer = await server.ask(
        "GET", "/notifications/history?topic=secrets", headers={"Authorization": f"Bearer {token('tom')}"}
    )
    assert (answer.status, answer.json()["topic"]) == (403, "secrets")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nonsense", "token_invalid"),
        (jwt.encode({"sub": "tom", "exp": 9e9}, "x" * 40, algorithm="HS256"), "token_invalid"),
        (jwt.encode({"sub": "tom", "exp": 1_000_000}, SECRET, algorithm="HS256"), "token_expired"),
    ],
)
async def test_a_token_that_does_not_count_is_refused_even_where_anybody_may_read(
    serve: Serve, text: str, code: str
) -> None:
    server = await serve(setup={"routes": None}, jwt_secret=SECRET, anonymous_subscribe=("**",))
    answer = await server.ask("GET", "/notifications/subscribe", headers={"Authorization": f"Bearer {text}"})
    assert (answer.status, answer.json()["code"], answer.headers["WWW-Authenticate"]) == (401, code, "Bearer")
    assert text.encode() not in answer.body
    answer = await server.ask(
        "GET", "/notifications/subscribe", headers={"Accept": "text/event-stream", "Cookie": f"hub_token={text}"}
    )
    assert (answer.status, f'"reason":"{code}"'.encode() in answer.body) == (200, True)


async def test_a_cookie_may_carry_the_token(server: Server) -> None:
    path = "/notifications/history?topic=orders/1"
    assert (await server.ask("GET", path, headers={"Cookie": f"hub_token={token('tom')}"})).status == 200


async def test_a_token_in_a_query_is_nothing(server: Server) -> None:
    answer = await server.ask("GET", f"/notifications/history?topic=orders/1&token={token('tom')}")
    assert answer.status == 401


@pytest.mark.slow
async def test_a_stream_ends_before_its_token_does(server: Server) -> None:
    began = time.time()
    client = await stream_with(server, token("tom", seconds=6), "orders/1")
    assert await last_word(client) == "token_expired"
    assert 0.5 <= time.time() - began <= 6, "between 5 s before and the end"
    assert 1_000 <= (client.decoder.retry or 0) <= 6_000


# ---- revocation ----


async def test_revoking_a_token_ends_its_streams_and_refuses_it(server: Server) -> None:
    revoked, other = token("tom", jti="one"), token("tom", jti="two")
    clients = [await stream_with(server, each, "orders/1") for each in (revoked, other)]
    assert (await ask(server, "DELETE", "/notifications/tokens/one", "ann")).status == 403
    assert (await ask(server, "DELETE", "/notifications/tokens/one", "root")).status == 204
    assert await last_word(clients[0]) == "revoked"
    path = "/notifications/history?topic=orders/1"
    answers = [await server.ask("GET", path, headers={"Authorization": f"Bearer {each}"}) for each in (revoked, other)]
    assert [answer.status for answer in answers] == [401, 200]
    assert answers[0].json()["code"] == "revoked"
    assert len(server.hub.connections) == 1


async def test_the_application_revokes_and_ends_as_administrators_do(server: Server) -> None:
    first, second = token("tom", jti="one"), token("tom", jti="two")
    clients = [await stream_with(server, each, "orders/1") for each in (first, second, second)]
    await server.hub.revoke_token("one")
    assert await last_word(clients[0]) == "revoked"
    *_, last = server.hub.connections
    assert server.hub.end_connection(last.id)
    assert await last_word(clients[2]) == "revoked"
    assert (server.hub.end_connection("c_none"), len(server.hub.connections)) == (False, 1)
    path = "/notifications/history?topic=orders/1"
    headers = [{"Authorization": f"Bearer {each}"} for each in (first, second)]
    assert [(await server.ask("GET", path, headers=each)).status for each in headers] == [401, 200]
    await server.hub.revoke_user("tom")
    assert await last_word(clients[1]) == "revoked"
    assert (await server.ask("GET", path, headers=headers[1])).json()["code"] == "revoked"
    with pytest.raises(InvalidInput, match="not a string"):
        await server.hub.revoke_user(7)  # type: ignore[arg-type]  # what an application may have


async def test_where_nobody_is_known_there_is_nothing_to_revoke(serve: Serve) -> None:
    hub = (await serve()).hub
    for revoke in (hub.revoke_user, hub.revoke_token):
        with pytest.raises(NotThere, match="nobody is known"):
            await revoke("tom")


async def test_revoking_a_user_ends_all_streams_and_refuses_what_was_given_before(server: Server) -> None:
    clients = [await stream_with(server, token("tom"), "orders/1"), await stream_with(server, token("tom"), "orders/2")]
    kept = await stream_of(server, "ann", "orders/1")
    before = token("tom")
    assert (await ask(server, "DELETE", "/notifications/users/tom/connections", "root")).status == 204
    assert [await last_word(client) for client in clients] == ["revoked", "revoked"]
    path = "/notifications/history?topic=orders/1"
    assert (await server.ask("GET", path, headers={"Authorization": f"Bearer {before}"})).json()["code"] == "revoked"
    after = token("tom", iat=int(time.time()) + 2)
    assert (await server.ask("GET", path, headers={"Authorization": f"Bearer {after}"})).status == 200
    server.send("still here", topic="orders/1")
    assert (await kept.event()).data == "still here"


async def test_a_revoked_user_of_the_applications_login_is_asked_for_again(server: Server) -> None:
    client = await stream_of(server, "ann", "orders/1")
    assert (await ask(server, "DELETE", "/notifications/users/ann/connections", "root")).status == 204
    assert await last_word(client) == "revoked"
    again = await stream_of(server, "ann", "orders/1")
    server.send("back", topic="orders/1")
    assert (await again.event()).data == "back"


async def test_what_was_revoked_stays_so_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    text = token("tom", jti="one")
    settings: dict[str, Any] = {"jwt_secret": SECRET, "log": f"sqlite:///{tmp_path}/hub.db"}
    setup = {"authenticate": by_header, "routes": None}
    first = await serve(setup=setup, **settings)
    assert (await ask(first, "DELETE", "/notifications/tokens/one", "root")).status == 204
    await first.aclose_server()
    second = await serve(setup=setup, **settings)
    answer = await second.ask(
        "GET", "/notifications/history?topic=orders/1", headers={"Authorization": f"Bearer {text}"}
    )
    assert (answer.status, answer.json()["code"]) == (401, "revoked")


# ---- the list of connections ----


async def test_administrators_see_the_open_streams_page_by_page_and_end_them(server: Server) -> None:
    clients = [await stream_of(server, "ann", f"orders/{number}") for number in range(3)]
    assert (await ask(server, "GET", "/notifications/connections", "ann")).status == 403
    first = (await ask(server, "GET", "/notifications/connections?limit=2", "root")).json()
    rest = (await ask(server, "GET", f"/notifications/connections?limit=2&after={first['next']}", "root")).json()
    found = first["connections"] + rest["connections"]
    assert [each["topics"] for each in found] == [["orders/0"], ["orders/1"], ["orders/2"]]
    assert {(each["kind"], each["user"], each["address"]) for each in found} == {("subscription", "ann", "127.0.0.1")}
    assert rest["next"] is None
    path = f"/notifications/connections/{found[1]['id']}"
    assert (await ask(server, "DELETE", path, "ann")).status == 403
    assert (await ask(server, "DELETE", path, "root")).status == 204
    assert await last_word(clients[1]) == "revoked"
    await until(lambda: len(server.hub.connections) == 2)
    assert (await ask(server, "DELETE", path, "root")).status == 404


# ---- the application is asked again ----


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["nobody", "less", "the same", "can't tell"])
async def test_the_application_is_asked_about_open_streams(serve: Serve, complaints: Complaints, answer: str) -> None:
    asked: list[Identity] = []

    async def recheck(identity: Identity) -> Identity | None:
        asked.append(identity)
        if answer == "can't tell":
            raise RuntimeError("mine")
        return {"nobody": None, "less": Identity(user="ann", subscribe=("orders/2",)), "the same": ANN}[answer]

    server = await serve(setup={"authenticate": by_header, "recheck": recheck}, recheck=1)
    client = await stream_of(server, "ann", "orders/1")
    await until(lambda: len(asked) >= 1)
    assert asked[0].user == "ann"
    if answer == "the same":
        await until(lambda: len(asked) >= 3)
        server.send("still here", topic="orders/1")
        assert (await client.event()).data == "still here"
    else:
        assert await last_word(client) == ("auth_unavailable" if answer == "can't tell" else "revoked")
    if answer == "can't tell":
        assert len(asked) >= 2, "for twice the interval it stays open"
        assert complaints.take()


# ---- tickets ----


async def ticket_of(server: Server, user: str, body: Any = None) -> str:
    answer = await ask(server, "POST", "/notifications/tickets", user, body)
    assert (answer.status, answer.json()["expires_in"]) == (201, 30)
    return str(answer.json()["ticket"])


async def with_ticket(server: Server, ticket: str, *topics: str, cookie: str = "") -> Client:
    client = await server.client()
    query = urlencode([("ticket", ticket), *(("topic", topic) for topic in topics)])
    await client.request("GET", f"/notifications/subscribe?{query}", headers={"Cookie": cookie} if cookie else {})
    await client.head()
    return client


async def test_a_ticket_opens_one_stream_and_its_cookie_brings_that_back(server: Server) -> None:
    ticket = await ticket_of(server, "ann")
    first = await with_ticket(server, ticket, "orders/1")
    assert first.status == 200
    set_cookie = first.headers["Set-Cookie"]
    cookie, *attributes = set_cookie.split("; ")
    assert cookie.startswith("hub_stream_")
    assert {"HttpOnly", "SameSite=Strict", "Path=/notifications/subscribe"} <= set(attributes)
    (lasts,) = (int(each.removeprefix("Max-Age=")) for each in attributes if each.startswith("Max-Age="))
    assert lasts == 30 * 86_400 + 3_600, "ann's rights have no end of their own"
    other = await with_ticket(server, ticket, "orders/1")
    assert other.status == 401, "it is used up"
    for _ in range(2):
        first.reset()
        first = await with_ticket(server, ticket, "orders/1", cookie=cookie)
        assert first.status == 200
        assert (await first.event()).type == "hub.open"
    assert (await with_ticket(server, ticket, "orders/2", cookie=cookie)).status in {401, 403}
    name = cookie.partition("=")[0]
    assert (await with_ticket(server, ticket, "orders/1", cookie=f"{name}=wrong")).status == 401


async def test_the_cookie_of_a_stream_ends_soon_after_the_rights(server: Server) -> None:
    text = token("tom", seconds=600)
    answer = await server.ask("POST", "/notifications/tickets", headers={"Authorization": f"Bearer {text}"})
    client = await with_ticket(server, answer.json()["ticket"], "orders/1")
    lasts = int(client.headers["Set-Cookie"].partition("Max-Age=")[2].partition(";")[0])
    assert 4_000 < lasts <= 4_200, "for the hour after, the browser is told that they have ended"


async def test_two_tabs_do_not_disturb_each_other(server: Server) -> None:
    """One browser, which sends all its cookies with each request."""
    cookies: list[str] = []
    tickets = [await ticket_of(server, "ann") for _ in range(2)]
    for ticket in tickets:
        client = await with_ticket(server, ticket, "orders/1", cookie="; ".join(cookies))
        cookies.append(client.headers["Set-Cookie"].split(";")[0])
    assert len({cookie.partition("=")[0] for cookie in cookies}) == 2
    for ticket in tickets * 2:
        back = await with_ticket(server, ticket, "orders/1", cookie="; ".join(cookies))
        assert (back.status, "Set-Cookie" in back.headers) == (200, False)


async def test_a_page_that_is_loaded_again_and_again_leaves_no_more_cookies_than_fit(server: Server) -> None:
    jar: dict[str, str] = {"theirs": "x"}
    first = await ticket_of(server, "ann")
    tickets = [first, *[await ticket_of(server, "ann") for _ in range(39)]]
    for ticket in tickets:
        client = await with_ticket(server, ticket, "orders/1", cookie="; ".join(f"{n}={v}" for n, v in jar.items()))
        assert client.status == 200
        for line in client.headers.getall("Set-Cookie"):
            name, _, value = line.split(";")[0].partition("=")
            if "Max-Age=0" in line:
                del jar[name]
            else:
                jar[name] = value
        client.reset()
    streams = [name for name in jar if name.startswith("hub_stream_")]
    assert streams == [f"hub_stream_{ticket.partition('.')[0]}" for ticket in tickets[-32:]], "the newest are kept"
    cookies = "; ".join(f"{n}={v}" for n, v in jar.items())
    assert len(cookies) < 2_500
    assert (await with_ticket(server, tickets[-32], "orders/1", cookie=cookies)).status == 200
    assert (await with_ticket(server, first, "orders/1", cookie=cookies)).status == 401


@pytest.mark.parametrize(
    ("body", "topic", "status"),
    [
        (None, "orders/1", 200),
        (None, "secrets", 403),
        ({"topics": ["orders/1"]}, "orders/1", 200),
        ({"topics": ["orders/1"]}, "orders/2", 403),
    ],
)
async def test_a_ticket_is_bound_to_its_topics_and_to_the_rights_of_today(
    server: Server, body: Any, topic: str, status: int
) -> None:
    assert (await with_ticket(server, await ticket_of(server, "ann", body), topic)).status == status


async def test_a_ticket_for_more_than_its_owner_may_read_is_refused(server: Server) -> None:
    answer = await ask(server, "POST", "/notifications/tickets", "ann", {"topics": ["secrets"]})
    assert (answer.status, answer.json()["topic"]) == (403, "secrets")
    assert (await ask(server, "POST", "/notifications/tickets", "")).status == 401


async def test_an_unknown_field_of_a_request_for_a_ticket_is_named(server: Server) -> None:
    answer = await ask(server, "POST", "/notifications/tickets", "ann", {"topic": ["orders/1"]})
    assert (answer.status, answer.json()["field"]) == (400, "topic")
    assert answer.json()["detail"] == "topic: unknown field; did you mean topics? there is topics"
    for wrong in (["orders/1"], "orders/1"):
        answer = await ask(server, "POST", "/notifications/tickets", "ann", wrong)
        assert (answer.status, answer.json()["field"]) == (400, "body")


async def test_a_revoked_owner_has_no_ticket(server: Server) -> None:
    ticket = await ticket_of(server, "ann")
    assert (await ask(server, "DELETE", "/notifications/users/ann/connections", "root")).status == 204
    refused = await with_ticket(server, ticket, "orders/1")
    assert refused.status == 401


async def test_a_ticket_that_is_nothing_is_told_to_an_event_source(server: Server) -> None:
    answer = await server.ask(
        "GET", "/notifications/subscribe?ticket=x&topic=orders/1", headers={"Accept": "text/event-stream"}
    )
    assert (answer.status, b'"reason":"token_invalid"' in answer.body or b"unauthorized" in answer.body) == (200, True)


# ---- nothing leaks ----


async def test_no_secret_is_logged_or_answered(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    text = token("tom", jti="one")
    client = await stream_with(server, text, "orders/1")
    ticket = await ticket_of(server, "ann")
    opened = await with_ticket(server, ticket, "orders/1")
    cookie = opened.headers["Set-Cookie"].split(";")[0].partition("=")[2]
    broken = text[:-4] + "AAAA"
    answer = await server.ask("GET", "/notifications/stats", headers={"Authorization": f"Bearer {broken}"})
    assert answer.status == 401
    client.reset()
    await asyncio.sleep(0)
    for secret in (text, text.rpartition(".")[2], broken, ticket, ticket.partition(".")[2], cookie, SECRET):
        assert secret not in caplog.text
        assert secret.encode() not in answer.body


# ---- no way around ----


async def test_a_ticket_is_no_way_around_the_applications_own_rule(serve: Serve) -> None:
    async def read(identity: Identity | None, topics: Any) -> bool:
        return "orders/secret" not in topics

    server = await serve(setup={"authenticate": by_header, "authorize_subscribe": read, "routes": None})
    answer = await ask(server, "POST", "/notifications/tickets", "ann", {"topics": ["orders/secret"]})
    assert answer.status == 403
    assert (await with_ticket(server, await ticket_of(server, "ann"), "orders/secret")).status == 403


async def test_rights_of_the_login_that_have_ended_do_not_count(serve: Serve) -> None:
    async def login(request: web.Request) -> Identity:
        return Identity(user="ann", subscribe=["orders/*"], expires=time.time() - 1)  # type: ignore[arg-type]  # a list

    server = await serve(setup={"authenticate": login, "routes": None})
    answer = await server.ask("GET", "/notifications/subscribe?topic=orders/1")
    assert (answer.status, answer.json()["code"]) == (401, "token_expired")


@pytest.mark.slow
async def test_a_session_is_asked_about_once_however_many_streams_it_has(serve: Serve) -> None:
    asked: Counter[tuple[str, str | None]] = Counter()

    async def login(request: web.Request) -> Identity:
        return replace(ANN, session=request.headers["X-User"])

    async def recheck(identity: Identity) -> Identity:
        asked[identity.user, identity.session] += 1
        return identity

    server = await serve(setup={"authenticate": login, "recheck": recheck, "routes": None}, recheck=1)
    for session in ["phone"] + ["desk"] * 10:
        await stream_of(server, session, "orders/1")
    await until(lambda: asked["ann", "phone"] >= 3)
    assert set(asked) == {("ann", "phone"), ("ann", "desk")}
    assert asked["ann", "desk"] <= asked["ann", "phone"] + 2
    assert len(server.hub.connections) == 11


class Asking:
    """Walks through a schedule with a clock that is moved by hand, and keeps when each session was asked about."""

    def __init__(self, interval: float) -> None:
        self.schedule = Schedule(interval)
        self.now = 1_000.0
        self.asked: dict[Session, list[float]] = {}

    def step(self, sessions: Collection[Session]) -> list[Session]:
        due = self.schedule.due(sessions, self.now)
        for session in due:
            self.asked.setdefault(session, []).append(self.now)
        self.now += self.schedule.step
        return due


def sessions(*numbers: int) -> list[Session]:
    return [(f"user {number}", None) for number in numbers]


@pytest.mark.parametrize(("interval", "share"), [(1.0, 0.5), (30.0, 0.3), (3600.0, 0.3)])
def test_questions_about_sessions_that_came_at_once_are_spread(interval: float, share: float) -> None:
    asking, all_of_them = Asking(interval), sessions(*range(10_000))
    parts = [len(asking.step(all_of_them)) for _ in range(2 * STEPS)]
    assert max(parts) <= 10_000 * share
    assert len(asking.asked) == 10_000


@pytest.mark.parametrize("interval", [10.0, 30.0, 3600.0])
def test_each_session_is_answered_for_within_the_interval_whoever_comes_and_goes(interval: float) -> None:
    asking, chance = Asking(interval), random.Random(7)
    since: dict[Session, float] = {}
    for _ in range(30 * STEPS):
        if chance.random() < 0.1:  # nearly all leave, or many come
            since = {session: at for session, at in since.items() if chance.random() < 0.1}
        for session in sessions(*(chance.randrange(500) for _ in range(chance.choice([0, 0, 3, 200])))):
            since.setdefault(session, asking.now)
        began = asking.now
        for session in asking.step(since):
            answered_by = began + asking.schedule.step + HOOK_SECONDS
            assert answered_by - since[session] <= interval + 1e-6
            since[session] = began  # known again from then on
        assert all(began - at <= interval for at in since.values())


def test_a_session_that_is_not_due_is_not_asked_about() -> None:
    asking, one = Asking(30.0), sessions(1)
    for _ in range(10 * STEPS):
        asking.step(one)
    times = asking.asked[one[0]]
    assert min(after - before for before, after in pairwise(times)) >= 30.0 / 2


@pytest.mark.slow
async def test_a_session_whose_check_hangs_keeps_no_other_waiting(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, complaints: Complaints
) -> None:
    asked: set[str] = set()

    async def login(request: web.Request) -> Identity:
        return Identity(user=request.headers["X-User"], subscribe=("orders/*",))

    async def recheck(identity: Identity) -> Identity | None:
        asked.add(identity.user)
        await asyncio.get_running_loop().create_future()
        return None

    server = await serve(setup={"authenticate": login, "recheck": recheck, "routes": None}, recheck=1)
    for number in range(20):
        await stream_of(server, f"user {number}", "orders/1")
    await until(lambda: len(asked) == 20)
    assert len(server.hub.connections) == 20, "nothing can be told of them, for the first time"
    complaints.take()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/notifications/publish", b'{"data": 1, "topic": "orders/1"}'),
        ("POST", "/notifications/tickets", b"{}"),
        ("DELETE", "/notifications/users/ann/connections", None),
    ],
)
async def test_a_page_of_another_site_changes_nothing_with_the_cookie_of_a_user(
    server: Server, method: str, path: str, body: bytes | None
) -> None:
    cookie = {"Cookie": f"hub_token={token('tom', hub={'publish': ['orders/*'], 'admin': True})}"}
    statuses = []
    for site in ("cross-site", "same-site", "same-origin"):
        headers = {**cookie, "Sec-Fetch-Site": site, "Content-Type": "application/json"}
        statuses.append((await server.ask(method, path, headers=headers, body=body)).status)
    assert statuses == [403, 403, 204 if method == "DELETE" else 201]


async def test_a_stream_of_a_ticket_does_not_come_back_after_the_login_has_ended(serve: Serve) -> None:
    known = {"ann": ANN}

    async def login(request: web.Request) -> Identity | None:
        return known.get(request.headers.get("X-User", ""))

    async def recheck(identity: Identity) -> Identity | None:
        return known.get(identity.user)

    server = await serve(setup={"authenticate": login, "recheck": recheck, "routes": None}, recheck=3600)
    ticket = await ticket_of(server, "ann")
    first = await with_ticket(server, ticket, "orders/1")
    cookie = first.headers["Set-Cookie"].split(";")[0]
    first.reset()
    back = await with_ticket(server, ticket, "orders/1", cookie=cookie)
    assert back.status == 200
    known.clear()
    refused = await with_ticket(server, ticket, "orders/1", cookie=cookie)
    assert refused.status == 401
    assert b"revoked" in await refused.body()


@pytest.mark.slow
async def test_streams_of_generations_end_with_the_rights_of_their_holder(serve: Serve) -> None:
    server = await serve(setup={"routes": None}, jwt_secret=SECRET, ai_provider="application", heartbeat=0.3)
    headers = {"Authorization": f"Bearer {token('tom', seconds=6)}"}
    generation = await server.hub.generations.begin(owner="tom")
    client = await server.client()
    await client.request("GET", f"/ai/chat/stream/{generation.id}", headers=headers)
    assert await client.head() == 200
    (stream,) = server.hub.connections
    assert stream.facts().user == "tom"
    assert await last_word(client) == "token_expired"


async def test_what_is_revoked_while_a_hook_thinks_opens_no_stream(serve: Serve) -> None:
    thinking, go_on = asyncio.Event(), asyncio.Event()

    async def read(identity: Identity | None, topics: Any) -> bool:
        thinking.set()
        await go_on.wait()
        return True

    server = await serve(setup={"authenticate": by_header, "authorize_subscribe": read, "routes": None})
    client = await server.client()
    await client.request("GET", "/notifications/subscribe?topic=orders/1", headers={"X-User": "ann"})
    await thinking.wait()
    assert (await ask(server, "DELETE", "/notifications/users/ann/connections", "root")).status == 204
    go_on.set()
    assert await client.head() == 401
    assert len(server.hub.connections) == 0


@pytest.mark.slow
async def test_an_answer_of_the_check_that_is_none_ends_no_other_check(serve: Serve, complaints: Complaints) -> None:
    asked: list[str] = []

    async def login(request: web.Request) -> Identity:
        return Identity(user=request.headers["X-User"], subscribe=("orders/*",))

    async def recheck(identity: Identity) -> Any:
        asked.append(identity.user)
        return True if identity.user == "broken" else None

    server = await serve(setup={"authenticate": login, "recheck": recheck, "routes": None}, recheck=1)
    broken = await stream_of(server, "broken", "orders/1")
    ada = await stream_of(server, "ada", "orders/1")
    assert await last_word(ada) == "revoked"
    assert await last_word(broken) == "auth_unavailable", "after the second answer that is none"
    assert complaints.take()


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["before anything is awaited", "cancelled"])
async def test_a_check_that_fails_oddly_ends_no_other_check(serve: Serve, complaints: Complaints, failure: str) -> None:
    async def login(request: web.Request) -> Identity:
        return Identity(user=request.headers["X-User"], subscribe=("orders/*",))

    async def nobody() -> None:
        return None

    def odd(identity: Identity) -> Any:
        if identity.user == "ada":
            return nobody()
        if failure == "cancelled":
            broken = asyncio.get_running_loop().create_future()
            broken.cancel()
            return broken
        raise KeyError(identity.user)

    server = await serve(setup={"authenticate": login, "recheck": partial(odd), "routes": None}, recheck=1)
    broken = await stream_of(server, "broken", "orders/1")
    retry, word = await last_retry_and_word(broken)
    assert word == "auth_unavailable", "after the second answer that is none"
    assert 2_000 <= retry <= 10_000, "a page comes back soon: nobody has said that the login has ended"
    ada = await stream_of(server, "ada", "orders/1")
    assert await last_word(ada) == "revoked"
    assert complaints.take()
