"""AI token streams over real sockets: begun, watched from anywhere, resumed in the middle, stopped."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.errors import EventBufferFull, ShuttingDown
from hub.events.event import Event as BusEvent
from hub.generations.providers.provider import Delta, Prompt, ProviderError
from hub.hub import Hub
from hub.notification import Notification
from hub.settings import Settings
from hub.web.app import drain_hub
from tests.snippets import snippet
from tests.spec_decoder import Event, SpecDecoder
from tests.torture import free_port
from tests.web.client import Chunks, Client, StreamEnded, until
from tests.web.conftest import Complaints, Serve
from tests.web.process import ServeProcess
from tests.web.server import Answer, Server, Site

pytestmark = pytest.mark.both_loops

PATH = "/ai/chat/stream"
ID = re.compile(r"[A-Za-z0-9._~-]+")
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


AWAY = {"draining": rb"[1-6][0-9]{3}", "capacity": rb"[1-6][0-9]{4}", "log_unavailable": rb"(?:10|[2-9])[0-9]{3}"}


def away(reason: str) -> bytes:
    """Return the pattern of an answer that sends a client away."""
    return rb'retry: %b\nevent: hub\.close\ndata: \{"reason":"%b"\}\n\n' % (AWAY[reason], reason.encode())


@pytest.fixture
def serve(serve: Serve) -> Serve:
    """Start a hub with a provider; the tests that script its answers put another one in its place."""
    return partial(serve, ai_provider="simulated")


class Answering:
    """One answer of the provider, which comes as the test says.

    Attributes:
        closed: it is over, for whatever reason.
    """

    def __init__(self) -> None:
        self.closed = False
        self._more: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()

    def say(self, *pieces: str) -> None:
        for piece in pieces:
            self._more.put_nowait(Delta(piece))

    def finish(self) -> None:
        self._more.put_nowait(Delta("", "stop", USAGE))
        self._more.put_nowait(None)

    def fail(self, error: Exception) -> None:
        self._more.put_nowait(error)

    async def stream(self) -> AsyncGenerator[Delta, None]:
        try:
            while (what := await self._more.get()) is not None:
                if isinstance(what, Exception):
                    raise what
                yield what
        finally:
            self.closed = True


class Scripted:
    """A provider that says what the test says.

    Attributes:
        prompts: what it was asked, in order.
        answers: what it answers, in the same order.
    """

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.answers: list[Answering] = []

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        self.prompts.append(prompt)
        self.answers.append(Answering())
        return self.answers[-1].stream()

    async def aclose(self) -> None:
        """Hold nothing, let go of nothing."""

    async def answer(self, number: int = 0) -> Answering:
        await until(lambda: len(self.answers) > number)
        return self.answers[number]


class Chat:
    """A hub whose provider is the test."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.provider = server.hub.provider = Scripted()

    async def begin(self) -> tuple[str, Answering]:
        """Begin a generation; return its id, and the provider's end of it."""
        number = len(self.provider.answers)
        answer = await self.server.post(PATH + "/init", {"message": "hi"})
        assert answer.status == 201, answer.body
        return answer.json()["sessionId"], await self.provider.answer(number)

    async def said(self, id: str, text: str) -> None:
        """Return when the generation *id* has said *text*."""
        stream = await self.server.hub.generations.find(id)
        await until(lambda: stream.text() == text)

    async def finished(self, *pieces: str) -> str:
        """Let a generation say *pieces*, each a part of its own, and end; return its id."""
        id, answering = await self.begin()
        answering.say(*pieces)
        answering.finish()
        await (await self.server.hub.generations.find(id)).ended()
        return id

    async def open(self, path: str, method: str = "GET", **options: Any) -> Client:
        """Open a stream."""
        client = await self.server.client()
        await client.request(method, path, **options)
        assert await client.head() == 200
        assert client.headers["Content-Type"] == "text/event-stream"
        return client

    async def watch(self, id: str, after: str | None = None, query: str = "") -> Client:
        """Watch the generation *id*, from the id *after* on, and read its start."""
        client = await self.open(f"{PATH}/{id}{query}", headers={} if after is None else {"Last-Event-ID": after})
        await client.next("start")
        return client


@pytest.fixture
async def chat(serve: Serve) -> Chat:
    return Chat(await serve(ai_window=0))


def text(events: list[Event]) -> str:
    """The text that a client puts together from *events*."""
    return "".join(each.json()["content"] for each in events if each.type == "message" and each.data != "[DONE]")


def kinds(events: list[Event]) -> list[str]:
    return [each.data if each.data == "[DONE]" else each.type for each in events]


async def raw(client: Client) -> bytes:
    """All that comes, framing and all, until the server ends."""
    received = b""
    while True:
        try:
            received += await client.at_most(1 << 20)
        except StreamEnded:
            return received


# ---- init ----


async def test_init_begins_at_once_and_says_where(chat: Chat):
    answer = await chat.server.post(PATH + "/init", {"message": "hi", "temperature": 0.5})
    said = answer.json()
    id = said["sessionId"]
    assert answer.status == 201
    assert said.keys() == {"sessionId", "streamUrl", "cancelUrl", "expiresAt"}
    assert answer.headers["Location"] == said["streamUrl"] == f"{PATH}/{id}"
    assert said["cancelUrl"] == f"{PATH}/{id}/cancel"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["expiresAt"])
    assert ID.fullmatch(id)
    await chat.provider.answer()  # although nobody watches
    assert chat.provider.prompts == [Prompt([{"role": "user", "content": "hi"}], None, {"temperature": 0.5})]


async def test_init_takes_what_openai_takes(chat: Chat):
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
    ]
    answer = await chat.server.post(PATH + "/init", {"messages": messages, "model": "m"})
    assert answer.status == 201
    await chat.provider.answer()
    assert chat.provider.prompts == [Prompt(messages, "m", {})]


async def test_a_hub_under_a_prefix_names_its_own_paths(serve: Serve):
    server = await serve(prefix="/live")
    answer = await server.post(PATH + "/init", {"message": "hi"})
    assert answer.headers["Location"] == f"/live{PATH}/{answer.json()['sessionId']}"
    assert (await server.ask("GET", answer.headers["Location"], headers={"Accept": "application/json"})).status == 200


async def test_an_idempotency_key_never_begins_a_second_generation(chat: Chat):
    first, second, other = [
        await chat.server.post(PATH + "/init", {"message": "hi"}, Idempotency_Key=key) for key in ("a", "a", "b")
    ]
    assert [each.status for each in (first, second, other)] == [201, 200, 201]
    assert first.json() == second.json()
    assert other.json()["sessionId"] != first.json()["sessionId"]
    await chat.provider.answer(1)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "a"}
    client = await chat.open(PATH, "POST", headers=headers, body=b'{"message": "hi"}')
    assert (await client.next("start")).json()["sessionId"] == first.json()["sessionId"]
    assert len(chat.provider.prompts) == 2


async def test_an_idempotency_key_stands_for_one_question(chat: Chat):
    for path in (PATH + "/init", PATH):
        await chat.server.post(PATH + "/init", {"message": "hi", "temperature": 1}, Idempotency_Key="a")
        for other in ({"message": "ho", "temperature": 1}, {"message": "hi"}, {"message": "hi", "model": "m"}):
            answer = await chat.server.post(path, other, Idempotency_Key="a")
            assert (answer.status, answer.json()["field"]) == (422, "Idempotency-Key")
    assert len(chat.provider.prompts) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "message"),
        ({"message": "a", "messages": []}, "message"),
        ({"message": " "}, "message"),
        ({"message": 1}, "message"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 1_001}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "a"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"message": "a", "model": 1}, "model"),
        ({"message": "a", "model": "m" * 257}, "model"),
        ({"message": "a", "model": "\ud800"}, "model"),
        ({"message": "\ud800"}, "body"),
        ({"message": "a", "stop": ["\ud800"]}, "body"),
    ],
)
@pytest.mark.parametrize("path", [PATH, PATH + "/init"])
async def test_errors_name_the_field(chat: Chat, body: object, field: str, path: str):
    answer = await chat.server.post(path, body)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert chat.provider.prompts == []


async def test_what_is_not_json_and_what_is_too_much(serve: Serve):
    chat = Chat(await serve(ai_total=1))
    assert (await chat.server.ask("POST", PATH + "/init", body=b"{}")).status == 415
    wrong = await chat.server.post(PATH + "/init", {"message": "a"}, Idempotency_Key="x" * 257)
    assert (wrong.status, wrong.json()["field"]) == (400, "Idempotency-Key")
    wrong = await chat.server.ask("GET", PATH + "?message=a&format=xml")
    assert (wrong.status, wrong.json()["field"]) == (400, "format")
    assert (await chat.server.ask("GET", PATH)).json()["field"] == "message"
    await chat.begin()
    refused = await chat.server.post(PATH + "/init", {"message": "a"})
    assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (429, True)
    assert len(chat.provider.prompts) == 1


# ---- on the wire ----


async def test_the_first_frame_leaves_with_the_headers_before_the_provider_has_said_anything(chat: Chat):
    id, _ = await chat.begin()
    client = await chat.server.client()
    await client.request("GET", f"{PATH}/{id}")
    head, _, body = (await client.at_most(65_536)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    for header in (b"Content-Type: text/event-stream", b"X-Accel-Buffering: no", b"no-transform"):
        assert header in head
    facts = rb'data: {"sessionId":"%b","model":null,"createdAt":"[0-9T:.Z-]+"}' % id.encode()
    assert re.fullmatch(
        rb"[0-9a-f]+\r\nretry: [0-9]+\nevent: start\nid: %b\.0\n%b\n\n\r\n" % (id.encode(), facts), body
    )


async def test_deltas_are_plain_messages_and_the_end_is_one_write(chat: Chat):
    id, answering = await chat.begin()
    client = await chat.server.client()
    await client.request("GET", f"{PATH}/{id}")
    head = await client.at_most(65_536)
    assert b"event: start\n" in head
    answering.say("Hé")
    first = b'id: %b.1\ndata: {"content":"H\xc3\xa9"}\n\n' % id.encode()
    assert await client.exactly(len(first) + 6) == b"%x\r\n%b\r\n" % (len(first), first)
    answering.finish()
    usage = json.dumps({"finishReason": "stop", "usage": USAGE}, separators=(",", ":")).encode()
    group = b'event: done\ndata: %b\n\ndata: [DONE]\n\nevent: close\nid: %b.1.end\ndata: {"phase":"done"}\n\n' % (
        usage,
        id.encode(),
    )
    # One chunk, which is one write, then the end of the body and of the connection.
    assert await raw(client) == b"%x\r\n%b\r\n0\r\n\r\n" % (len(group), group)


@pytest.mark.parametrize(
    ("how", "phase", "facts"),
    [
        ("cancel", "cancelled", {}),
        (
            ProviderError("rate_limited", "too much to do", "sk-secret"),
            "failed",
            {"reason": "rate_limited", "message": "too much to do"},
        ),
    ],
)
async def test_only_what_is_done_says_done(chat: Chat, how: object, phase: str, facts: dict[str, str], complaints: Any):
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answering.say("a")
    await client.next()
    if isinstance(how, Exception):
        answering.fail(how)
    else:
        await chat.server.ask("DELETE", f"{PATH}/{id}")
    events = await client.rest()
    assert kinds(events) == [phase, "close"]
    assert events[0].json() == facts
    assert (events[0].id, events[1].id) == (f"{id}.1", f"{id}.1.end")
    assert client.complete
    assert b"secret" not in client.received
    complaints.take()


async def test_a_cut_inside_the_end_repeats_all_of_it(chat: Chat):
    id = await chat.finished("a", "b")
    client = await chat.open(f"{PATH}/{id}")
    whole = Chunks().feed(await raw(client))
    end = whole.index(b"event: done")
    for count in range(end, len(whole)):
        source = SpecDecoder()
        heard = source.feed(whole[:count])
        assert source.last_event_id == f"{id}.2"
        if count % 20 == 0:
            again = await (await chat.watch(id, source.last_event_id)).rest()
            assert kinds(again) == ["done", "[DONE]", "close"]
        assert text(heard) == "ab"
    source = SpecDecoder()
    source.feed(whole)
    assert source.last_event_id == f"{id}.2.end"


async def test_who_is_late_gets_what_there_is_as_one_message_then_the_tail(chat: Chat):
    id, answering = await chat.begin()
    early = await chat.watch(id)
    answering.say("a", "两", "c")
    assert [(await early.next()).id for _ in range(3)] == [f"{id}.{number}" for number in (1, 2, 3)]
    late = await chat.watch(id)
    event = await late.next()
    assert (event.json(), event.id) == ({"content": "a两c"}, f"{id}.3")
    answering.say("d")
    assert (await late.next()).json() == {"content": "d"}
    answering.finish()
    assert kinds(await late.rest()) == kinds(await early.rest())[1:] == ["done", "[DONE]", "close"]


@pytest.mark.parametrize("where", ["header", "query"])
async def test_a_resume_after_any_id_gives_exactly_the_rest(chat: Chat, where: str):
    pieces = ["a", "b\n", "两", "{}", "e"]
    id = await chat.finished(*pieces)
    for number in range(len(pieces) + 1):
        after = f"{id}.{number}"
        query, headers = ("", {"Last-Event-ID": after}) if where == "header" else (f"?lastEventId={after}", {})
        client = await chat.open(f"{PATH}/{id}{query}", headers=headers)
        assert (await client.next("start")).id == after
        events = await client.rest()
        assert text(events) == "".join(pieces[number:])
        assert kinds(events) == ["message"] * (number < len(pieces)) + ["done", "[DONE]", "close"]


@pytest.mark.parametrize("after", ["nonsense", "other.3", "{id}.99", "{id}.x", "{id}.", "k3f9x2-17", "other.3.end"])
async def test_what_is_no_id_of_it_begins_at_the_beginning(chat: Chat, after: str):
    id = await chat.finished("a", "b")
    client = await chat.watch(id, after.replace("{id}", id))
    assert text(await client.rest()) == "ab"


async def test_who_has_heard_the_end_is_answered_204_without_a_memory(chat: Chat):
    id = await chat.finished("a")
    for session in (id, "never-was"):
        end = {"Last-Event-ID": f"{session}.1.end"}
        for path in (f"{PATH}/{session}", f"{PATH}?message=hi"):
            answer = await chat.server.ask("GET", path, headers=end)
            assert (answer.status, answer.body) == (204, b"")
    assert len(chat.provider.prompts) == 1


async def test_unknown_is_404_and_expired_is_410(serve: Serve):
    chat = Chat(await serve(ai_window=0, ai_keep=0))
    id = await chat.finished("a")
    chat.server.hub.generations.sweep()
    for method, below in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
        for session, status, name in ((id, 410, "generation-expired"), ("unknown", 404, "unknown-generation")):
            answer = await chat.server.ask(method, f"{PATH}/{session}{below}")
            assert (answer.status, answer.json()["type"]) == (status, f"urn:broadcast-hub:{name}")
    answer = await chat.server.ask("GET", f"{PATH}/{id}", headers={"Last-Event-ID": f"{id}.1.end"})
    assert answer.status == 204


async def test_who_asks_for_json_gets_where_it_stands(chat: Chat):
    id, answering = await chat.begin()
    answering.say("a", "两")
    await chat.said(id, "a两")

    async def snapshot() -> dict[str, Any]:
        answer = await chat.server.ask("GET", f"{PATH}/{id}", headers={"Accept": "application/json"})
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        said: dict[str, Any] = answer.json()
        return said

    said = await snapshot()
    assert said["createdAt"]
    del said["createdAt"]
    assert said == {
        "sessionId": id,
        "phase": "streaming",
        "text": "a两",
        "lastEventId": f"{id}.2",
        "model": None,
    }
    answering.finish()
    await (await chat.server.hub.generations.find(id)).ended()
    said = await snapshot()
    assert (said["phase"], said["finishReason"], said["usage"]) == ("done", "stop", USAGE)


# ---- GET ?message= ----


async def test_a_bare_eventsource_begins_and_resumes_and_never_begins_twice(chat: Chat):
    client = await chat.open(f"{PATH}?message=hello")
    answering = await chat.provider.answer()
    id = (await client.next("start")).json()["sessionId"]
    assert client.headers["Content-Location"] == f"{PATH}/{id}"
    answering.say("a", "b")
    await client.next()
    last = (await client.next()).id
    client.reset()
    answering.say("c")
    again = await chat.open(f"{PATH}?message=hello", headers={"Last-Event-ID": last})
    assert (await again.next("start")).json()["sessionId"] == id
    answering.finish()
    events = await again.rest()
    assert text(events) == "c"
    answer = await chat.server.ask("GET", f"{PATH}?message=hello", headers={"Last-Event-ID": events[-1].id})
    assert answer.status == 204
    assert len(chat.provider.prompts) == 1
    assert chat.provider.prompts[0].messages == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("last", ["unknown.3", "nonsense", "k3f9x2-17", "a b", "*.1", "expired"])
@pytest.mark.parametrize("home", ["memory", "file"])
async def test_who_comes_back_for_what_is_lost_is_told_so_and_ends(serve: Serve, tmp_path: Path, last: str, home: str):
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    chat = Chat(await serve(ai_window=0, ai_keep=0, **log))
    calls = 0
    if last == "expired":
        last = f"{await chat.finished('a')}.1"
        chat.server.hub.generations.sweep()
        calls = 1
    client = await chat.open(f"{PATH}?message=hello", headers={"Last-Event-ID": last})
    events = await client.rest()
    assert kinds(events) == ["failed", "close"]
    assert events[0].json()["reason"] == "lost"
    assert events[1].id.endswith(".end")
    answer = await chat.server.ask("GET", f"{PATH}?message=hello", headers={"Last-Event-ID": events[1].id})
    assert answer.status == 204
    assert len(chat.provider.prompts) == calls


async def test_a_dialect_tells_of_what_is_lost_in_its_own_words(chat: Chat):
    headers = {"Last-Event-ID": "unknown.3"}
    events = await (await chat.open(f"{PATH}?message=a&format=openai", headers=headers)).rest()
    assert [each.json()["error"]["code"] for each in events] == ["lost"]
    events = await (await chat.open(f"{PATH}?message=a&format=ai-sdk", headers=headers)).rest()
    assert {each.type for each in events} == {"message"}
    assert "error" in {each.json()["type"] for each in events[:-1]}


# ---- POST, cancel, leaving ----


async def test_the_answer_comes_on_the_post_itself_and_is_resumed_where_it_says(chat: Chat):
    headers = {"Content-Type": "application/json"}
    client = await chat.open(PATH, "POST", headers=headers, body=b'{"message": "hi"}')
    answering = await chat.provider.answer()
    place = client.headers["Content-Location"]
    id = (await client.next("start")).json()["sessionId"]
    assert place == f"{PATH}/{id}"
    answering.say("a")
    last = (await client.next()).id
    client.reset()
    answering.say("b")
    answering.finish()
    again = await chat.open(place, headers={"Last-Event-ID": last})
    assert text(await again.rest()) == "b"


@pytest.mark.parametrize(("method", "below"), [("DELETE", ""), ("POST", "/cancel"), ("DELETE", "/cancel")])
@pytest.mark.parametrize("home", ["memory", "file"])
async def test_a_cancel_reaches_the_provider_and_may_be_repeated(
    serve: Serve, tmp_path: Path, method: str, below: str, home: str
):
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    chat = Chat(await serve(ai_window=0, **log))
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answers: list[Answer] = [await chat.server.ask(method, f"{PATH}/{id}{below}") for _ in range(2)]
    for answer in answers:
        assert (answer.status, answer.json()) == (200, {"sessionId": id, "phase": "cancelled"})
    assert answering.closed
    assert kinds(await client.rest()) == ["cancelled", "close"]
    again = await chat.watch(id)
    assert kinds(await again.rest()) == ["cancelled", "close"]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_closing_a_tab_is_no_cancel(chat: Chat, how: str):
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answering.say("a")
    await client.next()
    getattr(client, how)()
    await until(lambda: not chat.server.hub.viewers)
    assert not answering.closed
    answering.say("b")
    answering.finish()
    assert text(await (await chat.watch(id)).rest()) == "ab"


async def test_a_heartbeat_comes_before_the_first_token(serve: Serve):
    chat = Chat(await serve(heartbeat=0.05))
    id, answering = await chat.begin()
    client = await chat.watch(id)
    await client.block()
    await client.block()
    assert client.decoder.comments == ["", ""]
    answering.say("a")
    assert (await client.next()).json() == {"content": "a"}


async def test_one_who_stalls_costs_the_others_nothing_and_is_cut_without_an_end(serve: Serve):
    chat = Chat(await serve(ai_window=0, ai_bytes=1 << 26, peer_timeout=0.3, heartbeat=0.05))
    id, answering = await chat.begin()
    stalled = await chat.server.client(receive_buffer=8_192)
    await stalled.request("GET", f"{PATH}/{id}")
    assert await stalled.head() == 200
    await stalled.next("start")
    stalled.stop_reading()
    reader = await chat.watch(id)
    pieces = [f"{number} ".ljust(150_000, "x") for number in range(100)]
    for piece in pieces:
        answering.say(piece)
        assert (await reader.next()).json() == {"content": piece}
    await until(lambda: chat.server.hub.viewers == 1)
    answering.finish()
    assert kinds(await reader.rest()) == ["done", "[DONE]", "close"]
    stalled.read_on()
    events = await stalled.rest()
    assert {each.type for each in events} <= {"message"}
    assert "".join(pieces).startswith(text(events))
    assert not stalled.complete


async def test_one_who_falls_behind_gets_what_it_missed_once(serve: Serve):
    chat = Chat(await serve(ai_window=0, ai_bytes=1 << 26))
    id, answering = await chat.begin()
    slow = await chat.server.client(receive_buffer=8_192)
    await slow.request("GET", f"{PATH}/{id}")
    assert await slow.head() == 200
    slow.stop_reading()
    pieces = [f"{number} ".ljust(100_000, "x") for number in range(100)]
    answering.say(*pieces)
    answering.finish()
    await (await chat.server.hub.generations.find(id)).ended()
    slow.read_on()
    await slow.next("start")
    events = await slow.rest()
    assert text(events) == "".join(pieces)
    assert kinds(events)[-3:] == ["done", "[DONE]", "close"]
    assert len(events) < len(pieces)


# ---- dialects ----


async def test_openai_chunks(chat: Chat):
    id, answering = await chat.begin()
    client = await chat.open(f"{PATH}/{id}?format=openai", headers={"Accept": "application/json"})
    answering.say("a", "b")
    answering.finish()
    *chunks, done = await client.rest()
    assert (done.data, done.id) == ("[DONE]", f"{id}.2.end")
    said = [each.json() for each in chunks]
    assert {each.type for each in chunks} == {"message"}
    assert {(each["id"], each["object"], each["model"]) for each in said} == {
        (f"chatcmpl-{id}", "chat.completion.chunk", "default")
    }
    assert [each["choices"] for each in said] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "b"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [],
    ]
    assert said[-1]["usage"] == USAGE
    assert [each.id for each in chunks[:3]] == [f"{id}.{number}" for number in range(3)]


async def test_an_ai_sdk_message_stream(chat: Chat):
    headers = {"Content-Type": "application/json"}
    client = await chat.open(f"{PATH}?format=ai-sdk", "POST", headers=headers, body=b'{"message": "hi"}')
    assert client.headers["x-vercel-ai-ui-message-stream"] == "v1"
    answering = await chat.provider.answer()
    answering.say("a", "b")
    answering.finish()
    *parts, done = await client.rest()
    assert done.data == "[DONE]"
    assert [each.json() for each in parts] == [
        {"type": "start", "messageId": done.id.split(".")[0]},
        {"type": "start-step"},
        {"type": "text-start", "id": "0"},
        {"type": "text-delta", "id": "0", "delta": "a"},
        {"type": "text-delta", "id": "0", "delta": "b"},
        {"type": "text-end", "id": "0"},
        {"type": "finish-step"},
        {"type": "finish"},
    ]


@pytest.mark.parametrize("name", ["openai", "ai-sdk"])
async def test_a_dialect_tells_of_a_failure_in_its_own_words(chat: Chat, name: str, complaints: Any):
    id, answering = await chat.begin()
    client = await chat.open(f"{PATH}/{id}?format={name}")
    answering.say("a")
    answering.fail(ProviderError("rate_limited", "too much to do", "sk-secret"))
    events = await client.rest()
    assert {each.type for each in events} == {"message"}
    assert "too much to do" in events[-1 if name == "openai" else -2].data
    assert (events[-1].data == "[DONE]") == (name == "ai-sdk")
    assert events[-1].id == f"{id}.1.end"
    complaints.take()


# ---- around it ----


async def test_head_is_not_for_streams(chat: Chat):
    id, _ = await chat.begin()
    for path in (PATH + "?message=hi", f"{PATH}/{id}", PATH + "/init"):
        answer = await chat.server.ask("HEAD", path)
        assert answer.status == 405
    assert len(chat.provider.prompts) == 1


async def test_pages_of_other_origins_may_use_it_if_they_are_named(serve: Serve):
    origin = "https://app.example.com"
    chat = Chat(await serve(cors_origins=(origin,)))
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked = await chat.server.ask("OPTIONS", PATH + "/init", headers=headers)
    assert "idempotency-key" in asked.headers["Access-Control-Allow-Headers"].lower().split(", ")
    client = await chat.open(f"{PATH}?message=hi", headers={"Origin": origin})
    assert client.headers["Access-Control-Allow-Origin"] == origin
    assert "Content-Location" in client.headers["Access-Control-Expose-Headers"]
    for path in (f"{PATH}/unknown", PATH):
        answer = await chat.server.ask("GET", path, headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    end = {"Origin": origin, "Last-Event-ID": "a.1.end"}
    assert (await chat.server.ask("GET", f"{PATH}/a", headers=end)).headers["Access-Control-Allow-Origin"] == origin


async def test_a_draining_hub_sends_viewers_away_without_an_end(serve: Serve):
    chat = Chat(await serve(ai_window=0, drain=5))
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answering.say("a")
    await client.next()
    before = client.decoder.retry
    await drain_hub(chat.server.app)
    (closing,) = await client.rest()
    assert (closing.type, closing.json(), closing.id) == ("hub.close", {"reason": "shutdown"}, f"{id}.1")
    assert client.complete
    assert client.decoder.retry != before
    # Whoever comes now is sent away as well, and keeps its cursor.
    for path in (f"{PATH}/{id}", f"{PATH}?message=hi"):
        answer = await chat.server.ask("GET", path, headers={"Last-Event-ID": f"{id}.1"})
        assert answer.status == 200
        assert re.fullmatch(away("draining"), answer.body)
    answer = await chat.server.ask("GET", f"{PATH}?message=hi")
    assert re.fullmatch(away("draining"), answer.body)
    for path in (PATH, PATH + "/init"):
        assert (await chat.server.post(path, {"message": "hi"})).status == 503
    assert not answering.closed
    assert len(chat.provider.prompts) == 1


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ("openai", rb'\{"error":\{"message":"[^"]+","type":"server_error","code":"capacity"\}\}'),
        ("ai-sdk", rb'\{"type":"error","errorText":"[^"]+"\}'),
    ],
)
async def test_who_reads_another_dialect_is_sent_away_with_an_error_that_it_understands(
    serve: Serve, dialect: str, said: bytes
):
    chat = Chat(await serve(max_connections=1))
    id, _ = await chat.begin()
    await chat.watch(id)
    answer = await chat.server.ask("GET", f"{PATH}/{id}?format={dialect}")
    assert answer.status == 200
    assert re.fullmatch(rb"retry: [1-6][0-9]{4}\nevent: hub\.close\ndata: %b\n\n" % said, answer.body), answer.body


async def test_viewers_count_among_the_streams_that_may_be_open(serve: Serve):
    chat = Chat(await serve(max_connections=1))
    id, _ = await chat.begin()
    client = await chat.watch(id)
    for path in (f"{PATH}/{id}", f"{PATH}?message=hi", "/notifications/subscribe"):
        answer = await chat.server.ask("GET", path)
        assert (answer.status, bool(re.fullmatch(away("capacity"), answer.body))) == (200, True)
    answer = await chat.server.post(PATH, {"message": "hi"})  # whoever posts knows what a status is
    assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    assert len(chat.provider.prompts) == 1
    client.close()
    await until(lambda: not chat.server.hub.viewers)
    await chat.watch(id)


async def test_the_finished_answer_is_a_notification_and_an_event_and_only_the_event_has_its_text(chat: Chat):
    heard: list[BusEvent] = []
    chat.server.hub.bus.on("ai.stream.finished", heard.append)
    subscriber = await chat.server.subscribe("ai/*")
    id = await chat.finished("a", "两")
    event = await subscriber.next("ai.finished")
    what = {"sessionId": id, "phase": "done", "owner": None, "finishReason": "stop", "usage": USAGE}
    assert event.json() == what
    assert [each.payload for each in heard] == [{**what, "text": "a两"}]
    history = (await chat.server.ask("GET", f"/notifications/history?topic=ai/{id}")).json()
    assert [each["data"] for each in history["notifications"]] == [what]


@pytest.mark.parametrize("home", ["memory", "file"])
async def test_nothing_of_the_text_of_an_answer_outlives_it(serve: Serve, tmp_path: Path, home: str):
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    chat = Chat(await serve(ai_window=0, ai_keep=0, **log))
    subscriber = await chat.server.subscribe("ai/*")
    id = await chat.finished("between", "you", "and", "me")
    await subscriber.next("ai.finished")
    chat.server.hub.generations.sweep()
    assert (await chat.server.ask("GET", f"{PATH}/{id}", headers={"Accept": "application/json"})).status == 410
    everything = await chat.server.ask("GET", "/notifications/history?topic=**")
    assert id in everything.body.decode()
    assert "between" not in everything.body.decode()


async def test_an_old_client_gets_the_bare_bytes(chat: Chat):
    id = await chat.finished("a", "b")
    client = await chat.open(f"{PATH}/{id}", version="1.0")
    assert "Transfer-Encoding" not in client.headers
    assert client.headers["Connection"] == "close"
    events = await client.rest()
    assert kinds(events) == ["start", "message", "done", "[DONE]", "close"]
    assert text(events) == "ab"


async def test_half_a_character_from_a_provider_breaks_nothing(chat: Chat):
    id, answering = await chat.begin()
    client = await chat.watch(id)
    answering.say("a\ud83d")
    answering.finish()
    assert text(await client.rest()) == "a\ufffd"


# ---- a crash ----


async def until_message(site: Site, id: str) -> tuple[str, str]:
    """Watch *id* for some messages; return the text so far and the last id."""
    client = await site.client()
    await client.request("GET", f"{PATH}/{id}")
    assert await client.head() == 200
    await client.next("start")
    events = [await client.next() for _ in range(3)]
    return text(events), events[-1].id


@pytest.fixture
async def hubs(tmp_path: Path) -> AsyncIterator[Any]:
    port = free_port()
    started: list[ServeProcess] = []

    async def start() -> ServeProcess:
        process = await ServeProcess.start(
            *("serve", "--port", str(port), "--log", f"sqlite:///{tmp_path}/hub.db", "--ai-provider", "simulated"),
            *("--ai-simulated-tokens", "100000", "--ai-simulated-first", "0", "--ai-simulated-rate", "200"),
            *("--drain", "0"),
        )
        started.append(process)
        return await process.listening()

    yield start
    for process in started:
        await process.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_after_a_crash_the_viewer_gets_what_was_kept_and_an_honest_end(hubs: Any, number: signal.Signals):
    hub = await hubs()
    id = (await hub.site.post(PATH + "/init", {"message": "hi"}, Idempotency_Key="k")).json()["sessionId"]
    before, last = await until_message(hub.site, id)
    hub.signal(number)
    await hub.end()
    hub = await hubs()
    client = await hub.site.client()
    await client.request("GET", f"{PATH}/{id}", headers={"Last-Event-ID": last})
    assert await client.head() == 200
    await client.next("start")
    events = await client.rest()
    assert kinds(events)[-2:] == ["failed", "close"]
    assert events[-2].json()["reason"] == "producer_lost"
    again = await hub.site.post(PATH + "/init", {"message": "hi"}, Idempotency_Key="k")
    assert (again.status, again.json()["sessionId"]) == (200, id)
    snapshot = (await hub.site.ask("GET", f"{PATH}/{id}", headers={"Accept": "application/json"})).json()
    assert before + text(events) == snapshot["text"]
    assert before
    assert (await hub.site.ask("GET", f"{PATH}/{id}", headers={"Last-Event-ID": events[-1].id})).status == 204
    for path in (f"{PATH}/*", f"{PATH}/**"):
        assert (await hub.site.ask("GET", path, headers={"Accept": "application/json"})).status == 404


@pytest.mark.parametrize(
    "text", ['{"message": "a", "temperature": 1e999}', '{"message": "a", "stop": %s}' % ("[" * 979 + "]" * 979)]
)
async def test_what_no_provider_could_be_told_is_refused(chat: Chat, text: str):
    headers = {"Content-Type": "application/json"}
    for path in (PATH, PATH + "/init"):
        answer = await chat.server.ask("POST", path, headers=headers, body=text.encode())
        assert (answer.status, answer.json()["field"]) == (400, "body")
    assert not chat.provider.prompts


async def test_a_message_of_a_tool_needs_no_content(chat: Chat):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    asked = [{"role": "user", "content": "a"}, call, {"role": "tool", "content": "b", "tool_call_id": "1"}]
    assert (await chat.server.post(PATH + "/init", {"messages": asked})).status == 201
    await chat.provider.answer()
    assert chat.provider.prompts[0].messages == asked


async def test_an_answer_says_that_its_connection_ends_with_it(chat: Chat):
    id = await chat.finished("a")
    for client in (await chat.open(f"{PATH}/{id}"), await chat.open(f"{PATH}?message=hi")):
        assert client.headers["Connection"] == "close"


async def test_an_event_source_is_sent_away_where_no_answer_can_begin_now(serve: Serve):
    chat = Chat(await serve(ai_total=1))
    await chat.begin()
    answer = await chat.server.ask("GET", f"{PATH}?message=hi")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert re.fullmatch(away("capacity"), answer.body)
    assert (await chat.server.post(PATH, {"message": "hi"})).status == 429
    assert len(chat.provider.prompts) == 1


# ---- a provider of one's own ----


@pytest.mark.slow
async def test_a_class_beside_where_the_hub_is_started_answers(tmp_path: Path):
    parrot = snippet("howto/stream-ai-tokens.md", "answers_of_mine.py")
    (tmp_path / "answers_of_mine.py").write_text(parrot, encoding="utf-8")
    hub = await ServeProcess.start(
        *("serve", "--port", str(free_port()), "--ai-provider", "answers_of_mine:Parrot"), cwd=tmp_path
    )
    try:
        await hub.listening()
        client = await hub.site.client()
        await client.request("GET", f"{PATH}?message=polly+wants")
        assert await client.head() == 200
        assert text(await client.rest()) == "polly wants "
    finally:
        await hub.aclose()


# ---- what others do wrong ----


async def test_a_provider_that_can_not_be_closed_leaves_the_rest_of_the_hub_closed(caplog: pytest.LogCaptureFixture):
    class Stubborn(Scripted):
        async def aclose(self) -> None:
            raise RuntimeError("mine")

    hub = Hub(Settings())
    hub.provider = Stubborn()
    await hub.open()
    await hub.aclose()
    assert "the provider failed to close" in caplog.text
    with pytest.raises(ShuttingDown):
        hub.notifications.send_notification("late")


@pytest.mark.parametrize(
    ("owner", "topics"), [("ann", ("user/ann",)), ("a/b", ()), ("a*", ()), ("", ()), (None, ()), ("x" * 300, ())]
)
async def test_an_answer_is_told_to_its_owner_if_that_can_be_a_topic(owner: str | None, topics: tuple[str, ...]):
    hub = Hub(Settings(ai_window=0))
    await hub.open()
    told: list[Notification] = []
    hub.notifications.stream("ai/*").subscribe(told.append)
    stream = await hub.generations.begin(owner=owner)
    stream.finish()
    assert [each.topics for each in told] == [(f"ai/{stream.id}", *topics)]
    assert told[0].private
    await hub.aclose()


async def test_an_event_that_nobody_can_take_keeps_no_notification_back(chat: Chat, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise EventBufferFull(1)

    subscriber = await chat.server.subscribe("ai/*")
    monkeypatch.setattr(chat.server.hub.bus, "emit", full)
    id = await chat.finished("a")
    assert (await subscriber.next("ai.finished")).json()["sessionId"] == id


async def test_a_viewer_that_can_not_begin_is_cut(chat: Chat, monkeypatch: pytest.MonkeyPatch, complaints: Complaints):
    id, _ = await chat.begin()
    client = await chat.server.client()

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    async def first_event() -> Event:
        await client.request("GET", f"{PATH}/{id}")
        await client.head()  # aiohttp before 3.12 has sent them already
        return await client.event()

    monkeypatch.setattr("hub.web.viewer.TokenViewer.take_over", fail)
    with pytest.raises(StreamEnded):
        await first_event()
    await until(lambda: not chat.server.hub.viewers)
    complaints.take()


# ---- what is counted ----


async def test_answers_and_viewers_are_counted(chat: Chat, complaints: Complaints):
    async def counted() -> dict[str, int]:
        stats = (await chat.server.ask("GET", "/notifications/stats")).json()
        names = ("generations", "viewers", *(f"generations_{how}" for how in ("begun", "done", "failed", "cancelled")))
        return {name: stats[name] for name in names if stats[name]}

    assert await counted() == {}
    client = await chat.open(f"{PATH}?message=hi")
    await client.next("start")
    assert await counted() == {"generations": 1, "viewers": 1, "generations_begun": 1}
    (await chat.provider.answer()).finish()
    await client.rest()
    await until(lambda: chat.server.hub.viewers == 0)
    assert await counted() == {"generations_begun": 1, "generations_done": 1}
    id, answering = await chat.begin()
    answering.fail(ProviderError("rate_limited", "too much to do"))
    await (await chat.server.hub.generations.find(id)).ended()
    complaints.take()
    id, _ = await chat.begin()
    await chat.server.ask("DELETE", f"{PATH}/{id}")
    ended = {"generations_done": 1, "generations_failed": 1, "generations_cancelled": 1}
    assert await counted() == {"generations_begun": 3, **ended}
    text = (await chat.server.ask("GET", "/metrics")).body.decode()
    assert "hub_generations_begun_total 3.0" in text
    assert "hub_viewers 0.0" in text
