"""The news ticker of the demo: a news flash a second, while there are subscribers and a little longer."""

from __future__ import annotations

import asyncio

from hub.errors import HubError
from hub.hub import Hub

TOPIC = "news"
LINGER = 15.0
"""Seconds for which news and trades go on when their last subscriber has left: it may be back soon."""


class Ticker:
    """A source of numbered news flashes for the topic `news`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._number = 0

    async def run(self) -> None:
        """Send a flash a second while the topic has subscribers, and for `LINGER` seconds after, until cancelled."""
        clock = asyncio.get_running_loop().time
        until = 0.0
        while True:
            await asyncio.sleep(1)
            if self._hub.fanout.wants(TOPIC):
                until = clock() + LINGER
            if clock() < until:
                self.tick()

    def tick(self) -> None:
        """Send the next flash."""
        try:
            self._hub.notifications.send_notification(
                {"message": f"这是第 {self._number + 1} 条新闻快讯！"}, topic=TOPIC, type="news-flash"
            )
        except HubError:
            return  # the hub is shutting down, or the log is unavailable: the next tick tries again
        self._number += 1
