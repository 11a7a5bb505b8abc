"""Who sends a request, how it is refused, and what is mounted; the rules themselves are in test_rules.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Sequence
from dataclasses import fields
from functools import partial, wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from pydantic import SecretStr

from hub import Identity, Settings, setup_hub
from hub.errors import InvalidInput
from hub.notification import Draft
from hub.web.hooks import Hooks
from hub.web.verifier import verifier_of
from tests.web.client import Client
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server

ANN = Identity(user="ann", subscribe=("orders/**", "room/lobby"), publish=("orders/*",))
BOB = Identity(user="bob", subscribe=("**",), publish=("**",))
ROOT = Identity(user="root", admin=True)
USERS = {each.user: each for each in (ANN, BOB, ROOT)}


async def by_header(request: web.Request) -> Identity | None:
    """Return who the header says: the login of these tests."""
    return USERS.get(request.headers.get("X-User", ""))


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/hub.db"


@pytest.fixture
async def server(serve: Serve, home: str) -> Server:
    """A hub that knows ann, bob and root by a header; anybody may read news and write to the guestbook."""
    return await serve(
        setup={"authenticate": by_header, "routes": None},
        log=home,
        ai_provider="simulated",
        events_api=True,
        anonymous_subscribe=("news/**",),
        anonymous_publish=("guestbook",),
    )


def said_by(user: str, **headers: str) -> dict[str, str]:
    return ({"X-User": user} if user else {}) | headers


async def ask(server: Server, method: str, path: str, user: str, body: Any = None, **headers: str) -> Any:
    """Return the answer to a request of *user*."""
    return await server.ask(
        method,
        path,
        headers=said_by(user, **headers) | ({"Content-Type": "application/json"} if body is not None else {}),
        body=None if body is None else json.dumps(body).encode(),
    )


# ---- reading ----


async def stream_of(server: Server, user: str, *topics: str, **query: str) -> Client:
    client = await server.client()
    asked = [("topic", topic) for topic in topics] + list(query.items())
    await client.request("GET", f"/notifications/subscribe?{urlencode(asked)}", headers=said_by(user))
    assert await client.head() == 200
    await client.event()
    return client


async def until_end(client: Client, last: str = "end") -> list[str]:
    """Return the data of the notifications up to *last*."""
    return [event.data for event in await client.upto(last)]


async def test_streams_that_see_the_same_share_one_audience(server: Server) -> None:
    for user in ("", "bob", "ann"):
        await stream_of(server, user, "news/a")
    assert server.registered["audiences"] == 2  # bob's grants cover it: he sees private ones, too


# ---- publishing ----


async def test_a_key_is_the_publishers_own(server: Server) -> None:
    body = {"data": "x", "topic": "orders/1", "key": "k"}
    first = await ask(server, "POST", "/notifications/publish", "ann", body)
    assert (await ask(server, "POST", "/notifications/publish", "bob", body)).status == 201
    again = await ask(server, "POST", "/notifications/publish", "ann", body)
    assert (again.status, again.json()["id"]) == (200, first.json()["id"])


async def test_nobody_reaches_the_key_of_another_by_its_spelling(server: Server) -> None:
    body = {"data": "x", "topic": "guestbook", "key": "k"}
    first = (await ask(server, "POST", "/notifications/publish", "ann", body)).json()["id"]
    for key in ("k", "ann\x1fk", "3:ann:k", "ann:k", "-:k"):
        answer = await ask(server, "POST", "/notifications/publish", "", {**body, "key": key})
        assert answer.json()["id"] != first


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_for_everybody(server: Server, path: str) -> None:
    assert (await server.ask("GET", path)).status == 200


# ---- how it is refused ----


@pytest.mark.parametrize(
    ("user", "path", "facts"),
    [
        ("", "/notifications/subscribe?topic=orders", {"reason": "unauthorized"}),
        ("ann", "/notifications/subscribe?topic=secrets", {"reason": "forbidden", "topic": "secrets"}),
        ("", "/ai/chat/stream/none", {"reason": "unauthorized"}),
    ],
)
async def test_an_event_source_is_refused_in_a_way_that_it_can_read(
    server: Server, user: str, path: str, facts: dict[str, str]
) -> None:
    client = await server.client()
    await client.request("GET", path, headers=said_by(user, Accept="text/event-stream"))
    assert await client.head() == 200
    event = await client.event()
    assert (event.type, event.json()) == ("hub.close", facts)
    assert 10_000 <= (client.decoder.retry or 0) <= 60_000
    await client.body()
    assert client.complete


async def test_other_requests_are_refused_by_status_whatever_they_accept(server: Server) -> None:
    for method, path in (("POST", "/notifications/publish"), ("GET", "/notifications/history?topic=orders")):
        answer = await server.ask(
            method,
            path,
            headers={"Accept": "text/event-stream", "Content-Type": "application/json"},
            body=b'{"data": 1}' if method == "POST" else None,
        )
        assert answer.status == 401
    answer = await server.ask(
        "GET", "/notifications/subscribe", headers={"Accept": "text/event-stream", "Authorization": "Basic eA=="}
    )
    assert answer.status == 401


async def test_refusals_by_status_can_be_asked_for(serve: Serve) -> None:
    server = await serve(setup={"authenticate": by_header}, refuse="status")
    answer = await server.ask("GET", "/notifications/subscribe", headers={"Accept": "text/event-stream"})
    assert answer.status == 401


# ---- the application's hooks ----


@pytest.mark.parametrize("fault", ["raises", "hangs", "answers with something else"])
async def test_a_hook_that_can_not_tell_refuses_for_now(
    serve: Serve, complaints: Complaints, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("hub.web.hooks.HOOK_SECONDS", 0.05)

    async def broken(request: web.Request) -> Identity | None:
        if fault == "raises":
            raise RuntimeError("secret")
        if fault == "answers with something else":
            return True  # type: ignore[return-value]  # as an application may
        await asyncio.get_running_loop().create_future()
        return None

    server = await serve(setup={"authenticate": broken})
    answer = await server.ask("GET", "/notifications/stats")
    assert (answer.status, answer.json()["code"]) == (503, "auth_unavailable")
    assert b"secret" not in answer.body
    assert int(answer.headers["Retry-After"]) >= 1
    client = await server.client()
    await client.request("GET", "/notifications/subscribe", headers={"Accept": "text/event-stream"})
    await client.head()
    assert (await client.event()).json() == {"reason": "auth_unavailable"}
    assert complaints.take()


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (web.HTTPUnauthorized, 401, "unauthorized"),
        (web.HTTPForbidden, 403, "forbidden"),
        (web.HTTPNotFound, 503, "auth_unavailable"),
    ],
)
async def test_a_hook_may_refuse_as_a_handler_of_aiohttp_does(
    serve: Serve, complaints: Complaints, raised: type[web.HTTPException], status: int, code: str
) -> None:
    async def login(request: web.Request) -> Identity | None:
        raise raised

    async def read(identity: Identity | None, topics: Sequence[str]) -> bool:
        raise raised

    for hooks in ({"authenticate": login}, {"authenticate": by_header, "authorize_subscribe": read}):
        server = await serve(setup=hooks)
        answer = await ask(server, "GET", "/notifications/history?topic=orders/1", "ann")
        assert (answer.status, answer.json()["code"]) == (status, code)
    assert bool(complaints.take()) == (status == 503)


def plainly(*_: object) -> bool:
    return True


def promised(request: web.Request) -> Awaitable[Identity | None]:
    return by_header(request)


@wraps(by_header)
def wrapped(request: web.Request) -> Any:
    return by_header(request)


class Login:
    async def method(self, request: web.Request) -> Identity | None:
        return await by_header(request)

    def plain_method(self, request: web.Request) -> Identity | None:
        return None

    def __call__(self, request: web.Request) -> Any:
        return by_header(request)


@pytest.mark.parametrize("name", [each.name for each in fields(Hooks)])
@pytest.mark.parametrize("hook", [plainly, Login().plain_method])
def test_a_hook_that_is_a_plain_function_is_refused_at_the_start(name: str, hook: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{name}: is a plain function .*plain.*async def"):
        setup_hub(web.Application(), Settings(), **{name: hook})


@pytest.mark.parametrize(
    "hook",
    [
        by_header,
        promised,
        wrapped,
        partial(by_header),
        partial(promised),
        lambda request: by_header(request),  # noqa: PLW0108 - a lambda is what is tested
        Login(),
        Login().method,
    ],
)
async def test_a_hook_that_may_be_awaited_is_called(serve: Serve, hook: Any) -> None:
    server = await serve(setup={"authenticate": hook})
    assert (await ask(server, "GET", "/notifications/history?topic=orders/1", "ann")).status == 200
    assert (await ask(server, "GET", "/notifications/history?topic=orders/1", "")).status == 401


@pytest.mark.parametrize(
    ("setup", "may"),
    [({}, "read all public notifications"), ({"routes": "all"}, "use all that is mounted, with all rights")],
)
def test_settings_of_rights_without_a_login_are_a_warning(
    setup: dict[str, Any], may: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings = Settings(anonymous_subscribe=("news",), state=tmp_path / "state.db")
    setup_hub(web.Application(), settings, **setup)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("HUB_ANONYMOUS_SUBSCRIBE, HUB_STATE: set without effect")
    assert f"whoever reaches the hub may {may}. Set HUB_JWT_SECRET" in said
    caplog.clear()
    setup_hub(web.Application(), Settings(), **setup)
    setup_hub(web.Application(), settings, authenticate=by_header, **setup)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_the_application_may_allow_less_than_the_grants(serve: Serve) -> None:
    asked: list[Any] = []

    async def read(identity: Identity | None, topics: Sequence[str]) -> bool:
        asked.append((identity and identity.user, list(topics)))
        return "orders/secret" not in topics

    async def send(identity: Identity | None, draft: Draft) -> bool:
        return draft.text != "no"

    server = await serve(
        setup={"authenticate": by_header, "authorize_subscribe": read, "authorize_publish": send},
    )
    allowed = await ask(server, "GET", "/notifications/history?topic=orders/1", "ann")
    refused = await ask(server, "GET", "/notifications/history?topic=orders/secret", "ann")
    assert (allowed.status, refused.status) == (200, 403)
    assert asked == [("ann", ["orders/1"]), ("ann", ["orders/secret"])]
    for data, status in (("yes", 201), ("no", 403)):
        answer = await ask(server, "POST", "/notifications/publish", "ann", {"data": data, "topic": "orders/1"})
        assert answer.status == status


# ---- what is mounted ----


PATHS = [
    ("GET", "/notifications/subscribe"),
    ("POST", "/notifications/publish"),
    ("GET", "/notifications/history"),
    ("GET", "/notifications/stats"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
]


async def mounted(server: Server) -> set[str]:
    there = set()
    for method, path in PATHS:
        client = await server.client()
        await client.request(method, path, body=b"" if method == "POST" else None)
        if await client.head() != 404:
            there.add(path)
        client.reset()
    return there


@pytest.mark.parametrize(
    ("setup", "there"),
    [
        ({"routes": None}, {"/notifications/subscribe", "/healthz", "/readyz"}),
        ({"routes": ["publish", "health"]}, {"/notifications/publish", "/healthz", "/readyz"}),
        ({"routes": ()}, set()),
        (
            {"authenticate": by_header, "routes": None},
            {
                *("/notifications/subscribe", "/notifications/publish", "/notifications/history"),
                *("/notifications/stats", "/metrics", "/healthz", "/readyz"),
            },
        ),
        ({"authenticate": by_header, "routes": ["subscribe"]}, {"/notifications/subscribe"}),
    ],
)
async def test_what_is_mounted_is_chosen(serve: Serve, setup: dict[str, Any], there: set[str]) -> None:
    assert await mounted(await serve(setup=setup)) == there


async def test_an_embedded_hub_where_nobody_is_known_serves_public_notifications_only(serve: Serve) -> None:
    server = await serve(setup={"routes": None})
    client = await stream_of(server, "", "orders", "**")
    await server.hub.notifications.send_notification("private", topic="orders", private=True)
    await server.hub.notifications.send_notification("to ann", topic="user/ann")
    await server.hub.notifications.send_notification("end", topic="orders")
    assert await until_end(client) == ["end"]
    for topic in ("user/ann", "user/*", "room/lobby", "ai/1"):
        answer = await server.ask("GET", f"/notifications/subscribe?{urlencode({'topic': topic})}")
        assert (answer.status, answer.json()["code"]) == (401, "unauthorized")


async def test_routes_that_are_not_there_are_an_error(serve: Serve) -> None:
    with pytest.raises(Exception, match="routes: 'publsh' is none of"):
        await serve(setup={"routes": ["publsh"]})


@pytest.mark.parametrize(("secret", "guessable"), [("x" * 32, True), ("0123456789abcdef" * 2, False)])
def test_a_secret_that_is_easily_guessed_is_warned_of(
    caplog: pytest.LogCaptureFixture, secret: str, guessable: bool
) -> None:
    assert verifier_of(Settings(jwt_secret=SecretStr(secret))) is not None
    assert ("HUB_JWT_SECRET is easily guessed" in caplog.text) == guessable
    assert secret not in caplog.text
