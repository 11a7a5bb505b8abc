"""Who may read, by the EventSource of a real Chromium: cookies, tickets, refusals, pages of other sites."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
import pytest_asyncio
import trustme
from aiohttp import web
from playwright.async_api import Browser, BrowserContext, Page
from pydantic import SecretStr

from hub import HUB, NOTIFICATIONS, Identity, Settings, setup_hub
from tests.web.client import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "a secret of the tests, which has more than 32 bytes"
HOST = "127.0.0.1"
USERS = {
    each.user: each
    for each in (
        Identity(user="ann", subscribe=("orders/**", "room/tea")),
        Identity(user="bob", subscribe=("**",)),
        Identity(user="*"),
    )
}
# Each browser has six connections for a host; a page leaves none open.
OPEN = """
    ([path, credentials]) => new Promise((begun) => {
        const source = window.source = new EventSource(path, { withCredentials: credentials });
        const seen = window.seen = { opened: 0, data: [], refused: [], lost: 0 };
        window.ended = new Promise((end) => {
            const over = (why) => { begun(why); end({ ...seen, why }); };
            source.addEventListener("hub.open", () => { seen.opened += 1; begun("open"); });
            source.addEventListener("hub.close", ({ data }) => {
                seen.refused.push(JSON.parse(data));
                over("refused");
            });
            source.onmessage = ({ data }) => data === "end" ? (source.close(), over("end")) : seen.data.push(data);
            source.onerror = () => { seen.lost += 1; if (source.readyState === EventSource.CLOSED) over("closed"); };
        });
    })
"""


async def by_cookie(request: web.Request) -> Identity | None:
    """Return who the cookie of the application's own login says."""
    return USERS.get(request.cookies.get("login", ""))


class Site:
    """A hub that knows tokens and a login, which each name of loopback shows as an origin of its own.

    Attributes:
        scheme: `http` or `https`.
        port: where it listens.
        answered: the statuses of all requests for a subscription.
    """

    def __init__(self, scheme: str, sock: socket.socket, **settings: Any) -> None:
        self.scheme, self.port, self._sock = scheme, sock.getsockname()[1], sock
        self.app = web.Application()
        self.hub = setup_hub(
            self.app,
            Settings(
                jwt_secret=SecretStr(SECRET),
                cors_origins=(self.origin("a.localhost"),),
                anonymous_subscribe=("news/**",),
                ai_provider="application",
                drain=0,
                **settings,
            ),
            authenticate=by_cookie,
        )
        self.notifications = self.app[NOTIFICATIONS]
        self.app.router.add_get("/page", self._page)
        self.app.on_response_prepare.append(self._note)
        self.answered: list[int] = []
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=2)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><link rel=icon href=data:,>", content_type="text/html")

    async def _note(self, request: web.Request, response: web.StreamResponse) -> None:
        if request.path == "/notifications/subscribe":
            self.answered.append(response.status)

    def origin(self, host: str = HOST) -> str:
        return f"{self.scheme}://{host}:{self.port}"

    async def start(self, tls: ssl.SSLContext | None) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._sock, ssl_context=tls).start()

    async def aclose(self) -> None:
        await self._runner.cleanup()

    async def cut(self) -> None:
        """Reset the connection of every stream."""
        for stream in list(self.hub.connections):
            stream.abort()

    async def send(self, data: str, *topics: str, **options: Any) -> str:
        return str(await self.notifications.send_notification(data, topics=list(topics), **options))


Serve = Callable[..., Awaitable[Site]]


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[Serve]:
    sites: list[Site] = []

    async def serve(scheme: str = "http", **settings: Any) -> Site:
        sock = socket.create_server((HOST, 0))
        site = Site(scheme, sock, **settings)
        tls = None
        if scheme == "https":
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            trustme.CA().issue_cert(HOST, "a.localhost", "b.localhost").configure_cert(tls)
        sites.append(site)
        await site.start(tls)
        return site

    yield serve
    for site in sites:
        await site.aclose()


Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Open a page of an origin in a browser of its own, or in that of another page."""
    contexts: list[BrowserContext] = []

    async def visit(origin: str, cookies: Sequence[Any] = (), beside: Page | None = None) -> Page:
        if beside is None:
            contexts.append(await browser.new_context(ignore_https_errors=True))
            await contexts[-1].add_cookies(cookies)
        page = await (contexts[-1] if beside is None else beside.context).new_page()
        await page.goto(f"{origin}/page")
        return page

    yield visit
    for context in contexts:
        await context.close()


def subscribe_to(topics: Sequence[str], origin: str = "", **query: str) -> str:
    return f"{origin}/notifications/subscribe?{urlencode([('topic', topic) for topic in topics] + list(query.items()))}"


async def opened(page: Page, path: str, *, credentials: bool = False) -> str:
    """Open an EventSource; return `open`, or how it was refused."""
    return str(await page.evaluate(OPEN, [path, credentials]))


async def ended(page: Page) -> Any:
    return await page.evaluate("window.ended")


async def seen(page: Page, count: int) -> Any:
    """Wait until the EventSource has got so many notifications, and return everything it has."""
    await page.wait_for_function("count => window.seen.data.length >= count", arg=count)
    return await page.evaluate("window.seen")


def token(user: str, *, seconds: float = 3600, subscribe: Sequence[str] = ("orders/*",)) -> str:
    claims = {"sub": user, "exp": int(time.time() + seconds), "hub": {"subscribe": list(subscribe)}}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def cookie(site: Site, name: str, value: str, **attributes: Any) -> dict[str, Any]:
    return {"url": site.origin(), "name": name, "value": value, **attributes}


def everywhere(site: Site, host: str) -> list[dict[str, Any]]:
    """Return a login of the hub that is sent with requests of pages of *host*, whatever site that is."""
    login = cookie(site, "login", "ann", sameSite="None", secure=True)
    return [login if host == HOST else {**login, "partitionKey": f"https://{host}"}]


# ---- tickets ----

MINT = """
    async ([hub, token]) => {
        const headers = { Authorization: `Bearer ${token}` };
        const answer = await fetch(`${hub}/notifications/tickets`, { method: "POST", headers });
        return (await answer.json()).ticket;
    }
"""


@pytest.mark.parametrize(
    ("scheme", "host", "attributes"),
    [
        ("http", HOST, ("Strict", False, False)),
        ("https", HOST, ("Strict", True, False)),
        ("https", "a.localhost", ("None", True, True)),
    ],
    ids=["same origin", "same origin over TLS", "cross-site"],
)
async def test_a_stream_with_a_ticket_comes_back_by_itself_again_and_again(
    serve: Serve, visit: Visit, scheme: str, host: str, attributes: tuple[str, bool, bool]
) -> None:
    site = await serve(scheme)
    page = await visit(site.origin(host))
    hub = site.origin() if host != HOST else ""
    ticket = await page.evaluate(MINT, [hub, token("tom")])
    assert await opened(page, subscribe_to(["orders/1"], hub, ticket=ticket), credentials=bool(hub)) == "open"
    (kept,) = [each for each in await page.context.cookies() if "hub_stream_" in each.get("name", "")]
    same_site, secure, partitioned = attributes
    assert (kept["sameSite"], kept["secure"], kept["httpOnly"]) == (same_site, secure, True)
    assert bool(kept.get("partitionKey")) is partitioned
    assert kept["expires"] > time.time() + 3_600
    for number in range(2):
        await site.send(f"seen {number}", "orders/1", retry=10)
        assert (await seen(page, 2 * number + 1))["data"][-1] == f"seen {number}"
        await site.cut()
        await site.send(f"missed {number}", "orders/1")
        await seen(page, 2 * number + 2)
    await site.send("end", "orders/1")
    result = await ended(page)
    assert result["data"] == ["seen 0", "missed 0", "seen 1", "missed 1"]
    assert (result["opened"], result["lost"], result["refused"]) == (3, 2, [])


async def test_two_tabs_with_tickets_do_not_disturb_each_other(serve: Serve, visit: Visit) -> None:
    site = await serve()
    one = await visit(site.origin())
    two = await visit(site.origin(), beside=one)
    for page, user in ((one, "tom"), (two, "eve")):
        ticket = await page.evaluate(MINT, ["", token(user)])
        assert await opened(page, subscribe_to([f"user/{user}"], ticket=ticket)) == "open"
    for number in range(2):
        for page, user in ((one, "tom"), (two, "eve")):
            await site.send(f"{user} {number}", f"user/{user}", retry=10)
            await seen(page, number + 1)
        await site.cut()
    for page, user in ((one, "tom"), (two, "eve")):
        await site.send("end", f"user/{user}")
        result = await ended(page)
        assert result["data"] == [f"{user} 0", f"{user} 1"]
        assert result["refused"] == []


async def test_the_stream_of_a_used_ticket_does_not_begin_without_its_cookie(serve: Serve, visit: Visit) -> None:
    site = await serve()
    page = await visit(site.origin())
    path = subscribe_to(["orders/1"], ticket=await page.evaluate(MINT, ["", token("tom")]))
    assert await opened(page, path) == "open"
    thief = await visit(site.origin())
    assert await opened(thief, path) == "refused"
    assert (await ended(thief))["refused"] == [{"reason": "token_invalid"}]


# ---- refusals ----


@pytest.mark.parametrize(
    ("cookies", "path", "told"),
    [
        ({}, subscribe_to(["orders/1"]), {"reason": "unauthorized"}),
        ({"hub_token": lambda: token("tom", seconds=-60)}, subscribe_to(["orders/1"]), {"reason": "token_expired"}),
        ({"hub_token": lambda: "x.y.z"}, subscribe_to(["news/1"]), {"reason": "token_invalid"}),
        (
            {"hub_token": lambda: token("tom")},
            subscribe_to(["orders/1", "secrets"]),
            {"reason": "forbidden", "topic": "secrets"},
        ),
        ({}, subscribe_to(["orders/1"], ticket="x"), {"reason": "token_invalid"}),
        ({}, "/ai/chat/stream/none", {"reason": "unauthorized"}),
    ],
)
@pytest.mark.parametrize("refuse", ["auto", "status"])
async def test_a_page_can_read_why_its_stream_is_refused(  # noqa: PLR0917 - a table and two fixtures
    serve: Serve, visit: Visit, refuse: str, cookies: dict[str, Callable[[], str]], path: str, told: dict[str, str]
) -> None:
    site = await serve(refuse=refuse)
    page = await visit(site.origin(), [cookie(site, name, value()) for name, value in cookies.items()])
    how = await opened(page, path)
    result = await ended(page)
    state = await page.evaluate("source.readyState")
    await page.evaluate("source.close()")
    if refuse == "status":
        assert (how, result["refused"], state) == ("closed", [], 2)
    else:
        assert (how, result["refused"]) == ("refused", [told])
        assert state != 2, "it comes back: a cookie may have been renewed"


async def test_an_expired_cookie_that_is_renewed_lets_the_same_event_source_in(
    serve: Serve, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.web.stream._REFUSED_SECONDS", (0.01, 0.02))
    site = await serve()
    page = await visit(site.origin(), [cookie(site, "hub_token", token("tom", seconds=-60))])
    assert await opened(page, subscribe_to(["orders/1"])) == "refused"
    await page.context.add_cookies([cookie(site, "hub_token", token("tom"))])  # type: ignore[list-item]  # it has a url
    await page.wait_for_function("window.seen.opened === 1")
    await site.send("hello", "orders/1")
    assert (await seen(page, 1))["data"] == ["hello"]
    await page.evaluate("source.close()")


async def test_a_revoked_user_is_told_so(serve: Serve, visit: Visit) -> None:
    site = await serve()
    root = token("root")
    page = await visit(site.origin(), [cookie(site, "hub_token", token("tom"))])
    assert await opened(page, subscribe_to(["orders/1"])) == "open"
    admin = jwt.encode({**jwt.decode(root, SECRET, ["HS256"]), "hub": {"admin": True}}, SECRET, algorithm="HS256")
    status = await page.evaluate(
        """async (token) => (await fetch("/notifications/users/tom/connections", {
            method: "DELETE", headers: { Authorization: `Bearer ${token}` } })).status""",
        admin,
    )
    assert status == 204
    assert (await ended(page))["refused"] == [{"reason": "revoked"}]
    await page.evaluate("source.close()")


# ---- pages of other sites ----


@pytest.mark.parametrize(
    ("host", "how"),
    [(HOST, "open"), ("a.localhost", "open"), ("b.localhost", "closed")],
    ids=["own", "listed", "other"],
)
async def test_a_page_of_another_site_opens_no_stream_with_the_cookie_of_a_user(
    serve: Serve, visit: Visit, host: str, how: str
) -> None:
    site = await serve("https")
    page = await visit(site.origin(host), everywhere(site, host))
    path = subscribe_to(["orders/1"], site.origin())
    assert await opened(page, path, credentials=True) == how
    assert len(site.hub.connections) == (how == "open")
    await page.evaluate("source.close()")


async def test_a_page_of_another_site_holds_no_stream_in_an_image_or_a_frame(serve: Serve, visit: Visit) -> None:
    site = await serve("https")
    page = await visit(site.origin("b.localhost"), everywhere(site, "b.localhost"))
    path = subscribe_to(["orders/1"], site.origin())
    await page.evaluate(
        """(path) => Promise.allSettled([
            new Promise((go) => { const image = new Image(); image.onload = image.onerror = go; image.src = path; }),
            new Promise((go) => { const frame = document.createElement("iframe"); frame.onload = go; frame.src = path;
                document.body.append(frame); }),
            fetch(path, { mode: "no-cors", credentials: "include" }),
        ])""",
        path,
    )
    await until(lambda: len(site.answered) == 3)
    assert site.answered == [403, 403, 403]
    assert len(site.hub.connections) == 0


# ---- the rules ----

SENT = [
    # data, topics, private
    ("public", ["news/a", "orders/1"], False),
    ("private", ["news/b", "orders/2"], True),
    ("bob's", ["news/c", "user/bob"], True),
    ("to ann", ["user/ann"], False),
    ("to *", ["user/%2A"], True),
    ("tea", ["room/tea"], False),
    ("milk", ["room/milk"], False),
    ("deep", ["orders/1/2", "secrets"], True),
]
ANYBODY = ["public"]

RULES: list[tuple[str, list[str], Any]] = [
    # who, topics asked for, what arrives or is told
    ("", ["news/**"], ANYBODY),
    ("", ["news/a"], ANYBODY),
    ("", ["orders/1"], {"reason": "unauthorized"}),
    ("", ["**"], {"reason": "unauthorized"}),
    ("", ["user/ann"], {"reason": "unauthorized"}),
    ("ann", ["news/**"], ANYBODY),  # a grant that is not used counts nothing
    ("ann", ["orders/*"], ["public", "private"]),
    ("ann", ["orders/**"], ["public", "private", "deep"]),
    ("ann", ["news/**", "orders/*"], ["public", "private"]),
    ("ann", ["orders/1", "secrets"], {"reason": "forbidden", "topic": "secrets"}),
    ("ann", ["**"], {"reason": "forbidden", "topic": "**"}),
    ("ann", ["user/ann"], ["to ann"]),
    ("ann", ["user/bob"], {"reason": "forbidden", "topic": "user/bob"}),
    ("ann", ["user/*"], {"reason": "forbidden", "topic": "user/*"}),
    ("ann", ["room/tea"], ["tea"]),
    ("ann", ["room/*"], {"reason": "forbidden", "topic": "room/*"}),
    ("bob", ["**"], ["public", "private", "bob's", "deep"]),
    ("bob", ["*/*"], ["public", "private", "bob's"]),
    ("bob", ["user/bob"], ["bob's"]),
    ("bob", ["user/ann"], {"reason": "forbidden", "topic": "user/ann"}),
    ("bob", ["room/tea"], {"reason": "forbidden", "topic": "room/tea"}),
    ("bob", ["ai/1"], {"reason": "forbidden", "topic": "ai/1"}),
    ("*", ["user/%2A"], ["to *"]),
    ("*", ["user/*"], {"reason": "forbidden", "topic": "user/*"}),
    ("*", ["user/ann"], {"reason": "forbidden", "topic": "user/ann"}),
]


@pytest.mark.parametrize("how", ["live", "earliest", "cursor"])
async def test_an_event_source_gets_what_its_user_may_read(serve: Serve, visit: Visit, how: str) -> None:
    site = await serve()
    begin = await site.send("begin", "news/begin")

    async def send() -> None:
        for data, topics, private in SENT:
            await site.send(data, *topics, private=private)
        await site.send("end", "news/end")

    query = {"live": {}, "earliest": {"lastEventId": "earliest"}, "cursor": {"lastEventId": begin}}[how]
    if how != "live":
        await send()
    pages: dict[str, Page] = {}
    got: list[Any] = []
    for user, topics, _ in RULES:
        if user not in pages:
            pages[user] = await visit(site.origin(), [cookie(site, "login", user)] if user else [])
        begun = await opened(pages[user], subscribe_to([*topics, "news/end"], **query))
        if how == "live" and begun == "open":
            await send()
        result = await ended(pages[user])
        seen = [data for data in result["data"] if data != "begin"]
        got.append((user, topics, result["refused"][0] if result["refused"] else seen))
        await pages[user].evaluate("source.close()")  # one that is refused would come back
    assert got == RULES


async def test_the_newest_of_each_topic_is_the_newest_that_may_be_read(serve: Serve, visit: Visit) -> None:
    site = await serve()
    await site.send("for everybody", "news/a")
    await site.send("for staff", "news/a", "orders/1", private=True)
    await site.send("end", "news/end")
    for user, topics, told in (
        ("", ["news/a"], ["for everybody"]),
        ("ann", ["news/a"], ["for everybody"]),
        ("bob", ["news/a"], ["for staff"]),
        ("ann", ["orders/1"], ["for staff"]),
    ):
        page = await visit(site.origin(), [cookie(site, "login", user)] if user else [])
        await opened(page, subscribe_to([*topics, "news/end"], lastEventId="latest"))
        assert (await ended(page))["data"] == told
        await page.close()


async def test_an_answer_of_an_ai_is_watched_by_whoever_began_it(serve: Serve, visit: Visit) -> None:
    site = await serve()
    generation = await site.app[HUB].generations.begin(owner="ann")
    generation.append("hello")
    for user, how in (("ann", "text"), ("bob", "closed"), ("", "refused")):
        page = await visit(site.origin(), [cookie(site, "login", user)] if user else [])
        begun = page.evaluate(OPEN, [f"/ai/chat/stream/{generation.id}", False])
        if how == "text":
            watching = asyncio.ensure_future(begun)
            await page.wait_for_function("window.seen?.data.length === 1")
            assert json.loads((await page.evaluate("seen.data"))[0])["content"] == "hello"
            await page.evaluate("source.close()")
            watching.cancel()
        else:
            assert await begun == how
        await page.evaluate("source.close()")
        await page.close()
