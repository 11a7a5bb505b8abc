"""The page of `docs/howto/use-from-a-page.md`, in two tabs of a real Chromium."""

from __future__ import annotations

import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import expect

from hub import HUB, NOTIFICATIONS
from tests.snippets import snippet

from .conftest import Visit

HOWTO = "howto/use-from-a-page.md"


@pytest_asyncio.fixture(loop_scope="session")
async def served(tmp_path: Path) -> AsyncIterator[tuple[web.Application, str]]:
    """The application of the page, and the address at which it is served."""
    asked: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("page.py", "orders.html"):
            (tmp_path / name).write_text(snippet(HOWTO, name), encoding="utf-8")
        patch.chdir(tmp_path)
        patch.setattr(web, "run_app", lambda app, **options: asked.update(options, app=app))
        runpy.run_path("page.py", run_name="__main__")
        runner = web.AppRunner(asked["app"], access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, asked["host"], 0).start()
        try:
            yield asked["app"], f"http://{asked['host']}:{runner.addresses[0][1]}"
        finally:
            await asked["app"][HUB].drain(0)
            await runner.cleanup()


@pytest.mark.asyncio(loop_scope="session")
async def test_an_order_is_shown_in_each_tab(served: tuple[web.Application, str], visit: Visit) -> None:
    app, url = served
    tabs = [await visit(url), await visit(url)]
    for tab in tabs:
        await expect(tab.locator("#state")).to_have_text("open")
    await app[NOTIFICATIONS].send_notification({"id": 7, "amount": 99.5}, topic="orders", type="order.created")
    for tab in tabs:
        await expect(tab.locator("#orders li")).to_have_text(["order 7: 99.5"])
