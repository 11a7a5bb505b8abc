"""The client in a real Chromium where a proxy holds streams back, or lets no WebSocket through."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, WebSocket

from tests.browser.conftest import HOST, HubProcess
from tests.client.proxy import CuttingProxy

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

BOUND = 60_000
START = """
    async (asked) => {
      const { connect } = await import("/notifications/client/hub-client.js");
      window.seen = [];
      window.gaps = [];
      window.hub = connect({ topics: ["chat"], onGap: (gap) => gaps.push(gap), ...asked });
      hub.onAny(({ data }) => seen.push(data));
    }
"""


PUBLISH = """
    async (asked) => {
      const key = `key ${asked.number}`;
      for (;;) {
        try {
          await hub.publish(new Proxy(asked, {}), { topic: "chat", key, retry: 100 });
          return;
        } catch (error) {
          if (error.status !== 0) throw error;
        }
      }
    }
"""


class Unsteady(CuttingProxy):
    """A proxy that cuts connections at random bytes once it is asked to."""

    calm = True

    def begin(self) -> None:
        """Cut what there is, and all that follows."""
        self.calm = False
        for task in self._tasks:
            task.cancel()

    def _budget(self) -> int:
        return 10**9 if self.calm else super()._budget()


class Middlebox:
    """A proxy that reads each answer to its end before it passes it on, and knows nothing of WebSockets.

    Attributes:
        asked: how often each path was asked for; `upgrade` for WebSockets.
    """

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self.asked: Counter[str] = Counter()
        self.url = ""

    async def start(self) -> None:
        """Take connections."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def aclose(self) -> None:
        """End it."""
        assert self._runner is not None
        assert self._http is not None
        await self._runner.cleanup()
        await self._http.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        assert self._http is not None
        if "Upgrade" in request.headers:
            self.asked["upgrade"] += 1
            raise web.HTTPForbidden
        self.asked[request.path.rpartition("/")[2]] += 1
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        body = await request.read()
        url = f"{self._hub.url}{request.rel_url}"
        async with self._http.request(request.method, url, data=body, headers=headers) as answer:
            whole = await answer.read()
            kept = {"Content-Type": answer.headers.get("Content-Type", "text/plain"), "Cache-Control": "no-store"}
            return web.Response(status=answer.status, body=whole, headers=kept)


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub without the demo."""
    process = HubProcess(tmp_path / "hub.log", HUB_DEMO="0", HUB_LISTENERS="")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest_asyncio.fixture(loop_scope="session")
async def middlebox(site: HubProcess) -> AsyncIterator[Middlebox]:
    """What stands between the browser and the hub."""
    middlebox = Middlebox(site)
    await middlebox.start()
    try:
        yield middlebox
    finally:
        await middlebox.aclose()


Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser) -> AsyncIterator[Visit]:
    """Open pages with a line, all of one visitor; no script of theirs may fail."""
    context = await browser.new_context()
    complaints: list[str] = []

    async def visit(url: str, **asked: str) -> Page:
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # A page that the hub has answered: Chromium lets one that a test makes up open no WebSocket to this machine.
        await page.goto(f"{url}/healthz")
        await page.evaluate(START, asked)
        return page

    yield visit
    await context.close()
    assert complaints == []


async def is_open(page: Page) -> None:
    await page.wait_for_function("window.hub?.state.state === 'open' && hub.cursor !== undefined", timeout=BOUND)


async def has(page: Page, *data: Any) -> None:
    """Wait until the page has the last of *data*; then it has all of them, in this order, and nothing else."""
    await page.wait_for_function("(last) => seen.includes(last)", arg=data[-1], timeout=BOUND)
    assert await page.evaluate("[seen, gaps]") == [list(data), []]


async def test_a_proxy_that_holds_streams_back_is_polled_through_by_all_tabs_together(
    site: HubProcess, middlebox: Middlebox, tab: Visit
) -> None:
    pages = [await tab(middlebox.url, share="worker", wire="auto") for _ in range(2)]
    for page in pages:
        await is_open(page)
    assert middlebox.asked["subscribe"] == 2
    for number in range(1, 6):
        await site.post("/notifications/publish", {"topic": "chat", "data": number})
    for page in pages:
        await has(page, 1, 2, 3, 4, 5)
    assert await page.evaluate("hub.sharing") == "worker"
    assert middlebox.asked["subscribe"] == 2


async def test_a_page_that_sends_gets_a_websocket_and_loses_nothing(site: HubProcess, tab: Visit) -> None:
    page = await tab(site.url, share="none", wire="auto")
    sockets: list[str] = []
    opened = asyncio.Event()
    requests: list[str] = []

    def note(socket: WebSocket) -> None:
        sockets.append(socket.url)
        opened.set()

    page.on("websocket", note)
    page.on("request", lambda request: requests.append(request.url.rpartition("/")[2]))
    await is_open(page)
    await page.evaluate("hub.publish(1, { topic: 'chat' })")
    await asyncio.wait_for(opened.wait(), BOUND / 1000)
    await has(page, 1)
    assert requests.count("publish") == 1
    # Those that are sent before the socket has opened are requests; all of them come, once and in order.
    number = 1
    while number < 5 or requests.count("publish") == number:
        assert number < 1_000
        number += 1
        await page.evaluate("(number) => hub.publish(number, { topic: 'chat' })", number)
    await has(page, *range(1, number + 1))
    assert sockets == [f"{site.url.replace('http', 'ws')}/notifications/ws"]


async def test_where_websockets_are_blocked_as_well_the_page_polls_and_posts(middlebox: Middlebox, tab: Visit) -> None:
    page = await tab(middlebox.url, share="worker", wire="websocket")
    await is_open(page)
    await page.evaluate("hub.publish('by a request', { topic: 'chat' })")
    await has(page, "by a request")
    assert middlebox.asked["upgrade"] == 2
    assert middlebox.asked["publish"] == 1
    assert middlebox.asked["poll"] >= 1


async def test_what_a_page_publishes_while_its_connections_are_cut_comes_once(site: HubProcess, tab: Visit) -> None:
    proxy = Unsteady(site.port, seed=3, most=8_000)
    await proxy.start()
    try:
        page = await tab(proxy.url, share="worker", wire="websocket")
        await is_open(page)
        proxy.begin()
        for number in range(60):
            await page.evaluate(PUBLISH, {"number": number})
        await page.wait_for_function("seen.length >= 60", timeout=BOUND)
        kept = await site.get("/notifications/history?topic=chat&limit=1000")
        assert await page.evaluate("[seen, gaps]") == [[{"number": number} for number in range(60)], []]
        assert [each["data"]["number"] for each in kept["notifications"]] == list(range(60))
        assert proxy.cuts > 2
    finally:
        await proxy.aclose()


async def test_a_page_that_asks_too_much_is_told_so_and_a_closed_one_sends_nothing(
    site: HubProcess, tab: Visit
) -> None:
    page = await tab(site.url, share="none", wire="websocket")
    await is_open(page)
    codes = await page.evaluate("""
        async () => {
          const failed = (error) => error.code;
          const publish = (data) => hub.publish(data, { topic: "chat" }).then(() => "", failed);
          const first = Array.from({ length: 1_001 }, (_, number) => publish(number));
          hub.close();
          return [...new Set(await Promise.all(first)), await publish("late")];
        }
    """)
    assert codes == ["", "too_many_requests", "closed"]
    kept = await site.get("/notifications/history?topic=chat&limit=1000")
    assert sorted(each["data"] for each in kept["notifications"]) == list(range(1_000))


async def test_a_publish_outlives_the_tab_that_holds_the_socket(site: HubProcess, tab: Visit) -> None:
    leader, other = [await tab(site.url, share="leader", wire="websocket") for _ in range(2)]
    for page in (leader, other):
        await is_open(page)
    await other.evaluate(
        """async () => {
          window.sent = [];
          const publish = async (number) => sent.push((await hub.publish(number, { topic: "chat", retry: 100 })).id);
          window.done = (async () => { for (let n = 0; n < 300; n++) await publish(n); })();
          await publish("first");
        }"""
    )
    await leader.close()
    await other.evaluate("done")
    await other.wait_for_function("seen.length === 301", timeout=BOUND)
    kept = (await site.get("/notifications/history?topic=chat&limit=1000"))["notifications"]
    assert await other.evaluate("[seen, gaps]") == [[each["data"] for each in kept], []]
    assert await other.evaluate("sent.toSorted()") == sorted(each["id"] for each in kept)
    assert [each["data"] for each in kept if each["data"] != "first"] == list(range(300))
