"""Flask: its login, and a browser that hears what a view publishes."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.frameworks.conftest import Visitor
from tests.frameworks.guide import Guide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

FRAMEWORK = "flask"


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
    await expect(bob.locator("#heard li")).to_have_text(["ada greets you", "ada ordered for 99.50"])
    await expect(ada.locator("#heard li")).to_have_text(["ada ordered for 99.50"])


OPENED = """new Promise((done) => {
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/notifications/ws", "hub.v1.json");
    socket.onmessage = ({ data }) => done(JSON.parse(data).op);
    socket.onclose = () => done("closed");
})"""


async def test_a_websocket_comes_through_by_the_login(site: Guide, visitor: Visitor) -> None:
    ada = await logged_in(await visitor(), site.url, "ada")
    assert await ada.evaluate(OPENED) == "hub.open"


async def test_who_has_logged_out_is_refused_by_the_hub(site: Guide, visitor: Visitor) -> None:
    ada = await logged_in(await visitor(), site.url, "ada")
    await ada.click("text=Log out")
    await expect(ada.locator("text=Log in")).to_be_visible()
    assert await ada.evaluate("fetch('/notifications/subscribe?topic=orders').then(({ status }) => status)") == 401
    assert await ada.evaluate("fetch('/orders', { method: 'POST' }).then(({ status }) => status)") in {400, 401}
