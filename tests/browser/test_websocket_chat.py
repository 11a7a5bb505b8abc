"""The chat of `docs/howto/use-websockets.md`, in two windows of a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from hub import HUB
from hub.connections.client_stream import StreamKind

from .conftest import Visit
from .howto import Chat, check_size, served

HOWTO = "howto/use-websockets.md"


@pytest_asyncio.fixture(loop_scope="session")
async def chat(tmp_path: Path) -> AsyncIterator[Chat]:
    async with served(HOWTO, tmp_path) as chat:
        yield chat


async def shows(page: Page, room: str, *lines: str) -> None:
    await expect(page.locator(f"#{room}")).to_have_text("".join(f"{line}\n" for line in lines), use_inner_text=True)


async def say(page: Page, room: str, text: str) -> None:
    await page.get_by_label("Room").select_option(room)
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Say").click()


@pytest.mark.asyncio(loop_scope="session")
async def test_two_windows_talk_in_two_rooms_over_one_socket_each(chat: Chat, visit: Visit) -> None:
    ann, bo = await visit(f"{chat.url}/chat/ann"), await visit(f"{chat.url}/chat/bo")
    for page in (ann, bo):
        await page.wait_for_function("form.onsubmit !== null")
    await say(ann, "tea", "one lump")
    await shows(bo, "tea", "ann: one lump")
    await say(bo, "coffee", "<b>two</b>")
    await shows(ann, "coffee", "bo: <b>two</b>")
    await shows(ann, "tea", "ann: one lump")
    assert {stream.kind for stream in chat.app[HUB].connections} == {StreamKind.WEBSOCKET}
    assert len(chat.app[HUB].connections) == 2

    # A page that is loaded again shows what was said since its user joined.
    await bo.reload()
    await shows(bo, "tea", "ann: one lump")
    await shows(bo, "coffee", "bo: <b>two</b>")
    await bo.wait_for_function("form.onsubmit !== null")
    await say(bo, "tea", "thanks")
    await shows(ann, "tea", "ann: one lump", "bo: thanks")


def test_the_whole_chat_has_less_than_forty_lines() -> None:
    check_size(HOWTO)
