"""`hub serve --demo` as a real process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cli.commands import Serving

pytestmark = pytest.mark.slow


async def test_the_classic_routes_answer_as_their_clients_expect(serving: Serving) -> None:
    hub = await serving("--demo", "--events-api", "--listeners", "listeners")
    notifications = await hub.site.subscribe()
    user = await hub.site.client()
    await user.request("GET", "/sse/7")
    assert await user.head() == 200
    assert (await user.next("hub.open")).json()["topics"] == ["user/7"]
    news = await hub.site.subscribe("news", "stock/AAPL", "stock/TSLA")

    order = await hub.site.post("/orders", {"amount": 99.5})
    assert (order.status, order.json()) == (201, {"id": 1, "amount": 99.5})
    assert (await notifications.next()).data == '{"message":"新订单 #1 已创建！","amount":99.5}'
    assert (await hub.site.post("/events/user.registered", {"id": 7, "name": "Ada"})).status == 202
    assert "Ada" in (await user.next("user.registered")).json()["message"]

    async def get_decorator() -> None:
        client = await hub.site.client()
        await client.request("GET", "/sse/use-get-decorator")
        assert await client.head() == 200
        assert [(await client.next()).data for _ in range(2)] == [
            '{"message":"收到第 0 条消息"}',
            '{"message":"收到第 1 条消息"}',
        ]

    async def test_route() -> None:
        client = await hub.site.client()
        await client.request("POST", "/sse/test", headers={"Content-Type": "application/json"}, body=b"{}")
        assert await client.head() == 200
        assert [event.data for event in await client.rest()] == [
            '{"content":"这是测试内容 ==>1"}',
            '{"content":"这是测试内容 ==>2"}',
            '{"content":"这是测试内容 ==>3"}',
            "[DONE]",
        ]
        assert client.complete

    async def ticker_and_market() -> None:
        heard = {(await news.event()).type for _ in range(6)}
        assert heard == {"news-flash", "stock.traded"}

    await asyncio.gather(get_decorator(), test_route(), ticker_and_market())
    page = await hub.site.ask("GET", "/")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    hub.check_tidy()


async def test_the_demo_alone_has_its_own_listeners(serving: Serving) -> None:
    hub = await serving("--demo")
    stream = await hub.site.subscribe("notifications", "stock/*")
    await hub.site.post("/orders", {"amount": 1})
    assert "#1" in (await stream.next()).json()["message"]
    await stream.next("stock.traded")
    hub.check_tidy()


async def test_listeners_that_are_named_take_the_place_of_those_of_the_demo(serving: Serving) -> None:
    hub = await serving("--demo", "--listeners", "listeners.stocks")
    stream = await hub.site.subscribe("notifications")
    await hub.site.post("/orders", {"amount": 1})
    await hub.site.publish({"data": "the only one"})
    assert (await stream.next()).data == "the only one"


async def test_an_order_is_a_plain_message_and_needs_an_amount(serving: Serving) -> None:
    hub = await serving("--demo", "--listeners", "listeners")
    stream = await hub.site.subscribe()
    stream.received.clear()
    wrongs: list[object] = [
        {},
        {"amount": None},
        {"amount": "1"},
        {"amount": True},
        {"amount": -1},
        {"amount": 1e13},
        [],
        1,
    ]
    for wrong in wrongs:
        answer = await hub.site.post("/orders", wrong)
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
        assert answer.json()["field"] == "amount"
    answer = await hub.site.post("/orders", {"amount": 99.5})
    assert (answer.status, answer.json()) == (201, {"id": 1, "amount": 99.5})
    event = await stream.next("message")
    data = '{"message":"新订单 #1 已创建！","amount":99.5}'
    assert stream.received.decode() == f"id: {event.id}\ndata: {data}\n\n"
    assert (await hub.site.post("/events/order.created", {"id": 1, "amount": 1})).status == 404
    hub.check_tidy()


async def test_the_stream_of_a_user_resumes_like_any_other(serving: Serving) -> None:
    hub = await serving("--demo")
    ids = [(await hub.site.publish({"topic": "user/u-42", "data": data})).json()["id"] for data in "abc"]
    await hub.site.publish({"topic": "user/u-43", "data": "not for u-42"})
    for path, headers in (("/sse/u-42", {"Last-Event-ID": ids[0]}), (f"/sse/u-42?lastEventId={ids[0]}", {})):
        client = await hub.site.client()
        await client.request("GET", path, headers=headers)
        assert await client.head() == 200
        opened = await client.next("hub.open")
        assert (opened.id, opened.json()["topics"], opened.json()["recovered"]) == (ids[0], ["user/u-42"], True)
        assert [(await client.next()).data for _ in "bc"] == ["b", "c"]
    for path, topic in (("/sse/a%2Fb", "user/a%2Fb"), ("/sse/*", "user/%2A")):
        client = await hub.site.client()
        await client.request("GET", path)
        assert await client.head() == 200
        assert (await client.next("hub.open")).json()["topics"] == [topic]
    assert (await hub.site.ask("GET", f"/sse/{'x' * 300}")).status == 400


async def test_news_are_numbered_without_a_hole_and_trades_go_to_their_symbol(serving: Serving) -> None:
    hub = await serving("--demo", "--listeners", "listeners")
    stream = await hub.site.subscribe("news", "stock/*", query={"envelope": "1"})
    news: list[object] = []
    trades: list[dict[str, Any]] = []
    while len(news) < 2 or len(trades) < 2:
        event = await stream.event()
        (news if event.type == "news-flash" else trades).append(event.json())
    assert news[:2] == [{"topic": "news", "data": {"message": f"这是第 {number} 条新闻快讯！"}} for number in (1, 2)]
    for trade in trades:
        assert trade["topic"] == f"stock/{trade['data']['symbol']}"
        assert trade["data"]["price"] > 0
