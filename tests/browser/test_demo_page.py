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

from . import npm
from .conftest import ROOT, HubProcess, Network, Visit, Weather

DEMO_PAGE = ROOT / "hub" / "demo" / "page"

pytestmark = pytest.mark.asyncio(loop_scope="session")


def created(number: int) -> str:
    """What the page says of a new order."""
    return f"Order #{number} was created"


def rows(page: Page, panel: str = "orders") -> Locator:
    return page.get_by_test_id(panel).get_by_test_id("row")


async def live(page: Page) -> Page:
    """Wait until the stream of *page* is open, and follows its user."""
    for stream in ("feed", "inbox"):
        await state(page, "open", stream)
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
    await expect(rows(page, "news").filter(has_text="News flash no. 2")).to_be_visible()
    prices = page.get_by_test_id("stocks").locator(".price")
    await expect(prices).to_have_count(5)
    await expect(prices.filter(has_text=re.compile(r"\d\.\d\d"))).not_to_have_count(0)


async def test_a_message_reaches_only_the_panel_of_its_user(hub: HubProcess, visit: Visit) -> None:
    ours, theirs = [await live(await visit(hub.url)) for _ in range(2)]
    await theirs.get_by_test_id("user-id").fill("43")
    await theirs.get_by_test_id("user-follow").click()
    await expect(theirs.get_by_test_id("feed-topics")).to_have_text(re.compile("user/43$"))
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


async def test_it_says_how_far_it_has_got(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await expect(page.get_by_test_id("feed-topics")).to_have_text("stock/*  notifications  news  user/42")
    await expect(page.get_by_test_id("feed-sharing")).to_have_text("in a worker that all tabs share")
    answer = await hub.post("/notifications/publish", {"topic": "user/42", "data": "hello"})
    await page.wait_for_function(
        """wanted => {
            const [epoch, offset] = document.querySelector("[data-testid=feed-cursor]").textContent.split("-");
            return epoch === wanted.split("-")[0] && Number(offset) >= Number(wanted.split("-")[1]);
        }""",
        arg=answer["id"],
    )


async def test_a_curl_line_is_copied_whole(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url, permissions=["clipboard-read", "clipboard-write"])
    await page.locator("[data-code=orders] summary").click()
    await page.get_by_test_id("order-amount").fill("5")
    line = f"""curl '{hub.url}/orders' -H 'Content-Type: application/json' -d '{{"amount":5}}'"""
    await expect(page.get_by_test_id("curl-order")).to_have_value(line)
    button = page.get_by_test_id("copy-order")
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


async def test_on_a_phone_the_state_of_the_connection_stays_in_view(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url, viewport={"width": 360, "height": 740}))
    await page.get_by_test_id("wire").scroll_into_view_if_needed()
    await expect(page.get_by_test_id("orders")).not_to_be_in_viewport()
    await expect(page.get_by_test_id("feed-state")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize(("motion", "animation"), [("reduce", "none"), ("no-preference", "arrive")])
async def test_nothing_moves_for_who_wants_it_calm(hub: HubProcess, visit: Visit, motion: str, animation: str) -> None:
    page = await live(await visit(hub.url, reduced_motion=motion))
    await order(page, "1")
    await expect(rows(page)).to_have_css("animation-name", animation)


async def test_it_speaks_one_language_and_can_change_it(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await order(page, "1")
    await shows(page, 1)
    await expect(rows(page, "news")).not_to_have_count(0)
    han = re.compile(r"[\u4e00-\u9fff]")
    chosen = page.get_by_test_id("language-zh")
    english = (await _texts(page)) - {"中文"}
    assert [text for text in english if han.search(text)] == []
    await chosen.click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    await expect(rows(page)).to_have_text([re.compile("新订单 #1 已创建！")])
    await expect(rows(page, "news").first).to_contain_text("条新闻快讯！")
    await page.reload()
    await live(page)
    await expect(page.get_by_test_id("create-order")).to_have_text("创建订单")
    # What is the same in both has no words: names, numbers, topics.
    same = {text for text in english & await _texts(page) if re.search(r"[a-z]{2}", text)}
    assert {text for text in same if not re.search(r"[/*·]|^(Ann|Bo|English|AAPL)$", text)} == set()


async def _texts(page: Page) -> set[str]:
    """Return the words that the page shows or says, but for commands and code."""
    return set(
        await page.evaluate(
            """() => {
                const found = [];
                const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
                while (walker.nextNode()) {
                    if (!walker.currentNode.parentElement.closest("noscript, pre")) found.push(walker.currentNode.data);
                }
                for (const element of document.querySelectorAll("[aria-label]")) {
                    if (!element.closest(".behind")) found.push(element.ariaLabel);
                }
                const fields = document.querySelectorAll("input:not([readonly], [type=radio])");
                for (const { value } of fields) found.push(value);
                return found.map((each) => each.trim()).filter(Boolean);
            }"""
        )
    )


async def test_the_code_behind_each_panel_is_what_runs(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    panels = page.locator("details[data-code]")
    assert await panels.count() == 8
    for panel in await panels.all():
        name = await panel.get_attribute("data-code")
        await panel.locator("summary").click()
        code = (DEMO_PAGE / f"{name}.js").read_text(encoding="utf-8").rstrip()
        await expect(panel.locator("code")).to_have_text(code, use_inner_text=True)
        assert len(code.splitlines()) <= 17, name


async def test_the_wire_is_shown_to_whoever_unfolds_it(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await number_of_streams(hub, 1)
    wire = page.get_by_test_id("wire-text")
    await page.get_by_test_id("wire").locator("summary").click()
    await expect(wire).to_contain_text("event: hub.open")
    await hub.post("/orders", {"amount": 5})
    await expect(wire).to_contain_text(
        'data: {"topics":["notifications"],"data":{"message":"新订单 #1 已创建！","amount":5}}'
    )
    await number_of_streams(hub, 2)
    await page.get_by_test_id("wire").locator("summary").click()
    await number_of_streams(hub, 1)


async def test_all_tabs_of_a_browser_have_one_stream(hub: HubProcess, visit: Visit) -> None:
    first = await live(await visit(hub.url))
    tabs = [first]
    for user in ("42", "43", "44", "45", "46", "47"):  # as many as a browser has connections, and one more
        tabs.append(await first.context.new_page())
        await tabs[-1].goto(hub.url)
        await live(tabs[-1])
        await tabs[-1].get_by_test_id("user-id").fill(user)
        await tabs[-1].get_by_test_id("user-follow").click()
        await expect(tabs[-1].get_by_test_id("feed-topics")).to_have_text(re.compile(f"user/{user}$"))
    await number_of_streams(hub, 1)
    await order(tabs[-1], "1")
    for tab in tabs:
        await shows(tab, 1)
    await hub.post("/notifications/publish", [{"topic": "user/45", "data": "for 45"}, {"data": "marker"}])
    for place, tab in enumerate(tabs):
        await expect(rows(tab).first).to_contain_text("marker")
        await expect(rows(tab, "mail")).to_have_count(int(place == 4))


async def number_of_streams(hub: HubProcess, number: int) -> None:
    """Wait until the hub has so many streams."""
    for _ in range(400):
        if (await hub.get("/notifications/stats"))["connections"] == number:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"the hub has not {number} streams")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_it(hub: HubProcess, visit: Visit, language: str, scheme: str) -> None:
    axe = (npm.installed() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    page = await live(await visit(hub.url, color_scheme=scheme, bypass_csp=True))
    await page.get_by_test_id(f"language-{language}").click()
    await page.get_by_test_id("login-ann").click()
    await expect(page.get_by_test_id("room-change")).to_be_enabled()
    await page.get_by_test_id("chat-ask").click()
    await order(page, "1")
    await expect(rows(page)).to_have_count(1)
    for summary in await page.locator("summary").all():
        await summary.click()
    await page.get_by_test_id("leave").click()
    await state(page, "away")
    await page.evaluate(axe)
    found = await page.evaluate("axe.run()")
    assert [(each["id"], node["html"]) for each in found["violations"] for node in each["nodes"]] == []
    assert "color-contrast" in {each["id"] for each in found["passes"]}


async def test_the_links_lead_somewhere(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await expect(page.get_by_role("link", name="Metrics")).to_be_visible()
    links = [await each.get_attribute("href") for each in await page.locator("nav a").all()]
    assert links == ["docs/api", "metrics", "notifications/stats"]
    for link in links:
        assert await page.evaluate("link => fetch(link).then(({ status }) => status)", link) == 200


# How it comes back


async def test_what_was_sent_while_the_network_was_down_arrives_once(
    hub: HubProcess, network: Network, visit: Visit
) -> None:
    page = await live(await visit(network.url))
    await order(page, "1")
    await shows(page, 1)
    await network.become(Weather.CUT)
    await state(page, "waiting")
    for amount in (2, 3):
        await hub.post("/orders", {"amount": amount})
    await hub.post("/notifications/publish", {"topic": "user/42", "data": "meanwhile"})
    await network.become(Weather.FAIR)
    await live(page)
    caught_up = re.compile(r"nothing is missing\. \d+ notifications caught up")
    await expect(page.get_by_test_id("feed-said")).to_have_text(caught_up)
    await order(page, "4")
    await shows(page, 4, 3, 2, 1)
    await expect(rows(page, "mail")).to_have_text([re.compile("meanwhile")])
    await expect(page.locator("#orders .late")).to_have_text([re.compile("#3 "), re.compile("#2 ")])


async def test_it_comes_back_where_an_event_source_would_have_given_up(
    hub: HubProcess, network: Network, visit: Visit
) -> None:
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
    await state(page, "waiting")
    await order(page, "2")
    await expect(page.get_by_test_id("order-answer")).to_contain_text("cannot be reached")
    await hub.start()
    await live(page)
    await expect(page.get_by_test_id("order-answer")).to_be_empty()  # what failed then is of no interest any more
    await expect(page.get_by_test_id("feed-gap")).to_contain_text("restarted")
    await expect(page.get_by_test_id("feed-said")).to_contain_text("what it kept in memory is gone")
    await expect(page.get_by_test_id("orders").get_by_test_id("gap")).to_be_visible()
    await order(page, "3")
    await shows(page, 1, 1)  # a new hub counts anew
    await expect(rows(page).first.get_by_test_id("amount")).to_have_text("3.00")


async def test_a_hub_that_drains_says_so(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await hub.stop()
    await expect(page.get_by_test_id("journal")).to_contain_text("Lost: shutdown")
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
    await expect(page.locator("#orders .late")).to_have_text([re.compile("#2 ")])
    await page.reload()
    await live(page)
    await order(page, "3")
    await shows(page, 3, 2, 1)


async def test_a_hidden_tab_stays_connected(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await hide(page, True)
    await hub.post("/orders", {"amount": 1})
    await shows(page, 1)
    await state(page, "open")
    await hide(page, False)
    await expect(page.locator("#orders .late")).to_have_count(0)


async def hide(page: Page, hidden: bool) -> None:
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
    await expect(page.get_by_test_id("order-answer")).to_contain_text("order 2")  # the first one was the page's own
    await shows(page)
    await page.get_by_role("button", name="Come back now").click()
    await live(page)
    await shows(page, 2, 1)
    await expect(page.locator("#orders .late")).to_have_count(2)
    await expect(page.get_by_test_id("feed-said")).to_have_text(
        re.compile(r"Back after \d+ s: nothing is missing\. \d+ not")
    )


async def test_who_goes_offline_comes_back_by_itself_and_has_missed_something(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await expect(rows(page, "news")).not_to_have_count(0)
    await page.get_by_test_id("leave").click()
    await state(page, "away")
    await live(page)
    await expect(page.locator("#orders .late")).to_have_count(1)
    await expect(page.locator("#news .late")).not_to_have_count(0)


async def test_it_does_not_come_back_to_what_can_never_succeed(hub: HubProcess, visit: Visit) -> None:
    page = await live(await visit(hub.url))
    await page.get_by_test_id("user-id").fill("x" * 120)
    await page.get_by_test_id("user-follow").click()
    await expect(page.get_by_test_id("feed-topics")).to_have_text(re.compile(f"user/{'x' * 120}$"))
    await page.get_by_test_id("user-id").fill("汉" * 100)
    await page.get_by_test_id("user-follow").click()
    await state(page, "refused", "inbox")
    await expect(page.get_by_test_id("user-said")).to_contain_text("longer than 256 bytes")
    await state(page, "open")


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
    async with asyncio.timeout(60):
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
