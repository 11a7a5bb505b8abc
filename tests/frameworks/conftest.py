"""What the tests of the frameworks share: applications of the examples that run, and Chromium."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from tests.browser.conftest import browser, chromium
from tests.frameworks.guide import EXAMPLES, Guide, installs, is_server
from tests.proxy import program

__all__ = ["browser", "chromium"]

SERVERS = {
    "django": ("hub serve", "gunicorn", "nginx -p"),
    "fastapi": ("hub serve", "main:app", "nginx -p"),
    "flask": ("hub serve", "gunicorn", "nginx -p"),
}


@pytest.fixture(scope="module")
def framework(request: pytest.FixtureRequest) -> str:
    """The framework of the module: `FRAMEWORK` in it."""
    return str(request.module.FRAMEWORK)


@pytest.fixture(scope="module")
def example(framework: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    """The example, prepared with the commands of its guide; nothing of it is running yet."""
    program("nginx")
    guide = Guide(framework, tmp_path_factory.mktemp(framework))
    try:
        prepare(guide)
        yield guide
    finally:
        guide.close()


def prepare(guide: Guide) -> None:
    """Copy the example into the folder of *guide*, and run the commands that are no servers."""
    (guide.place / ".venv").symlink_to(sys.prefix)
    guide.write(EXAMPLES / guide.framework)
    for terminal in guide.terminals:
        guide.run(*(each for each in terminal if not is_server(each) and not installs(each)))


@pytest.fixture(scope="module")
def site(example: Guide, framework: str) -> Guide:
    """The example, with its hub, its framework and nginx."""
    for each in SERVERS[framework]:
        example.serve(each)
    return example


REMEMBER = """
    addEventListener("DOMContentLoaded", () => {
        window.states = [];
        const state = document.querySelector("#state");
        if (state) {
            new MutationObserver(() => states.push(state.value)).observe(state, { childList: true });
        }
    });
"""
"""Keeps what a page says about its stream, in the order in which it says it."""


async def outlived(page: Page, order: Callable[[], Awaitable[object]]) -> None:
    """Wait until the token of the stream has expired, *order*, and wait until the page is listening again."""
    await page.wait_for_function("states.includes('token_expired')", timeout=60_000)
    await order()
    await page.wait_for_function("states.join().includes('token_expired,open')", timeout=60_000)


Visitor = Callable[[], Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser) -> AsyncIterator[Visitor]:
    """Return the page of one more visitor, with cookies of its own."""
    contexts: list[BrowserContext] = []

    async def visitor() -> Page:
        contexts.append(await browser.new_context())
        return await contexts[-1].new_page()

    yield visitor
    for context in contexts:
        await context.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    place = tmp_path / "shop"
    place.mkdir()
    return place
