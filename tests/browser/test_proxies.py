"""Twenty EventSources of one Chromium through nginx, Caddy and HAProxy, with TLS and HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.conftest import HubProcess
from tests.proxy import documented

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

COUNT = 20
PATIENCE = 60.0
# Those who come while the hub is away wait for ten seconds on the page; a loaded machine takes longer to start one.
PATIENT = {"caddy": {"lb_try_duration 10s": "lb_try_duration 60s"}, "haproxy": {"retries 10": "retries 60"}}
OPEN = """
    (count) => {
        window.heard = Array.from({ length: count }, () => []);
        window.opened = Array.from({ length: count }, () => 0);
        window.sources = window.heard.map((heard, number) => {
            const source = new EventSource("/notifications/subscribe?topic=orders");
            source.addEventListener("hub.open", () => { window.opened[number] += 1; });
            source.onmessage = ({ data }) => heard.push(data);
            return source;
        });
    }
"""
PROTOCOL = """
    async () => {
        const answer = await fetch("/healthz");
        await answer.text();
        return performance.getEntriesByName(answer.url).at(-1).nextHopProtocol;
    }
"""


@pytest.fixture(params=["nginx", "caddy", "haproxy"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that keeps its log in a file."""
    log = f"sqlite:///{tmp_path}/hub.db"
    process = HubProcess(tmp_path / "hub.log", HUB_LOG=log, HUB_TRUSTED_PROXIES="127.0.0.1")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest_asyncio.fixture(loop_scope="session")
async def page(name: str, hub: HubProcess, browser: Browser, tmp_path: Path) -> AsyncIterator[Page]:
    """A page of the hub as the proxy shows it."""
    async with documented(name, tmp_path, hub.port, changes=PATIENT.get(name)) as proxy:
        context = await browser.new_context(ignore_https_errors=True)
        page = await context.new_page()
        await page.goto(f"https://localhost:{proxy.port}/healthz")
        try:
            yield page
        finally:
            await context.close()


async def heard(page: Page, *expected: str) -> None:
    """Wait until each EventSource has been told so much, and check that it is what was *expected*."""
    await page.wait_for_function("count => heard.every((each) => each.length >= count)", arg=len(expected))
    assert await page.evaluate("heard") == [list(expected)] * COUNT


async def test_twenty_streams_all_receive_and_an_ordinary_request_is_answered(page: Page, hub: HubProcess) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/subscribe" in request.url else None)
    await page.evaluate(OPEN, COUNT)
    await page.wait_for_function("opened.every((each) => each === 1)")
    await hub.post("/notifications/publish", {"topic": "orders", "data": "first"})
    await heard(page, "first")
    assert await page.evaluate(PROTOCOL) == "h2"

    # A hub that is killed, is away while all of them try again, and returns.
    hub.kill()
    await page.wait_for_function("sources.every((each) => each.readyState === EventSource.CONNECTING)")
    async with asyncio.timeout(PATIENCE):
        while len(asked) < 2 * COUNT:  # noqa: ASYNC110 - the observed state has no event to wait for
            await asyncio.sleep(0.01)
    await hub.start()
    await hub.post("/notifications/publish", {"topic": "orders", "data": "second"})
    await heard(page, "first", "second")
    assert not await page.evaluate("sources.some((each) => each.readyState === EventSource.CLOSED)")
