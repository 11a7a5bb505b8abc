"""The provider `openai` against llama.cpp: real tokens, real cancels, characters that are split across tokens."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.ai.conftest import listens, missing
from tests.ai.llama import FIRST_BYTE
from tests.ports import free_port
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.process import ROOT, STARTING
from tests.web.server import Server

PATH = "/ai/chat/stream"
CHARACTERS = "aé三词\N{GRINNING FACE}"
COUNT = 200
GRAMMAR = f"root ::= [{CHARACTERS}]{{{COUNT}}}"


def only(text: str) -> list[list[object]]:
    """What keeps the model from saying any byte that *text* does not have."""
    return [[FIRST_BYTE + byte, False] for byte in range(256) if byte not in text.encode()]


async def healthy(port: int) -> bool:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/health") as answer:
        return answer.status == 200


@pytest.fixture
async def llama(tmp_path: Path) -> AsyncIterator[str]:
    """The address of llama.cpp with a model of random weights."""
    for package in ("openai", "xllamacpp", "gguf"):
        if importlib.util.find_spec(package) is None:
            missing(f"the package {package}")
    port = free_port()
    log = (tmp_path / "llama.log").open("w")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.ai.llama", str(tmp_path / "tiny.gguf"), str(port)),
        cwd=ROOT,
        stdout=log,
        stderr=log,
    )
    log.close()
    try:
        await listens(process, port)
        async with asyncio.timeout(STARTING):
            while not await healthy(port):  # it listens before its model is loaded
                pass
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def server(serve: Serve, llama: str) -> Server:
    return await serve(ai_window=0, ai_provider="openai", ai_base_url=f"{llama}/v1", ai_model="tiny")


async def test_characters_that_are_split_across_tokens_arrive_whole(server: Server):
    # llama.cpp's grammars look at the lower six bits of a continuation byte only: what is no UTF-8 is ruled out here.
    wanted = {"message": "hi", "grammar": GRAMMAR, "logit_bias": only(CHARACTERS), "max_tokens": COUNT * 8}
    id = (await server.post(PATH + "/init", wanted)).json()["sessionId"]
    client = await server.client()
    await client.request("GET", f"{PATH}/{id}")
    assert await client.head() == 200
    events = await client.rest()
    assert [event.type for event in events[-3:]] == ["done", "message", "close"]
    deltas = [json.loads(event.data)["content"] for event in events[1:-3]]
    text = "".join(deltas)
    assert len(text) == COUNT
    assert set(text) <= set(CHARACTERS)
    assert len(deltas) > 1
    usage = json.loads(events[-3].data)["usage"]
    assert usage["completion_tokens"] > COUNT  # bytes, not characters
    stream = await server.hub.generations.find(id)
    assert stream.text() == text


async def test_a_cancel_stops_the_model(server: Server, tmp_path: Path):
    log = tmp_path / "llama.log"
    wanted = {"message": "hi", "ignore_eos": True, "logit_bias": only("abc"), "max_tokens": 30_000}
    id = (await server.post(PATH + "/init", wanted)).json()["sessionId"]
    stream = await server.hub.generations.find(id)
    await until(stream.text)
    assert "cancel task" not in log.read_text()
    assert (await server.ask("DELETE", f"{PATH}/{id}")).json()["phase"] == "cancelled"
    # The model does one thing at a time, and what it says to its log may wait for what it says next.
    another = (await server.post(PATH + "/init", {"message": "hi", "max_tokens": 8})).json()["sessionId"]
    await (await server.hub.generations.find(another)).ended()
    await until(lambda: "cancel task" in log.read_text())
    assert len(stream.text()) < 30_000


async def test_what_the_model_is_not_asked_well_is_refused(server: Server, complaints: Any):
    id = (await server.post(PATH + "/init", {"message": "hi", "grammar": "root ::= ["})).json()["sessionId"]
    stream = await server.hub.generations.find(id)
    await stream.ended()
    assert stream.ending is not None
    assert stream.ending.facts["reason"] == "invalid_request"
    complaints.take()
