"""One line for all tabs: the client in a real Chromium, against a real hub, while tabs, networks and hubs end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import jwt
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Route

from tests.browser.conftest import HubProcess, Network, Weather
from tests.chance import examples

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

SECRET = "a secret of the tests, which has more than 32 bytes"
BOUND = 60_000
# What the handlers of this tab have had is kept beside its cursor, so that a reload shows what came twice.
PAGE = """
    <!doctype html><link rel="icon" href="data:,"><title>tab</title>
    <script type="module">
      import { connect } from "/notifications/client/hub-client.js";
      const asked = new URLSearchParams(location.search);
      const seen = window.seen = JSON.parse(sessionStorage.getItem("seen") ?? "[]");
      window.gaps = [];
      window.states = [];
      window.refused = [];
      const hub = window.hub = connect({
        topics: asked.getAll("topic"),
        share: asked.get("share") ?? "auto",
        ...(asked.has("user") ? { user: asked.get("user") } : {}),
        token: window.mint && (() => window.mint()),
        onGap: (gap) => gaps.push(gap),
        onState: ({ state, reason }) => states.push(reason ? `${state} ${reason}` : state),
        onRefused: (what) => refused.push(what),
      });
      hub.onAny(({ data }) => {
        seen.push(data);
        if (asked.has("keep")) sessionStorage.setItem("seen", JSON.stringify(seen));
      });
    </script>
"""

HANG = """
    () => new Promise((go) => setTimeout(go)).then(() => {
        const asked = new XMLHttpRequest();
        asked.open("GET", "/hang", false);
        asked.send();
    })
"""
"""Keeps the page from doing anything until somebody answers."""


class Tabs:
    """The tabs of one browser profile.

    Attributes:
        context: where they are.
        complaints: what went wrong in a script of theirs.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.complaints: list[str] = []

    async def open(self, *topics: str, share: str = "auto", keep: bool = False, user: str = "") -> Page:
        """Open a tab that follows *topics*, and wait until its line is open."""
        page = await self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        query = [("topic", topic) for topic in topics or ("orders",)] + [("share", share)] + [("keep", "1")] * keep
        query += [("user", user)] * bool(user)
        await page.goto(f"{self.url}/tab?{urlencode(query)}")
        await is_open(page)
        return page


async def is_open(page: Page) -> None:
    await page.wait_for_function("window.hub?.state.state === 'open' && hub.cursor !== undefined", timeout=BOUND)


async def has(page: Page, *data: Any) -> None:
    """Wait until the tab has the last of *data*; then it has all of them, in this order, and nothing else."""
    await page.wait_for_function("(last) => seen.includes(last)", arg=data[-1], timeout=BOUND)
    assert await page.evaluate("seen") == list(data)


class Publisher:
    """Publishes 1, 2, 3 … to `orders`, a hundred a second, until it is told to end."""

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self._ending = False
        self.sent = 0
        self._task = asyncio.create_task(self._publish())

    async def _publish(self) -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            while not self._ending:
                self.sent += 1
                body = {"topic": "orders", "data": self.sent}
                async with session.post(f"{self._hub.url}/notifications/publish", json=body):
                    pass
                await asyncio.sleep(0.01)

    async def more(self, number: int = 100) -> None:
        """Wait until so many more were sent."""
        wanted = self.sent + number
        while self.sent < wanted:
            assert not self._task.done(), self._task.exception()
            await asyncio.sleep(0.02)

    async def end(self) -> list[int]:
        """Return what was sent."""
        self._ending = True
        await self._task
        return list(range(1, self.sent + 1))


async def publish(hub: HubProcess, *data: Any, topic: str = "orders") -> None:
    for start in range(0, len(data), 1_000):
        await hub.post(
            "/notifications/publish", [{"topic": topic, "data": each} for each in data[start : start + 1_000]]
        )


async def streams(hub: HubProcess) -> int:
    return int((await hub.get("/notifications/stats"))["connections"])


async def number_of_streams(hub: HubProcess, number: int) -> None:
    """Wait until the hub has so many streams."""
    deadline = time.monotonic() + BOUND / 1000
    while (found := await streams(hub)) != number:
        assert time.monotonic() < deadline, f"{found} streams instead of {number}"
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub with a log that outlives it."""
    process = HubProcess(tmp_path / "hub.log", HUB_DEMO="0", HUB_LISTENERS="", HUB_LOG=f"sqlite:///{tmp_path}/hub.db")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest_asyncio.fixture(loop_scope="session")
async def tabs(browser: Browser) -> AsyncIterator[Callable[[str], Any]]:
    """Make browser profiles for a site; no script of theirs may fail."""
    made: list[Tabs] = []

    async def profile(url: str) -> Tabs:
        context = await browser.new_context()
        made.append(Tabs(context, url))

        async def answer(route: Route) -> None:
            await route.fulfill(body=PAGE, content_type="text/html")

        await context.route(f"{url}/tab?*", answer)
        return made[-1]

    yield profile
    for each in made:
        await each.context.close()
        assert each.complaints == []


async def crash(page: Page) -> None:
    """Have the process of the tab die."""
    crashed = asyncio.Event()
    page.on("crash", lambda _: crashed.set())
    session = await page.context.new_cdp_session(page)
    dying = asyncio.ensure_future(session.send("Page.crash"))
    await asyncio.wait_for(crashed.wait(), BOUND / 1000)
    dying.cancel()
    await asyncio.wait([dying])


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_eight_tabs_have_one_connection(site: HubProcess, tabs: Any, share: str) -> None:
    profile = await tabs(site.url)
    pages = [await profile.open("orders", share=share) for _ in range(8)]
    assert [await page.evaluate("hub.sharing") for page in pages] == [share] * 8
    await publish(site, *range(20))
    for page in pages:
        await has(page, *range(20))
    assert await streams(site) == 1
    # HTTP/1.1 has six connections for a host: with a stream in each tab, this would wait for ever.
    assert (
        await pages[-1].evaluate("fetch('/healthz', { signal: AbortSignal.timeout(60000) }).then((it) => it.status)")
        == 200
    )


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_nothing_is_lost_or_doubled_when_the_first_tab_is_closed_crashes_or_freezes(
    site: HubProcess, tabs: Any, share: str
) -> None:
    profile = await tabs(site.url)
    pages = [await profile.open("orders", share=share) for _ in range(6)]
    publisher = Publisher(site)
    await publisher.more()
    await pages[0].close()  # the leader, or the one that began the worker; the next one follows
    await publisher.more()
    await crash(pages[1])
    await publisher.more()
    frozen = await profile.context.new_cdp_session(pages[2])
    await frozen.send("Page.setWebLifecycleState", {"state": "frozen"})
    await publisher.more()
    sent = publisher.sent
    for page in pages[3:]:
        await page.wait_for_function("(last) => seen.includes(last)", arg=sent, timeout=BOUND)
    await frozen.send("Page.setWebLifecycleState", {"state": "active"})
    everything = await publisher.end()
    for page in pages[2:]:
        await has(page, *everything)
        assert await page.evaluate("gaps") == []
    await number_of_streams(site, 1)


async def test_a_leader_that_hangs_is_replaced(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    pages = [await profile.open("orders", share="leader") for _ in range(3)]
    await publish(site, 1)
    for page in pages:
        await has(page, 1)
    # No event tells of this: the page just does not go on.
    asked, enough = asyncio.Event(), asyncio.Event()

    async def answer(route: Route) -> None:
        asked.set()
        await enough.wait()
        await route.fulfill(body="")

    await profile.context.route("**/hang", answer)
    hanging = asyncio.ensure_future(pages[0].evaluate(HANG))
    await asyncio.wait_for(asked.wait(), BOUND / 1000)
    await publish(site, 2, 3)
    for page in pages[1:]:
        await has(page, 1, 2, 3)
    assert not hanging.done()
    enough.set()
    await hanging
    await publish(site, 4)
    for page in pages:
        await has(page, 1, 2, 3, 4)
    await number_of_streams(site, 1)


@pytest.mark.parametrize("share", ["worker", "leader", "none"])
async def test_a_reload_in_mid_stream_goes_on_where_the_handlers_were(site: HubProcess, tabs: Any, share: str) -> None:
    profile = await tabs(site.url)
    first = await profile.open("orders", share=share, keep=True)
    second = await profile.open("orders", share=share, keep=True)
    publisher = Publisher(site)
    for page in (first, second, first):
        await publisher.more(50)
        await page.reload()
        await is_open(page)
    await publisher.more(50)
    everything = await publisher.end()
    for page in (first, second):
        await has(page, *everything)
        assert await page.evaluate("gaps") == []


async def test_a_tab_comes_back_from_the_cache_of_the_browser(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    page = await profile.open("orders")
    await publish(site, 1)
    await has(page, 1)
    await page.goto(f"{site.url}/healthz")
    await publish(site, 2)
    await page.go_back()
    await publish(site, 3)
    # With the cache it is the page that was left; without it the page begins anew, and the cursor was kept.
    await page.wait_for_function("window.seen?.includes(3)", timeout=BOUND)
    assert [each for each in await page.evaluate("seen") if each != 1] == [2, 3]


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_what_was_sent_while_the_network_was_away_comes_after_it(site: HubProcess, tabs: Any, share: str) -> None:
    network = Network(site)
    await network.start()
    try:
        profile = await tabs(network.url)
        pages = [await profile.open("orders", share=share) for _ in range(2)]
        await publish(site, 1)
        await has(pages[0], 1)
        await network.become(Weather.CUT)
        await publish(site, *range(2, 200))
        for page in pages:
            await page.wait_for_function("hub.state.state !== 'open'", timeout=BOUND)
        await network.become(Weather.FAIR)
        for page in pages:
            await has(page, *range(1, 200))
    finally:
        await network.aclose()


async def test_a_hub_that_was_killed_is_found_again(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    pages = [await profile.open("orders") for _ in range(2)]
    await publish(site, 1)
    for page in pages:
        await has(page, 1)
    site.kill()
    for page in pages:
        await page.wait_for_function("hub.state.state === 'waiting'", timeout=BOUND)
    await site.start()
    await publish(site, 2, 3)
    for page in pages:
        await has(page, 1, 2, 3)
        assert await page.evaluate("gaps") == []


async def test_a_token_that_ends_is_renewed(tmp_path: Path, tabs: Any) -> None:
    hub = HubProcess(tmp_path / "hub.log", HUB_DEMO="0", HUB_LISTENERS="", HUB_JWT_SECRET=SECRET, HUB_JWT_LEEWAY="0")
    minted: list[str] = []

    def mint(user: str) -> str:
        rights = {"subscribe": ["orders"], "publish": ["orders"], "admin": user == "admin"}
        return jwt.encode({"sub": user, "exp": time.time() + (16 if user == "ann" else 600), "hub": rights}, SECRET)

    async def renew() -> str:
        minted.append(mint("ann"))
        return minted[-1]

    try:
        await hub.start()
        profile = await tabs(hub.url)
        await profile.context.expose_function("mint", renew)
        pages = [await profile.open("orders", "secret") for _ in range(2)]
        for page in pages:
            await page.wait_for_function("refused.length === 1", timeout=BOUND)
            assert await page.evaluate("refused") == [{"topics": ["secret"], "reason": "forbidden"}]
        headers = {"Authorization": f"Bearer {mint('admin')}"}
        async with aiohttp.ClientSession(hub.url, headers=headers, raise_for_status=True) as session:
            before, sent = len(minted), 0
            while len(minted) == before:
                sent += 1
                assert sent < 600, "the token has not been renewed"
                await session.post("/notifications/publish", json={"topic": "orders", "data": sent})
                await asyncio.sleep(0.1)
            for page in pages:
                await has(page, *range(1, sent + 1))
                assert await page.evaluate("gaps") == []
            assert (await (await session.get("/notifications/stats")).json())["connections"] == 1
    finally:
        hub.kill()


async def test_a_gap_is_told_to_the_tabs_that_have_one(tmp_path: Path, tabs: Any) -> None:
    hub = HubProcess(tmp_path / "hub.log", HUB_DEMO="0", HUB_LISTENERS="", HUB_RETAIN_COUNT="10")
    await hub.start()
    network = Network(hub)
    await network.start()
    try:
        profile = await tabs(network.url)
        busy, quiet = await profile.open("orders"), await profile.open("news")
        await publish(hub, 1)
        await publish(hub, "first", topic="news")
        await has(busy, 1)
        await has(quiet, "first")
        await network.become(Weather.CUT)
        await busy.wait_for_function("hub.state.state !== 'open'", timeout=BOUND)
        await publish(hub, *range(2, 40))
        await publish(hub, "second", topic="news")
        await network.become(Weather.FAIR)
        await has(busy, 1, *range(31, 40))
        assert [gap["reason"] for gap in await busy.evaluate("gaps")] == ["trimmed"]
        await has(quiet, "first", "second")
        assert await quiet.evaluate("gaps") == []
        await number_of_streams(hub, 1)
    finally:
        await network.aclose()
        hub.kill()


async def test_topics_come_and_go_on_the_open_line(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    one, other = await profile.open("orders"), await profile.open("news")
    await one.evaluate("hub.add('room/a', 'news')")
    assert await one.evaluate("hub.topics") == ["orders", "room/a", "news"]
    await publish(site, "a", topic="room/a")
    await publish(site, "b", topic="news")
    await has(one, "a", "b")
    await has(other, "b")
    await one.evaluate("hub.remove('news')")
    await publish(site, "c", topic="news")
    await publish(site, "d", topic="orders")
    await has(one, "a", "b", "d")
    await has(other, "b", "c")
    assert await streams(site) == 1


async def test_tabs_with_too_many_topics_for_one_line_have_two(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    one = await profile.open("orders", *(f"one/{each}" for each in range(99)))
    other = await profile.open("orders", *(f"other/{each}" for each in range(99)))
    assert [await page.evaluate("hub.sharing") for page in (one, other)] == ["worker", "none"]
    await publish(site, 1)
    await has(one, 1)
    await has(other, 1)
    assert await streams(site) == 2


@pytest.mark.parametrize("share", ["worker", "leader"])
async def test_tabs_of_different_users_share_nothing(site: HubProcess, tabs: Any, share: str) -> None:
    profile = await tabs(site.url)
    for user in ("ann", "bob", "ann"):
        await profile.open("orders", share=share, user=user)
    assert await streams(site) == 2


async def test_a_worker_that_cannot_be_loaded_is_replaced_by_a_leader(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    await profile.context.add_init_script("window.SharedWorker = class { constructor() { throw new Error('no'); } }")
    pages = [await profile.open("orders") for _ in range(2)]
    assert [await page.evaluate("hub.sharing") for page in pages] == ["leader"] * 2
    await publish(site, 1)
    for page in pages:
        await has(page, 1)
    assert await streams(site) == 1


async def test_a_page_that_may_have_neither_workers_nor_locks_has_a_line_of_its_own(
    site: HubProcess, tabs: Any
) -> None:
    profile = await tabs(site.url)
    # As in a sandboxed frame, or where the browser blocks the data of the site.
    await profile.context.add_init_script("""
        window.SharedWorker = class { constructor() { throw new DOMException("denied", "SecurityError"); } };
        LockManager.prototype.request = () => Promise.reject(new DOMException("denied", "SecurityError"));
    """)
    page = await profile.open("orders")
    assert await page.evaluate("hub.sharing") == "none"
    await publish(site, 1)
    await has(page, 1)


async def test_a_worker_of_another_version_is_left_to_its_own_tabs(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    await profile.context.add_init_script("""
        window.workers = 0;
        const script = "onconnect = ({ ports: [it] }) => { it.onmessage = () => it.postMessage({ is: 'here' }); };";
        const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
        window.SharedWorker = class extends SharedWorker { constructor(_, it) { super(url, it); workers += 1; } };
    """)
    pages = [await profile.open("orders") for _ in range(2)]
    for page in pages:
        assert await page.evaluate("[hub.sharing, workers]") == ["leader", 2]
    await publish(site, 1)
    for page in pages:
        await has(page, 1)
    assert await streams(site) == 1


RIGHTS = {"subscribe": ["orders", "news"], "publish": ["orders", "news"], "admin": True}


def minted(user: str, seconds: float = 600) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + seconds, "hub": RIGHTS}, SECRET)


class Minting:
    """Makes tokens for tabs.

    Attributes:
        whose: the user of each tab, and the seconds that its next token is good for; None: it gets none.
        number: how many each tab has got.
        first: what a tab has at first.
    """

    def __init__(self, profile: Tabs, user: str, seconds: float) -> None:
        self.whose: dict[Page, tuple[str, float] | None] = {}
        self.number: Counter[Page] = Counter()
        self.first = (user, seconds)
        profile.context.on("page", self._begin)

    def _begin(self, page: Page) -> None:
        self.whose[page] = self.first

    async def mint(self, source: Any) -> str:
        whose = self.whose[source["page"]]
        if whose is None:
            raise ValueError("nobody is logged in")
        self.number[source["page"]] += 1
        return minted(*whose)


@pytest_asyncio.fixture(loop_scope="session")
async def guarded(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that asks who somebody is, with a log that outlives it."""
    environ = {"HUB_DEMO": "0", "HUB_LISTENERS": "", "HUB_JWT_SECRET": SECRET, "HUB_JWT_LEEWAY": "0"}
    process = HubProcess(tmp_path / "hub.log", HUB_LOG=f"sqlite:///{tmp_path}/hub.db", **environ)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


def as_admin(hub: HubProcess) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {minted('admin')}"}
    return aiohttp.ClientSession(hub.url, headers=headers, raise_for_status=True)


async def users_are(admin: aiohttp.ClientSession, *users: str) -> None:
    """Wait until the connections of the hub are those of *users*."""
    deadline = time.monotonic() + BOUND / 1000
    while True:
        answer = await (await admin.get("/notifications/connections")).json()
        if (found := sorted(each["user"] for each in answer["connections"])) == sorted(users):
            return
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def test_a_tab_whose_user_changes_leaves_the_line_of_the_others(guarded: HubProcess, tabs: Any) -> None:
    profile = await tabs(guarded.url)
    minting = Minting(profile, "ann", 8)
    await profile.context.expose_binding("mint", minting.mint)
    one, other = await profile.open("orders"), await profile.open("orders")
    async with as_admin(guarded) as admin:
        await users_are(admin, "ann")
        minting.whose = {one: ("bob", 600), other: None}
        await users_are(admin, "bob")  # the token has ended, and only this tab has another one
        minting.whose[other] = ("ann", 600)
        await users_are(admin, "ann", "bob")
        await admin.post("/notifications/publish", json={"topic": "orders", "data": 1})
        for page in (one, other):
            await has(page, 1)


async def test_a_tab_that_waited_long_gives_no_token_that_has_ended(guarded: HubProcess, tabs: Any) -> None:
    profile = await tabs(guarded.url)
    minting = Minting(profile, "ann", 14)
    await profile.context.expose_binding("mint", minting.mint)
    one = await profile.open("orders")
    minting.first = ("ann", -1)  # the line has a token: this one is not needed now
    other = await profile.open("orders")
    minting.whose = {one: None, other: ("ann", 600)}
    await other.wait_for_function("states.includes('waiting token_expired')", timeout=BOUND)
    await other.wait_for_function("hub.state.state === 'open'", timeout=BOUND)
    assert minting.number == {one: 1, other: 2}


async def test_tabs_with_tokens_that_name_nobody_share_nothing(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    await profile.context.add_init_script("""
        window.mint = async () => "opaque";
        window.fetch = ((fetch) => (url, { headers, ...rest }) => fetch(url, rest))(fetch);
    """)
    pages = [await profile.open("orders") for _ in range(2)]
    assert [await page.evaluate("hub.sharing") for page in pages] == ["none"] * 2
    assert await streams(site) == 2


@pytest.mark.parametrize("by", ["token", "cookie"])
async def test_a_browser_without_streams_in_fetch_has_an_eventsource(guarded: HubProcess, tabs: Any, by: str) -> None:
    profile = await tabs(guarded.url)
    await profile.context.add_init_script("""
        delete Response.prototype.body;
        window.sources = [];
        window.EventSource = class extends EventSource { constructor(...all) { super(...all); sources.push(all[0]); } };
    """)
    if by == "token":
        await profile.context.expose_function("mint", lambda: minted("ann"))
    else:
        await profile.context.add_cookies([{"name": "hub_token", "value": minted("ann"), "url": guarded.url}])
    pages = [await profile.open("orders", share="leader") for _ in range(2)]
    assert sum([len(await page.evaluate("sources")) for page in pages]) == 1
    async with as_admin(guarded) as admin:

        async def send(topic: str, *data: int) -> None:
            drafts = [{"topic": topic, "data": each, "type": "order.created"} for each in data]
            await admin.post("/notifications/publish", json=drafts)

        await send("orders", 1, 2)
        await pages[1].evaluate("hub.add('news')")
        await send("news", 3)
        await has(pages[1], 1, 2, 3)
        await has(pages[0], 1, 2)
        guarded.kill()
        for page in pages:
            await page.wait_for_function("hub.state.state === 'waiting'", timeout=BOUND)
        await guarded.start()
        await send("orders", 4)
        await send("news", 5)
        await has(pages[1], 1, 2, 3, 4, 5)
        await has(pages[0], 1, 2, 4)
        for page in pages:
            assert await page.evaluate("gaps") == []
        assert (await (await admin.get("/notifications/stats")).json())["connections"] == 1


async def test_loops_and_observables_have_what_comes(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    page = await profile.open("orders")
    await page.evaluate("""() => {
        window.looped = [];
        window.observed = [];
        (async () => { for await (const { data } of hub) looped.push(data); looped.push("end"); })();
        hub[Symbol.observable ?? "@@observable"]().subscribe({
            next: ({ data }) => observed.push(data),
            complete: () => observed.push("end"),
        });
        window.narrow = hub.notifications({ buffer: 2 });
    }""")
    await publish(site, 1, 2)
    await has(page, 1, 2)
    # The cursor waits for the slowest: a reload would bring this loop what it has not taken.
    assert (await page.evaluate("hub.cursor")).endswith("-0")
    await publish(site, 3)
    await has(page, 1, 2, 3)
    assert (await page.evaluate("hub.cursor")).endswith("-3")
    taken = await page.evaluate("""async () => {
        const taken = [];
        try { for await (const { data } of narrow) taken.push(data); } catch ({ code }) { taken.push(code); }
        hub.close();
        return taken;
    }""")
    assert taken == [1, 2, "buffer_full"]
    await page.wait_for_function("looped.length === 4 && observed.length === 4", timeout=BOUND)
    assert await page.evaluate("[looped, observed]") == [[1, 2, 3, "end"]] * 2
    await number_of_streams(site, 0)


async def test_the_memory_of_a_page_stays_flat(site: HubProcess, tabs: Any) -> None:
    profile = await tabs(site.url)
    page = await profile.open("orders", share="leader")  # all of it is in this page: line, broker, ring, tab
    await page.evaluate("() => { window.number = 0; hub.onAny(() => { number += 1; seen.length = 0; }); }")
    session = await profile.context.new_cdp_session(page)

    async def used(number: int) -> float:
        await page.wait_for_function("(wanted) => number >= wanted", arg=number, timeout=BOUND)
        await session.send("HeapProfiler.collectGarbage")
        return float((await session.send("Runtime.getHeapUsage"))["usedSize"])

    text = "x" * 200
    more = examples(20_000, 80_000)
    await publish(site, *(f"{each} {text}" for each in range(10_000)))
    before = await used(10_000)
    await publish(site, *(f"{each} {text}" for each in range(more)))
    grown = await used(10_000 + more) - before
    assert await page.evaluate("number") == 10_000 + more
    assert grown < 2_000_000, f"{grown:.0f} bytes for {more} notifications"
