"""The chat of `docs/howto/use-websockets.md`, in two windows of a real Chromium."""

from __future__ import annotations

import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect

from hub import HUB
from hub.connections.client_stream import StreamKind
from tests.snippets import snippet

from .conftest import Visit

HOWTO = "howto/use-websockets.md"
MOST_LINES = 40


@pytest_asyncio.fixture(loop_scope="session")
async def chat(tmp_path: Path) -> AsyncIterator[tuple[str, web.Application]]:
    """The address at which the chat is served, as its program says, and the application."""
    asked: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("chat.py", "chat.html"):
            (tmp_path / name).write_text(snippet(HOWTO, name), encoding="utf-8")
        patch.chdir(tmp_path)
        patch.setattr(web, "run_app", lambda app, **options: asked.update(options, app=app))
        runpy.run_path("chat.py", run_name="__main__")
        runner = web.AppRunner(asked["app"], access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, asked["host"], 0).start()
        try:
            yield f"http://{asked['host']}:{runner.addresses[0][1]}", asked["app"]
        finally:
            await asked["app"][HUB].drain(0)
            await runner.cleanup()


async def shows(page: Page, room: str, *lines: str) -> None:
    await expect(page.locator(f"#{room}")).to_have_text("".join(f"{line}\n" for line in lines), use_inner_text=True)


async def say(page: Page, room: str, text: str) -> None:
    await page.get_by_label("Room").select_option(room)
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Say").click()


@pytest.mark.asyncio(loop_scope="session")
async def test_two_windows_talk_in_two_rooms_over_one_socket_each(
    chat: tuple[str, web.Application], visit: Visit
) -> None:
    url, app = chat
    ann, bo = await visit(f"{url}/chat/ann"), await visit(f"{url}/chat/bo")
    for page in (ann, bo):
        await page.wait_for_function("form.onsubmit !== null")
    await say(ann, "tea", "one lump")
    await shows(bo, "tea", "ann: one lump")
    await say(bo, "coffee", "<b>two</b>")
    await shows(ann, "coffee", "bo: <b>two</b>")
    await shows(ann, "tea", "ann: one lump")
    assert {stream.kind for stream in app[HUB].connections} == {StreamKind.WEBSOCKET}
    assert len(app[HUB].connections) == 2

    # A page that is loaded again shows what was said since its user joined.
    await bo.reload()
    await shows(bo, "tea", "ann: one lump")
    await shows(bo, "coffee", "bo: <b>two</b>")
    await bo.wait_for_function("form.onsubmit !== null")
    await say(bo, "tea", "thanks")
    await shows(ann, "tea", "ann: one lump", "bo: thanks")


def test_the_whole_chat_has_less_than_forty_lines() -> None:
    lines = [line for name in ("chat.py", "chat.html") for line in snippet(HOWTO, name).splitlines() if line]
    assert len(lines) < MOST_LINES
    assert max(map(len, lines)) <= 140
