"""The two users of the demo page in a real Chromium: a message to one of them, and what the other gets of it."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Locator, Page, expect

from .conftest import HubProcess, Network, Visit, Weather

pytestmark = pytest.mark.asyncio(loop_scope="session")


def letters(page: Page) -> Locator:
    return page.get_by_test_id("letters").get_by_test_id("row")


async def follows(page: Page, *topics: str) -> Page:
    """Wait until the stream of *page* is open with these topics."""
    await expect(page.get_by_test_id("feed-topics")).to_have_text(
        "  ".join(["stock/*", "notifications", "news", "user/42", *topics])
    )
    await expect(page.get_by_test_id("feed-state")).to_have_attribute("data-state", "open")
    return page


async def log_in(page: Page, user: str) -> Page:
    await page.get_by_test_id(f"login-{user}").click()
    return await follows(page, f"user/{user}")


async def send(page: Page, text: str, to: str | None = None) -> None:
    if to is not None:
        await page.get_by_test_id("letter-to").select_option(to)
    await page.get_by_test_id("letter-text").fill(text)
    await page.get_by_test_id("letter-send").click()
    await expect(page.get_by_test_id("letter-answer")).to_contain_text("Accepted")


async def shows(page: Page, *texts: str) -> None:
    """Wait until the private messages shown are exactly these, the newest first."""
    await expect(letters(page)).to_have_text([re.compile(re.escape(text)) for text in texts])


async def marked(hub: HubProcess, *pages: Page) -> None:
    """Wait until all *pages* show an order that was sent after everything else."""
    answer = await hub.post("/orders", {"amount": 1})
    for page in pages:
        await expect(page.get_by_test_id("orders").get_by_test_id("row").first).to_contain_text(f"#{answer['id']} ")


async def test_a_message_to_one_user_is_live_there_and_nowhere_else(hub: HubProcess, visit: Visit) -> None:
    ann, bo, nobody = [await follows(await visit(hub.url)) for _ in range(3)]
    await expect(ann.get_by_test_id("letter-send")).to_be_disabled()
    await log_in(ann, "ann")
    await log_in(bo, "bo")
    await send(ann, "tea at four?")
    await shows(bo, "from Anntea at four?")
    await shows(ann, "to Botea at four?")
    await send(bo, "to myself", to="bo")
    await shows(bo, "from Boto myself", "tea at four?")
    await marked(hub, ann, bo, nobody)
    await shows(ann, "tea at four?")
    await shows(nobody)


async def test_what_came_before_the_login_and_during_a_cut_is_there(
    hub: HubProcess, network: Network, visit: Visit
) -> None:
    ann = await log_in(await follows(await visit(network.url)), "ann")
    await send(ann, "one")
    bo = await log_in(await follows(await visit(hub.url)), "bo")
    await shows(bo, "one")
    await send(bo, "first")
    await shows(ann, "first", "one")
    await network.become(Weather.CUT)
    await expect(ann.get_by_test_id("feed-state")).to_have_attribute("data-state", "waiting")
    await send(bo, "second")
    await network.become(Weather.FAIR)
    await shows(ann, "second", "first", "one")
    await ann.reload()
    await follows(ann, "user/ann")
    await shows(ann, "second", "first", "one")


async def test_a_logout_is_seen_by_all_tabs_of_the_browser(hub: HubProcess, visit: Visit) -> None:
    one = await log_in(await follows(await visit(hub.url)), "ann")
    two = await one.context.new_page()
    await two.goto(hub.url)
    await follows(two, "user/ann")
    await send(one, "to myself", to="ann")
    await shows(two, "to myself")
    await two.get_by_test_id("log-out").click()
    for page in (one, two):
        await follows(page)
        await expect(page.get_by_test_id("login-said")).to_have_text("Nobody is logged in here.")
        await shows(page)


async def test_to_become_the_other_user_shows_nothing_of_the_first(hub: HubProcess, visit: Visit) -> None:
    page = await log_in(await follows(await visit(hub.url)), "ann")
    await send(page, "only for ann", to="ann")
    await shows(page, "only for ann")
    await log_in(page, "bo")
    await shows(page)
    await log_in(page, "ann")
    await shows(page, "only for ann")


async def test_a_killed_hub_logs_nobody_out(hub: HubProcess, visit: Visit) -> None:
    page = await log_in(await follows(await visit(hub.url)), "ann")
    hub.kill()
    await expect(page.get_by_test_id("feed-state")).not_to_have_attribute("data-state", "open")
    await hub.start()
    await follows(page, "user/ann")
    await send(page, "still ann", to="ann")
    await shows(page, "still ann")


async def test_the_other_panel_is_refused_what_belongs_to_a_login(hub: HubProcess, visit: Visit) -> None:
    page = await follows(await visit(hub.url))
    await page.get_by_test_id("user-id").fill("ann")
    await page.get_by_test_id("user-follow").click()
    await expect(page.get_by_test_id("inbox-state")).to_have_attribute("data-state", "refused")
    await expect(page.get_by_test_id("user-said")).to_have_text("Ann has a login, and only that user may read this.")
    await expect(page.get_by_test_id("feed-state")).to_have_attribute("data-state", "open")
    await page.get_by_test_id("user-id").fill("43")
    await page.get_by_test_id("user-follow").click()
    await expect(page.get_by_test_id("inbox-state")).to_have_attribute("data-state", "open")


async def test_the_curl_line_that_is_refused_is_refused(hub: HubProcess, visit: Visit) -> None:
    page = await log_in(await follows(await visit(hub.url)), "bo")
    line = f"curl -N '{hub.url}/notifications/subscribe?topic=user/bo'"
    await expect(page.get_by_test_id("curl-private")).to_have_value(line)
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    assert b"log in as Bo" in said


async def test_a_phone_shows_it_without_scrolling_sideways(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url, viewport={"width": 360, "height": 740}, color_scheme="dark")
    await log_in(await follows(page), "ann")
    await send(page, "x" * 300, to="ann")
    await shows(page, "x" * 300)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await page.get_by_test_id("letters").evaluate("list => list.scrollWidth <= list.clientWidth")
