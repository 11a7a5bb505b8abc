"""A client that changes its wire at random cuts: every notification once, in order, with true gaps.

It is cut at any byte: in the headers, while it subscribes, in the middle of a frame, a line or the answer to a poll,
while the hub drains. Meanwhile the log may forget.
"""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.chance import examples
from tests.web.client import StreamEnded
from tests.web.server import Server
from tests.wires.wire import READERS, Reader


class Step(NamedTuple):
    """One connection.

    Attributes:
        wire: which one.
        before, during: how many are published before it is opened, and while it is open.
        messages: how many it reads; then it is closed.
        cut: bytes after which it is cut; None: it is not.
        drain: the hub ends, and another one begins with its log, if that is in a file.
    """

    wire: int
    before: int
    during: int
    messages: int
    cut: int | None
    drain: bool


a_few = st.integers(0, 12)
cuts = st.none() | st.integers(0, 700) | st.integers(0, 3_000)
steps = st.lists(
    st.builds(Step, st.integers(0, len(READERS) - 1), a_few, a_few, a_few, cuts, st.sampled_from([False, False, True])),
    min_size=2,
    max_size=8,
)


class Walk:
    """A hub, and what one client has heard of it over all its connections.

    Args:
        home: the folder of its log; None: it is in memory, and keeps few.
    """

    def __init__(self, home: str | None, retain: int) -> None:
        self.settings: dict[str, Any] = {"heartbeat": 3600, "retain_count": retain}
        if home is not None:
            self.settings["log"] = f"sqlite:///{home}/hub.db"
        self.in_file = home is not None
        self.server: Server
        self.offsets: list[int] = []  # of what was published, by its number
        self.cursor = ""
        self.heard: list[int] = []
        self.missing = False  # it was told that something is gone
        self.gaps = 0

    async def begin(self) -> None:
        self.server = await Server.start(self.settings)

    async def publish(self, number: int) -> None:
        service = self.server.hub.notifications
        sent = [service.send_notification(len(self.offsets) + each, topic="a") for each in range(number)]
        await service.send_notification("noise", topic="b")
        self.offsets += [(await each).offset for each in sent]
        self.server.hub.log.trim()

    @property
    def expected(self) -> int:
        return self.heard[-1] + 1 if self.heard else 0

    def take(self, message: dict[str, Any]) -> None:
        """Note *message*."""
        # What a stream begins with tells of a gap, too, and moves the cursor: a client that is cut behind it knows.
        if message.get("recovered") is False:
            self.gaps += 1
            oldest = self.server.hub.log.bounds().oldest.offset
            assert self.offsets[self.expected] < oldest, "a gap where nothing is missing"
            self.missing = True
        if message["op"] == "notification":
            number = message["data"]
            assert number >= self.expected, "one came twice, or out of order"
            assert number == self.expected or self.missing, "something is missing, and nobody said so"
            self.missing = False
            self.heard.append(number)

    async def step(self, step: Step) -> None:
        await self.publish(step.before)
        reader = READERS[step.wire](self.server, "a", cursor=self.cursor)
        reader.left = step.cut
        ending: asyncio.Task[None] | None = None
        try:
            await reader.open()
            await self.publish(step.during)
            if step.drain and self.in_file:
                ending = asyncio.create_task(self.server.aclose_server())
            await self.read(reader, None if ending else step.messages)
        except (StreamEnded, TimeoutError, OSError):
            pass
        self.cursor = reader.cursor
        if hasattr(reader, "client"):
            await reader.aclose()
        if ending is not None:
            await ending
            await self.server.aclose()
            await self.begin()

    async def read(self, reader: Reader, messages: int | None) -> None:
        """Read as many *messages* as there are, or to the end."""
        while messages is None or messages > 0:
            # There may be none: it leaves then. The end comes for certain.
            async with asyncio.timeout(None if messages is None else 0.05 if self.heard else 0.2):
                self.take(await reader.message())
            messages = None if messages is None else messages - 1

    async def end(self, wire: int) -> None:
        """Read what is missing."""
        await self.publish(1)  # the last one is always kept, and so there is something to wait for
        reader = READERS[wire](self.server, "a", cursor=self.cursor)
        await reader.open()
        while self.expected < len(self.offsets):
            self.take(await reader.message())
        await reader.aclose()


async def walked(script: list[Step], home: str | None, retain: int) -> Walk:
    walk = Walk(home, retain)
    await walk.begin()
    try:
        walk.cursor = str(walk.server.hub.fanout.newest)
        for step in script:
            await walk.step(step)
        await walk.end(script[0].wire)
    finally:
        await walk.server.aclose()
    return walk


@pytest.mark.slow
@settings(max_examples=examples(20, 1_000), deadline=None, phases=[Phase.generate])
@given(script=steps, where=st.sampled_from(["memory", "small memory", "file"]))
def test_every_notification_comes_once_in_order_with_true_gaps(script: list[Step], where: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        walk = asyncio.run(walked(script, folder if where == "file" else None, 9 if where == "small memory" else 5_000))
    if where != "small memory":
        assert walk.gaps == 0
        assert walk.heard == list(range(len(walk.offsets)))


@pytest.mark.parametrize("wire", range(len(READERS)), ids=[each.name for each in READERS])
def test_it_loses_nothing_wherever_it_is_cut(wire: int) -> None:
    """The connections have this wire and the next one in turn."""
    cuts = range(0, 1_200, 17)
    script = [Step((wire + place % 2) % len(READERS), 1, 2, 12, cut, False) for place, cut in enumerate(cuts)]
    walk = asyncio.run(walked(script, None, 5_000))
    assert walk.gaps == 0
    assert walk.heard == list(range(len(walk.offsets)))
