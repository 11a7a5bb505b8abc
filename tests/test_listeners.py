"""The listeners of the demo: what they send when an event happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.events.loader import find_listeners
from hub.testing import Collected, HubForTest, hub_for_test


@pytest.fixture
async def hub() -> AsyncIterator[HubForTest]:
    """A hub with the listeners, bound as an application binds them: by the name of their package."""
    async with hub_for_test(listeners=["listeners"]) as hub:
        yield hub


@pytest.fixture
def told(hub: HubForTest) -> Collected:
    """All that the listeners send."""
    return hub.collect("**", "user/**")


def sent(told: Collected) -> list[tuple[str, str | None, Any]]:
    """Return the topic, type and data of each notification."""
    assert all(len(each.topics) == 1 for each in told)
    return [(each.topics[0], each.type, each.data) for each in told]


def test_the_package_offers_every_listener() -> None:
    assert [cls.__name__ for cls in find_listeners(["listeners"])] == ["OrderListener", "StockListener", "UserListener"]


async def test_a_new_order_is_announced_on_the_default_topic_without_a_type(hub: HubForTest, told: Collected) -> None:
    await hub.emit("order.created", {"id": 1, "amount": 99.5})
    assert sent(told) == [("notifications", None, {"message": "新订单 #1 已创建！", "amount": 99.5})]


async def test_the_progress_of_an_order_is_announced_with_a_type(hub: HubForTest, told: Collected) -> None:
    await hub.emit("order.paid", {"id": 1, "amount": 99.5})
    await hub.emit("order.shipped", {"id": 1})
    assert sent(told) == [
        ("notifications", "order.paid", {"message": "订单 #1 已付款！", "amount": 99.5}),
        ("notifications", "order.shipped", {"message": "订单 #1 已发货！"}),
    ]


async def test_a_new_user_is_welcomed_on_the_own_topic_only(hub: HubForTest, told: Collected) -> None:
    await hub.emit("user.registered", {"id": 42, "name": "小明"})
    await hub.emit("user.registered", {"id": 43})
    assert sent(told) == [
        ("user/42", "user.registered", {"message": "欢迎你，小明！"}),
        ("user/43", "user.registered", {"message": "欢迎你，新朋友！"}),
    ]


async def test_a_trade_goes_to_the_topic_of_its_symbol_as_it_is(hub: HubForTest, told: Collected) -> None:
    trade = {"symbol": "AAPL", "price": 1.0, "change": -0.5}
    await hub.emit("stock.traded", trade)
    assert sent(told) == [("stock/AAPL", "stock.traded", trade)]


@pytest.mark.parametrize("payload", [{"amount": 99.5}, None])
async def test_a_payload_that_lacks_what_is_needed_is_logged_and_sends_nothing(
    hub: HubForTest, told: Collected, payload: object, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExceptionGroup, match="event handlers failed"):
        await hub.emit("order.created", payload)
    assert sent(told) == []
    assert caplog.text.count("listeners.orders.OrderListener.created failed") == 1


async def test_events_that_concern_nobody_send_nothing(hub: HubForTest, told: Collected) -> None:
    for name in ("order", "order.created.twice", "user", "stock.listed"):
        await hub.emit(name, {"id": 1})
    assert sent(told) == []
