"""Stocks: every trade goes to those who watch its symbol."""

from hub import Event, NotificationService, on_event


class StockListener:
    """Sends each trade to `stock/{symbol}`."""

    def __init__(self, notifications: NotificationService) -> None:
        self.notifications = notifications

    @on_event("stock.traded")
    def quote(self, event: Event) -> None:
        """Send the trade in `event.payload` as it is; its `symbol` says where."""
        trade = event.payload
        self.notifications.send_notification(trade, topic=f"stock/{trade['symbol']}", type=event.name)
