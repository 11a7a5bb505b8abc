"""The news ticker of the demo: a flash a second, while somebody listens."""

from __future__ import annotations

import asyncio

from hub.errors import HubError
from hub.hub import Hub

TOPIC = "news"


class Ticker:
    """Sends numbered news flashes to the topic `news`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._number = 0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            await asyncio.sleep(1)
            if self._hub.fanout.wants(TOPIC):
                self.tick()

    def tick(self) -> None:
        """Send the next flash."""
        try:
            self._hub.notifications.send_notification(
                {"message": f"这是第 {self._number + 1} 条新闻快讯！"}, topic=TOPIC, type="news-flash"
            )
        except HubError:
            return  # the hub is ending, or its log is away: the next tick tries again
        self._number += 1
