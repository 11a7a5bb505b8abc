"""Hundreds of honest readers lose nothing while others flood the hub, or read as slowly as they can."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress

import psutil
import pytest

from hub.connections.client_stream import StreamKind
from hub.web.poll import LONG_ANSWER
from hub.web.websocket.socket import MAX_MESSAGE_BYTES, WAITING_BYTES, WebSocket
from tests.web.client import StreamEnded, until
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.wires.frames import said, text
from tests.wires.test_wires import numbers
from tests.wires.wire import PollReader, SocketReader, SSEReader

HONEST, SLOW = 500, 1_000
NUMBERS, AT_ONCE = 60, 10
KINDS = ("ping", "flap", "publish", "oversized", "garbage")
WIRES = (SSEReader, SocketReader, PollReader)
BUFFER_BYTES = 256 * 1024
ITEM_BYTES = 200_000
"""Bytes of a notification that a slow poller asks for: more than the kernel takes for it."""


class SlowPoller:
    """Polls, and takes a byte now and then, or none at all."""

    def __init__(self, server: Server, cursor: str, topic: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        self.socket.setblocking(False)
        self._server = server
        self._request = (
            f"GET /notifications/poll?topic={topic}&lastEventId={cursor}&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )

    async def ask(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, self._server.address)
        await loop.sock_sendall(self.socket, self._request.encode())

    def sip(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            self.socket.recv(1)


async def flood(server: Server, kind: str, chance: random.Random) -> None:
    """Send messages of a *kind* over one socket, as fast as it takes them; come back when it is closed."""
    while True:
        reader = SocketReader(server)
        with suppress(StreamEnded, OSError):
            await reader.connect()
            while True:
                await asyncio.gather(reader.client.send(sent(kind, chance)), taken(reader, kind))
        await reader.aclose()
        server.clients.remove(reader.client)


async def taken(reader: SocketReader, kind: str) -> None:
    """Read what is there; who pings does not read."""
    if kind != "ping":
        async with asyncio.timeout(1):
            with suppress(TimeoutError):
                await reader.client.at_most(1 << 20)
    await asyncio.sleep(0.002)


def sent(kind: str, chance: random.Random) -> bytes:
    match kind:
        case "ping":
            return b"".join([said({"op": "ping", "ref": "x" * 200})] * 50)
        case "flap":
            topics = [f"f/{chance.randrange(1_000)}" for _ in range(20)]
            return said({"op": "subscribe", "topics": topics}) + said({"op": "unsubscribe", "topics": topics})
        case "publish":
            return b"".join(said({"op": "publish", "topic": "flood", "data": "x" * 500}) for _ in range(10))
        case "oversized":
            return text("x" * (MAX_MESSAGE_BYTES + 1))
        case _:
            return chance.randbytes(5_000)


class Held:
    """The most bytes that the hub held: for one stream, of what one WebSocket asked for, of one other answer, in sum.

    Attributes:
        process: by how much the whole process has grown, its thousands of clients included.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._process = server, psutil.Process()
        self._before = self._process.memory_info().rss
        self.stream = self.asked = self.answer = self.all = self.process = 0

    def look(self) -> None:
        assert self._server.runner.server is not None
        streams = self._server.subscriptions
        sent = [each.buffered for each in streams]
        asked = [each._waiting_bytes for each in streams if isinstance(each, WebSocket)]
        transports = [each.transport for each in self._server.runner.server.connections]
        answers = [each.get_write_buffer_size() for each in transports if each is not None]
        self.stream, self.asked = max(self.stream, *sent), max(self.asked, *asked, 0)
        self.answer = max(self.answer, *answers, 0)
        self.all = max(self.all, sum(sent) + sum(asked) + sum(answers))
        self.process = max(self.process, self._process.memory_info().rss - self._before)


@pytest.mark.slow
async def test_honest_readers_lose_nothing_among_floods_and_slow_pollers(serve: Serve) -> None:
    server = await serve(buffer_bytes=BUFFER_BYTES)
    (old, *_) = server.send("first", *["x" * ITEM_BYTES] * 2, topic="old")
    newest = str(server.hub.fanout.newest)
    held, chance = Held(server), random.Random(17)
    slow = [SlowPoller(server, newest if number % 4 else old, "old") for number in range(SLOW)]
    await asyncio.gather(*(each.ask() for each in slow))
    await until(lambda: server.hub.connections.count(StreamKind.POLL) == SLOW)  # each counts, whatever it waits for
    server.send("x" * ITEM_BYTES, topic="old")
    floods = [asyncio.create_task(flood(server, kind, chance)) for kind in KINDS]
    honest = [WIRES[number % 3](server, "a", cursor=newest) for number in range(HONEST)]
    for first in range(0, HONEST, 50):
        await asyncio.gather(*(each.open() for each in honest[first : first + 50]))
    reading = [asyncio.create_task(numbers(each, NUMBERS - 1)) for each in honest]
    for first in range(0, NUMBERS, AT_ONCE):
        server.send(*range(first, first + AT_ONCE), topic="a")
        for each in chance.sample(slow, SLOW // 2):
            each.sip()
        held.look()
        await asyncio.sleep(0.05)  # to be flooded meanwhile
    assert all(each == list(range(NUMBERS)) for each in await asyncio.gather(*reading))
    assert not any(each.done() for each in floods)
    held.look()
    assert held.stream <= BUFFER_BYTES
    assert held.asked <= WAITING_BYTES + MAX_MESSAGE_BYTES
    assert held.answer <= LONG_ANSWER
    assert held.all <= SLOW * ITEM_BYTES
    assert held.process <= 2 * SLOW * ITEM_BYTES
    for task in floods:
        task.cancel()
    await asyncio.wait(floods)
    for each in slow:
        each.socket.close()
    await asyncio.gather(*(each.aclose() for each in server.clients))
    await server.deserted()
