"""The listener for orders: announces their progress to all subscribers."""

from hub import Event, NotificationService, on_event


class OrderListener:
    """Announces orders on the default topic."""

    def __init__(self, notifications: NotificationService) -> None:
        self.notifications = notifications

    @on_event("order.created")
    def created(self, event: Event) -> None:
        """Announce a new order by its `id` and `amount`; without a type, so that `onmessage` receives it."""
        order = event.payload
        self.notifications.send_notification({"message": f"新订单 #{order['id']} 已创建！", "amount": order["amount"]})

    @on_event("order.paid")
    def paid(self, event: Event) -> None:
        """Announce that an order is paid, by its `id` and `amount`."""
        order = event.payload
        data = {"message": f"订单 #{order['id']} 已付款！", "amount": order["amount"]}
        self.notifications.send_notification(data, type=event.name)

    @on_event("order.shipped")
    def shipped(self, event: Event) -> None:
        """Announce that an order was shipped; only its `id` is needed."""
        self.notifications.send_notification({"message": f"订单 #{event.payload['id']} 已发货！"}, type=event.name)
