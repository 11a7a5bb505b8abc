"""The hooks for React and the composables for Vue: packed, installed into fresh applications, in Chromium."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import aiohttp
import jwt
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect

from tests.browser.conftest import HOST, ROOT, HubProcess, Visit
from tests.chance import TORTURE
from tests.snippets import snippet
from tests.web.test_client_files import installed

# The first test of an application installs and builds it.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

APPS = Path(__file__).parent / "components"
DOCUMENTED = {
    "react": ("Orders.tsx", "Unread.tsx", "People.tsx", "Chat.tsx"),
    "vue": ("Page.vue", "Orders.vue", "Unread.vue", "People.vue", "Chat.vue"),
}
CLIENT = ROOT / "hub" / "web" / "client"
# Vue's own declarations take three quarters of the time of its type check.
UNCHECKED = {} if TORTURE else {"vue": ("--", "--skipLibCheck")}
SECRET = "a secret of the tests, which has more than 32 bytes"
STEP = 100.0  # seconds for one command
BOUND = 60.0


def run(folder: Path, *command: str, **environ: str) -> str:
    """Run *command* in *folder*, and return what it says."""
    environment = {**os.environ, "NO_COLOR": "1", **environ}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=STEP, check=False, env=environment
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def missing(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def install(folder: Path) -> None:
    """Install what the lock file of *folder* names."""
    run(folder, "npm", "ci", "--no-audit", "--no-fund", "--silent")


def pack(folder: Path) -> Path:
    """Build the npm package from a copy of the sources in *folder*, and return it."""
    client = folder / "client"
    shutil.rmtree(client, ignore_errors=True)
    shutil.copytree(CLIENT, client, ignore=shutil.ignore_patterns("node_modules", "dist"))
    with installed("npm") as modules:
        (client / "node_modules").symlink_to(modules)
        run(client, "npm", "pack", "--silent", "--pack-destination", str(folder))
        (package,) = folder.glob("hub-client-*.tgz")
        run(client, "npx", "publint", "--strict", str(package))
    return package


def build(app: str, folder: Path, package: Path) -> None:
    """Make a fresh application in *folder*, with the *package*, as its users would."""
    shutil.copytree(APPS / app, folder, ignore=shutil.ignore_patterns("node_modules"))
    # What the guides show has the right types, too.
    (folder / "src" / "guide").mkdir()
    for name in DOCUMENTED[app]:
        (folder / "src" / "guide" / name).write_text(snippet(f"howto/use-from-{app}.md", name))
    install(folder)
    run(folder, "npm", "install", "--no-save", "--no-audit", "--no-fund", "--silent", str(package))
    run(folder, "npm", "run", "check", "--silent", *UNCHECKED.get(app, ()))
    run(folder, "npm", "run", "build", "--silent")
    # A development build is another React: under StrictMode it mounts everything twice.
    development = ("--mode", "development", "--outDir", "dev")
    run(folder, "npm", "run", "build", "--silent", "--", *development, NODE_ENV="development")
    run(folder, "npm", "run", "render", "--silent")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the applications, which are made once for all workers of a test run."""
    if shutil.which("npm") is None:
        missing("there is no npm on PATH: apt-get install npm")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "components"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "package").exists():
            package = pack(folder)
            (folder / "package").write_text(str(package))
    return folder


@pytest.fixture(params=["react", "vue"])
def app(request: pytest.FixtureRequest, built: Path) -> Path:
    """An application, type-checked, built, and rendered on a server."""
    name: str = request.param
    folder = built / name
    with (built / f"lock-{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "server").exists():
            shutil.rmtree(folder, ignore_errors=True)
            build(name, folder, Path((built / "package").read_text()))
    return folder


class Site:
    """An application where its users find it, beside a hub of another origin."""

    def __init__(self, app: Path, hub: HubProcess, url: str) -> None:
        self.hub, self.url = hub, url
        self.rendered = run(app, "node", "server/server.js").strip()
        """What the server sends of it, before any script has run."""

    def page(self, user: str = "ann", folder: str = "dist") -> str:
        """Return the URL of the page of *user*."""
        return f"{self.url}/{folder}/?{urlencode({'hub': self.hub.url, 'as': token(user)})}"

    async def publish(self, *numbers: int, topic: str = "orders", type: str | None = "order.created") -> None:
        draft = {"topic": topic} | ({"type": type} if type else {})
        drafts = [draft | {"data": {"number": number}} for number in numbers]
        async with admin() as session, session.post(f"{self.hub.url}/notifications/publish", json=drafts):
            pass

    async def stats(self) -> dict[str, Any]:
        async with admin() as session, session.get(f"{self.hub.url}/notifications/stats") as answer:
            stats: dict[str, Any] = await answer.json()
            return stats

    async def has_streams(self, number: int) -> None:
        """Wait until the hub has so many streams."""
        deadline = time.monotonic() + BOUND
        while (found := (await self.stats())["connections"]) != number:
            assert time.monotonic() < deadline, f"{found} streams instead of {number}"
            await asyncio.sleep(0.05)


def token(user: str) -> str:
    rights = {"subscribe": ["orders", "news"], "presence": True}
    return jwt.encode({"sub": user, "exp": time.time() + 600, "hub": rights}, SECRET)


def admin() -> aiohttp.ClientSession:
    rights = {"publish": ["**"], "admin": True}
    claims = {"sub": "admin", "exp": time.time() + 600, "hub": rights}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET)}"}
    return aiohttp.ClientSession(raise_for_status=True, headers=headers)


@pytest_asyncio.fixture(loop_scope="session")
async def site(app: Path, tmp_path: Path) -> AsyncIterator[Site]:
    """The application and a hub."""
    server = web.Application()
    runner = web.AppRunner(server)
    pages: dict[str, str] = {}

    async def index(request: web.Request) -> web.Response:
        return web.Response(text=pages[request.match_info["folder"]], content_type="text/html")

    server.router.add_get("/{folder:dist|dev}/", index)
    server.router.add_static("/assets", app / "dist" / "assets")
    server.router.add_static("/dev/assets", app / "dev" / "assets")
    await runner.setup()
    hub: HubProcess | None = None
    try:
        await web.TCPSite(runner, HOST, 0).start()
        url = f"http://{HOST}:{runner.addresses[0][1]}"
        hub = HubProcess(
            tmp_path / "hub.log",
            HUB_DEMO="0",
            HUB_LISTENERS="",
            HUB_JWT_SECRET=SECRET,
            HUB_CORS_ORIGINS=url,
            HUB_AI_PROVIDER="simulated",
            HUB_AI_SIMULATED_TOKENS="120",
            HUB_AI_SIMULATED_RATE="60",
        )
        await hub.start()
        site = Site(app, hub, url)
        for folder in ("dist", "dev"):
            html = (app / folder / "index.html").read_text().replace("<!--rendered-->", site.rendered)
            pages[folder] = html.replace('"/assets/', '"/dev/assets/') if folder == "dev" else html
        yield site
    finally:
        if hub is not None:
            hub.kill()
        await runner.cleanup()


async def is_open(page: Page) -> None:
    await expect(page.get_by_test_id("state")).to_have_text("open")


async def shows(page: Page, what: str, text: str) -> None:
    await expect(page.get_by_test_id(what)).to_have_text(text)


async def click(page: Page, button: str) -> None:
    await page.get_by_role("button", name=button, exact=True).click()


async def test_a_page_that_a_server_has_rendered_comes_alive(site: Site, visit: Visit) -> None:
    assert '<p data-testid="state">connecting</p><p data-testid="orders"></p>' in site.rendered
    page = await visit(site.page())
    await is_open(page)
    await shows(page, "refused", "forbidden")
    await site.publish(1, 2, 3, 4)
    await site.publish(10, type="order.paid")
    await site.publish(100, topic="news")
    await site.publish(5)
    await shows(page, "orders", "3 4 5")
    await shows(page, "total", "25")
    await click(page, "clear")
    await shows(page, "orders", "")
    stats = await site.stats()
    assert (stats["connections"], stats["connects"]) == (1, 1)
    # The bundler has found the script of the worker, or the line would be in the page.
    assert await page.evaluate(
        "async () => (await navigator.locks.query()).held.some((lock) => lock.name.endsWith(' worker'))"
    )


async def test_components_that_mount_twice_open_one_stream(site: Site, visit: Visit) -> None:
    page = await visit(site.page(folder="dev"))
    await is_open(page)
    await site.publish(1, 2)
    await shows(page, "orders", "1 2")
    await shows(page, "total", "3")
    assert (await site.stats())["connects"] == 1


async def test_what_no_component_shows_is_closed(site: Site, visit: Visit) -> None:
    page = await visit(site.page())
    await is_open(page)
    await site.publish(1)
    await shows(page, "orders", "1")
    await click(page, "show")
    await site.has_streams(0)
    await site.publish(2)
    await click(page, "show")
    await is_open(page)
    await site.publish(3)
    await shows(page, "orders", "3")
    await shows(page, "total", "3")


async def test_another_user_gets_a_stream_and_lists_of_their_own(site: Site, visit: Visit) -> None:
    page = await visit(site.page())
    await is_open(page)
    await site.publish(1)
    await shows(page, "orders", "1")
    await click(page, "bob")
    await shows(page, "orders", "")
    await is_open(page)
    await site.has_streams(1)
    await site.publish(2)
    await shows(page, "orders", "2")
    assert (await site.stats())["connects"] == 2


async def test_another_topic_comes_on_the_same_stream(site: Site, visit: Visit) -> None:
    page = await visit(site.page())
    await is_open(page)
    await site.publish(1)
    await shows(page, "orders", "1")
    await click(page, "news")
    await shows(page, "orders", "")
    await expect(page.get_by_test_id("total")).to_have_text("1")
    # It is not known when the hub has taken the change: what was sent before does not come.
    number = 10
    while not await page.get_by_test_id("orders").text_content():
        await site.publish(number, topic="news")
        number += 1
    await site.publish(2)
    await shows(page, "total", "3")
    assert "2" not in (await page.get_by_test_id("orders").text_content() or "").split()
    assert (await site.stats())["connects"] == 1


async def test_a_reload_goes_on_where_it_was(site: Site, visit: Visit) -> None:
    page = await visit(site.page())
    await is_open(page)
    await site.publish(1)
    await shows(page, "orders", "1")
    await page.goto("about:blank")
    await site.publish(2, 3)
    await page.goto(site.page())
    await shows(page, "orders", "2 3")
    await shows(page, "total", "5")
    await shows(page, "gaps", "0")


async def test_who_is_there_is_asked_for_when_a_component_wants_it(site: Site, visit: Visit) -> None:
    page = await visit(site.page())
    await is_open(page)
    await site.publish(1)
    await shows(page, "total", "1")
    await click(page, "people")
    await site.publish(2)
    await shows(page, "people", "ann")
    other = await visit(site.page("bob"))
    await is_open(other)
    await shows(page, "people", "ann bob")
    await other.close()
    await shows(page, "people", "ann")
    await site.publish(3)
    await shows(page, "total", "6")
    await shows(page, "orders", "1 2 3")
    await shows(page, "gaps", "0")


async def test_an_answer_grows_and_is_there_after_a_reload(site: Site, visit: Visit) -> None:
    page = await visit(site.page())
    await shows(page, "phase", "idle")
    await click(page, "ask")
    await shows(page, "phase", "growing")
    session = await page.get_by_test_id("session").text_content()
    assert session
    await page.reload()
    await shows(page, "phase", "done")
    await shows(page, "session", session)
    async with admin() as admins:
        headers = {"Authorization": f"Bearer {token('ann')}", "Accept": "application/json"}
        async with admins.get(f"{site.hub.url}/ai/chat/stream/{session}", headers=headers) as answer:
            kept = await answer.json()
    assert await page.get_by_test_id("answer").text_content() == kept["text"]
    await click(page, "ask")
    await shows(page, "phase", "growing")
    await expect(page.get_by_test_id("session")).not_to_have_text(session)
    await click(page, "stop")
    await shows(page, "phase", "cancelled")
