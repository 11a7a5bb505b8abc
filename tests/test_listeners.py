from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from hub.events.bus import EventBus
from hub.events.loader import Listeners, find_listeners
from hub.topics import check_topic

if TYPE_CHECKING:
    from hub.notifications import NotificationService


class Service:
    """Stands in for the notification service: remembers topic, type and data."""

    def __init__(self) -> None:
        self.sent: list[tuple[str | None, str | None, Any]] = []

    def send_notification(self, data: object, *, topic: str | None = None, type: str | None = None) -> None:
        self.sent.append((topic and check_topic(topic), type, data))

    def send_to_user(self, user_id: str | int, data: object, *, type: str | None = None) -> None:
        self.send_notification(data, topic=f"user/{user_id}", type=type)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def bus() -> EventBus:
    bus = EventBus()
    bus.open()
    return bus


@pytest.fixture(autouse=True)
def listeners(bus: EventBus, service: Service) -> Iterator[Listeners]:
    """The listeners, bound as an application binds them: by the name of their package."""
    with Listeners(["listeners"], bus, cast("NotificationService", service)) as listeners:
        yield listeners


def test_the_package_offers_every_listener() -> None:
    assert [cls.__name__ for cls in find_listeners(["listeners"])] == ["OrderListener", "StockListener", "UserListener"]


async def test_a_new_order_is_announced_on_the_default_topic_without_a_type(bus: EventBus, service: Service) -> None:
    await bus.publish("order.created", {"id": 1, "amount": 99.5})
    assert service.sent == [(None, None, {"message": "新订单 #1 已创建！", "amount": 99.5})]


async def test_the_progress_of_an_order_is_announced_with_a_type(bus: EventBus, service: Service) -> None:
    await bus.publish("order.paid", {"id": 1, "amount": 99.5})
    await bus.publish("order.shipped", {"id": 1})
    assert service.sent == [
        (None, "order.paid", {"message": "订单 #1 已付款！", "amount": 99.5}),
        (None, "order.shipped", {"message": "订单 #1 已发货！"}),
    ]


async def test_a_new_user_is_welcomed_on_the_own_topic_only(bus: EventBus, service: Service) -> None:
    await bus.publish("user.registered", {"id": 42, "name": "小明"})
    await bus.publish("user.registered", {"id": 43})
    assert service.sent == [
        ("user/42", "user.registered", {"message": "欢迎你，小明！"}),
        ("user/43", "user.registered", {"message": "欢迎你，新朋友！"}),
    ]


async def test_a_trade_goes_to_the_topic_of_its_symbol_as_it_is(bus: EventBus, service: Service) -> None:
    trade = {"symbol": "AAPL", "price": 1.0, "change": -0.5}
    await bus.publish("stock.traded", trade)
    assert service.sent == [("stock/AAPL", "stock.traded", trade)]


async def test_a_payload_that_lacks_what_is_needed_is_logged_and_sends_nothing(
    bus: EventBus, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    bus.emit("order.created", {"amount": 99.5})
    bus.emit("order.created")
    assert service.sent == []
    assert caplog.text.count("listeners.orders.OrderListener.created failed") == 2


async def test_events_that_concern_nobody_send_nothing(bus: EventBus, service: Service) -> None:
    for name in ("order", "order.created.twice", "user", "stock.listed"):
        await bus.publish(name, {"id": 1})
    assert service.sent == []
