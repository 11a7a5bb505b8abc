"""The room of the demo page in two windows of a real Chromium: who belongs, who is there, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from .conftest import HubProcess, Network, Visit, Weather
from .test_demo_login import follows, log_in, marked
from .test_demo_page import hide

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES = {"ann": "Ann", "bo": "Bo"}


async def belongs(page: Page) -> None:
    """Wait until the stream of *page* has the room."""
    await expect(page.get_by_test_id("room-said")).to_have_text("You belong to the room.")
    await expect(page.get_by_test_id("feed-state")).to_have_attribute("data-state", "open")


async def belongs_not(page: Page) -> None:
    await expect(page.get_by_test_id("room-said")).to_have_text("You do not belong to the room.")


async def join(page: Page) -> None:
    await page.get_by_test_id("room-change").click()
    await belongs(page)


async def leave(page: Page) -> None:
    await page.get_by_test_id("room-change").click()
    await belongs_not(page)


async def enter(page: Page, user: str) -> Page:
    """Log in as *user*, and join the room."""
    await join(await log_in(await follows(page), user))
    return page


async def say(page: Page, text: str) -> None:
    await page.get_by_test_id("talk-text").fill(text)
    await page.get_by_test_id("talk-send").click()
    await expect(page.get_by_test_id("talk-answer")).to_contain_text("Accepted")
    await expect(page.get_by_test_id("talk-text")).to_have_value("")
    assert not await page.get_by_test_id("talk-text").evaluate("field => field.matches(':user-invalid')")


async def shows(page: Page, *texts: str) -> None:
    """Wait until what is shown of the room is exactly this, the newest first."""
    await expect(page.get_by_test_id("talk").locator(".text")).to_have_text([*texts])


async def sees(page: Page, *users: str) -> None:
    """Wait until *page* shows that exactly *users* are in the room."""
    for user, name in NAMES.items():
        word = "In the room" if user in users else "Not here"
        await expect(page.get_by_test_id(f"there-{user}")).to_contain_text(f"{name}{word}")


async def test_two_windows_join_speak_leave_and_come_back(hub: HubProcess, visit: Visit) -> None:
    nobody = await follows(await visit(hub.url))
    ann = await enter(await visit(hub.url), "ann")
    await sees(ann, "ann")
    await say(ann, "before Bo")
    bo = await enter(await visit(hub.url), "bo")
    for page in (ann, bo):
        await sees(page, "ann", "bo")
    await say(ann, "welcome")
    await say(bo, "hello")
    await shows(bo, "hello", "welcome")
    await shows(ann, "hello", "welcome", "before Bo")

    await bo.goto("about:blank")
    await sees(ann, "ann")
    await say(ann, "while Bo is away")
    again = await bo.context.new_page()  # which has nothing in its storage
    await again.goto(hub.url)
    await belongs(again)
    await shows(again, "while Bo is away", "hello", "welcome")
    for page in (ann, again):
        await sees(page, "ann", "bo")

    await leave(again)
    await shows(again)
    await sees(ann, "ann")
    await say(ann, "without Bo")
    await join(again)
    await say(again, "back")
    await shows(again, "back")
    await shows(ann, "back", "without Bo", "while Bo is away", "hello", "welcome", "before Bo")
    await marked(hub, nobody)
    await shows(nobody)
    await expect(nobody.get_by_test_id("room-change")).to_be_disabled()


async def test_a_reload_and_a_cut_lose_nothing(hub: HubProcess, network: Network, visit: Visit) -> None:
    ann = await enter(await visit(network.url), "ann")
    bo = await enter(await visit(hub.url), "bo")
    await say(bo, "one")
    await shows(ann, "one")
    await ann.reload()
    await belongs(ann)
    await sees(ann, "ann", "bo")
    await network.become(Weather.CUT)
    await expect(ann.get_by_test_id("feed-state")).to_have_attribute("data-state", "waiting")
    await expect(ann.get_by_test_id("there-ann")).to_contain_text("–")
    await say(bo, "two")
    await network.become(Weather.FAIR)
    await belongs(ann)
    await shows(ann, "two", "one")
    await expect(ann.get_by_test_id("talk").locator(".late")).to_have_count(1)
    await say(ann, "three")
    await shows(bo, "three", "two", "one")
    await sees(bo, "ann", "bo")


async def test_a_killed_hub_keeps_the_members_and_what_was_said(tmp_path: Path, visit: Visit) -> None:
    hub = HubProcess(tmp_path / "hub.log", HUB_LOG=f"sqlite:///{tmp_path / 'hub.db'}")
    try:
        await hub.start()
        page = await enter(await visit(hub.url), "ann")
        await say(page, "before")
        await shows(page, "before")
        hub.kill()
        await expect(page.get_by_test_id("there-ann")).to_contain_text("–")
        await hub.start()
        await sees(page, "ann")
        await say(page, "after")
        await shows(page, "after", "before")
    finally:
        hub.kill()


async def test_all_tabs_of_a_user_join_and_leave_together(hub: HubProcess, visit: Visit) -> None:
    one = await log_in(await follows(await visit(hub.url)), "ann")
    two = await one.context.new_page()
    await two.goto(hub.url)
    await follows(two, "user/ann")
    await join(two)
    await belongs(one)
    await say(one, "to whoever is here")
    await shows(two, "to whoever is here")
    await leave(one)
    await belongs_not(two)
    await shows(two)


async def test_to_become_the_other_user_shows_nothing_of_the_room(hub: HubProcess, visit: Visit) -> None:
    page = await enter(await visit(hub.url), "ann")
    await say(page, "only for members")
    await log_in(page, "bo")
    await belongs_not(page)
    await shows(page)
    await page.get_by_test_id("login-ann").click()
    await belongs(page)
    await shows(page, "only for members")


async def test_a_hidden_tab_stays_in_the_room(hub: HubProcess, visit: Visit) -> None:
    ann = await enter(await visit(hub.url), "ann")
    bo = await enter(await visit(hub.url), "bo")
    await sees(bo, "ann", "bo")
    await hide(ann, True)
    await say(bo, "are you there?")
    await shows(ann, "are you there?")
    await sees(bo, "ann", "bo")


async def comes_by(page: Page, wire: str) -> None:
    await expect(page.get_by_test_id("room-wire")).to_have_attribute("data-wire", wire)


async def test_the_chat_goes_on_by_whatever_the_network_lets_through(hub: HubProcess, visit: Visit) -> None:
    ann = await enter(await visit(hub.url), "ann")
    bo = await enter(await visit(hub.url), "bo")
    posts: list[str] = []
    ann.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    for page in (ann, bo):
        await comes_by(page, "websocket")
    await say(ann, "one")
    assert posts == []
    assert (await hub.get("/notifications/stats"))["streams"]["websocket"] == 2

    # In the middle of sending, and of the next message.
    await ann.get_by_test_id("talk-text").fill("two")
    await ann.get_by_test_id("talk-send").click()
    await ann.get_by_test_id("network-no-websockets").check()
    await comes_by(ann, "sse")
    await expect(ann.get_by_test_id("room-wire")).to_contain_text("listens over Server-Sent Events, and sends by POST")
    await shows(bo, "two", "one")
    posts.clear()
    await say(ann, "three")
    assert [url.rpartition("/")[2] for url in posts] == ["publish"]
    assert (await hub.get("/notifications/stats"))["streams"]["websocket"] == 1
    await sees(bo, "ann", "bo")

    await ann.get_by_test_id("talk-text").fill("fo")
    await ann.get_by_test_id("network-no-websockets").press("ArrowDown")
    await expect(ann.get_by_test_id("network-no-streams")).to_be_checked()
    await ann.get_by_test_id("talk-text").press("End")
    await ann.get_by_test_id("talk-text").type("ur")
    await ann.get_by_test_id("talk-text").press("Enter")
    await say(bo, "five")
    await comes_by(ann, "poll")
    await shows(ann, "five", "four", "three", "two", "one")
    for page in (ann, bo):
        await sees(page, "ann", "bo")
    await leave(ann)
    await shows(ann)
    await join(ann)
    await say(ann, "six")
    await say(bo, "seven")

    await ann.get_by_test_id("talk-text").fill("eight")
    await ann.get_by_test_id("talk-send").click()
    await ann.get_by_test_id("network-open").check()
    await comes_by(ann, "websocket")
    await shows(ann, "eight", "seven", "six")
    await shows(bo, "eight", "seven", "six", "five", "four", "three", "two", "one")
    await sees(ann, "ann", "bo")


async def test_a_phone_shows_the_room_without_scrolling_sideways(hub: HubProcess, visit: Visit) -> None:
    page = await enter(await visit(hub.url, viewport={"width": 360, "height": 740}, color_scheme="dark"), "ann")
    await say(page, "x" * 300)
    await shows(page, "x" * 300)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await page.get_by_test_id("talk").evaluate("list => list.scrollWidth <= list.clientWidth")
