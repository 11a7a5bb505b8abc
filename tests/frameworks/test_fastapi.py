"""FastAPI: its login, tickets, a browser that hears what a view publishes; and a hub in its event loop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import aiohttp
import jwt
import pytest
from playwright.async_api import Page, expect

from hub.client import AsyncHubClient, Received
from tests.frameworks.conftest import REMEMBER, SERVERS, Visitor, outlived, prepare
from tests.frameworks.guide import Guide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

FRAMEWORK = "fastapi"


async def logged_in(page: Page, url: str, user: str) -> Page:
    await page.goto(url)
    await page.fill("[name=user]", user)
    await page.click("text=Log in")
    await expect(page.locator("#state")).to_have_text("open")
    return page


async def test_a_browser_hears_what_a_view_publishes_for_everybody_and_for_its_user(
    site: Guide, visitor: Visitor
) -> None:
    ada = await logged_in(await visitor(), site.url, "ada")
    bob = await logged_in(await visitor(), site.url, "bob")
    assert await ada.evaluate("fetch('/greet/bob', { method: 'POST' }).then(({ status }) => status)") == 202
    await ada.click("text=Order")
    await expect(bob.locator("#heard li")).to_have_text(["ada greets you", "ada ordered for 99.5"])
    await expect(ada.locator("#heard li")).to_have_text(["ada ordered for 99.5"])


async def test_who_is_not_logged_in_gets_no_ticket_and_no_stream(site: Guide, visitor: Visitor) -> None:
    page = await visitor()
    await page.goto(site.url)
    assert await page.evaluate("fetch('/ticket', { method: 'POST' }).then(({ status }) => status)") == 401
    assert await page.evaluate("fetch('/notifications/subscribe?topic=orders').then(({ status }) => status)") == 401
    await expect(page.locator("#state")).to_have_text("closed")


async def test_a_page_outlives_its_token_and_gets_what_it_has_missed(tmp_path: Path, visitor: Visitor) -> None:
    guide = Guide(FRAMEWORK, tmp_path)
    try:
        await asyncio.to_thread(prepare, guide)
        main = tmp_path / "main.py"
        text = main.read_text(encoding="utf-8")
        assert "token(user, 3600, " in text
        main.write_text(text.replace("token(user, 3600, ", "token(user, 12, "), encoding="utf-8")
        for each in SERVERS[FRAMEWORK]:
            await asyncio.to_thread(guide.serve, each)
        page = await visitor()
        await page.add_init_script(REMEMBER)
        await logged_in(page, guide.url, "ada")
        await outlived(page, lambda: page.click("text=Order"))
        await expect(page.locator("#heard li")).to_have_text(["ada ordered for 99.5"])
    finally:
        guide.close()


async def test_a_hub_in_the_loop_of_fastapi_sends_without_http_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    guide = Guide(FRAMEWORK, tmp_path)
    try:
        await asyncio.to_thread(prepare, guide)
        process = await asyncio.to_thread(guide.serve, "inside:app")
        secret = re.search(r"HUB_JWT_SECRET=(\S+)", (tmp_path / "secrets.sh").read_text(encoding="utf-8"))
        assert secret
        claims = {"sub": "ada", "exp": int(time.time()) + 600, "hub": {"subscribe": ["orders"]}}
        token = jwt.encode(claims, secret[1], algorithm="HS256")
        async with (
            asyncio.timeout(60),
            AsyncHubClient(guide.hub, token=token) as client,
            client.listen("orders") as stream,
            aiohttp.ClientSession(raise_for_status=True) as session,
        ):
            answer = await session.post(f"{guide.own}/orders", json={"id": 7})
            told = await answer.json()
            item = await anext(stream)
            assert isinstance(item, Received)
            assert (str(item.id), item.data, item.type) == (told["id"], {"id": 7}, "order.created")
            # The stream is open, and uvicorn ends all the same.
            os.killpg(process.pid, signal.SIGTERM)
            await asyncio.to_thread(process.wait, 20)
        assert "Application shutdown complete" in guide.log
        assert "Traceback" not in guide.log
    finally:
        guide.close()
