"""The same generation in the words of OpenAI and of the AI SDK, over real sockets."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from hub.generations.providers.provider import ProviderError
from tests.web.chat import PATH, USAGE, Chat
from tests.web.conftest import Serve

pytestmark = pytest.mark.both_loops


@pytest.fixture
def serve(serve: Serve) -> Serve:
    """Start a hub with a provider; the tests that script its answers put another one in its place."""
    return partial(serve, ai_provider="simulated")


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


async def test_an_answer_as_html(chat: Chat):
    id, answering = await chat.begin()
    client = await chat.open(f"{PATH}/{id}?format=html")
    start = await client.next("start")
    assert (start.data, start.id) == (id, f"{id}.0")
    answering.say(" <b>\n", "&")
    answering.finish()
    events = [(each.type, each.data, each.id.partition(".")[2]) for each in await client.rest()]
    assert events == [
        ("message", "<span> &lt;b&gt;\n</span>", "1"),
        ("message", "<span>&amp;</span>", "2"),
        ("done", "stop", "2"),
        ("close", "done", "2.end"),
    ]


async def test_html_tells_why_an_answer_ended(chat: Chat, complaints: Any):
    id, answering = await chat.begin()
    client = await chat.open(f"{PATH}/{id}?format=html")
    answering.fail(ProviderError("rate_limited", "too <much>", "sk-secret"))
    *_, how, close = await client.rest()
    assert (how.type, how.data) == ("failed", "too &lt;much&gt;")
    assert (close.type, close.data, close.id) == ("close", "failed", f"{id}.0.end")
    complaints.take()
    id, _ = await chat.begin()
    client = await chat.open(f"{PATH}/{id}?format=html")
    await chat.server.ask("DELETE", f"{PATH}/{id}")
    *_, how, close = await client.rest()
    assert [(each.type, each.data) for each in (how, close)] == [("cancelled", "cancelled"), ("close", "cancelled")]


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


async def test_a_dialect_tells_of_what_is_lost_in_its_own_words(chat: Chat):
    headers = {"Last-Event-ID": "unknown.3"}
    events = await (await chat.open(f"{PATH}?message=a&format=openai", headers=headers)).rest()
    assert [each.json()["error"]["code"] for each in events] == ["lost"]
    events = await (await chat.open(f"{PATH}?message=a&format=ai-sdk", headers=headers)).rest()
    assert {each.type for each in events} == {"message"}
    assert "error" in {each.json()["type"] for each in events[:-1]}


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
