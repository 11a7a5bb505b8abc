"""The chat of `docs/howto/rooms-and-presence.md`, in two windows of a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from .conftest import Visit
from .howto import Chat, check_size, served

HOWTO = "howto/rooms-and-presence.md"


@pytest_asyncio.fixture(loop_scope="session")
async def chat(tmp_path: Path) -> AsyncIterator[Chat]:
    async with served(HOWTO, tmp_path) as chat:
        yield chat


async def shows(page: Page, *lines: str) -> None:
    await expect(page.locator("#said")).to_have_text("".join(f"{line}\n" for line in lines), use_inner_text=True)


async def sees(page: Page, *users: str) -> None:
    await expect(page.locator("#here")).to_have_text(",".join(users))


async def say(page: Page, text: str) -> None:
    await page.get_by_role("textbox").fill(text)
    await page.get_by_role("button", name="Say").click()


@pytest.mark.asyncio(loop_scope="session")
async def test_two_windows_join_speak_leave_and_come_back(chat: Chat, visit: Visit) -> None:
    ann = await visit(f"{chat.url}/chat/ann")
    await sees(ann, "ann")
    await say(ann, "nobody here?")
    await shows(ann, "ann: nobody here?")
    bo = await visit(f"{chat.url}/chat/bo")
    await sees(bo, "ann", "bo")
    await sees(ann, "ann", "bo")
    await say(bo, "I <b>am</b>")
    await shows(ann, "ann: nobody here?", "bo: I <b>am</b>")
    await shows(bo, "bo: I <b>am</b>")

    await bo.goto("about:blank")
    await sees(ann, "ann")
    await say(ann, "where are you?")
    await bo.goto(f"{chat.url}/chat/bo")
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
    check_size(HOWTO)
