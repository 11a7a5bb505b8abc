"""A stranger with nothing but the description asks for everything that it allows, and for what it does not."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.access.keys import secret_key
from hub.access.signer import sign
from hub.connections.client_stream import CloseReason
from hub.web.deadlines import Deadlines
from hub.web.server import factory
from tests.access.jwt import SECRET
from tests.chance import TORTURE
from tests.web.conftest import Complaints, Serve
from tests.web.server import Server

SECONDS = 240.0  # on a busy machine; alone it takes a tenth of that
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 60)]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
    "ignored_auth",
)
SETTINGS: dict[str, Any] = {
    "events_api": True,
    "ai_provider": "simulated",
    "ai_simulated_first": 0,
    "ai_simulated_rate": 10_000,
    "ai_simulated_tokens": 3,
    "ai_total": 1_000,
}
CLAIMS = {"sub": "root", "hub": {"admin": True, "subscribe": ["**"], "publish": ["**"]}}


async def end_streams(server: Server) -> None:
    """End each stream as soon as it is open: a program that reads an answer to its end would wait for ever."""
    while True:
        for stream in list(server.hub.connections):
            stream.end(CloseReason.SHUTDOWN, 1_000)
        await asyncio.sleep(0.002)


async def listening(server: Server) -> asyncio.Server:
    """Listen as `hub serve` does, where what aiohttp refuses is a problem, too."""
    assert server.runner.server is not None
    deadlines = Deadlines(server.hub.metrics, header=30, body=30)
    return await asyncio.get_running_loop().create_server(factory(server.runner.server, deadlines), "127.0.0.1", 0)


# The coverage of a parameter or field is each of its limits, and what is beyond them.
ALL_PHASES = "examples,coverage,fuzzing"


async def schemathesis(server: Server, home: Path, *arguments: str, phases: str = ALL_PHASES) -> str:
    """Run it against *server*; return what it says if it finds fault, else nothing."""
    listener = await listening(server)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/openapi.json"
    bounds = ("--max-examples=3", "--seed=1", f"--phases={phases}", "--request-timeout=10")
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "run", url),
        *(f"--checks={','.join(CHECKS)}", *bounds, "--no-color", "--suppress-health-check=all", *arguments),
        cwd=home,
        env={name: value for name, value in os.environ.items() if not name.startswith("HUB_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    ending = asyncio.create_task(end_streams(server))
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        ending.cancel()
        listener.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode() if process.returncode else ""


@pytest.fixture
def only_of_malformed_requests(complaints: Complaints) -> Iterator[None]:
    """Let aiohttp log the requests that it refuses, and nothing else be logged."""
    yield
    assert [line for line in complaints.take() if not line.startswith("Error handling request from")] == []


@pytest.mark.usefixtures("only_of_malformed_requests")
async def test_it_finds_nothing_wrong_with_an_open_hub(serve: Serve, tmp_path: Path) -> None:
    server = await serve(**SETTINGS)
    phases = ALL_PHASES if TORTURE else "examples,fuzzing"  # the guarded hub gets them all
    assert await schemathesis(server, tmp_path, phases=phases) == ""
    assert server.hub.metrics.published > 10


@pytest.mark.usefixtures("only_of_malformed_requests")
async def test_it_finds_nothing_wrong_with_a_guarded_hub(serve: Serve, tmp_path: Path) -> None:
    server = await serve(setup={"routes": None}, jwt_secret=SECRET, **SETTINGS)
    token = sign(secret_key(SECRET), {**CLAIMS, "exp": int(time.time()) + 86_400})
    assert await schemathesis(server, tmp_path, f"--header=Authorization:Bearer {token}") == ""
    assert server.hub.metrics.published > 10
