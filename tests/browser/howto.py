"""A chat of the documentation as a whole: its program runs as it is printed, and its page is in a real Chromium."""

from __future__ import annotations

import runpy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hub import HUB
from tests.snippets import snippet

FILES = ("chat.py", "chat.html")
MOST_LINES, LONGEST_LINE = 40, 140


@dataclass
class Chat:
    """A chat that is served.

    Attributes:
        url: where, as its program says, but on a free port.
    """

    url: str
    app: web.Application


@asynccontextmanager
async def served(page: str, folder: Path) -> AsyncIterator[Chat]:
    """Serve the chat of *page*, of which the files are put into *folder*."""
    asked: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in FILES:
            (folder / name).write_text(snippet(page, name), encoding="utf-8")
        patch.chdir(folder)
        patch.setattr(web, "run_app", lambda app, **options: asked.update(options, app=app))
        runpy.run_path("chat.py", run_name="__main__")
        app = asked["app"]
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, asked["host"], 0).start()
        try:
            yield Chat(f"http://{asked['host']}:{runner.addresses[0][1]}", app)
        finally:
            await app[HUB].drain(0)
            await runner.cleanup()


def check_size(page: str) -> None:
    """Check that the chat of *page* has less than forty lines, and no long ones."""
    lines = [line for name in FILES for line in snippet(page, name).splitlines() if line]
    assert len(lines) < MOST_LINES
    assert max(map(len, lines)) <= LONGEST_LINE
