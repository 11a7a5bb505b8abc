"""Every answer that is described can be had, and every answer that is had is described: in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from hub import Identity
from hub.errors import (
    EventBufferFull,
    Forbidden,
    GenerationExpired,
    HubError,
    LogUnavailable,
    ShuttingDown,
    StateUnavailable,
    TooManyMemberships,
    Unauthorized,
)
from hub.web.access import Access
from hub.web.dialects import DIALECTS
from tests.web.api import Description, beginning, described
from tests.web.conftest import Complaints, Serve
from tests.web.server import Answer, Server

pytestmark = pytest.mark.slow

CHAT = "/ai/chat/stream"
SETTINGS: dict[str, Any] = {
    "events_api": True,
    "ai_provider": "simulated",
    "ai_simulated_first": 0,
    "ai_simulated_rate": 10_000,
    "ai_simulated_tokens": 3,
    "allowed_hosts": ("localhost",),
}
SLOW = {"ai_simulated_rate": 1, "ai_simulated_tokens": 240}
ROOT = Identity(user="root", admin=True, subscribe=("**",), publish=("**",))
KNOWN_ELSEWHERE = {
    (408, "urn:broadcast-hub:too-slow"): "only a server of its own has deadlines: test_deadlines",
    (400, "about:blank"): "a request that breaks the rules of HTTP reaches no route: test_fuzz, test_body",
}
"""Problems that no request of these tests can have, and who tests them."""


class Request(NamedTuple):
    """A request that is answered with success, if root sends it."""

    method: str
    path: str
    body: object = None


REQUESTS = {
    "subscribe": Request("GET", "/notifications/subscribe?topic=orders"),
    "subscribeByPost": Request("POST", "/notifications/subscribe", {"topics": ["orders"]}),
    "publish": Request("POST", "/notifications/publish", {"topic": "orders", "data": 1}),
    "history": Request("GET", "/notifications/history?topic=orders"),
    "position": Request("GET", "/notifications/position"),
    "poll": Request("GET", "/notifications/poll?topic=orders&wait=0"),
    "websocket": Request("GET", "/notifications/ws"),
    "presence": Request("GET", "/notifications/presence?topic=orders"),
    "members": Request("GET", "/notifications/rooms/lobby/members"),
    "join": Request("PUT", "/notifications/rooms/lobby/members/ann", {"publish": True}),
    "leave": Request("DELETE", "/notifications/rooms/lobby/members/bob"),
    "mintTicket": Request("POST", "/notifications/tickets", {"topics": ["orders"]}),
    "connections": Request("GET", "/notifications/connections"),
    "changeTopics": Request("PATCH", "/notifications/connections/CONNECTION", {"add": ["orders"]}),
    "endConnection": Request("DELETE", "/notifications/connections/CONNECTION"),
    "revokeUser": Request("DELETE", "/notifications/users/ann/connections"),
    "revokeToken": Request("DELETE", "/notifications/tokens/abc"),
    "statistics": Request("GET", "/notifications/stats"),
    "check": Request("GET", "/notifications/check"),
    "metrics": Request("GET", "/metrics"),
    "clientFile": Request("GET", "/notifications/client/hub-client.js"),
    "alive": Request("GET", "/healthz"),
    "ready": Request("GET", "/readyz"),
    "description": Request("GET", "/openapi.json"),
    "emit": Request("POST", "/events/order.created", {"id": 1}),
    "askAndWatch": Request("GET", CHAT + "?message=hi"),
    "ask": Request("POST", CHAT, {"message": "hi"}),
    "beginAnswer": Request("POST", CHAT + "/init", {"message": "hi"}),
    "watch": Request("GET", CHAT + "/SESSION"),
    "stop": Request("DELETE", CHAT + "/SESSION"),
    "cancelByPost": Request("POST", CHAT + "/SESSION/cancel"),
    "cancel": Request("DELETE", CHAT + "/SESSION/cancel"),
}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
WITH_BODY = [name for name, each in REQUESTS.items() if each.body is not None]


async def by_header(request: web.Request) -> Identity | None:
    """Return who the header says: the login of these tests."""
    match request.headers.get("X-User"):
        case "root":
            return ROOT
        case "ann":
            return Identity(user="ann")
        case "banned":
            raise Forbidden("", "you are banned")
        case "gone":
            raise Unauthorized("revoked", "your login has ended")
        case "broken":
            raise OSError("the users are away")
        case _:
            return None


LOGIN: dict[str, Any] = {"authenticate": by_header, "routes": None}


class Witness:
    """Asks a hub, checks each answer against its description, and remembers what there was.

    Attributes:
        seen: the answers of all hubs: the operation, the status, and the type of the problem or the media type.
    """

    def __init__(self) -> None:
        self.seen: set[tuple[str, int, str]] = set()
        self.faults: list[str] = []
        self.problems: set[tuple[str, int, str]] = set()
        self.successes: set[tuple[str, int, str]] = set()
        self._server: Server
        self._api: Description
        self._ids: dict[str, str] = {}

    async def at(self, server: Server) -> Server:
        """Ask *server* from now on."""
        self._server, self._api = server, await described(server)
        self.problems |= self._api.problems()
        self.successes |= self._api.successes()
        begun = await beginning(server, "POST", CHAT + "/init", **_said({"message": "hi"}))
        self._ids = {"SESSION": begun.json()["sessionId"]}
        await self.open()
        return server

    async def open(self, path: str = "/notifications/subscribe?topic=orders") -> None:
        """Open a stream; it is the one that is changed and ended from now on."""
        client = await self._server.client()
        await client.request("GET", self._filled(path), headers={"X-User": "root"})
        assert await client.head() == 200
        await client.block()
        self._ids["CONNECTION"] = next(reversed(list(self._server.hub.connections))).id

    async def until(self, status: int, name: str, **changes: Any) -> None:
        """Send a request until it is answered with *status*."""
        for _ in range(1_000):
            if (await self.ask(name, **changes)).status == status:
                return
        raise AssertionError(f"{name} was never answered with {status}")

    async def ask(
        self, name: str, query: str = "", *, path: str = "", raw: bytes | None = None, **changes: Any
    ) -> Answer:
        """Send the request *name*, with *changes* to its headers (`_` stands for `-`) and its `body`."""
        request = REQUESTS[name]
        changes = (UPGRADE if name == "websocket" else {}) | changes
        asked = self._filled(path or request.path + query)
        body = changes.pop("body", request.body)
        said = _said(body, raw, **{name: self._filled(text) for name, text in changes.items()})
        answer = await beginning(self._server, request.method, asked, **said)
        operation = self._api.operation(request.method, asked)
        assert operation["operationId"] == name
        if fault := self._api.fault(request.method, asked, answer):
            self.faults.append(f"{name} {changes}: {answer.status} {answer.body[:200]!r}: {fault}")
        media = answer.headers.get("Content-Type", "").partition(";")[0]
        kind = answer.json()["type"] if media == "application/problem+json" else media
        self.seen.add((name, answer.status, kind))
        return answer

    def _filled(self, text: str) -> str:
        for word, id in self._ids.items():
            text = text.replace(word, id)
        return text

    async def all(self, **changes: Any) -> None:
        """Send every request."""
        for name in REQUESTS:
            await self.ask(name, **changes)


def _said(body: object, raw: bytes | None = None, **headers: str) -> Mapping[str, Any]:
    sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return {"headers": {"X-User": "root", "Content-Type": "application/json"} | named, "body": sent}


def failing(error: HubError) -> Any:
    """Return a function that raises *error*."""

    def fail(*args: object, **options: object) -> Any:
        raise error

    return fail


async def wrong_requests(ask: Any) -> None:
    """Send what is wrong about one request or another."""
    for name in WITH_BODY:
        await ask(name, Content_Type="text/plain")
        await ask(name, raw=b"{")
        await ask(name, raw=b" " * (1024 * 1024 + 1))
    await ask("subscribe", "&topics=a")
    await ask("websocket", "?presence=2")
    await ask("websocket", Upgrade="h2c")
    await ask("poll", "&topic=*a")
    await ask("poll", "&limit=0")
    await ask("subscribe", "&topic=*a")
    await ask("subscribeByPost", body={"topics": ["*a"]})
    await ask("publish", body={"data": 1, "topic": "*"})
    await ask("publish", body={"data": 1, "type": "hub.x"})
    await ask("history", "&limit=0")
    await ask("history", "&topic=*a")
    await ask("presence", "&limit=0")
    await ask("presence", path="/notifications/presence?topic=*a")
    await ask("mintTicket", body={"topics": ["*a"]})
    await ask("members", "?limit=0")
    await ask("join", body={"publish": 1})
    for name in ("members", "join", "leave"):
        await ask(name, path=REQUESTS[name].path.replace("lobby", "a" * 300))
    await ask("connections", "?limit=0")
    await ask("changeTopics", body={"add": 1})
    await ask("changeTopics", body={"add": ["*a"]})
    for name in ("changeTopics", "endConnection"):
        await ask(name, path="/notifications/connections/nobody")
    await ask("clientFile", path="/notifications/client/other.js")
    await ask("emit", path="/events/a*")
    await ask("askAndWatch", path=CHAT)
    await ask("askAndWatch", Sec_Fetch_Site="cross-site")
    await ask("watch", "?format=none")
    await ask("beginAnswer", Idempotency_Key="key")
    await ask("askAndWatch", path=CHAT + "?message=other", Idempotency_Key="key")
    await ask("ask", body={"message": "other"}, Idempotency_Key="key")
    await ask("beginAnswer", body={"message": "other"}, Idempotency_Key="key")
    await ask("beginAnswer", Idempotency_Key="key")
    for name in ("watch", "stop", "cancelByPost", "cancel"):
        await ask(name, path=REQUESTS[name].path.replace("SESSION", "unknown"))


async def right_requests(ask: Any) -> None:
    """Send what is answered with success in other ways."""
    await ask("changeTopics", body={"add": ["more"], "remove": ["orders"], "after": "x-9"})
    await ask("publish", body={"data": 1, "key": "once"})
    await ask("publish", body={"data": 1, "key": "once"})
    await ask("publish", body=[{"data": {"a": 1}, "type": "t", "retry": 1, "tags": {"x": 1}}, {"data": "two\nlines"}])
    await ask("subscribe", "&lastEventId=earliest")
    await ask("subscribe", "&lastEventId=x-9&envelope=1")
    await ask("subscribe", "&presence=1")
    await ask("subscribe", "&lastEventId=earliest", Accept="application/x-ndjson")
    await ask("subscribeByPost", Accept="application/x-ndjson")
    await ask("websocket")
    await ask("poll", "&lastEventId=earliest&limit=1")
    await ask("poll", "&lastEventId=x-9")
    await ask("subscribe", "&ticket=wrong", Accept="text/event-stream")
    await ask("history", "&after=x-9")
    await ask("history", Accept="application/x-ndjson")
    await ask("askAndWatch", path=CHAT, Last_Event_ID="a.1.end")
    await ask("askAndWatch", path=CHAT, Last_Event_ID="a.1")
    for format in DIALECTS:
        await ask("ask", f"?format={format}")
    await ask("watch", Accept="application/json")
    await ask("watch", Last_Event_ID="SESSION.1.end")
    await ask("mintTicket", body=None, raw=b"")
    await ask("join", body=None, raw=b"")
    await ask("subscribe", "&rooms=1")
    await ask("subscribe", path="/notifications/subscribe?rooms=1")
    await ask("members", "?limit=1")
    await ask("clientFile", If_None_Match="*")
    await ask("clientFile", path="/notifications/client/hub-client.LICENSE.txt")


async def refusals(witness: Witness) -> None:
    """Send what nobody may send, or may send so."""
    await witness.ask("websocket", X_User="gone")  # whoever is not known may say so over the socket
    for user in ("", "banned", "broken"):
        await witness.all(X_User=user)
    await witness.all(Host="evil.example")
    await witness.all(Content_Encoding="gzip", raw=b"x")
    await witness.all(Expect="magic")
    await witness.all(Sec_Fetch_Site="cross-site")


async def while_something_is_away(witness: Witness, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a hub whose log, state, bus or answers can't be used."""
    ask, hub, access, away = witness.ask, server.hub, server.app[Access.KEY], LogUnavailable("it is away")
    with monkeypatch.context() as patch:
        patch.setattr(access.state, "revoke", failing(StateUnavailable("it is away")))
        patch.setattr(access.tickets, "admit", failing(StateUnavailable("it is away")))
        await ask("revokeUser")
        await ask("revokeToken")
        await ask("subscribe", "&ticket=a.b")
    for error in (StateUnavailable("it is away"), away, TooManyMemberships("ann", 1_000)):
        with monkeypatch.context() as patch:
            patch.setattr(hub.rooms, "join", failing(error))
            await ask("join")
            if not isinstance(error, TooManyMemberships):
                patch.setattr(hub.rooms, "members", failing(error))
                patch.setattr(hub.rooms, "leave", failing(StateUnavailable("it is away")))
                await ask("members")
                await ask("leave")
    with monkeypatch.context() as patch:
        patch.setattr(hub.log, "bounds", failing(away))
        for name in ("subscribe", "position", "history", "ready", "statistics"):
            await ask(name)
        await ask("changeTopics", body={"add": ["older"], "after": "earliest"})
    with monkeypatch.context() as patch:
        patch.setattr(hub.log, "append", failing(away))
        patch.setattr(hub.bus, "emit", failing(EventBufferFull(10_000)))
        await ask("publish")
        await ask("emit")
    nobody = StateUnavailable("not all processes of the hub answer")
    with monkeypatch.context() as patch:
        patch.setattr(hub, "check_state", failing(nobody))
        for method in ("find", "end", "page"):
            patch.setattr(hub.elsewhere, method, failing(nobody))
        await ask("ready")
        await ask("connections")
        await ask("endConnection", path="/notifications/connections/c_0")
        await ask("changeTopics", path="/notifications/connections/c_0")
    for error in (away, nobody, ShuttingDown()):  # type: ignore[assignment]  # another one
        with monkeypatch.context() as patch:
            patch.setattr(hub.generations, "start", failing(error))
            for name in ("askAndWatch", "ask", "beginAnswer"):
                await ask(name)
    for gone in (away, nobody, GenerationExpired()):
        with monkeypatch.context() as patch:
            patch.setattr(hub.generations, "find", failing(gone))
            for name in ("watch", "stop", "cancelByPost", "cancel"):
                await ask(name)
            await ask("watch", Accept="application/json")


async def at_a_limit(witness: Witness, serve: Serve) -> None:
    """Ask hubs that have no room left."""
    ask = witness.ask
    await witness.at(await serve(setup=LOGIN, **SETTINGS, publish_rate=1))
    await witness.until(429, "publish")
    await witness.at(await serve(setup=LOGIN, **SETTINGS, ticket_rate=1))
    await witness.until(429, "mintTicket")
    await witness.at(await serve(setup=LOGIN, **SETTINGS, refuse_rate=1))
    await witness.until(429, "statistics", X_User="ann")
    await witness.all(X_User="ann")
    await witness.at(await serve(setup=LOGIN, **SETTINGS | SLOW, ai_total=1))
    for name in ("askAndWatch", "ask", "beginAnswer"):
        await ask(name)
    await witness.open(CHAT + "/SESSION")
    await ask("changeTopics")
    await witness.at(await serve(setup=LOGIN, **SETTINGS, max_connections=1))
    for name in ("subscribe", "subscribeByPost", "poll", "askAndWatch", "ask", "watch"):
        await ask(name)


async def test_answers_and_their_description_are_the_same(
    serve: Serve, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Witness()
    for setup in (LOGIN, None):
        server = await witness.at(await serve(setup=setup, **SETTINGS))
        await witness.all()
        await witness.open()
        await right_requests(witness.ask)
        await wrong_requests(witness.ask)
        if setup is not None:
            await refusals(witness)
            assert all("authenticate" in line for line in complaints.take())
            await while_something_is_away(witness, server, monkeypatch)
        await server.hub.drain(0)
        await witness.all()
        await witness.ask("history", Accept="application/x-ndjson")
    await at_a_limit(witness, serve)

    assert witness.faults == []
    unseen = witness.problems - witness.seen
    assert {each for each in unseen if each[1:] not in KNOWN_ELSEWHERE} == set()
    assert {each[1:] for each in unseen} == set(KNOWN_ELSEWHERE)
    assert witness.successes - witness.seen == set()
