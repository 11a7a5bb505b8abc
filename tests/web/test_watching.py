"""AI token streams over real sockets, watched: from the start, late, again after a cut, slowly, and after a crash."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.generations.providers.provider import ProviderError
from hub.web.app import drain_hub
from tests.ports import free_port
from tests.spec_decoder import Event, SpecDecoder
from tests.web.chat import PATH, USAGE, Chat, away, kinds, raw, text
from tests.web.client import Chunks, StreamEnded, until
from tests.web.conftest import Complaints, Serve
from tests.web.process import ServeProcess
from tests.web.server import Site

pytestmark = pytest.mark.both_loops


# ---- on the wire ----


@pytest.fixture
def serve(serve: Serve) -> Serve:
    """Start a hub with a provider; the tests that script its answers put another one in its place."""
    return partial(serve, ai_provider="simulated")


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


# ---- leaving and falling behind ----


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


# ---- refused or sent away ----


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


async def test_an_old_client_gets_the_bare_bytes(chat: Chat):
    id = await chat.finished("a", "b")
    client = await chat.open(f"{PATH}/{id}", version="1.0")
    assert "Transfer-Encoding" not in client.headers
    assert client.headers["Connection"] == "close"
    events = await client.rest()
    assert kinds(events) == ["start", "message", "done", "[DONE]", "close"]
    assert text(events) == "ab"


async def test_a_viewer_that_can_not_begin_is_cut(chat: Chat, monkeypatch: pytest.MonkeyPatch, complaints: Complaints):
    id, _ = await chat.begin()
    client = await chat.server.client()

    def fail(*_: object) -> None:
        raise RuntimeError("mine")

    async def first_event() -> Event:
        await client.request("GET", f"{PATH}/{id}")
        await client.head()  # aiohttp before 3.12 has sent them already
        return await client.event()

    monkeypatch.setattr("hub.web.viewer.GenerationViewer.take_over", fail)
    with pytest.raises(StreamEnded):
        await first_event()
    await until(lambda: not chat.server.hub.viewers)
    complaints.take()


async def test_head_is_not_for_streams(chat: Chat):
    id, _ = await chat.begin()
    for path in (PATH + "?message=hi", f"{PATH}/{id}", PATH + "/init"):
        answer = await chat.server.ask("HEAD", path)
        assert answer.status == 405
    assert len(chat.provider.prompts) == 1


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
