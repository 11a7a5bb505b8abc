"""A walk through every route: whoever comes in is asked who they are, and nothing of what they say gets into a log.

A route that is in no table here fails the walk. So whoever adds one has to say who may use it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from aiohttp import web
from pydantic import SecretStr

import hub.access.tokens
from hub import AccessLogger, Identity, Settings, setup_hub
from hub.demo import PROVIDER, routes, setup_demo
from hub.notification import Draft
from hub.web.access import Access
from hub.web.admin_address import admin_app
from hub.web.dashboard import routes as dashboard
from hub.web.endpoint import Endpoint
from tests.web.client import until
from tests.web.conftest import Complaints
from tests.web.server import Answer, Server, Site

JSON = {"Content-Type": "application/json"}
STREAM = {"Accept": "text/event-stream"}
ARCHIVE = {"Accept": "application/x-ndjson"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SECRET = "tell-tale secret of these tests, with more than 32 bytes"


@dataclass(frozen=True)
class Way:
    """A way in, and what the hooks must see of it.

    Attributes:
        path: with the parameters filled in; empty: the path of the route.
        reads: what `authorize_subscribe` is asked.
        publishes: what `authorize_publish` is asked.
        open: everybody may, without being asked who they are; the reason.
        status: that of an administrator's request.
        stream: for an `EventSource`: it can read the refusal.
        socket: a WebSocket, whose client may say over it who it is.
    """

    path: str = ""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    open: str = ""
    status: int = 200
    stream: bool = False
    socket: bool = False


ADMINISTRATION: dict[tuple[str, str], list[Way]] = {
    ("GET", "/notifications/stats"): [Way()],
    ("GET", "/notifications/check"): [Way()],
    ("GET", "/notifications/connections"): [Way()],
    ("DELETE", "/notifications/connections/{id}"): [Way("/notifications/connections/c_0", status=404)],
    ("DELETE", "/notifications/users/{userId}/connections"): [Way("/notifications/users/x/connections", status=204)],
    ("DELETE", "/notifications/tokens/{jti}"): [Way("/notifications/tokens/x", status=204)],
    ("POST", "/events/{name}"): [Way("/events/a.b", body={}, status=202)],
}
DASHBOARD: dict[tuple[str, str], list[Way]] = {
    **{
        ("GET", path): [Way(open="it is the page, and holds no secret")]
        for path in dashboard.routes()
        if path == dashboard.PATH or "." in path
    },
    **{("GET", f"/dashboard/{name}"): [Way()] for name in ("facts", "figures", "topics", "failures", "revocations")},
    ("GET", "/dashboard/feed"): [Way(stream=True)],
    ("POST", "/dashboard/explain"): [Way(body={"topics": ["a"]})],
}
HEALTH: dict[tuple[str, str], list[Way]] = {
    ("GET", "/healthz"): [Way(open="balancers ask it, and it says nothing else")],
    ("GET", "/readyz"): [Way(open="balancers ask it, and it says nothing else")],
}
AI = "/ai/chat/stream"
SWAGGER = ("", "/page.css", "/page.js", "/swagger-ui-bundle.js", "/swagger-ui.css")
DOCUMENTS = ("/openapi.json", *(f"/docs/api{file}" for file in SWAGGER))
ASKED = {"message": "hi"}
ROUTES: dict[tuple[str, str], list[Way]] = {
    **ADMINISTRATION,
    **DASHBOARD,
    **HEALTH,
    ("GET", "/metrics"): [Way()],
    ("GET", "/notifications/subscribe"): [
        Way("/notifications/subscribe?topic=a&topic=b/*", reads=("a", "b/*"), stream=True),
        Way("/notifications/subscribe?topic=a&lastEventId=earliest", reads=("a",), stream=True),
        Way("/notifications/subscribe", reads=("notifications",), stream=True),
    ],
    ("POST", "/notifications/subscribe"): [
        # A side door, if a middleware looks at the query only.
        Way("/notifications/subscribe", body={"topics": ["a", "b"]}, reads=("a", "b")),
    ],
    ("POST", "/notifications/publish"): [
        Way(body={"topic": "a", "data": 1}, publishes=("a",), status=201),
        Way(body=[{"topic": "a", "data": 1}, {"topics": ["b", "c"], "data": 1}], publishes=("a", "b,c"), status=201),
        # Another one: the query says something else than the body.
        Way("/notifications/publish?topic=public", body={"topic": "a", "data": 1}, publishes=("a",), status=201),
    ],
    ("GET", "/notifications/history"): [
        Way("/notifications/history?topic=a", reads=("a",)),
        # The third: everything, whatever topic the query names.
        Way("/notifications/history?topic=a", headers=ARCHIVE),
    ],
    ("PATCH", "/notifications/connections/{id}"): [
        Way("/notifications/connections/c_0", body={"add": ["a"]}, status=404),
    ],
    ("GET", "/notifications/rooms/{room}/members"): [Way("/notifications/rooms/a/members")],
    ("PUT", "/notifications/rooms/{room}/members/{userId}"): [Way("/notifications/rooms/a/members/x", status=204)],
    ("DELETE", "/notifications/rooms/{room}/members/{userId}"): [Way("/notifications/rooms/a/members/x", status=204)],
    ("GET", "/notifications/position"): [Way()],
    ("GET", "/notifications/poll"): [Way("/notifications/poll?topic=a&topic=b/*", reads=("a", "b/*"))],
    ("GET", "/notifications/ws"): [Way(headers=UPGRADE, status=101, socket=True)],
    ("GET", "/notifications/presence"): [Way("/notifications/presence?topic=a")],
    ("GET", "/notifications/client/{file}"): [
        Way("/notifications/client/hub-client.js", open="it is a script that is the same for everybody")
    ],
    **{("GET", path): [Way(open="it describes the API, and holds no secret")] for path in DOCUMENTS},
    ("POST", "/notifications/tickets"): [Way(status=201), Way(body={"topics": ["a"]}, reads=("a",), status=201)],
    ("GET", AI): [Way(f"{AI}?message=hi", stream=True)],
    ("POST", AI): [Way(body=ASKED)],
    ("POST", f"{AI}/init"): [Way(body=ASKED, status=201)],
    ("GET", AI + "/{sessionId}"): [
        Way(f"{AI}/x", status=404, stream=True),
        Way(f"{AI}/x", headers={"Accept": "application/json"}, status=404),
    ],
    ("DELETE", AI + "/{sessionId}"): [Way(f"{AI}/x", status=404)],
    ("POST", AI + "/{sessionId}/cancel"): [Way(f"{AI}/x/cancel", status=404)],
    ("DELETE", AI + "/{sessionId}/cancel"): [Way(f"{AI}/x/cancel", status=404)],
}
SCRIPTS = [f"/demo/{file.name}" for file in routes.HERE.iterdir() if file.suffix in {".css", ".js"}]
PAGE, EXAMPLE = "a file of the page", "an example without notifications"
DEMO: dict[tuple[str, str], list[Way]] = {
    **{("GET", path): [Way(open=PAGE)] for path in ("/", "/demo/facts.json", *SCRIPTS)},
    ("GET", "/login"): [Way(open="it says who is logged in, to whoever is")],
    ("POST", "/login"): [Way(body={"user": "ann"}, open="whoever wants to log in is not yet")],
    ("DELETE", "/login"): [Way(open="whoever logs out loses only the own login")],
    ("POST", "/messages"): [
        Way(body={"to": "bo", "message": "hi"}, open="the login of the demo says who may", status=401)
    ],
    ("PUT", "/network"): [
        Way(body={"network": "open"}, open="the login of the demo says whose network it is", status=401)
    ],
    ("POST", "/orders"): [Way(body={"amount": 1}, open="an example that everybody may try", status=201)],
    ("GET", "/sse/use-get-decorator"): [Way(open=EXAMPLE)],
    ("GET", "/sse/use-sse-decorator"): [Way(open=EXAMPLE)],
    ("POST", "/sse/test"): [Way(open=EXAMPLE)],
    ("GET", "/sse/test"): [Way(reads=("user/test",), stream=True)],
    ("GET", "/sse/{userId}"): [
        Way("/sse/ann", reads=("user/ann",), stream=True),
        Way("/sse/ann%2Fx", reads=("user/ann%2Fx",), stream=True),
        Way("/sse/*", reads=("user/%2A",), stream=True),
        Way("/sse/ann?lastEventId=earliest", reads=("user/ann",), stream=True),
    ],
}
ADMIN_ADDRESS: dict[tuple[str, str], list[Way]] = {
    **ADMINISTRATION,
    **DASHBOARD,
    **HEALTH,
    ("GET", "/metrics"): [Way(open="only the own network reaches this address")],
    ("GET", "/notifications/history"): [Way(), Way(headers=ARCHIVE)],
}


class Login:
    """The hooks of the application, and what they were asked."""

    def __init__(self) -> None:
        self.who: Identity | None = None
        self.fails = False
        self.forget()

    def forget(self) -> None:
        self.authenticated, self.read, self.published = 0, list[tuple[str, ...]](), list[str]()

    async def authenticate(self, request: web.Request) -> Identity | None:
        self.authenticated += 1
        if self.fails:
            raise RuntimeError("the database of logins is away")
        return self.who

    async def authorize_subscribe(self, identity: Identity | None, topics: Sequence[str]) -> bool:
        assert identity == self.who or identity is not None
        self.read.append(tuple(topics))
        return True

    async def authorize_publish(self, identity: Identity | None, draft: Draft) -> bool:
        self.published.append(",".join(draft.topics))
        return True


ROOT = Identity(user="root", admin=True, subscribe=("**", "user/**"), publish=("**",), issued=None)


class Both(Site):
    """An application with everything that the hub has, and its address for administration.

    Attributes:
        login: its hooks.
        admin: the other address.
    """

    def __init__(self, app: web.Application, admin: web.Application, login: Login) -> None:
        super().__init__("")
        self.app, self.login = app, login
        self.admin = Site("")
        self._runners = [web.AppRunner(each, access_log_class=AccessLogger) for each in (app, admin)]

    async def start(self) -> None:
        for runner, site in zip(self._runners, (self, self.admin), strict=True):
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            site.address = runner.addresses[0][:2]

    async def aclose(self) -> None:
        await self.admin.aclose()
        await super().aclose()
        for runner in reversed(self._runners):
            await runner.cleanup()


def everything(login: Login) -> tuple[web.Application, web.Application]:
    app = web.Application()
    settings = Settings(
        drain=0,
        ai_provider=PROVIDER,
        events_api=True,
        dashboard=True,
        jwt_secret=SecretStr(SECRET),
        ai_simulated_tokens=1,
    )
    setup_hub(
        app,
        settings,
        routes="all",
        authenticate=login.authenticate,
        authorize_subscribe=login.authorize_subscribe,
        authorize_publish=login.authorize_publish,
    )
    setup_demo(app)
    return app, admin_app(app)


@pytest.fixture
async def site(complaints: Complaints) -> AsyncIterator[Both]:
    login = Login()
    site = Both(*everything(login), login)
    await site.start()
    yield site
    await site.aclose()


async def come(site: Site, method: str, path: str, way: Way, **headers: str) -> Answer:
    """Take *way*; of a stream, only the beginning."""
    client = await site.client()
    body = None if way.body is None else json.dumps(way.body).encode()
    said = way.headers | (JSON if body else {}) | headers
    await client.request(method, way.path or path, headers=said, body=body)
    status = await client.head()
    events = client.headers.get("Content-Type") == "text/event-stream" and "Content-Length" not in client.headers
    streams = events or status == 101
    answer = Answer(status, client.headers, b"" if streams else await client.body())
    await client.aclose()
    return answer


def walked(app: web.Application) -> Iterator[tuple[str, str]]:
    """Yield the method and the path of every route of *app*."""
    for route in app.router.routes():
        assert route.resource is not None
        endpoint = getattr(route.handler, "__self__", None)
        assert isinstance(endpoint, Endpoint), f"{route} is no endpoint of the hub: who may use it?"
        for method in endpoint._handlers:
            yield method, route.resource.canonical


def ways(*tables: dict[tuple[str, str], list[Way]]) -> list[Any]:
    return [
        pytest.param(method, path, way, id=f"{method} {way.path or path} {place}")
        for table in tables
        for (method, path), found in table.items()
        for place, way in enumerate(found)
    ]


def test_every_route_is_in_a_table() -> None:
    app, admin = everything(Login())
    assert sorted(walked(app)) == sorted([*ROUTES, *DEMO])
    assert sorted(walked(admin)) == sorted(ADMIN_ADDRESS)


@pytest.mark.parametrize(("method", "path", "way"), ways(ROUTES, DEMO))
async def test_the_hooks_see_every_way_in(site: Both, method: str, path: str, way: Way) -> None:
    await check_asked(site, site.login, method, path, way)


@pytest.mark.parametrize(("method", "path", "way"), ways(ADMIN_ADDRESS))
async def test_the_hooks_see_every_way_to_administration(site: Both, method: str, path: str, way: Way) -> None:
    await check_asked(site.admin, site.login, method, path, way)


async def check_asked(site: Site, login: Login, method: str, path: str, way: Way) -> None:
    login.who = ROOT
    answer = await come(site, method, path, way)
    assert answer.status == way.status, answer.body
    assert login.authenticated == (0 if way.open else 1)
    assert login.read == ([way.reads] if way.reads else [])
    assert login.published == list(way.publishes)


@pytest.mark.parametrize(("method", "path", "way"), ways(ROUTES, DEMO))
async def test_nobody_gets_in_unasked(site: Both, method: str, path: str, way: Way) -> None:
    await check_refused(site, method, path, way)


@pytest.mark.parametrize(("method", "path", "way"), ways(ADMIN_ADDRESS))
async def test_nobody_gets_to_administration_unasked(site: Both, method: str, path: str, way: Way) -> None:
    await check_refused(site.admin, method, path, way)


async def check_refused(site: Site, method: str, path: str, way: Way) -> None:
    answer = await come(site, method, path, way)
    if way.open:
        assert answer.status == way.status
        return
    if way.socket:  # what it can do before it has said who it is: tests/web/test_websocket.py
        assert answer.status == 101
        return
    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
    if way.stream:
        answer = await come(site, method, path, way, **STREAM)
        assert answer.body.endswith(b'event: hub.close\ndata: {"reason":"unauthorized"}\n\n')


@pytest.mark.parametrize(("method", "path", "way"), ways(ROUTES, DEMO))
async def test_nobody_gets_in_while_it_can_not_be_told_who_it_is(
    site: Both, method: str, path: str, way: Way, complaints: Complaints
) -> None:
    site.login.fails = True
    answer = await come(site, method, path, way)
    assert answer.status == (way.status if way.open else 503)
    assert bool(complaints.take()) == (not way.open)


# ---- no secret leaves ----

TELL_TALE = "tell-tale"


class Lines(logging.Handler):
    """Everything that is logged, at any level, with tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + repr(record.__dict__) + "\n"


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, root = Lines(), logging.getLogger()
    before = root.level
    root.addHandler(lines)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(lines)
    root.setLevel(before)


def valid_token() -> str:
    rights = {"admin": True, "subscribe": ["**"], "publish": ["**"]}
    claims = {"sub": "root", "exp": time.time() + 86_400, "hub": rights}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "the login fails", "the tokens fail", "nothing is known of it"])
async def test_no_secret_is_logged_or_told(
    site: Both, lines: Lines, fault: str, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.login.fails = fault == "the login fails"
    if fault == "the tokens fail":

        def fail(*arguments: object) -> Identity:
            raise RuntimeError("the tokens fail")

        monkeypatch.setattr(hub.access.tokens.Tokens, "_identity", fail)
    token = valid_token() if fault != "nothing is known of it" else f"{TELL_TALE}.{TELL_TALE}.{TELL_TALE}"
    secrets = {TELL_TALE, quote(TELL_TALE), token, token.rpartition(".")[2], SECRET}
    tickets = [f"{TELL_TALE}123.{'x' * 23}{TELL_TALE}", *([] if fault else [TELL_TALE])]
    told = b""
    for where, tables in ((site, (ROUTES, DEMO)), (site.admin, (ADMIN_ADDRESS,))):
        for each in ways(*tables):
            method, path, way = each.values
            if path.startswith("/sse/use-"):
                continue  # their first event takes a second
            for headers in (
                {"Authorization": f"Bearer {token}", "Cookie": f"login={TELL_TALE}"},
                {"Cookie": f"hub_token={token}; hub_stream_x={TELL_TALE}"} | (STREAM if way.stream else {}),
                {"Cookie": f"login={TELL_TALE}", "Referer": f"http://x/?ticket={TELL_TALE}"},
            ):
                for ticket in tickets:
                    secrets.add(ticket)
                    joint = "&" if "?" in way.path else "?"
                    there = Way(f"{way.path or path}{joint}ticket={ticket}", way.body, way.headers)
                    answer = await come(where, method, path, there, **headers)
                    told += answer.body + repr(answer.headers).encode()
    told += await with_ticket(site, secrets) if not fault else b""
    await until(lambda: lines.text.count("GET /notifications/stats") >= 6)
    for secret in secrets:
        assert secret not in lines.text
        assert secret.encode() not in told
    assert "aiohttp.access" in lines.text
    assert ("Traceback" in lines.text) == (fault in {"the login fails", "the tokens fail"})
    complaints.take()


async def with_ticket(site: Both, secrets: set[str]) -> bytes:
    """Open a stream with a ticket, come back with its cookie, and add both to *secrets*; return the bytes it got."""
    said = {"Authorization": f"Bearer {valid_token()}"}
    ticket = (await site.ask("POST", "/notifications/tickets", headers=said)).json()["ticket"]
    secrets |= {ticket, ticket.partition(".")[2]}
    path = f"/notifications/subscribe?topic=a&ticket={ticket}"
    streams = [await site.client()]
    await streams[0].request("GET", path)
    assert await streams[0].head() == 200
    cookie = streams[0].headers["Set-Cookie"].partition(";")[0]
    secrets.add(cookie.partition("=")[2])
    streams.append(await site.client())
    await streams[1].request("GET", path, headers={"Cookie": cookie})
    assert await streams[1].head() == 200
    for stream in streams:
        await stream.event()
    assert (await site.ask("GET", path)).status == 401, "it is used up"
    access = site.app[Access.KEY]
    for each in (access, access.state, access.tickets, access._verifier, *access._hub.connections):
        shown = repr(each) + repr(getattr(each, "holder", ""))
        assert not any(secret in shown for secret in secrets)
    assert SECRET not in repr(access._hub.settings)
    return b"".join(bytes(stream.received) for stream in streams)


async def test_an_access_log_that_shows_tickets_is_warned_of_once(
    complaints: Complaints, lines: Lines, serve: Any
) -> None:
    """With aiohttp's own class: what the test above would find without ours."""
    server: Server = await serve(jwt_secret=SECRET)
    runner = web.AppRunner(server.app, access_log=logging.getLogger("aiohttp.access"))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shown = Site(runner.addresses[0][:2])
    said = {"Authorization": f"Bearer {valid_token()}"}
    for _ in range(2):
        assert (await shown.ask("POST", "/notifications/tickets", headers=said)).status == 201
    await shown.ask("GET", f"/notifications/history?ticket={TELL_TALE}")
    await until(lambda: TELL_TALE in lines.text)
    (warning,) = complaints.take()
    assert "access_log_class=hub.AccessLogger" in warning
    await runner.cleanup()
