"""The script of `docs/howto/change-topics.md`, in Chromium: rooms come, go, and survive a lost connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route

from tests.browser.conftest import HubProcess, Network, Visit, Weather
from tests.snippets import snippet

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = f"""<script type="module">
window.shown = [];
const show = (data) => shown.push(data);
{snippet("howto/change-topics.md", "rooms.js")}
Object.assign(window, {{ enter, leave, opened: () => connection, inside: () => [...rooms] }});
</script>"""


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub without the demo, whose accounts may not read the rooms."""
    process = HubProcess(tmp_path / "hub.log", HUB_DEMO="0")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


async def test_the_script_loses_nothing_of_its_rooms(hub: HubProcess, network: Network, visit: Visit) -> None:
    async def send(topic: str, data: str) -> None:
        await hub.post("/notifications/publish", {"topic": topic, "data": data})

    async def shows(*data: str) -> None:
        await page.wait_for_function("wanted => shown.join() === wanted.join()", arg=list(data))

    page = await visit("about:blank")
    await page.route("**/rooms.html", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    await page.goto(f"{network.url}/rooms.html")
    await page.wait_for_function("window.opened?.()")
    await page.evaluate("enter('room/a')")
    await send("room/a", "1")
    await shows("1")
    first = await page.evaluate("opened()")
    await network.become(Weather.CUT)
    await send("room/a", "2")
    await send("orders", "3")
    await network.become(Weather.FAIR)
    await page.wait_for_function("before => opened() !== before", arg=first)
    await shows("1", "3", "2")  # the browser brings its own topic back, and the page adds the room
    await page.evaluate("leave('room/a')")
    await send("room/a", "4")
    await send("orders", "5")
    await shows("1", "3", "2", "5")


async def test_a_room_that_is_refused_keeps_no_other_out(hub: HubProcess, network: Network, browser: Browser) -> None:
    closed: set[str] = set()

    async def guard(route: Route) -> None:
        added = json.loads(route.request.post_data or "{}").get("add", [])
        refused = next((room for room in added if room in closed), None)
        if route.request.method != "PATCH" or refused is None:
            await route.continue_()
        else:
            problem = json.dumps({"status": 403, "code": "forbidden", "topic": refused})
            await route.fulfill(status=403, content_type="application/problem+json", body=problem)

    page = await browser.new_page()  # its console complains of what is refused, as it should
    await page.route("**/rooms.html", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    await page.route("**/notifications/connections/*", guard)
    await page.goto(f"{network.url}/rooms.html")
    await page.wait_for_function("window.opened?.()")
    closed.add("room/closed")
    entered = [await page.evaluate("enter", room) for room in ("room/a", "room/b", "room/closed", "room//none")]
    assert entered == [True, True, False, False]
    assert await page.evaluate("inside()") == ["room/a", "room/b"]
    closed.add("room/a")
    first = await page.evaluate("opened()")
    await network.become(Weather.CUT)
    await network.become(Weather.FAIR)
    await page.wait_for_function("before => opened() !== before", arg=first)
    await page.wait_for_function("inside().join() === 'room/b'")
    await hub.post("/notifications/publish", {"topic": "room/b", "data": "for b"})
    await page.wait_for_function("shown.join() === 'for b'")
    await page.close()
