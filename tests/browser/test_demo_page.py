"""The demo page in a real Chromium: what it shows, and how it comes back from everything that can happen to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from .conftest import HubProcess, Network, Visit, Weather

pytestmark = pytest.mark.asyncio(loop_scope="session")


def created(number: int) -> str:
    """What the hub says of a new order."""
    return f"新订单 #{number} 已创建！"


def rows(page: Page, panel: str = "orders") -> Locator:
    return page.get_by_test_id(panel).get_by_test_id("row")


async def live(page: Page) -> Page:
    """Wait until both streams of *page* are live."""
    for stream in ("feed", "inbox"):
        await state(page, "live", stream)
    return page


async def state(page: Page, state: str, stream: str = "feed") -> None:
    await expect(page.get_by_test_id(f"{stream}-state")).to_have_attribute("data-state", state)


async def order(page: Page, amount: str) -> None:
    await page.get_by_test_id("order-amount").fill(amount)
    await page.get_by_test_id("create-order").click()


async def shows(page: Page, *numbers: int) -> None:
    """Wait until the orders shown are exactly *numbers*, the newest first."""
    texts = [re.compile(re.escape(created(number))) for number in numbers]
    await expect(rows(page)).to_have_text(texts)


# What it shows


async def test_an_order_created_by_click_comes_back_on_the_stream(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await order(page, "99.5")
    await shows(page, 1)
    await expect(rows(page).get_by_test_id("amount")).to_have_text("99.50")
    await expect(page.get_by_test_id("order-answer")).to_contain_text("order 1")


async def test_an_order_can_be_created_with_the_keyboard_alone(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    for _ in range(20):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == "order-amount":
            break
    await expect(page.get_by_test_id("order-amount")).to_be_focused()
    await expect(page.get_by_test_id("order-amount")).not_to_have_css("outline-style", "none")
    await page.keyboard.type("12.5")
    await page.keyboard.press("Enter")
    await shows(page, 1)
    await expect(rows(page).get_by_test_id("amount")).to_have_text("12.50")
    await page.keyboard.press("Tab")
    await expect(page.get_by_test_id("create-order")).to_be_focused()
    await page.keyboard.press("Space")
    await shows(page, 2, 1)


async def test_an_order_created_elsewhere_reaches_every_page(hub: HubProcess, visit: Visit) -> None:
    pages = [await live(await visit(hub.url)) for _ in range(2)]
    await hub.post("/orders", {"amount": 7})
    for page in pages:
        await shows(page, 1)


async def test_news_and_stocks_tick(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await expect(rows(page, "news").filter(has_text="这是第 2 条新闻快讯！")).to_be_visible()
    prices = page.get_by_test_id("stocks").locator(".price")
    await expect(prices).to_have_count(5)
    await expect(prices.filter(has_text=re.compile(r"\d\.\d\d"))).not_to_have_count(0)


async def test_a_message_reaches_only_the_panel_of_its_user(hub: HubProcess, visit: Visit) -> None:
    ours, theirs = [await live(await visit(hub.url)) for _ in range(2)]
    await theirs.get_by_test_id("user-id").fill("43")
    await theirs.get_by_test_id("user-follow").click()
    await expect(theirs.get_by_test_id("inbox-topics")).to_have_text("user/43")
    await ours.get_by_test_id("mail-to").fill("42")
    await ours.get_by_test_id("mail-text").fill("for 42")
    await ours.get_by_test_id("mail-send").click()
    await expect(rows(ours, "mail")).to_have_text([re.compile("for 42")])
    await ours.get_by_test_id("mail-to").fill("43")
    await ours.get_by_test_id("mail-text").fill("for 43")
    await ours.get_by_test_id("mail-send").click()
    await expect(rows(theirs, "mail")).to_have_text([re.compile("for 43")])
    await expect(rows(ours, "mail")).to_have_text([re.compile("for 42")])


async def test_what_is_published_is_shown_as_text_never_as_markup(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    markup = "<img src=x onerror=alert(1)>"
    await hub.post("/notifications/publish", [{"data": {"message": markup}}, {"data": markup}])
    await expect(rows(page)).to_have_text([re.compile(re.escape(markup))] * 2)
    await expect(rows(page).locator("img")).to_have_count(0)


async def test_no_script_or_style_that_was_smuggled_in_runs(hub: HubProcess, visit: Visit) -> None:
    context = (await live(await visit(hub.url))).context
    page = await context.new_page()  # its console complains, as it should
    await page.goto(hub.url)
    refused = await page.evaluate(
        """async () => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
            const script = document.createElement("script");
            try { script.textContent = "window.smuggled = true"; } catch { seen.push("trusted types"); }
            script.append("window.smuggled = true");
            const style = document.createElement("style");
            style.textContent = "h1 { color: rgb(1, 2, 3) }";
            const button = document.createElement("button");
            button.setAttribute("style", "color: rgb(1, 2, 3)");
            document.body.append(script, style, button);
            try { await fetch("https://elsewhere.invalid/"); } catch { /* refused */ }
            while (!["style-src-elem", "style-src-attr", "connect-src"].every((each) => seen.includes(each)))
                await new Promise((go) => setTimeout(go, 10));
            return [window.smuggled, getComputedStyle(document.querySelector("h1")).color,
                    getComputedStyle(button).color];
        }"""
    )
    assert refused[0] is None
    assert "rgb(1, 2, 3)" not in refused


async def test_it_says_what_the_hub_said(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await expect(page.get_by_test_id("feed-connection")).to_have_text(re.compile(r"^c_[0-9a-f]+$"))
    await expect(page.get_by_test_id("feed-recovered")).to_have_text("null")
    await expect(page.get_by_test_id("inbox-topics")).to_have_text("user/42")
    answer = await hub.post("/notifications/publish", {"topic": "user/42", "data": "hello"})
    await expect(page.get_by_test_id("inbox-cursor")).to_have_text(answer["id"])


async def test_a_curl_line_is_copied_whole(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url, permissions=["clipboard-read", "clipboard-write"])
    await page.get_by_test_id("order-amount").fill("5")
    line = f"""curl '{hub.url}/orders' -H 'Content-Type: application/json' -d '{{"amount":5}}'"""
    await expect(page.get_by_test_id("curl-order")).to_have_value(line)
    button = page.get_by_role("button", name="Copy the curl command: create an order")
    await button.click()
    await expect(button).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == line


async def test_a_phone_never_scrolls_sideways(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url, viewport={"width": 360, "height": 740}, color_scheme="dark"))
    await order(page, "1000000000000")
    await hub.post("/notifications/publish", [{"topic": topic, "data": "x" * 300} for topic in ("news", "user/42")])
    await expect(rows(page, "mail")).to_have_count(1)
    await shows(page, 1)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    for panel in ("orders", "news", "mail", "journal"):
        assert await page.get_by_test_id(panel).evaluate("list => list.scrollWidth <= list.clientWidth"), panel


async def test_nothing_moves_for_who_wants_it_calm(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url, reduced_motion="reduce"))
    await order(page, "1")
    await expect(rows(page)).to_have_css("animation-name", "none")


# How it comes back


async def test_what_was_sent_while_the_network_was_down_arrives_once(
    hub: HubProcess, network: Network, visit: Visit
) -> None:
    page = await live(await visit(network.url))
    await order(page, "1")
    await shows(page, 1)
    await network.become(Weather.CUT)
    await state(page, "reconnecting")
    for amount in (2, 3):
        await hub.post("/orders", {"amount": amount})
    await hub.post("/notifications/publish", {"topic": "user/42", "data": "meanwhile"})
    await network.become(Weather.FAIR)
    await live(page)
    caught_up = re.compile(r"nothing is missing, \d+ notifications caught up")
    await expect(page.get_by_test_id("feed-said")).to_have_text(caught_up)
    await order(page, "4")
    await shows(page, 4, 3, 2, 1)
    await expect(rows(page, "mail")).to_have_text([re.compile("meanwhile")])
    await expect(page.get_by_test_id("feed-recovered")).to_have_text("true")
    await expect(page.locator("#orders .replayed")).to_have_text([re.compile("#3 "), re.compile("#2 ")])


async def test_it_comes_back_where_the_browser_has_given_up(hub: HubProcess, network: Network, visit: Visit) -> None:
    page = await live(await visit(network.url))
    await order(page, "1")
    await shows(page, 1)
    await network.become(Weather.BAD_GATEWAY)
    await state(page, "waiting")
    await expect(page.get_by_test_id("feed-state")).to_have_text(re.compile(r"^Reconnecting.*in \d+ s$"))
    await hub.post("/orders", {"amount": 2})
    await network.become(Weather.FAIR)
    await live(page)
    await order(page, "3")
    await shows(page, 3, 2, 1)


async def test_after_a_killed_hub_it_comes_back_and_says_what_is_gone(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await order(page, "1")
    await shows(page, 1)
    hub.kill()
    await state(page, "reconnecting")
    await order(page, "2")
    await expect(page.get_by_test_id("order-answer")).to_contain_text("cannot be reached")
    await hub.start()
    await live(page)
    await expect(page.get_by_test_id("feed-recovered")).to_have_text("false (epoch)")
    await expect(page.get_by_test_id("feed-gap")).to_contain_text('"reason":"epoch"')
    await expect(page.get_by_test_id("feed-said")).to_contain_text("what it kept in memory is gone")
    await expect(page.get_by_test_id("orders").get_by_test_id("gap")).to_be_visible()
    await order(page, "3")
    await shows(page, 1, 1)  # a new hub counts anew
    await expect(rows(page).first.get_by_test_id("amount")).to_have_text("3.00")


async def test_a_hub_that_drains_says_so(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await hub.stop()
    for stream in ("feed", "inbox"):
        await expect(page.get_by_test_id(f"{stream}-close")).to_have_text("shutdown")
    await hub.start()
    await live(page)


async def test_a_page_that_was_left_goes_on_where_it_was(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await order(page, "1")
    await shows(page, 1)
    await page.goto("about:blank")
    await hub.post("/orders", {"amount": 2})
    await page.goto(hub.url)
    await shows(page, 2, 1)
    await expect(page.locator("#orders .replayed")).to_have_text([re.compile("#2 ")])
    await page.reload()
    await live(page)
    await order(page, "3")
    await shows(page, 3, 2, 1)


async def test_a_hidden_tab_rests_and_misses_nothing(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await _hide(page, True)
    for stream in ("feed", "inbox"):
        await expect(page.get_by_test_id(f"{stream}-state")).to_have_attribute("data-state", "resting")
    await hub.post("/orders", {"amount": 1})
    await _hide(page, False)
    await live(page)
    await shows(page, 1)


async def _hide(page: Page, hidden: bool) -> None:
    await page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


async def test_who_goes_offline_catches_up(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await page.get_by_test_id("leave").click()
    await expect(page.get_by_test_id("feed-state")).to_have_text(re.compile(r"^Offline.*back in \d+ s$"))
    await order(page, "1")
    await expect(page.get_by_test_id("order-answer")).to_contain_text("order 1")
    await page.get_by_role("button", name="Come back now").click()
    await live(page)
    await shows(page, 1)


async def test_it_does_not_come_back_to_what_can_never_succeed(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await page.get_by_test_id("user-id").fill("x" * 120)
    await page.get_by_test_id("user-follow").click()
    await expect(page.get_by_test_id("inbox-topics")).to_have_text("user/" + "x" * 120)
    await page.get_by_test_id("user-id").fill("汉" * 100)
    await page.get_by_test_id("user-follow").click()
    await state(page, "refused", "inbox")
    await expect(page.get_by_test_id("journal")).to_contain_text("longer than 256 bytes")


# The browser's own EventSource, without the page


async def test_a_plain_event_source_gets_hub_open_and_default_messages(hub: HubProcess, visit: Visit) -> None:
    page = await visit("about:blank")
    await page.route(f"{hub.url}/blank", lambda route: route.fulfill(content_type="text/html", body="<!doctype html>"))
    await page.goto(f"{hub.url}/blank")
    opening = await page.evaluate(
        """() => new Promise((resolve) => {
            const source = new EventSource("/notifications/subscribe");
            const facts = ({ data, lastEventId }) => ({ data, lastEventId });
            window.first = new Promise((got) => { source.onmessage = (event) => got(facts(event)); });
            source.addEventListener("hub.open", (event) => resolve(facts(event)));
        })"""
    )
    said = json.loads(opening["data"])
    assert said["topics"] == ["notifications"]
    assert said["recovered"] is None
    answer = await hub.post("/notifications/publish", {"data": "hello"})
    assert await page.evaluate("window.first") == {"data": "hello", "lastEventId": answer["id"]}
    assert opening["lastEventId"] != answer["id"]


# Somewhere else

NGINX = """
daemon off;
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /live/ {{ proxy_pass {hub}/; }}
    }}
}}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def below_live(hub: HubProcess, tmp_path: Path) -> AsyncIterator[str]:
    """Where nginx shows the hub below a path of its own, with nothing else configured."""
    nginx = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    if nginx is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration, errors = tmp_path / "nginx.conf", tmp_path / "error.log"
    configuration.write_text(NGINX.format(place=tmp_path, port=port, hub=hub.url))
    process = await asyncio.create_subprocess_exec(
        *(nginx, "-p", str(tmp_path), "-c", str(configuration), "-e", str(errors)), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        while not (tmp_path / "pid").exists():
            assert process.returncode is None, errors.read_text()
            await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}/live/"
    process.terminate()
    await process.wait()


async def test_it_works_below_the_path_where_a_proxy_shows_it(below_live: str, visit: Visit) -> None:
    page = await live(await visit(below_live))
    await order(page, "99.5")
    await shows(page, 1)
    await page.get_by_test_id("chat-question").fill("hello")
    await page.get_by_test_id("chat-ask").click()
    await expect(page.get_by_test_id("chat-state")).to_have_attribute("data-state", "done")
    await expect(page.get_by_test_id("curl-stocks")).to_have_value(
        f"curl -N '{below_live}notifications/subscribe?topic=stock/*'"
    )
