"""The npm package `ws` reads, publishes, pings and closes over a WebSocket of the hub."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.socketio.test_npm_client import HERE, node
from tests.socketio.test_socketio import SECRET, token, url
from tests.web.conftest import Complaints, Serve

__all__ = ["node"]


@pytest.mark.parametrize("deflate", [False, True])
async def test_ws_gets_on_with_it(serve: Serve, complaints: Complaints, node: str, *, deflate: bool) -> None:
    server = await serve(jwt_secret=SECRET, setup={"routes": None}, websocket_deflate=deflate)
    address = f"ws{url(server).removeprefix('http')}/notifications/ws"
    process = await asyncio.create_subprocess_exec(
        *(node, str(HERE / "ws.mjs"), address, token("ann"), str(int(deflate))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = await process.stdout.readline()
            await server.hub.drain(0)
            rest, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said, errors.decode()
    assert json.loads(said) == {
        "protocol": "hub.v1.json",
        "extensions": "permessage-deflate" if deflate else "",
        "user": "ann",
        "pong": "are you there",
        "after": True,
        "same": True,
        "repeated": [False, True],
        "data": True,
        "refused": "forbidden",
        "left": [3001, ""],
        "wrong": 1003,
    }
    assert json.loads(rest) == [[1001, "shutdown"], "shutdown"]
    await server.deserted()
    assert complaints.take() == []
