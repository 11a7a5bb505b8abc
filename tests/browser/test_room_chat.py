"""The chat of `docs/howto/rooms-and-presence.md`, in two windows of a real Chromium."""

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
from tests.snippets import snippet

from .conftest import Visit

HOWTO = "howto/rooms-and-presence.md"
MOST_LINES = 40


@pytest_asyncio.fixture(loop_scope="session")
async def chat(tmp_path: Path) -> AsyncIterator[str]:
    """The address at which the chat is served, as its program says."""
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
            yield f"http://{asked['host']}:{runner.addresses[0][1]}"
        finally:
            await asked["app"][HUB].drain(0)
            await runner.cleanup()


async def shows(page: Page, *lines: str) -> None:
    await expect(page.locator("#said")).to_have_text("".join(f"{line}\n" for line in lines), use_inner_text=True)


async def sees(page: Page, *users: str) -> None:
    await expect(page.locator("#here")).to_have_text(",".join(users))


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox").fill(text)
    await page.get_by_role("button", name="Say").click()


@pytest.mark.asyncio(loop_scope="session")
async def test_two_windows_join_speak_leave_and_come_back(chat: str, visit: Visit) -> None:
    ann = await visit(f"{chat}/chat/ann")
    await sees(ann, "ann")
    await say(ann, "nobody here?")
    await shows(ann, "ann: nobody here?")
    bo = await visit(f"{chat}/chat/bo")
    await sees(bo, "ann", "bo")
    await sees(ann, "ann", "bo")
    await say(bo, "I <b>am</b>")
    await shows(ann, "ann: nobody here?", "bo: I <b>am</b>")
    await shows(bo, "bo: I <b>am</b>")

    await bo.goto("about:blank")
    await sees(ann, "ann")
    await say(ann, "where are you?")
    await bo.goto(f"{chat}/chat/bo")
    await shows(bo, "bo: I <b>am</b>", "ann: where are you?")
    await sees(ann, "ann", "bo")

    await bo.get_by_role("button", name="Leave").click()
    await expect(bo.locator("#here")).to_have_text("you have left")
    await sees(ann, "ann")
    await say(ann, "gone again")
    await shows(ann, "ann: nobody here?", "bo: I <b>am</b>", "ann: where are you?", "ann: gone again")
    await bo.reload()
    await sees(bo, "ann", "bo")
    await say(bo, "back")
    await shows(bo, "bo: back")


def test_the_whole_chat_has_less_than_forty_lines() -> None:
    lines = [line for name in ("chat.py", "chat.html") for line in snippet(HOWTO, name).splitlines() if line]
    assert len(lines) < MOST_LINES
    assert max(map(len, lines)) <= 140
