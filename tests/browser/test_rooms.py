"""The script of `docs/howto/change-topics.md`, in Chromium: rooms come, go, and survive a lost connection."""

from __future__ import annotations

import pytest

from tests.browser.conftest import HubProcess, Network, Visit, Weather
from tests.snippets import snippet

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = f"""<script type="module">
window.shown = [];
const show = (data) => shown.push(data);
{snippet("howto/change-topics.md", "rooms.js")}
Object.assign(window, {{ enter, leave, opened: () => connection }});
</script>"""


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
