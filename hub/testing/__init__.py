"""A hub for other people's tests: of their listeners, their handlers, and what their clients get.

    async def test_the_warehouse_is_told_what_to_fetch():
        async with hub_for_test(listeners=["warehouse"]) as hub:
            told = hub.collect("warehouse")
            await hub.emit("order.created", {"item": "tea"})
            assert told.data == [{"fetch": "tea"}]

`hub.testing.plugin` has the same as a pytest fixture.
"""

from hub.testing.clock import Clock
from hub.testing.collected import Collected, NothingCame
from hub.testing.tested_hub import HubForTest, hub_for_test, make_event

__all__ = ["Clock", "Collected", "HubForTest", "NothingCame", "hub_for_test", "make_event"]
