"""Servers and clients of token streams that were not written here; `make test-ai` installs them."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from tests.web.conftest import complaints, serve
from tests.web.process import STARTING

__all__ = ["complaints", "serve"]

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"


def missing(what: str) -> NoReturn:
    """Skip the test, or the module, for want of *what*; on CI that is a failure."""
    line = f"{what} is missing: make test-ai"
    if os.environ.get("CI"):
        pytest.fail(line)
    pytest.skip(line, allow_module_level=True)


async def listens(process: asyncio.subprocess.Process, port: int) -> None:
    """Return when *process* listens on *port*."""
    async with asyncio.timeout(STARTING):
        while True:
            assert process.returncode is None, "it has ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await asyncio.sleep(0.01)


@pytest.fixture
def node() -> str:
    """The path of Node.js; the packages of package.json are there too."""
    path = shutil.which("node")
    if path is None:
        missing("Node.js")
    if not (MODULES / "ai").exists() or not (MODULES / "@copilotkit" / "aimock").exists():
        missing("tests/ai/node_modules")
    return path
