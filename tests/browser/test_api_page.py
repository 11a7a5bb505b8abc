"""The page of the API in a real Chromium: it shows every operation, and its policy has nothing to object to."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, Error, Page, expect

from .conftest import HubProcess, Visit

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
}


async def operation(page: Page, id: str) -> None:
    """Unfold an operation."""
    await page.locator(f"[id$='-{id}'] .opblock-summary-control").click()
    await expect(page.locator(f"[id$='-{id}'] .responses-wrapper")).to_be_visible()


@pytest.mark.parametrize("screen", SCREENS)
async def test_it_shows_every_operation_and_loads_nothing_from_elsewhere(
    hub: HubProcess, visit: Visit, screen: str
) -> None:
    paths = (await hub.get("/openapi.json"))["paths"]
    page = await visit("about:blank", **SCREENS[screen])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(hub.url + "/docs/api")
    await expect(page.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
    await operation(page, "subscribe")
    await expect(page.locator("[id$='-subscribe'] .responses-wrapper")).to_contain_text("event: hub.open")
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate("document.documentElement.classList.contains('dark-mode')") is (screen == "phone")
    assert [url for url in asked if not url.startswith((hub.url, "data:"))] == []


async def test_a_notification_can_be_sent_from_it_but_no_stream_is_waited_for(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url + "/docs/api")
    await operation(page, "subscribe")
    await operation(page, "publish")
    await expect(page.get_by_role("button", name="Try it out")).to_have_count(1)
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    await expect(page.locator("[id$='-publish'] .live-responses-table")).to_contain_text("201")
    kept = await hub.get("/notifications/history?topic=orders")
    assert [each["type"] for each in kept["notifications"]] == ["order.created"]


async def test_its_policy_lets_no_text_become_a_script(hub: HubProcess, browser: Browser) -> None:
    page = await browser.new_page()
    try:
        answer = await page.goto(hub.url + "/docs/api")
        assert answer is not None
        policy = (await answer.all_headers())["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy
        await expect(page.locator(".opblock").first).to_be_visible()
        became = "() => { document.createElement('script').text = 'alert(1)' }"
        with pytest.raises(Error, match="TrustedScript"):
            await page.evaluate(became)
    finally:
        await page.close()
