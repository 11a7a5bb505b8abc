"""The provider `openai` against a server that was not written here and misbehaves on demand: aimock."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.generations.generation import Generation
from tests.ai.conftest import MODULES, listens, missing
from tests.ports import free_port
from tests.web.client import until
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server

if importlib.util.find_spec("openai") is None:
    missing("the package openai")

PATH = "/ai/chat/stream"
TEXT = "Grüße aus dem Äther: 两三个词, \N{GRINNING FACE} and more words than one piece holds. " * 5
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "whole"}},
    {"match": {"userMessage": "slow"}, "latency": 50},
    {"match": {"userMessage": "truncated"}, "latency": 20, "truncateAfterChunks": 5},
    {"match": {"userMessage": "disconnected"}, "latency": 50, "disconnectAfterMs": 1_000},
    {"match": {"userMessage": "refused"}, "chaos": {"disconnectRate": 1}},
    {"match": {"userMessage": "dropped"}, "chaos": {"dropRate": 1}},
    {"match": {"userMessage": "malformed"}, "chaos": {"malformedRate": 1}},
    {"match": {"userMessage": "limited"}, "chaos": {"rateLimitRate": 1}},
    {"match": {"userMessage": "late"}, "chaos": {"latencyMs": 5_000}},
]


@pytest.fixture
async def aimock(node: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of aimock."""
    fixtures = [{**each, "chunkSize": 7, "response": {"content": TEXT}} for each in FIXTURES]
    (tmp_path / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(node, str(MODULES / "@copilotkit" / "aimock" / "dist" / "cli.js"), "--port", str(port)),
        *("--fixtures", str(tmp_path / "fixtures.json"), "--log-level", "silent"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await listens(process, port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        await process.wait()


async def answered(server: Server, message: str) -> Generation:
    """Let the hub answer *message*, and return that when it has ended."""
    answer = await server.post(PATH + "/init", {"message": message, "model": "gpt-4o"})
    stream = await server.hub.generations.find(answer.json()["sessionId"])
    async with asyncio.timeout(60):
        await stream.ended()
    return stream


async def test_the_whole_answer_arrives(serve: Serve, aimock: str):
    server = await serve(ai_provider="openai", ai_base_url=aimock)
    stream = await answered(server, "whole")
    assert (stream.phase, stream.text()) == ("done", TEXT)
    assert stream.ending is not None
    assert stream.ending.facts["finishReason"] == "stop"
    assert stream.ending.facts["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("message", "reasons"),
    [
        ("truncated", {"provider_disconnected"}),
        ("disconnected", {"provider_disconnected"}),
        ("refused", {"provider_disconnected"}),
        ("dropped", {"provider_failed"}),
        ("malformed", {"provider_malformed", "provider_failed", "provider_disconnected"}),
        ("limited", {"rate_limited"}),
        ("late", {"timeout"}),
    ],
)
async def test_what_goes_wrong_there_is_an_honest_end_here(
    serve: Serve, aimock: str, complaints: Complaints, message: str, reasons: set[str]
):
    server = await serve(ai_provider="openai", ai_base_url=aimock, ai_first_timeout=0.5 if message == "late" else 60)
    stream = await answered(server, message)
    assert stream.ending is not None
    assert stream.phase == "failed"
    assert stream.ending.facts["reason"] in reasons
    assert bool(stream.text()) == (message in {"truncated", "disconnected"})
    assert TEXT.startswith(stream.text())
    assert "Traceback" not in "".join(complaints.take())  # all of these were foreseen


async def test_a_cancel_ends_the_request_there(serve: Serve, aimock: str):
    server = await serve(ai_provider="openai", ai_base_url=aimock)
    answer = await server.post(PATH + "/init", {"message": "slow", "model": "gpt-4o"})
    id = answer.json()["sessionId"]
    stream = await server.hub.generations.find(id)
    await until(stream.text)
    assert (await server.ask("DELETE", f"{PATH}/{id}")).json()["phase"] == "cancelled"
    await until(lambda: not server.hub.generations._tasks)
    assert TEXT.startswith(stream.text())
    assert stream.text() != TEXT
