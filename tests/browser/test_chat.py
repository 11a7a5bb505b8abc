"""An answer of the AI in a real Chromium: on the demo page, and in the snippets of the documentation."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, Request, Response, Route, expect

from tests.snippets import snippet

from . import npm
from .conftest import HubProcess, Network, Visit, Weather

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOWTO = "howto/stream-ai-tokens.md"
SLOWLY = {"HUB_AI_SIMULATED_TOKENS": "240", "HUB_AI_SIMULATED_RATE": "60"}
"""Four seconds for an answer: time to do something in the middle of it."""


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that takes its time to answer, and keeps everything in a file."""
    process = HubProcess(tmp_path / "hub.log", HUB_LOG=f"sqlite:///{tmp_path / 'hub.db'}", **SLOWLY)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


class Requests:
    """What a page asks of `/ai/chat/stream`, and what it is answered."""

    def __init__(self, page: Page) -> None:
        self.sent: list[str] = []
        self.answered: list[int] = []
        page.on("request", self._send)
        page.on("response", self._answer)

    def _send(self, request: Request) -> None:
        if "/ai/" in request.url:
            self.sent.append(f"{request.method} {re.sub('.*/ai/chat/stream/?', '', request.url)}")

    def _answer(self, response: Response) -> None:
        if "/ai/" in response.url:
            self.answered.append(response.status)


async def state(page: Page, state: str) -> None:
    await expect(page.get_by_test_id("chat-state")).to_have_attribute("data-state", state)


async def text_of(page: Page) -> str:
    return await page.get_by_test_id("chat-answer").text_content() or ""


async def session_of(page: Page) -> str:
    return await page.get_by_test_id("chat-answer").get_attribute("data-session") or ""


async def ask(page: Page, question: str = "How does it work?") -> str:
    """Ask, and return the session once the answer has begun to appear."""
    before = await session_of(page)
    await page.get_by_test_id("chat-question").fill(question)
    await page.get_by_test_id("chat-ask").click()
    # What is there may be the last answer.
    await expect(page.get_by_test_id("chat-answer")).to_have_attribute("data-session", re.compile(f"^(?!{before}$)."))
    await grows(page, 1)
    return await session_of(page)


async def grows(page: Page, beyond: int) -> None:
    """Wait until the answer has more than *beyond* characters."""
    await page.wait_for_function(
        "beyond => document.querySelector('[data-testid=chat-answer]').textContent.length > beyond", arg=beyond
    )


async def is_whole(page: Page, hub: HubProcess, session: str) -> None:
    """Wait for the end; what is shown then must be what the hub has, and the only answer that it ever made."""
    await state(page, "done")
    kept = await hub.get(f"/ai/chat/stream/{session}")
    assert kept["phase"] == "done"
    assert await text_of(page) == kept["text"]
    assert await session_of(page) == session
    assert await generated(hub) == [session]


async def generated(hub: HubProcess) -> list[str]:
    """Return the sessions of all answers that have ended so far."""
    # What is confirmed after them: the history tells nothing that is still on its way into the file.
    await hub.post("/notifications/publish", {"topic": "marker", "data": None})
    history = await hub.get("/notifications/history?topic=ai/*")
    return [each["data"]["sessionId"] for each in history["notifications"]]


# The demo page


async def test_an_answer_streams(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    requests = Requests(page)
    await expect(page.get_by_test_id("chat-stop")).to_be_disabled()
    session = await ask(page)
    await state(page, "streaming")
    await expect(page.get_by_test_id("chat-asked")).to_have_text("How does it work?")
    await expect(page.get_by_test_id("chat-answer")).to_have_attribute("aria-busy", "true")
    await expect(page.get_by_test_id("chat-ask")).to_be_disabled()
    await expect(page.get_by_test_id("chat-stop")).to_be_enabled()
    await grows(page, len(await text_of(page)))
    await is_whole(page, hub, session)
    await expect(page.get_by_test_id("chat-answer")).to_have_attribute("aria-busy", "false")
    await expect(page.get_by_test_id("chat-answer")).to_contain_text("This answer is simulated")
    await expect(page.get_by_test_id("chat-simulated")).to_be_visible()
    await expect(page.get_by_test_id("chat-ask")).to_be_enabled()
    await expect(page.get_by_test_id("chat-stop")).to_be_disabled()
    assert requests.sent == ["POST init", f"GET {session}"]


async def test_a_reload_in_the_middle_changes_nothing(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    requests = Requests(page)
    session = await ask(page)
    for _ in range(2):
        before = len(await text_of(page))
        await page.reload()
        await grows(page, before)
        await state(page, "streaming")
    await expect(page.get_by_test_id("chat-asked")).to_have_text("How does it work?")
    await is_whole(page, hub, session)
    assert requests.sent == ["POST init"] + [f"GET {session}"] * 3


async def test_a_second_tab_shows_the_same(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    session = await ask(page)
    async with page.expect_popup() as opening:
        await page.get_by_test_id("chat-tab").click()
    second = await opening.value
    requests = Requests(second)
    await grows(second, 1)
    await expect(second.get_by_test_id("chat-asked")).to_have_text("How does it work?")
    for each in (page, second):
        await is_whole(each, hub, session)
    assert all(each.startswith("GET") for each in requests.sent)


async def test_stop_stops_it_for_everybody(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    session = await ask(page)
    elsewhere = await visit(f"{hub.url}/#ai={session}")
    await grows(elsewhere, 1)
    await page.get_by_test_id("chat-stop").click()
    for each in (page, elsewhere):
        await state(each, "cancelled")
        await expect(each.get_by_test_id("chat-stop")).to_be_disabled()
    kept = await hub.get(f"/ai/chat/stream/{session}")
    assert kept["phase"] == "cancelled"
    assert await text_of(page) == await text_of(elsewhere) == kept["text"]
    again = await ask(page, "and again")
    assert again != session


SOURCES = """() => {
    window.sources = [];
    window.EventSource = class extends EventSource {
        constructor(url) {
            super(url);
            sources.push(this);
        }
    };
}"""
CLOSED = "id => sources.filter((each) => each.url.includes(id)).every((each) => each.readyState === 2)"
"""No source of this answer is open, or will ever be again."""


async def test_after_the_end_nothing_more_is_asked(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    requests = Requests(page)
    session = await ask(page)
    await state(page, "done")
    await number_of_viewers(hub, 0)
    assert requests.sent == ["POST init", f"GET {session}"]


async def number_of_viewers(hub: HubProcess, number: int) -> None:
    """Wait until so many streams of answers are open."""
    for _ in range(400):
        if (await hub.get("/notifications/stats"))["viewers"] == number:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"the hub has not {number} viewers")


async def test_a_page_that_never_closes_is_told_to_by_one_204(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    requests = Requests(page)
    await page.evaluate(SOURCES)
    started = await hub.post("/ai/chat/stream/init", {"message": "Hello"})
    await page.evaluate("url => { new EventSource(url) }", started["streamUrl"])
    await page.wait_for_function(CLOSED, arg=started["sessionId"])
    assert requests.answered == [200, 204]
    assert await generated(hub) == [started["sessionId"]]


async def test_a_cut_in_the_middle_changes_nothing(hub: HubProcess, network: Network, visit: Visit) -> None:
    page = await visit(network.url)
    requests = Requests(page)
    session = await ask(page)
    await network.become(Weather.CUT)
    held = await text_of(page)
    await network.become(Weather.FAIR)
    await grows(page, len(held))
    assert (await text_of(page)).startswith(held)
    await is_whole(page, hub, session)
    assert requests.sent[0] == "POST init"
    assert {each.partition("?")[0] for each in requests.sent[1:]} == {f"GET {session}"}


async def test_who_goes_offline_gets_the_rest_later(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    session = await ask(page)
    await page.get_by_test_id("leave").click()
    await state(page, "resting")
    held = await text_of(page)
    await page.get_by_role("button", name="Come back now").click()
    await grows(page, len(held))
    await is_whole(page, hub, session)


async def test_it_comes_back_where_an_event_source_would_have_given_up(
    hub: HubProcess, network: Network, visit: Visit
) -> None:
    page = await visit(network.url)
    requests = Requests(page)
    session = await ask(page)
    await network.become(Weather.BAD_GATEWAY)
    async with asyncio.timeout(60):
        while 502 not in requests.answered:
            await page.wait_for_event("response")
    await network.become(Weather.FAIR)
    await is_whole(page, hub, session)


async def test_who_is_not_sure_that_it_was_asked_asks_once(hub: HubProcess, network: Network, visit: Visit) -> None:
    page = await visit(network.url)
    await page.route("**/ai/chat/stream/init", _deliver_and_forget, times=1)
    requests = Requests(page)
    session = await ask(page)
    await is_whole(page, hub, session)
    assert requests.sent == ["POST init", "POST init", f"GET {session}"]


async def _deliver_and_forget(route: Route) -> None:
    """Let the request reach the hub, and lose the answer."""
    await route.fetch()
    await route.abort()


async def test_a_killed_hub_is_told_as_a_failure(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    session = await ask(page)
    hub.kill()
    held = await text_of(page)
    await hub.start()
    await state(page, "failed")
    assert (await text_of(page)).startswith(held)
    assert (await hub.get(f"/ai/chat/stream/{session}"))["text"] == await text_of(page)
    await expect(page.get_by_test_id("chat-said")).to_contain_text("restarted before the answer was complete")
    await expect(page.get_by_test_id("chat-ask")).to_be_enabled()


async def test_what_the_hub_does_not_have_is_told_so(hub: HubProcess, visit: Visit) -> None:
    page = await visit(f"{hub.url}/#ai=nobody")
    await state(page, "gone")
    await expect(page.get_by_test_id("chat-said")).to_contain_text("there is no such answer")
    await ask(page)


# The snippets of the documentation


@pytest.fixture(scope="session")
def modules() -> Path:
    """Where React, Vue and a bundler are."""
    return npm.installed()


async def bundle(name: str, start: str, modules: Path, place: Path) -> str:
    """Return a page with the snippet *name*, and *start* behind it, made for a browser."""
    (place / name).write_text(snippet(HOWTO, name) + start, encoding="utf-8")
    (place / "node_modules").symlink_to(modules)
    bundler = await asyncio.create_subprocess_exec(
        str(modules / ".bin" / "esbuild"),
        name,
        "--bundle",
        "--jsx=automatic",
        "--alias:vue=vue/dist/vue.esm-bundler.js",
        "--define:process.env.NODE_ENV='production'",
        "--outfile=bundle.js",
        "--log-level=warning",
        cwd=place,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await bundler.communicate()
    assert bundler.returncode == 0, said.decode()
    script = (place / "bundle.js").read_text(encoding="utf-8").replace("</script", "<\\/script")
    return f'<!doctype html><meta charset="utf-8"><div id="root"></div><script type="module">{script}</script>'


REACT = """
import { createRoot } from "react-dom/client";
createRoot(document.getElementById("root")).render(<Chat />);
"""
VUE = """
import { createApp } from "vue";
createApp(Chat).mount("#root");
"""


@pytest.fixture(params=["chat.html", "Chat.jsx", "Chat.js"])
async def shown(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A page with each snippet in turn."""
    name = request.param
    if name == "chat.html":
        return snippet(HOWTO, name)
    modules = request.getfixturevalue("modules")
    return await bundle(name, REACT if name == "Chat.jsx" else VUE, modules, tmp_path)


async def open_snippet(visit: Visit, url: str, html: str) -> Page:
    page = await visit("about:blank")
    await page.route("**/chat.html", lambda route: route.fulfill(content_type="text/html", body=html))
    await page.goto(f"{url}/chat.html")
    return page


async def snippet_says(page: Page, state: str) -> None:
    await expect(page.get_by_role("status")).to_contain_text(state)


async def snippet_grows(page: Page, beyond: int) -> None:
    await page.wait_for_function("beyond => document.getElementById('answer')?.textContent.length > beyond", arg=beyond)


async def test_a_snippet_streams_survives_a_reload_a_cut_and_stops(
    hub: HubProcess, network: Network, visit: Visit, shown: str
) -> None:
    page = await open_snippet(visit, network.url, shown)
    requests = Requests(page)
    answer = page.locator("#answer")
    await page.get_by_role("textbox").fill("Hello")
    await page.get_by_role("button", name="Ask").click()
    await snippet_grows(page, 1)
    before = await answer.text_content() or ""
    await page.reload()
    await snippet_grows(page, len(before))
    await network.become(Weather.CUT)
    await snippet_says(page, "connecting")
    await network.become(Weather.FAIR)
    await snippet_says(page, "done")
    (session,) = await generated(hub)
    assert await answer.text_content() == (await hub.get(f"/ai/chat/stream/{session}"))["text"]
    assert [each for each in requests.sent if each.startswith("POST")] == ["POST init"]

    await page.get_by_role("textbox").fill("Hello again")
    await page.get_by_role("button", name="Ask").click()
    await expect(answer).to_have_text(re.compile("You asked: Hello again"))
    await page.get_by_role("button", name="Stop").click()
    await snippet_says(page, "cancelled")
    assert len(await generated(hub)) == 2


async def test_the_snippet_without_an_event_source_reads_every_block(hub: HubProcess, visit: Visit) -> None:
    page = await visit(hub.url)
    place, blocks = await page.evaluate(
        f"""async () => {{
            const said = [];
            const console = {{ log: (block) => said.push(block) }};
            {snippet(HOWTO, "read.js")}
            return [place, said];
        }}"""
    )
    kept = await hub.get(place)
    contents = re.findall(r'^data: (\{"content":.*)$', "\n".join(blocks), re.MULTILINE)
    assert "".join(json.loads(each)["content"] for each in contents) == kept["text"]
    assert blocks[0].splitlines()[1] == "event: start"
    assert blocks[-1].splitlines()[0] == "event: close"
