"""The listener for stocks: sends each trade to the subscribers of its symbol."""

from hub import Event, NotificationService, on_event


class StockListener:
    """Sends each trade to the topic `stock/{symbol}`."""

    def __init__(self, notifications: NotificationService) -> None:
        self.notifications = notifications

    @on_event("stock.traded")
    def quote(self, event: Event) -> None:
        """Send the trade in `event.payload` unchanged; its `symbol` gives the topic."""
        trade = event.payload
        self.notifications.send_notification(trade, topic=f"stock/{trade['symbol']}", type=event.name)
