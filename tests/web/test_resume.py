"""No loss and no repeat, wherever a connection is cut."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.spec_decoder import Event, SpecDecoder
from tests.web.client import Chunks, Client, StreamEnded, until
from tests.web.conftest import Serve
from tests.web.server import Server

pytestmark = pytest.mark.both_loops


class EventSource:
    """What a browser remembers of a stream across its connections: its cursor, and what it has dispatched."""

    def __init__(self, last_event_id: str = "") -> None:
        self.cursor = last_event_id
        self.heard: list[Event] = []

    def hears(self, cut: bytes) -> None:
        """Take the body of one connection, chunk framing included, as far as it came."""
        decoder = SpecDecoder(self.cursor)
        self.heard += decoder.feed(Chunks().feed(cut))
        assert not decoder.unknown
        self.cursor = decoder.last_event_id

    @property
    def notifications(self) -> list[tuple[str, str]]:
        """The id and the data of each notification it heard."""
        return [(event.id, event.data) for event in self.heard if not event.type.startswith("hub.")]

    @property
    def knows_of_a_gap(self) -> bool:
        return any(event.type.startswith("hub.") and event.json().get("recovered") is False for event in self.heard)


async def opened(server: Server, source: EventSource, *topics: str) -> Client:
    """Return a connection of *source* whose headers have been read."""
    client = await server.client()
    headers = {"Last-Event-ID": source.cursor} if source.cursor else {}
    await client.request("GET", server.subscribe_path(*topics), headers=headers)
    assert await client.head() == 200
    return client


async def body_upto(client: Client, last: str) -> bytes:
    """Return the body of *client* up to the end of the notification *last*."""
    body = b""
    while f"id: {last}\n".encode() not in body or not body.endswith(b"\n\n\r\n"):
        body += await client.at_most(100_000)
    await client.aclose()
    return body


async def resumed(server: Server, source: EventSource, last: str) -> None:
    """Let *source* come back and hear everything up to the notification *last*."""
    if source.cursor != last:
        source.hears(await body_upto(await opened(server, source), last))


HISTORY = ["a", "两行\r\n of it", {"n": 3}, ""]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["an id of this log", "an id of another log"])
async def test_a_replay_can_be_cut_at_every_byte(server: Server, asked: str) -> None:
    (start,) = server.send("before")
    ids = server.send(*HISTORY, type="typed", retry=2_500)
    expected = [(id, {1: "两行\n of it", 2: '{"n":3}'}.get(n, HISTORY[n])) for n, id in enumerate(ids)]
    if asked == "an id of another log":
        expected.insert(0, (start, "before"))
        start = "0123456789-5"
    # The opening differs from one connection to the next, but not in its length.
    total = len(await body_upto(await opened(server, EventSource(start)), ids[-1]))
    for count in range(total + 1):
        source = EventSource(start)
        client = await opened(server, source)
        source.hears(await client.exactly(count))
        client.reset()
        heard = len(source.notifications)
        assert source.notifications == expected[:heard]
        await resumed(server, source, ids[-1])
        assert source.notifications == expected, count
        assert source.knows_of_a_gap == (asked == "an id of another log"), count
    await server.deserted()


async def test_a_live_stream_can_be_cut_at_every_byte(server: Server) -> None:
    server.send(*range(1_000))  # so that all ids that follow have the same length
    client = await opened(server, EventSource())
    ids = server.send(*"abc")
    total = len(await body_upto(client, ids[-1]))
    begun = 0
    for count in range(total + 1):
        source = EventSource()
        client = await opened(server, source)
        ids = server.send(*"abc")
        source.hears(await client.exactly(count))
        client.reset()
        if not source.cursor:
            # The opening was cut: the source has not begun, and knows of nothing to go on from.
            assert not source.heard
            continue
        begun += 1
        await resumed(server, source, ids[-1])
        assert source.notifications == list(zip(ids, "abc", strict=True)), count
    assert begun > total / 3
    await server.deserted()


class Reader:
    """An `EventSource` on a bad line: each connection breaks after some bytes, in one way or another."""

    def __init__(self, server: Server, topics: tuple[str, ...], seed: int) -> None:
        self.server, self.topics = server, topics
        self.random = random.Random(seed)
        self.source = EventSource()
        self.connections = 0

    async def read_upto(self, last: str) -> None:
        """Come back until the notification with the data *last* was heard."""
        while not (self.source.notifications and self.source.notifications[-1][1] == last):
            client = await opened(self.server, self.source, *self.topics)
            self.connections += 1
            self.source.hears(await self._some(client, self.random.choice([10, 100, 300, 3_000]), last))
            self.random.choice([client.reset, client.close])()
            await client.aclose()

    async def _some(self, client: Client, bound: int, last: str) -> bytes:
        """Read until *bound* bytes, or a bit more than the opening on the first connection, or the end marker."""
        if not self.source.cursor:
            bound = 400
        body = b""
        while len(body) < bound and f"data: {last}\n\n\r\n".encode() not in body:
            try:
                body += await client.at_most(self.random.randint(1, bound - len(body)))
            except StreamEnded:
                break
        return body


@pytest.mark.slow
@pytest.mark.parametrize("topics", [("a",), ("a", "b/1", "c"), ("b/*", "c"), ("**",)])
async def test_readers_on_bad_lines_hear_everything_that_is_published_meanwhile(
    serve: Serve, topics: tuple[str, ...]
) -> None:
    # Heartbeats come in between and move cursors: they must not move them over anything.
    server = await serve(heartbeat=0.05)
    readers = [Reader(server, topics, seed) for seed in range(12)]
    everything = await server.subscribe(*topics)
    reading = [asyncio.create_task(reader.read_upto("end")) for reader in readers]
    await until(lambda: all(reader.source.cursor for reader in readers))
    chance = random.Random(7)
    for _ in range(120):
        for _ in range(chance.choice([1, 1, 2, 7, 40])):
            server.send(chance.randint(1, 9) * "x", topic=chance.choice(["a", "b/1", "b/2", "c", "d"]))
        await asyncio.sleep(chance.choice([0, 0, 0, 0.001, 0.003]))
    server.send("end", topics=["a", "b/1", "c"])
    await asyncio.wait_for(asyncio.gather(*reading), 90)
    expected = [(event.id, event.data) for event in await everything.upto("end")]
    for reader in readers:
        assert reader.source.notifications == expected
        assert not reader.source.knows_of_a_gap
    assert all(reader.connections > 1 for reader in readers)
    await everything.aclose()
    await server.deserted()
