"""The pages of `docs/howto/use-hypermedia.md`, with the libraries as they are published, in a real Chromium."""

from __future__ import annotations

import asyncio
import fcntl
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from hub import HUB, Hub, NotificationService
from hub.connections.client_stream import CloseReason
from tests.snippets import snippet

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

HOWTO = "howto/use-hypermedia.md"
LIBRARIES = ("htmx4", "htmx2", "turbo", "datastar")
BY_FETCH = ("htmx4", "datastar")
"""Those without an `EventSource`: they close the streams of hidden tabs, and wait with timers of the page."""
HERE = Path(__file__).parent / "hypermedia"
INSTALLING = 100.0
PATIENCE = 30.0
DATASTAR = "starhtml/static/js/datastar-core.js"
SCRIPTS = {
    "htmx4.js": "htmx4/dist/htmx.js",
    "hx-sse.js": "htmx4/dist/ext/hx-sse.js",
    "htmx2.js": "htmx.org/dist/htmx.js",
    "sse.js": "htmx-ext-sse/sse.js",
    "turbo.js": "@hotwired/turbo/dist/turbo.es2017-esm.js",
    "datastar.js": "datastar.js",
}


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def _install(*command: str) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=INSTALLING, check=False)
    if done.returncode:
        _missing(f"{command[0]} failed: {done.stdout}{done.stderr}")


@pytest.fixture(scope="session")
def scripts() -> dict[str, Path]:
    """Return where each script of the libraries is, at the versions of the lock files."""
    if shutil.which("npm") is None:
        _missing("there is no npm on PATH: apt-get install npm")
    modules, lock, wanted = HERE / "node_modules", HERE / "package-lock.json", HERE / "datastar.txt"
    with lock.open() as versions:
        fcntl.flock(versions, fcntl.LOCK_EX)  # one worker installs them; the others wait, and find them there
        installed = modules / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            _install("npm", "ci", "--no-audit", "--no-fund", "--silent")
        datastar = modules / "datastar.js"
        if not datastar.exists() or datastar.stat().st_mtime < wanted.stat().st_mtime:
            # The wheel is for a newer Python than this may be; only a script of it is needed.
            target = ("--python-version", "3.14", "--only-binary", ":all:", "--no-deps", "--require-hashes")
            _install(sys.executable, "-m", "pip", "download", "-q", *target, "-d", str(modules), "-r", str(wanted))
            (wheel,) = modules.glob("starhtml-*.whl")
            with zipfile.ZipFile(wheel) as files:
                datastar.write_bytes(files.read(DATASTAR))
    return {name: modules / path for name, path in SCRIPTS.items()}


class Shop:
    """The application of the page on a free port.

    Attributes:
        gate: streams are opened while it is set.
        down: requests for a stream are answered with 502, as a proxy does while there is no hub.
        asked: by page, the requests for a stream: when they came, and with which cursor.
        finished: by page, how many of them had their answer read to its end.
    """

    def __init__(self, app: web.Application) -> None:
        self.app, self.url = app, ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False
        self.asked: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self.finished: Counter[str] = Counter()
        app.middlewares.append(self._note)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def aclose(self) -> None:
        self.gate.set()
        await self.hub.drain(0)
        await self._runner.cleanup()

    @web.middleware
    async def _note(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if "text/event-stream" in request.headers.get("Accept", ""):
            page = request.headers.get("Referer", "").rpartition("/")[2]
            cursor = request.headers.get("Last-Event-ID", "")
            self.asked[page].append((asyncio.get_running_loop().time(), cursor))
            await self.gate.wait()
            if self.down:
                return web.Response(status=502)
        return await handler(request)

    @property
    def hub(self) -> Hub:
        return self.app[HUB]

    @property
    def open(self) -> int:
        return len(self.hub.connections)

    async def order(self, name: str) -> None:
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.post(f"{self.url}/orders", data={"order": name}),
        ):
            pass


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns a true value; a client may be told to come back after seconds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the observed state has no event to wait for
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="session")
async def shop(tmp_path: Path, scripts: dict[str, Path]) -> AsyncIterator[Shop]:
    (tmp_path / "static").mkdir()
    for name, script in scripts.items():
        shutil.copy(script, tmp_path / "static" / name)
    for name in ("shop.py", *(f"{each}.html" for each in (*LIBRARIES, "answer4", "answer2"))):
        (tmp_path / name).write_text(snippet(HOWTO, name), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        shop = Shop(runpy.run_path("shop.py")["app"])
        await shop.start()
        try:
            yield shop
        finally:
            await shop.aclose()


Tab = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def tab(browser: Browser, shop: Shop) -> AsyncIterator[Tab]:
    """Open a page of the shop by its name."""
    contexts = []

    async def tab(name: str, *, clock: bool = False) -> Page:
        context = await browser.new_context()
        contexts.append(context)
        page = await context.new_page()
        page.on("requestfinished", lambda request: shop.finished.update([name] * ("/subscribe" in request.url)))
        if clock:
            await page.clock.install()
        await page.goto(f"{shop.url}/pages/{name}")
        return page

    yield tab
    for context in contexts:
        await context.close()


async def shows(page: Page, *orders: str) -> None:
    await expect(page.locator("#orders li")).to_have_text(list(orders))


async def hide(page: Page, *, hidden: bool) -> None:
    """Tell the scripts of *page* that its tab is hidden, or shown: a headless browser never hides one by itself."""
    await page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_page_misses_nothing(shop: Shop, tab: Tab, library: str) -> None:
    await shop.order("before <it>")
    shop.gate.clear()
    page = await tab(library)
    await shows(page, "before <it>")
    await until(lambda: shop.asked[library])
    await shop.order("rendered, but no stream is open")
    shop.gate.set()
    await shows(page, "before <it>", "rendered, but no stream is open")
    await shop.order("live")
    seen = ["before <it>", "rendered, but no stream is open", "live"]
    await shows(page, *seen)
    await until(lambda: shop.open == 1)
    await hide(page, hidden=True)
    if library in BY_FETCH:
        await until(lambda: shop.open == 0)
    await shop.order("while it was hidden")
    await hide(page, hidden=False)
    seen.append("while it was hidden")
    await shows(page, *seen)
    await until(lambda: shop.open == 1)
    for stream in list(shop.hub.connections):
        stream.abort(CloseReason.SLOW)
    await until(lambda: shop.open == 0)
    await shop.order("while it had no connection")
    seen.append("while it had no connection")
    await shows(page, *seen)
    await shop.order("live again")
    await shows(page, *seen, "live again")
    cursors = [cursor for _, cursor in shop.asked[library]]
    assert len(cursors) == (3 if library in BY_FETCH else 2)
    assert (cursors[0], all(cursors[1:])) == ("", True)


@pytest.mark.parametrize("library", LIBRARIES)
async def test_an_order_that_is_in_the_page_and_in_the_stream_is_shown_once(
    shop: Shop, tab: Tab, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = shop.hub.notifications.position
    await shop.order("in both")
    monkeypatch.setattr(NotificationService, "position", earlier)
    page = await tab(library)
    await until(lambda: shop.open == 1)
    await shop.order("live")
    await shows(page, "in both", "live")


@pytest.mark.parametrize("library", LIBRARIES)
async def test_what_the_502_of_a_proxy_does(shop: Shop, tab: Tab, library: str) -> None:
    page = await tab(library)
    await until(lambda: shop.open == 1)
    await shop.order("before")
    await shows(page, "before")
    shop.down = True
    for stream in list(shop.hub.connections):
        stream.abort(CloseReason.SLOW)
    await until(lambda: len(shop.asked[library]) == 2)
    shop.down = False
    await shop.order("after")
    if library == "turbo":
        await page.wait_for_function("document.querySelector('turbo-stream-source').streamSource.readyState === 2")
    else:
        # htmx 2 makes another `EventSource`, which begins where the page began: what comes again takes its own place.
        await shows(page, "before", "after")
        await shop.order("later")
        await shows(page, "before", "after", "later")


async def test_a_draining_hub_is_not_stormed(shop: Shop, tab: Tab) -> None:
    for library in LIBRARIES:
        await tab(library)
    await until(lambda: shop.open == len(LIBRARIES))
    ended = asyncio.get_running_loop().time()
    await shop.hub.drain(0)
    await until(lambda: all(len(shop.asked[library]) >= 3 for library in LIBRARIES))
    for library in LIBRARIES:
        times = [ended, *(time for time, _ in shop.asked[library][1:])]
        waited = [later - earlier for earlier, later in pairwise(times)]
        # It is told to wait for a second at least; htmx 4 takes 30 % off, by chance.
        assert min(waited) > (0.69 if library == "htmx4" else 0.99), (library, waited)


@pytest.mark.parametrize("library", BY_FETCH)
async def test_a_full_hub_is_not_stormed_and_misses_nobody(shop: Shop, tab: Tab, library: str) -> None:
    """Here time is the page's own. That of an `EventSource` can't be hurried: see the draining hub."""
    async with aiohttp.ClientSession() as session, session.get(f"{shop.url}/notifications/subscribe"):
        shop.hub.connections.limit = 1
        page = await tab(library, clock=True)
        await until(lambda: shop.finished[library])
        await page.clock.fast_forward(6_900)  # 10 seconds are the least that it is told; htmx 4 takes up to 30 % off
        assert len(shop.asked[library]) == 1
        await shop.order("while there was no room")
        shop.hub.connections.limit = 0
        async with asyncio.timeout(PATIENCE):
            while len(shop.asked[library]) == 1:
                await page.clock.fast_forward(20_000)
    await shows(page, "while there was no room")
    assert len(shop.asked[library]) == 2


@pytest.mark.parametrize(("name", "event"), [("answer4", "htmx:sse:close"), ("answer2", "htmx:sseClose")])
async def test_an_answer_that_has_ended_ends_in_the_page(shop: Shop, browser: Browser, name: str, event: str) -> None:
    context = await browser.new_context()
    await context.add_init_script(
        f"addEventListener('{event}', ({{ detail }}) => {{ window.closed_because = detail.reason ?? detail.type; }})"
    )
    page = await context.new_page()
    await page.goto(f"{shop.url}/pages/{name}")
    await page.wait_for_function("window.closed_because === 'message'")
    said = await page.locator("#answer").inner_text()
    (generation,) = shop.hub.generations._streams.values()
    assert said == generation.text()
    assert len(shop.asked[name]) == 1
    await context.close()
