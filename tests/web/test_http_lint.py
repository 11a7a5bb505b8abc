"""Every kind of answer as others judge it: h11 as a strict client, and httplint as a critic of headers and caching."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h11
import pytest
from aiohttp import web
from httplint import HttpRequestLinter, HttpResponseLinter, levels

from hub import Identity
from hub.errors import LogUnavailable
from tests.web.client import PATIENCE
from tests.web.conftest import Serve
from tests.web.process import ServeProcess
from tests.web.server import Site

pytestmark = pytest.mark.slow

SHOP = "https://shop.example.com"
CHAT = "/ai/chat/stream"
SUBSCRIBE = "/notifications/subscribe"
PUBLISH = "/notifications/publish"
HISTORY = "/notifications/history"
PREFLIGHT = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "hx-request"}
ARCHIVE = "application/x-ndjson"

TOLERATED = {
    "CREATED_WITHOUT_LOCATION": "of a list or an order there is no one place; then the target itself is it "
    "(RFC 9110, 15.3.2)",
}
"""Bad notes of httplint that are none here, and why."""


@dataclass(frozen=True)
class Ask:
    """A request, and what the hub was told before it.

    Attributes:
        status: what it is to be answered.
        streams: whether the answer has no end of its own.
        raw: the bytes of the request, where h11 would not send such a one.
    """

    status: int
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    streams: bool = False
    version: bytes = b"1.1"
    raw: bytes = b""
    state: str = ""

    @property
    def sent_body(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()

    @property
    def sent_headers(self) -> list[tuple[str, str]]:
        said = {"Host": "localhost", "User-Agent": "lint", **self.headers}
        if self.body is not None:
            said = {"Content-Type": "application/json", **said, "Content-Length": str(len(self.sent_body))}
        return list(said.items())


ROOT = {"X-User": "root"}
FULL = {"max_connections": 1}
FAST = {"ai_simulated_first": 0, "ai_simulated_rate": 10_000, "ai_simulated_tokens": 3}

ASKED = {
    # streams
    "subscribe": Ask(200, "GET", SUBSCRIBE, streams=True),
    "subscribe with a gap": Ask(200, "GET", SUBSCRIBE, {"Last-Event-ID": "x-9"}, streams=True),
    "subscribe cross-origin": Ask(200, "GET", SUBSCRIBE, {"Origin": SHOP}, streams=True),
    "subscribe by POST": Ask(200, "POST", SUBSCRIBE, body={"topics": ["a"]}, streams=True),
    "subscribe over HTTP/1.0": Ask(200, "GET", SUBSCRIBE, streams=True, version=b"1.0"),
    "a user's stream": Ask(200, "GET", "/sse/42", streams=True),
    "a handler's stream": Ask(200, "GET", "/sse/use-get-decorator", streams=True),
    "a handler's stream on POST": Ask(200, "POST", "/sse/test", {"Content-Length": "0"}, streams=True),
    "an answer of an AI": Ask(200, "GET", CHAT + "?message=hi"),
    "an answer of an AI on POST": Ask(200, "POST", CHAT, body={"message": "hi"}),
    "an answer for the AI SDK": Ask(200, "POST", CHAT + "?format=ai-sdk", body={"message": "hi"}),
    "an answer over HTTP/1.0": Ask(200, "GET", CHAT + "?message=hi", version=b"1.0"),
    # sent away
    "over capacity": Ask(200, "GET", SUBSCRIBE, settings=FULL, state="full"),
    "over capacity over HTTP/1.0": Ask(200, "GET", SUBSCRIBE, settings=FULL, state="full", version=b"1.0"),
    "draining": Ask(200, "GET", SUBSCRIBE, state="draining"),
    "a handler's stream while draining": Ask(200, "GET", "/sse/use-get-decorator", state="app draining"),
    "no log to begin with": Ask(200, "GET", SUBSCRIBE, state="no log"),
    "the end of an answer was seen": Ask(204, "GET", CHAT + "/a", {"Last-Event-ID": "a.1.end"}),
    "an answer that is lost": Ask(200, "GET", CHAT, {"Last-Event-ID": "a.1"}),
    # plain answers
    "publish": Ask(201, "POST", PUBLISH, body={"data": 1}),
    "publish cross-origin": Ask(201, "POST", PUBLISH, {"Origin": SHOP}, {"data": 1}),
    "publish a list": Ask(201, "POST", PUBLISH, body=[{"data": 1}, {"data": 2}]),
    "publish again": Ask(200, "POST", PUBLISH, body={"data": 1, "key": "once"}, state="published"),
    "publish over HTTP/1.0": Ask(201, "POST", PUBLISH, body={"data": 1}, version=b"1.0"),
    "publish, 100-continue": Ask(201, "POST", PUBLISH, {"Expect": "100-continue"}, {"data": 1}),
    "position": Ask(200, "GET", "/notifications/position"),
    "presence": Ask(200, "GET", "/notifications/presence?topic=a"),
    "presence of a pattern": Ask(400, "GET", "/notifications/presence?topic=*"),
    "subscribe with presence": Ask(200, "GET", SUBSCRIBE + "?presence=1", streams=True),
    "history": Ask(200, "GET", HISTORY),
    "history as an archive": Ask(200, "GET", HISTORY, {"Accept": ARCHIVE}),
    "stats": Ask(200, "GET", "/notifications/stats"),
    "check": Ask(200, "GET", "/notifications/check"),
    "metrics": Ask(200, "GET", "/metrics"),
    "healthz": Ask(200, "GET", "/healthz"),
    "readyz": Ask(200, "GET", "/readyz"),
    "an event": Ask(202, "POST", "/events/a.b", body=1),
    "an answer begun": Ask(201, "POST", CHAT + "/init", body={"message": "hi"}),
    "an answer begun again": Ask(
        200, "POST", CHAT + "/init", {"Idempotency-Key": "k"}, {"message": "x"}, state="begun"
    ),
    "an answer as JSON": Ask(200, "GET", CHAT + "/{id}", {"Accept": "application/json"}, state="begun"),
    "an answer stopped": Ask(200, "DELETE", CHAT + "/{id}", state="begun"),
    "the demo page": Ask(200, "GET", "/"),
    "the script of the demo page": Ask(200, "GET", "/demo/main.js"),
    "the style of the demo page": Ask(200, "GET", "/demo/demo.css"),
    "a part of the demo page": Ask(206, "GET", "/", {"Range": "bytes=0-9"}),
    "an order": Ask(201, "POST", "/orders", body={"amount": 1}),
    # OPTIONS, HEAD, and methods that are not there
    "OPTIONS": Ask(204, "OPTIONS", PUBLISH),
    "a preflight": Ask(204, "OPTIONS", CHAT, PREFLIGHT),
    "a preflight of a stranger": Ask(204, "OPTIONS", CHAT, {**PREFLIGHT, "Origin": "https://evil.example"}),
    **{
        f"{method} {path}": Ask(405, method, path)
        for path in (SUBSCRIBE, PUBLISH, HISTORY, "/healthz", CHAT, "/", "/sse/use-get-decorator")
        for method in ("HEAD", "PUT")
    },
    "an archive": Ask(405, "POST", HISTORY, {"Content-Type": ARCHIVE}, b"{}"),
    # refusals
    "a wrong topic": Ask(400, "GET", SUBSCRIBE + "?topic=*a"),
    "a typo": Ask(400, "GET", SUBSCRIBE + "?topics=a"),
    "a query that is not UTF-8": Ask(400, "GET", SUBSCRIBE + "?topic=%FF"),
    "not JSON": Ask(400, "POST", PUBLISH, body=b"{"),
    "a broken body": Ask(400, "POST", PUBLISH, {"Origin": SHOP}, {"topic": 1, "data": 1}),
    "a page of another site": Ask(403, "GET", CHAT + "?message=hi", {"Sec-Fetch-Site": "cross-site"}),
    "an unknown answer": Ask(404, "GET", CHAT + "/unknown"),
    "nothing below the prefix": Ask(404, "GET", "/live/nothing", state="prefix"),
    "HEAD of nothing below the prefix": Ask(404, "HEAD", "/live/nothing", state="prefix"),
    "too large": Ask(413, "POST", PUBLISH, body=b" " * (1024 * 1024 + 1)),
    "the wrong type": Ask(415, "POST", PUBLISH, {"Content-Type": "text/plain"}, b"a"),
    "a wrong expectation": Ask(417, "POST", PUBLISH, {"Expect": "magic"}, {"data": 1}),
    "a key for another question": Ask(
        422, "POST", CHAT + "/init", {"Idempotency-Key": "k"}, {"message": "other"}, state="begun"
    ),
    "too many answers": Ask(
        429, "POST", CHAT + "/init", body={"message": "hi"}, settings={"ai_total": 1}, state="begun"
    ),
    "publish while draining": Ask(503, "POST", PUBLISH, body={"data": 1}, state="draining"),
    "ready while draining": Ask(503, "GET", "/readyz", state="draining"),
    "history without a log": Ask(503, "GET", HISTORY, state="no log"),
    "position without a log": Ask(503, "GET", "/notifications/position", state="no log"),
    "another name": Ask(421, "GET", "/healthz", {"Host": "evil.example"}, settings={"allowed_hosts": ("localhost",)}),
    # the description
    "the description": Ask(200, "GET", "/openapi.json"),
    "its page": Ask(200, "GET", "/docs/api"),
    "the script of its page": Ask(200, "GET", "/docs/api/page.js"),
    "the style of its page": Ask(200, "GET", "/docs/api/swagger-ui.css"),
    # where users are known
    "a ticket": Ask(201, "POST", "/notifications/tickets", ROOT, {"topics": ["a"]}, state="guarded"),
    "the streams": Ask(200, "GET", "/notifications/connections", ROOT, state="guarded"),
    "topics changed": Ask(200, "PATCH", "/notifications/connections/{id}", ROOT, {"add": ["b"]}, state="guarded"),
    "a stream ended": Ask(204, "DELETE", "/notifications/connections/{id}", ROOT, state="guarded"),
    "a user revoked": Ask(204, "DELETE", "/notifications/users/ann/connections", ROOT, state="guarded"),
    "a token revoked": Ask(204, "DELETE", "/notifications/tokens/abc", ROOT, state="guarded"),
    "nobody known": Ask(401, "GET", "/notifications/stats", state="guarded"),
    "nobody known in an EventSource": Ask(200, "GET", SUBSCRIBE, {"Accept": "text/event-stream"}, state="guarded"),
    "no administrator": Ask(403, "GET", "/notifications/stats", {"X-User": "ann"}, state="guarded"),
    "a stream that is not there": Ask(404, "DELETE", "/notifications/connections/nobody", ROOT, state="guarded"),
}

SERVED = {
    "nothing": Ask(404, "GET", "/nothing"),
    "HEAD of nothing": Ask(404, "HEAD", "/nothing"),
    "OPTIONS *": Ask(404, "OPTIONS", "*"),
    "garbage": Ask(400, "GET", "/", raw=b"GARBAGE\r\n\r\n"),
    "a header that is too long": Ask(
        400, "GET", "/", raw=b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9_000 + b"\r\n\r\n"
    ),
}


class Exchange:
    """One request and its answer, as h11 understood it and httplint judges it."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.informational: list[int] = []
        self.answer: h11.Response | None = None
        self.content = b""
        self.complete = False

    async def with_(self, site: Site) -> None:
        """Send the request to *site* and read the answer to its end; of a stream that has none, to its first event."""
        ours = h11.Connection(h11.CLIENT)
        reader, writer = await asyncio.open_connection(*site.address)
        try:
            async with asyncio.timeout(PATIENCE):
                with suppress(ConnectionError):  # a refusal may come, and be final, before the whole request is sent
                    writer.write(self._request(ours))
                    await writer.drain()
                while not self._take(ours):
                    ours.receive_data(await reader.read(64 * 1024))
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _request(self, ours: h11.Connection) -> bytes:
        ask = self.ask
        head = ours.send(h11.Request(method=ask.method, target=ask.path, headers=ask.sent_headers)) or b""
        body = (ours.send(h11.Data(data=ask.sent_body)) or b"") if ask.sent_body else b""
        ours.send(h11.EndOfMessage())
        return ask.raw or head.replace(b" HTTP/1.1\r\n", b" HTTP/%b\r\n" % ask.version, 1) + body

    def _take(self, ours: h11.Connection) -> bool:
        """Take what h11 makes of the bytes; tell whether that was all."""
        while (event := ours.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.InformationalResponse():
                    self.informational.append(event.status_code)
                case h11.Response():
                    self.answer = event
                case h11.Data():
                    self.content += bytes(event.data)
                case h11.EndOfMessage():
                    self.complete = True
                    return True
                case _:
                    raise AssertionError(event)
        return self.ask.streams and b"\n\n" in self.content

    def notes(self) -> dict[str, str]:
        """Return the bad notes of httplint by name."""
        ask, answer = self.ask, self.answer
        assert answer is not None
        asked = HttpRequestLinter(start_time=time.time())
        asked.process_request_topline(ask.method.encode(), ask.path.encode(), ask.version)
        asked.process_headers([(name.encode(), text.encode()) for name, text in ask.sent_headers])
        asked.feed_content(ask.sent_body)
        asked.finish_content(True)
        linter = HttpResponseLinter(start_time=time.time())
        linter.request = asked
        linter.base_uri = f"http://localhost{ask.path}"
        linter.is_head_response = ask.method == "HEAD"
        linter.process_response_topline(answer.http_version, str(answer.status_code).encode(), answer.reason)
        linter.process_headers([(name, text) for name, text in answer.headers.raw_items()])
        linter.feed_content(self.content)
        linter.finish_content(self.complete)
        return {type(note).__name__: str(note.summary) for note in linter.notes if note.level is levels.BAD}


async def exchange(ask: Ask, site: Site) -> Exchange:
    """Do it, check what h11 sees, and return it."""
    done = Exchange(ask)
    await done.with_(site)
    assert done.answer is not None
    assert done.answer.status_code == ask.status, done.content
    assert done.complete is not ask.streams or ask.method == "HEAD"
    if "Expect" in ask.headers and ask.status < 400:
        assert done.informational == [100]
    return done


async def by_header(request: web.Request) -> Identity | None:
    """Return who the header says: the login of the guarded hub."""
    name = request.headers.get("X-User")
    return Identity(user=name, admin=name == "root", subscribe=("*",)) if name else None


async def prepared(ask: Ask, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> tuple[Ask, Site]:
    """Start a hub in the state that *ask* wants; return what to ask there."""
    speed = {} if ask.state == "begun" else FAST
    prefix = "/live" if ask.state == "prefix" else ""
    settings = {"events_api": True, "cors_origins": (SHOP,), **speed, **ask.settings}
    login: dict[str, Any] = {"authenticate": by_header, "routes": None}
    server = await serve(demo=True, prefix=prefix, setup=login if ask.state == "guarded" else None, **settings)
    match ask.state:
        case "guarded":
            stream = await server.subscribe("a", headers=ROOT)
            ask = replace(ask, path=ask.path.replace("{id}", stream.opened.json()["connection"]))
        case "full":
            await server.subscribe()
        case "draining":
            await server.hub.drain(0)
        case "app draining":
            await server.app.shutdown()
        case "no log":

            def bounds() -> None:
                raise LogUnavailable("it is away")

            monkeypatch.setattr(server.hub.log, "bounds", bounds)
        case "published":
            await server.publish(ask.body)
        case "begun":
            said = {"Content-Type": "application/json", "Idempotency-Key": "k"}
            begun = await server.ask("POST", CHAT + "/init", headers=said, body=b'{"message": "x"}')
            ask = replace(ask, path=ask.path.replace("{id}", begun.json()["sessionId"]))
    return ask, server


@pytest.mark.parametrize("name", ASKED)
async def test_no_answer_gives_h11_or_httplint_a_reason_to_complain(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ask, site = await prepared(ASKED[name], serve, monkeypatch)
    notes = (await exchange(ask, site)).notes()
    monkeypatch.undo()
    assert {note: text for note, text in notes.items() if note not in TOLERATED} == {}


@pytest.mark.parametrize("name", SERVED)
async def test_neither_does_what_only_a_server_of_its_own_answers(name: str) -> None:
    process = await ServeProcess.start("serve", "--port", "0", "--drain", "0")
    try:
        await process.listening()
        notes = (await exchange(SERVED[name], process.site)).notes()
    finally:
        await process.aclose()
    assert notes == {}


async def test_what_is_tolerated_is_there(serve: Serve) -> None:
    server = await serve(demo=True)
    notes = (await exchange(ASKED["an order"], server)).notes()
    assert set(notes) == set(TOLERATED)


async def test_the_critics_find_fault_where_there_is_one(tmp_path: Path) -> None:
    said = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Length: 2\r\nAge: soon\r\n\r\nab"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        site = Site(server.sockets[0].getsockname())
        assert "AGE_NOT_INT" in (await exchange(Ask(201, "POST", "/"), site)).notes()
        said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"
        with pytest.raises(h11.RemoteProtocolError):
            await exchange(Ask(200, "GET", "/"), site)
