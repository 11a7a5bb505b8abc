"""The demo's own streams, hurried: what takes a second in the demo takes a moment here."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import reactivex
from reactivex import Observable

from hub.demo.ticker import Ticker
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.server import Server

every = reactivex.interval


@pytest.fixture
async def demo(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Server:
    hurried: Callable[[float], Observable[int]] = lambda seconds: every(seconds / 100)  # noqa: E731
    monkeypatch.setattr(reactivex, "interval", hurried)
    return await serve(demo=True, listeners=["listeners"])


async def test_the_get_decorator_sends_ten_messages_and_ends(demo: Server) -> None:
    client = await demo.client()
    await client.request("GET", "/sse/use-get-decorator")
    assert await client.head() == 200
    assert [event.json() for event in await client.rest()] == [
        {"message": f"收到第 {number} 条消息"} for number in range(10)
    ]
    assert client.complete


async def test_the_sse_decorator_goes_on_until_the_client_leaves(demo: Server) -> None:
    client = await demo.client()
    await client.request("GET", "/sse/use-sse-decorator")
    assert await client.head() == 200
    assert [(await client.next()).json()["message"] for _ in range(12)] == [
        f"收到第 {number} 条消息" for number in range(12)
    ]
    client.close()


async def test_orders_are_numbered_and_announced_to_everybody(demo: Server) -> None:
    client = await demo.subscribe()
    for number, amount in enumerate((99.5, 0, 1_000_000), start=1):
        answer = await demo.post("/orders", {"amount": amount})
        assert (answer.status, answer.json()) == (201, {"id": number, "amount": amount})
        assert (await client.next()).json() == {"message": f"新订单 #{number} 已创建！", "amount": amount}


@pytest.mark.parametrize("body", [{}, {"amount": "1"}, {"amount": -1}, {"amount": True}, {"amount": 1e300}, [], None])
async def test_a_wrong_order_is_refused_and_takes_no_number(demo: Server, body: object) -> None:
    answer = await demo.post("/orders", body)
    assert (answer.status, answer.json()["field"]) == (400, "amount")
    assert (await demo.post("/orders", {"amount": 1})).json()["id"] == 1


async def test_a_users_stream_is_like_subscribe_in_everything(demo: Server) -> None:
    ids = demo.send("one", "two", topic="user/7")
    demo.send("not for 7", topic="user/8")
    client = await demo.client()
    await client.request("GET", f"/sse/7?lastEventId={ids[0]}&envelope=1")
    assert await client.head() == 200
    opened = (await client.next("hub.open")).json()
    assert (opened["topics"], opened["recovered"]) == (["user/7"], True)
    assert (await client.next()).json() == {"topic": "user/7", "data": "two"}


@pytest.mark.parametrize(
    ("user", "topic"), [("*", "user/%2A"), ("**", "user/%2A%2A"), ("a%2Fb", "user/a%2Fb"), ("%0A", "user/%0A")]
)
async def test_a_user_id_is_one_segment_and_no_pattern(demo: Server, user: str, topic: str) -> None:
    client = await demo.client()
    await client.request("GET", f"/sse/{user}")
    assert await client.head() == 200
    assert (await client.event()).json()["topics"] == [topic]


async def test_a_user_id_that_is_too_long_is_refused(demo: Server) -> None:
    answer = await demo.ask("GET", f"/sse/{'x' * 300}")
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_the_ticker_numbers_its_flashes(demo: Server) -> None:
    client = await demo.subscribe("news")
    ticker = Ticker(demo.hub)
    ticker.tick()
    ticker.tick()
    assert [(await client.next("news-flash")).json() for _ in range(2)] == [
        {"message": f"这是第 {number} 条新闻快讯！"} for number in (1, 2)
    ]


async def test_the_streams_end_when_nobody_listens(demo: Server) -> None:
    client = await demo.subscribe("news", "stock/AAPL")
    assert demo.hub.fanout.wants("news")
    client.close()
    await until(lambda: not demo.hub.fanout.wants("news"))
    assert not demo.hub.fanout.wants("stock/AAPL")


@pytest.mark.parametrize(
    ("path", "type"), [("/", "text/html"), ("/demo/main.js", "text/javascript"), ("/demo/demo.css", "text/css")]
)
async def test_the_page_and_its_parts_are_what_they_say_and_run_nothing_from_elsewhere(
    demo: Server, path: str, type: str
) -> None:
    answer = await demo.ask("GET", path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, f"{type}; charset=utf-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    again = await demo.ask("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


async def test_nothing_is_inline_in_the_page(demo: Server) -> None:
    text = (await demo.ask("GET", "/")).body.decode()
    assert re.findall(r"<script[^>]*>[^<]", text) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
