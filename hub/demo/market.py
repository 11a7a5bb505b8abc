"""The simulated market of the demo: random trades of a few stocks, while there are subscribers and a little longer."""

from __future__ import annotations

import asyncio
import random

from hub.demo.ticker import LINGER
from hub.errors import HubError
from hub.hub import Hub

OPENING = {"AAPL": 189.5, "GOOG": 141.2, "MSFT": 378.9, "NVDA": 495.2, "TSLA": 238.8}
EVERY = 0.5


class Market:
    """A source of `stock.traded` events whose prices follow a random walk."""

    def __init__(self, hub: Hub, seed: int | None = None) -> None:
        self._hub = hub
        self._random = random.Random(seed)
        self._prices = dict(OPENING)

    async def run(self) -> None:
        """Emit two trades a second, until cancelled; only of stocks that have or had subscribers, as the news."""
        clock = asyncio.get_running_loop().time
        until = dict.fromkeys(self._prices, 0.0)
        while True:
            await asyncio.sleep(EVERY)
            now = clock()
            until |= {symbol: now + LINGER for symbol in until if self._hub.fanout.wants(f"stock/{symbol}")}
            if wanted := [symbol for symbol, end in until.items() if now < end]:
                self.trade(self._random.choice(wanted))

    def trade(self, symbol: str) -> None:
        """Emit one trade of *symbol*."""
        price = round(max(self._prices[symbol] * (1 + self._random.gauss(0, 0.004)), 0.01), 2)
        change = round(price - OPENING[symbol], 2)
        self._prices[symbol] = price
        try:
            self._hub.bus.emit("stock.traded", {"symbol": symbol, "price": price, "change": change})
        except HubError:
            return  # the hub is shutting down
