"""Take the pictures of the demo page and of the dashboard that are in docs/images: `make screenshots`.

A hub of its own is started for each picture of the demo page, and somebody does what a visitor would do: place orders,
go offline and come back, write to Bo, ask a question. The dashboard shows a hub with a few hundred streams, for as long
as its charts need to have something to show. Chromium has to be installed, and a font with Chinese characters.
"""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.conftest import FLAGS, ROOT, HubProcess
from tests.browser.readers import Readers

IMAGES = ROOT / "docs" / "images"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PICTURES: dict[str, dict[str, Any]] = {
    "demo.png": {"viewport": DESKTOP},
    "demo-dark.png": {"viewport": DESKTOP, "color_scheme": "dark", "locale": "zh-CN"},
    "demo-phone.png": {"viewport": PHONE, "device_scale_factor": 2},
}
DASHBOARD: dict[str, dict[str, Any]] = {
    "dashboard.png": {"viewport": DESKTOP},
    "dashboard-dark.png": {"viewport": DESKTOP, "color_scheme": "dark"},
    "dashboard-phone.png": {"viewport": PHONE, "device_scale_factor": 2},
}
ENGLISH = ("The tea is ready.", "I am coming!", "Four o'clock, as always?", "Your order has arrived.")
CHINESE = ("茶已经泡好了。", "我马上来！", "还是四点钟吗？", "你的订单到了。")
"""What Bo writes, what Ann and Bo say in the room, and what user 42 is told."""
ANSWERS = {"HUB_AI_SIMULATED_TOKENS": "240", "HUB_AI_SIMULATED_RATE": "30"}


async def log_in(browser: Browser, url: str, user: str, options: dict[str, Any]) -> Page:
    """Return the page of *user*, who has joined the room."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    await page.goto(url)
    await page.get_by_test_id(f"login-{user}").click()
    await expect(page.get_by_test_id("feed-topics")).to_contain_text(f"user/{user}")
    await page.get_by_test_id("room-change").click()
    await expect(page.get_by_test_id("talk-send")).to_be_enabled()
    return page


async def say(page: Page, panel: str, text: str) -> None:
    """Write *text* in a panel, and send it."""
    await page.get_by_test_id(f"{panel}-text").fill(text)
    await page.get_by_test_id(f"{panel}-send").click()


async def act(hub: HubProcess, ann: Page, bo: Page, texts: tuple[str, str, str, str]) -> None:
    """Do on both pages what there is to show."""
    letter, coming, four, arrived = texts
    for amount in (1280, 42.25):
        await hub.post("/orders", {"amount": amount})
    await say(bo, "letter", letter)
    await say(ann, "talk", four)
    await expect(bo.get_by_test_id("talk").get_by_test_id("row")).to_have_count(1)
    await expect(ann.get_by_test_id("news").get_by_test_id("row")).not_to_have_count(0)
    await ann.get_by_test_id("leave").click()
    for amount in (7.5, 315.9):
        await hub.post("/orders", {"amount": amount})
    await hub.post("/notifications/publish", {"topic": "user/42", "data": {"message": arrived}})
    await say(bo, "talk", coming)
    await asyncio.sleep(4)  # so that some news and trades are missed, and the prices have a history
    await ann.get_by_test_id("leave").click()
    await expect(ann.locator("#talk .late")).to_have_count(1)
    await hub.post("/orders", {"amount": 64})
    await asyncio.sleep(1)
    await ann.get_by_test_id("chat-ask").click()
    answer = ann.get_by_test_id("chat-answer")
    await expect(answer).to_have_attribute("data-phase", "streaming")
    await asyncio.sleep(4)


async def take(browser: Browser, name: str, options: dict[str, Any], folder: Path) -> None:
    """Take one picture."""
    hub = HubProcess(folder / "hub.log", **ANSWERS)
    try:
        await hub.start()
        ann = await log_in(browser, hub.url, "ann", options)
        bo = await log_in(browser, hub.url, "bo", options)
        await act(hub, ann, bo, CHINESE if options.get("locale") == "zh-CN" else ENGLISH)
        await ann.evaluate("scrollTo(0, 0)")
        # All of it, so that the bar with the state stands where it does at first; a phone shows what fits on it.
        whole = options["viewport"] is DESKTOP
        if whole:
            await ann.locator("[data-code=stocks] summary").click()
            await expect(ann.locator("[data-code=stocks] code")).not_to_be_empty()
            height = await ann.evaluate("document.documentElement.scrollHeight")
            await ann.set_viewport_size({"width": DESKTOP["width"], "height": height})
        await ann.screenshot(path=IMAGES / name, animations="disabled")
        sys.stdout.write(f"{IMAGES / name}\n")
    finally:
        hub.kill()


async def be_busy(hub: HubProcess) -> None:
    """Publish to a few topics, more and less in turn, until this is cancelled."""
    topics = ("orders/berlin", "orders/lagos", "orders/osaka", "chat/lobby", "alerts")
    for second in range(10_000):
        number = round(6 + 5 * math.sin(second / 9) + random.uniform(-1, 1))
        for place in range(max(number, 1)):
            topic = topics[min(int(random.expovariate(0.7)), 4)]
            await hub.post("/notifications/publish", {"topic": topic, "data": {"message": "hello", "place": place}})
        await asyncio.sleep(0.7)


async def come_and_go(readers: Readers) -> None:
    """Open streams, first many, then one now and then."""
    for number in range(10_000):
        city = random.choice(("berlin", "lagos", "osaka"))
        await readers.open(f"orders/{city}", *random.choice((["chat/lobby"], ["alerts"], ["stock/*"], [])))
        await asyncio.sleep(0 if number < 240 else 0.25)


async def take_dashboard(browser: Browser, names: Collection[str], folder: Path) -> None:
    """Take the pictures of the dashboard that are in *names*, all of the same hub."""
    hub = HubProcess(folder / "hub.log", HUB_DASHBOARD="1")
    await hub.start()
    readers = Readers(hub.url)
    tasks = [asyncio.create_task(each) for each in (be_busy(hub), come_and_go(readers))]
    try:
        pages = {}
        for name in names:
            context = await browser.new_context(**DASHBOARD[name])
            pages[name] = await context.new_page()
            await pages[name].goto(f"{hub.url}/dashboard")
        await asyncio.sleep(100)  # so that the charts have a history
        for name, page in pages.items():
            whole = "phone" not in name
            await page.screenshot(path=IMAGES / name, animations="disabled", full_page=whole)
            sys.stdout.write(f"{IMAGES / name}\n")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await readers.aclose()
        hub.kill()


async def main() -> None:
    """Take the pictures that are named on the command line, or all."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium on PATH: apt-get install chromium fonts-noto-cjk")
    with tempfile.TemporaryDirectory() as folder:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, "--no-sandbox"])
            for name, options in PICTURES.items():
                if not sys.argv[1:] or name in sys.argv[1:]:
                    await take(browser, name, options, Path(folder))
            names = [name for name in DASHBOARD if not sys.argv[1:] or name in sys.argv[1:]]
            if names:
                await take_dashboard(browser, names, Path(folder))
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
