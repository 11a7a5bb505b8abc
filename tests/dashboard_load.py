"""Look at a hub with 10,000 streams under load, and hold what the page says against what `hub load` counts.

    python -m tests.dashboard_load [STREAMS]

It takes about a minute, and prints what the hub's process used of a processor while nobody looked, and while a browser
did. Chromium has to be installed, and as many files must be allowed as there are streams.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import Page, async_playwright, expect

from hub.file_limit import raise_file_limit
from tests.browser.conftest import FLAGS, ROOT, HubProcess
from tests.browser.test_dashboard import SHIFTS

STREAMS = 10_000
SECONDS = 15
RATE = 2


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def load(hub: HubProcess, streams: int, report: Path) -> asyncio.subprocess.Process:
    """Put load on *hub*: so many streams that all get the same."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hub", "load", "--url", hub.url, "--connections", str(streams)),
        *("--rate", str(RATE), "--seconds", str(2 * SECONDS), "--report", str(report)),
        cwd=ROOT,
    )


async def used(hub: HubProcess, seconds: float) -> float:
    """Return which share of a processor the hub uses in so many seconds."""
    before, began = (await hub.get("/notifications/stats"))["cpu_seconds"], time.monotonic()
    await asyncio.sleep(seconds)
    after = (await hub.get("/notifications/stats"))["cpu_seconds"]
    share: float = (after - before) / (time.monotonic() - began)
    return share


async def watch(page: Page, hub: HubProcess, streams: int) -> None:
    """Look at the overview, then at the streams, and check what is there."""
    await page.goto(f"{hub.url}/dashboard")
    first = page.get_by_test_id("chart-streams").locator(".legend span").first
    shown = f"{streams / 1000:g}K" if streams >= 10_000 else f"{streams:,}"
    await expect(first).to_have_text(f"Subscriptions {shown}")
    overview = await used(hub, SECONDS / 3)
    await page.locator('nav a[href="#streams"]').click()
    await expect(page.get_by_test_id("streams").locator("tbody tr")).to_have_count(50)
    await page.get_by_test_id("streams-next").click()
    await expect(page.get_by_test_id("streams-page")).to_have_text("51 to 100")
    table = await used(hub, SECONDS / 3)
    shifted = await page.evaluate(SHIFTS)
    say(f"looked at: {overview:.1%} of a core; the table of streams: {table:.1%}; layout shift {shifted:.3f}")
    assert shifted < 0.05


async def main() -> None:
    """Run it, and fail where the two disagree."""
    raise_file_limit()
    streams = int(sys.argv[1]) if sys.argv[1:] else STREAMS
    chromium = shutil.which("chromium")
    assert chromium, "there is no Chromium on PATH: apt-get install chromium"
    expect.set_options(timeout=90_000)
    with tempfile.TemporaryDirectory() as folder:
        hub, report = HubProcess(Path(folder) / "hub.log", HUB_DASHBOARD="1", HUB_DEMO="0"), Path(folder) / "load.json"
        try:
            await hub.start()
            running = await load(hub, streams, report)
            while (await hub.get("/notifications/stats"))["connections"] < streams:  # noqa: ASYNC110 - it says nothing
                await asyncio.sleep(0.2)
            say(f"{streams:,} streams, {RATE} publishes a second; nobody looks: {await used(hub, SECONDS / 3):.1%}")
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, "--no-sandbox"])
                page = await browser.new_page()
                await watch(page, hub, streams)
                assert await running.wait() == 0
                counted = json.loads(report.read_text())
                await page.locator('nav a[href="#overview"]').click()
                # One more goes to all of them, which tells them that it was the last.
                said = f"{counted['delivered'] + streams:,} since the start"
                await expect(page.locator("#tile-delivered-detail")).to_have_text(said)
                say(f"the page and hub load agree: {counted['delivered']:,} deliveries")
                await browser.close()
        finally:
            hub.kill()


if __name__ == "__main__":
    asyncio.run(main())
