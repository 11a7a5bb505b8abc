"""The npm package `socket.io-client` chats in two rooms, by each transport."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.socketio.test_socketio import SECRET, token, url
from tests.web.conftest import Complaints, Serve

HERE = Path(__file__).parent
LOCK = HERE / "package-lock.json"
INSTALLING = 100.0  # seconds, less than a test may take


def missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node.js; the package is there too. One worker installs it; the others wait, and find it there."""
    path = shutil.which("node")
    if path is None or shutil.which("npm") is None:
        missing("there is no node and npm on PATH: apt-get install npm")
    with LOCK.open() as versions:
        fcntl.flock(versions, fcntl.LOCK_EX)
        done = HERE / "node_modules" / ".package-lock.json"
        if not done.exists() or done.stat().st_mtime < LOCK.stat().st_mtime:
            command = ["npm", "ci", "--no-audit", "--no-fund", "--silent"]
            ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=INSTALLING, check=False)
            if ran.returncode:
                missing(f"npm ci failed: {ran.stdout}{ran.stderr}")
    return path


@pytest.mark.parametrize("transports", ["polling", "websocket", "polling,websocket"])
async def test_two_people_chat_in_two_rooms(serve: Serve, complaints: Complaints, node: str, transports: str) -> None:
    async def authorize_join(identity: object, room: str, publish: bool) -> bool:
        return room != "closed"

    server = await serve(socketio=True, jwt_secret=SECRET, setup={"authorize_join": authorize_join})
    process = await asyncio.create_subprocess_exec(
        *(node, str(HERE / "chat.mjs"), url(server), transports, token("ann"), token("bob")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    both = [["room/lobby", "hello"], ["room/garden", "hi"]]
    last = ["room/garden", "for both"]
    assert json.loads(said) == {
        "transports": [transports.rsplit(",", maxsplit=1)[-1]] * 2,
        "heard": [[*both, ["room/lobby", "only for me"], last], [*both, last]],
        "closed": "forbidden",
    }
    await server.deserted()
    assert complaints.take() == []
