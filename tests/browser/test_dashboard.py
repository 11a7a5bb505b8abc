"""The dashboard in a real browser: it shows what is so, for everybody, and what its buttons do is done."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.access.jwt import SECRET
from tests.browser import npm
from tests.browser.conftest import ROOT, HubProcess, Visit
from tests.browser.readers import Readers

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

STREAMS = 200
TABS = ("overview", "streams", "topics", "people", "live", "rights")
PHONE = {"viewport": {"width": 390, "height": 844}}
SHIFTS = """() => new Promise((done) => new PerformanceObserver((seen) => done(seen.getEntries()
    .filter((each) => !each.hadRecentInput).reduce((sum, { value }) => sum + value, 0)))
    .observe({ type: "layout-shift", buffered: true }) || setTimeout(() => done(0), 500))"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HubProcess]:
    """A hub with a dashboard, for all tests of this module; nobody is asked who they are."""
    process = HubProcess(tmp_path_factory.mktemp("hub") / "hub.log", HUB_DASHBOARD="1", HUB_DEMO="0")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def readers(hub: HubProcess) -> AsyncIterator[Readers]:
    """Hundreds of open streams."""
    readers = Readers(hub.url)
    await asyncio.gather(*(readers.open("crowd", f"seat/{number}") for number in range(STREAMS)))
    yield readers
    await readers.aclose()


async def open_page(visit: Visit, hub: HubProcess, tab: str = "overview", **options: Any) -> Page:
    page = await visit(f"{hub.url}/dashboard#{tab}", **options)
    await expect(page.get_by_test_id("state")).to_have_text("Connected")
    return page


async def go(page: Page, tab: str) -> None:
    await page.locator(f'nav a[href="#{tab}"]').click()
    await expect(page.locator(f"#tab-{tab}")).to_be_visible()


async def test_the_figures_are_those_that_hub_load_counts(hub: HubProcess, visit: Visit, tmp_path: Path) -> None:
    page = await open_page(visit, hub)
    before = await hub.get("/notifications/stats")
    report = tmp_path / "report.json"
    load = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "load", "--url", hub.url, "--connections", str(STREAMS), "--rate", "20"),
        *("--seconds", "2", "--report", str(report)),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    there = before["connections"] + STREAMS
    first = page.get_by_test_id("chart-streams").locator(".legend span").first
    await expect(first).to_have_text(f"Subscriptions {there}")
    await expect(page.get_by_test_id("busiest").locator("li")).not_to_have_count(0)
    assert await load.wait() == 0
    counted = json.loads(report.read_text())
    assert counted["delivered"] == counted["expected"] == counted["published"] * STREAMS
    # One more goes to all of them, which tells them that it was the last.
    total = before["delivered"] + counted["delivered"] + STREAMS
    await expect(page.locator("#tile-delivered-detail")).to_have_text(f"{total:,} since the start")
    published = before["published"] + counted["published"] + 1
    await expect(page.locator("#tile-published-detail")).to_have_text(f"{published:,} since the start")
    await expect(page.get_by_test_id("log-count")).to_have_text(f"{published:,}")


async def test_the_button_ends_a_stream(hub: HubProcess, visit: Visit, readers: Readers) -> None:
    id = await readers.open("doomed")
    page = await open_page(visit, hub, "streams?topic=doomed")
    row = page.get_by_test_id("streams").locator(f'tr[data-key="{id}"]')
    await row.get_by_role("button").click()
    await expect(row.get_by_role("button")).to_have_text("Really?")
    await row.get_by_role("button").click()
    assert await readers.ended.get() == id
    await expect(row).to_have_count(0)
    await expect(page.get_by_test_id("streams-said")).to_contain_text(f"{id} has ended")
    await expect(page.locator("#streams-empty")).to_contain_text("No open stream is like that")


async def test_streams_are_paged_and_nothing_shifts(hub: HubProcess, visit: Visit, readers: Readers) -> None:
    page = await open_page(visit, hub, "streams")
    rows = page.get_by_test_id("streams").locator("tbody tr")
    await expect(rows).to_have_count(50)
    first = await rows.first.get_attribute("data-key")
    await page.get_by_test_id("streams-next").click()
    await expect(page.get_by_test_id("streams-page")).to_have_text("51 to 100")
    assert await rows.first.get_attribute("data-key") != first
    await page.evaluate("performance.clearResourceTimings()")
    for _ in range(2):  # refreshed twice, while notifications come
        await hub.post("/notifications/publish", [{"topic": "crowd", "data": 1}] * 50)
        async with page.expect_response(re.compile("/notifications/connections")):
            pass
    await expect(rows).to_have_count(50)
    assert await page.evaluate(SHIFTS) < 0.02


async def test_topics_lead_to_their_streams(hub: HubProcess, visit: Visit, readers: Readers) -> None:
    page = await open_page(visit, hub, "topics")
    rows = page.get_by_test_id("topics").locator("tbody tr")
    crowd = rows.filter(has_text="crowd")
    await expect(crowd.locator("td").nth(1)).to_have_text(str(STREAMS))
    await page.get_by_test_id("topics-q").fill("seat/19")
    await expect(rows).to_have_count(11)
    await rows.filter(has=page.get_by_text("seat/199", exact=True)).get_by_role("link", name="Streams").click()
    await expect(page.get_by_test_id("streams").locator("tbody tr")).to_have_count(1)
    await expect(page.get_by_test_id("streams-topic")).to_have_value("seat/199")


async def test_what_is_published_here_is_seen_here(hub: HubProcess, visit: Visit) -> None:
    page = await open_page(visit, hub, "live")
    await page.get_by_test_id("tail-topics").fill("tailed/*")
    await page.get_by_test_id("tail-start").click()
    await expect(page.get_by_test_id("tail-said")).to_have_text("Listening to tailed/*.")
    await page.get_by_test_id("publish-topic").fill("tailed/1")
    await page.get_by_test_id("publish-data").fill('{"html": "<b>not bold</b>"}')
    await page.get_by_test_id("publish").click()
    row = page.get_by_test_id("tail").locator("li")
    await expect(row).to_have_count(1)
    await expect(row.locator(".data")).to_have_text('{"html":"<b>not bold</b>"}')
    said = await page.get_by_test_id("publish-said").text_content()
    await expect(row.locator(".id")).to_have_text(str(said).removeprefix("Sent: "))
    await page.get_by_test_id("publish-topic").fill("tailed//1")
    await page.get_by_test_id("publish").click()
    await expect(page.get_by_test_id("publish-said")).to_contain_text("Not sent: ")
    await page.get_by_test_id("tail-start").click()
    await expect(page.get_by_test_id("tail-start")).to_have_text("Start")


def token(**rights: Any) -> str:
    return jwt.encode({"sub": "me", "exp": time.time() + 600, "hub": rights}, SECRET, algorithm="HS256")


async def test_it_is_for_administrators_and_explains_rights(browser: Browser, tmp_path: Path) -> None:
    guarded = HubProcess(tmp_path / "hub.log", HUB_DASHBOARD="1", HUB_DEMO="0", HUB_JWT_SECRET=SECRET)
    context = await browser.new_context()
    try:
        await guarded.start()
        page = await context.new_page()
        await page.goto(f"{guarded.url}/dashboard#rights")
        await expect(page.get_by_test_id("state")).to_have_text("No access")
        for said, state in (
            (token(), "you are none"),
            ("x", "token"),
            (token(admin=True, subscribe=["orders/**"]), ""),
        ):
            await page.get_by_test_id("login-token").fill(said)
            await page.get_by_test_id("login").click()
            await expect(page.locator("#login-said")).to_contain_text(state)
        await expect(page.get_by_test_id("state")).to_have_text("Connected")
        assert await page.evaluate("Object.values({...localStorage, ...sessionStorage}).join()") == ""
        await page.get_by_test_id("rights-user").fill("ann")
        await page.get_by_test_id("rights-topics").fill("user/ann\nroom/tea")
        await page.get_by_test_id("explain").click()
        verdicts = page.get_by_test_id("verdicts").locator("tbody tr")
        await expect(verdicts.nth(0).locator("td").nth(1)).to_have_text("yes it is the user's own topic")
        await expect(verdicts.nth(1).locator("td").nth(1)).to_contain_text("no room/tea: you may not read it")
        await page.locator("#tab-rights summary").click()
        await page.get_by_test_id("rights-subscribe").fill("user/**")
        await page.get_by_test_id("explain").click()
        await expect(verdicts.nth(0).locator("td").nth(1)).to_have_text("yes by the grant user/**")
        await page.goto(f"{guarded.url}/dashboard#people?topic=room/%25")
        await expect(page.locator("#presence-topic")).to_have_value("room/%")
        await go(page, "live")
        await page.get_by_test_id("tail-topics").fill("orders/1")
        await page.get_by_test_id("tail-start").click()
        await expect(page.get_by_test_id("tail-said")).to_have_text("Listening to orders/1.")
        await go(page, "people")
        await page.get_by_test_id("revoke-id").fill("me")
        await page.get_by_test_id("revoke").click()
        await page.get_by_test_id("revoke").click()
        await expect(page.get_by_test_id("state")).to_have_text("No access")
    finally:
        await context.close()
        guarded.kill()


async def check(page: Page, tab: str, rules: dict[str, Any]) -> None:
    """Check *tab* with axe, and that the window need not be wider."""
    await go(page, tab)
    if tab == "rights" and not await page.get_by_test_id("verdicts").is_visible():
        await page.get_by_test_id("rights-topics").fill("crowd\nroom/*")
        await page.locator("#rights-form summary").click()
        await page.get_by_test_id("explain").click()
        await expect(page.get_by_test_id("verdicts")).to_be_visible()
    if tab in {"streams", "topics"}:  # one row is like all others
        await page.get_by_test_id("streams-topic" if tab == "streams" else "topics-q").fill("seat/42")
        await expect(page.get_by_test_id(tab).locator("tbody tr")).to_have_count(1)
    found = await page.evaluate("rules => axe.run(rules)", rules)
    assert [(tab, each["id"], node["html"]) for each in found["violations"] for node in each["nodes"]] == []
    assert "color-contrast" in {each["id"] for each in found["passes"]}
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{tab} is wider than the window"


@pytest.mark.parametrize("look", ["desktop", "phone"])
async def test_everybody_can_use_it(hub: HubProcess, visit: Visit, readers: Readers, look: str) -> None:
    axe = (npm.installed() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    options: dict[str, Any] = PHONE if look == "phone" else {}
    page = await open_page(visit, hub, bypass_csp=True, **options)
    await page.evaluate(axe)
    await hub.post("/notifications/publish", {"topic": "crowd", "data": 1})
    await expect(page.get_by_test_id("busiest").locator("li")).not_to_have_count(0)
    for tab in TABS:
        await check(page, tab, {})
    await page.get_by_role("button", name="Dark").click()
    for tab in TABS if look == "desktop" else ():  # on a phone the colours are the same
        await check(page, tab, {"runOnly": ["color-contrast"]})


async def test_it_works_by_keyboard_and_keeps_the_colours_that_were_chosen(hub: HubProcess, visit: Visit) -> None:
    page = await open_page(visit, hub)
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    for _ in range(2):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await expect(page.locator('nav a[href="#topics"]')).to_be_focused()
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await page.keyboard.press("Enter")
    await expect(page.locator("#tab-topics")).to_be_visible()
    await page.get_by_role("button", name="Dark").focus()
    await page.keyboard.press("Space")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def test_a_hub_that_comes_back_is_live_again(visit: Visit, tmp_path: Path) -> None:
    own = HubProcess(tmp_path / "hub.log", HUB_DASHBOARD="1", HUB_DEMO="0")
    try:
        await own.start()
        page = await open_page(visit, own)
        own.kill()
        await expect(page.get_by_test_id("state")).to_have_text("Lost, trying again")
        await own.start()
        await expect(page.get_by_test_id("state")).to_have_text("Connected")
    finally:
        own.kill()
