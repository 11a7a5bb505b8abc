"""The clients that others wrote read our dialects: OpenAI's own for Python, the AI SDK's transport on Node.js."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hub.generations.providers.simulated import SimulatedProvider
from tests.ai.conftest import FOLDER, MODULES, missing
from tests.snippets import snippet
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server

try:
    import openai
    from openai.types.chat import ChatCompletionChunk
except ImportError:
    missing("the package openai")

PATH = "/ai/chat/stream"


def simulated(server: Server, **options: Any) -> None:
    """Let the hub answer as *options* say."""
    server.hub.provider = SimulatedProvider(**{"tokens": 30, "first": 0.0, "rate": 1_000.0, **options})


@pytest.fixture
async def server(serve: Serve) -> Server:
    server = await serve(ai_provider="simulated", ai_window=0)
    simulated(server)
    return server


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.address[1]}"


async def begun(server: Server) -> str:
    id: str = (await server.post(PATH + "/init", {"message": "hi"})).json()["sessionId"]
    return id


async def said(server: Server, id: str) -> str:
    stream = await server.hub.generations.find(id)
    await stream.ended()
    return stream.text()


# ---- OpenAI's client ----

Options = dict[str, Any]
STREAM: Options = {
    "cast_to": ChatCompletionChunk,
    "stream": True,
    "stream_cls": openai.AsyncStream[ChatCompletionChunk],
    "options": {"params": {"format": "openai"}},
}


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url(server), api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("method", ["get", "post"])
async def test_openais_client_reads_the_answer(server: Server, client: openai.AsyncOpenAI, method: str):
    if method == "get":
        stream = await client.get(f"{PATH}/{await begun(server)}", **STREAM)
    else:
        messages = [{"role": "user", "content": "hi"}]
        stream = await client.post(PATH, body={"messages": messages, "model": "m", "stream": True}, **STREAM)
    chunks = [chunk async for chunk in stream]
    id = chunks[0].id.removeprefix("chatcmpl-")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == await said(server, id)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


async def test_openais_client_raises_what_became_of_a_failure(
    server: Server, client: openai.AsyncOpenAI, complaints: Complaints
):
    simulated(server, fail_after=5)
    heard: list[ChatCompletionChunk] = []

    async def listen(stream: openai.AsyncStream[ChatCompletionChunk]) -> None:
        async for chunk in stream:
            heard.append(chunk)

    stream = await client.get(f"{PATH}/{await begun(server)}", **STREAM)
    with pytest.raises(openai.APIError, match="the provider failed"):
        await listen(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in heard)
    complaints.take()


async def test_openais_client_names_a_refusal(client: openai.AsyncOpenAI):
    with pytest.raises(openai.NotFoundError):
        await client.get(f"{PATH}/unknown", **STREAM)
    with pytest.raises(openai.BadRequestError):
        await client.post(PATH, body={"messages": []}, **STREAM)


# ---- the AI SDK ----


Read = Callable[..., Awaitable[Any]]


@pytest.fixture
async def read(node: str, server: Server, tmp_path: Path) -> Read:
    """What the AI SDK, set up as the documentation says, makes of a new answer or of one that has begun."""
    (tmp_path / "transport.mjs").write_text(snippet("howto/stream-ai-tokens.md", "transport.js"), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(MODULES)

    async def read(id: str = "") -> Any:
        process = await asyncio.create_subprocess_exec(
            *(node, "read_ui_messages.mjs", str(tmp_path / "transport.mjs"), url(server)),
            *([f"{PATH}/{id}"] if id else []),
            cwd=FOLDER,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    return read


@pytest.mark.parametrize("how", ["sent", "reconnected"])
async def test_the_ai_sdk_reads_the_answer(server: Server, read: Read, how: str):
    answer = await read(await begun(server) if how == "reconnected" else "")
    assert answer["errors"] == []
    message = answer["message"]
    assert message["role"] == "assistant"
    (text,) = [part for part in message["parts"] if part["type"] == "text"]
    assert (text["text"], text["state"]) == (await said(server, message["id"]), "done")
    assert text["text"].startswith("You asked: hi")
    assert answer["place"] == f"{PATH}/{message['id']}"


async def test_the_ai_sdk_learns_of_a_failure(server: Server, read: Read, complaints: Complaints):
    simulated(server, fail_after=5)
    answer = await read(await begun(server))
    assert answer["errors"] == ["the provider failed"]
    (text,) = [part for part in answer["message"]["parts"] if part["type"] == "text"]
    assert text["text"]
    complaints.take()


async def test_the_ai_sdk_takes_a_cancel_as_an_end(server: Server, read: Read):
    id = await begun(server)
    await server.ask("DELETE", f"{PATH}/{id}")
    answer = await read(id)
    assert answer["errors"] == []
