"""A client that changes its wire at random cuts: every notification once, in order, with true gaps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.web.client import StreamEnded
from tests.web.server import Server
from tests.wires.wire import READERS, Reader

Step = tuple[int, int, int, int]
"""The wire; how many are published before it is opened, and while it is open; how many messages it reads."""

steps = st.lists(
    st.tuples(st.integers(0, len(READERS) - 1), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)),
    min_size=2,
    max_size=8,
)


class Listener:
    """What one client has heard over all its connections."""

    def __init__(self) -> None:
        self.cursor = ""
        self.heard: list[int] = []
        self.missing = 0  # what it was told is gone
        self.gaps = 0

    def take(self, message: dict[str, Any], kept: int) -> bool:
        """Note *message*; *kept* is the oldest number that is kept. Return whether it is a notification."""
        # What a stream begins with tells of a gap, too, and moves the cursor: a client that is cut behind it knows.
        if message.get("recovered") is False:
            self.gaps += 1
            expected = self.heard[-1] + 1 if self.heard else 0
            assert kept > expected, "a gap where nothing is missing"
            self.missing += 1
        if message["op"] != "notification":
            return False
        number = message["data"]
        expected = self.heard[-1] + 1 if self.heard else 0
        if number != expected:
            assert number > expected, "one came twice, or out of order"
            assert self.missing, "something is missing, and nobody said so"
        self.missing = 0
        self.heard.append(number)
        return True


async def listen(script: list[Step], retain: int) -> None:
    server = await Server.start({"heartbeat": 3600, "retain_count": retain})
    listener, sent = Listener(), 0

    def publish(number: int) -> None:
        nonlocal sent
        server.send(*range(sent, sent + number), topic="a")
        server.send("noise", topic="b")
        sent += number
        server.hub.log.trim()

    try:
        listener.cursor = str(server.hub.fanout.newest)
        for wire, before, during, messages in script:
            publish(before)
            reader = READERS[wire](server, "a", cursor=listener.cursor)
            await hear(reader, listener, server, (during, messages), publish)
            listener.cursor = reader.cursor
            await reader.aclose()
        publish(1)  # the last one is always kept, and so there is something to wait for
        reader = READERS[script[0][0]](server, "a", cursor=listener.cursor)
        await reader.open()
        while not listener.heard or listener.heard[-1] != sent - 1:
            listener.take(await reader.message(), sent)
        await reader.aclose()
    finally:
        await server.aclose()
    if retain > 1_000:
        assert listener.gaps == 0
        assert listener.heard == list(range(sent))


async def hear(reader: Reader, listener: Listener, server: Server, plan: tuple[int, int], publish: Any) -> None:
    """Read as many messages as *plan* says, as far as there are any; in the middle more is published."""
    during, messages = plan
    try:
        await reader.open()
        publish(during)
        for _ in range(messages):
            async with asyncio.timeout(0.05 if listener.heard else 0.2):  # there may be none: it leaves then
                listener.take(await reader.message(), 1 << 30)
    except (StreamEnded, TimeoutError):
        pass


@pytest.mark.slow
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(script=steps, retain=st.sampled_from([5_000, 5_000, 9]))
def test_every_notification_comes_once_in_order_with_true_gaps(script: list[Step], retain: int) -> None:
    asyncio.run(listen(script, retain))
