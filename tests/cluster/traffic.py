"""Publishers that number what they publish, and readers that come back by the rules of `EventSource`, to any hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tests.cluster.heard import GAP, Item, Verdict, in_order, judge
from tests.spec_decoder import Event, SpecDecoder
from tests.web.client import Chunks, Client, StreamEnded

DEADLINE = 90.0  # seconds for one step on a loaded machine; nothing waits that long when it works
LOST = (StreamEnded, ConnectionError, TimeoutError)
READ_BYTES = 256 * 1024
BACK_SECONDS = 0.05  # before a client comes back

Promise = Literal["everything", "confirmed", "told"]
"""What holds whatever happens: nothing is lost and nobody is told of a gap; nothing that was confirmed is lost; whoever
misses something is told so, and nothing comes twice but behind such a gap."""

Ports = Callable[[], Sequence[int]]
"""Returns where hubs listen now, or soon."""


class Load(NamedTuple):
    """How much goes on.

    Attributes:
        publishers: each with a topic of its own.
        rate: publishes a second, of all together.
        readers: of one topic each, of two, and of all by a pattern, in turn.
    """

    publishers: int = 8
    rate: float = 100.0
    readers: int = 24

    def topics_of(self, reader: int) -> tuple[str, ...]:
        """Return what the reader with this number subscribes to."""
        one, other = reader % self.publishers, (reader + 1) % self.publishers
        if reader % 8 == 6:
            return (f"news/{one}", f"news/{other}")
        # A reader of everything costs as much as all the others of a small crowd.
        return ("news/*",) if reader % 8 == 7 and reader < 80 else (f"news/{one}",)


FULL = Load(publishers=20, rate=200.0, readers=500)


class Reader:
    """An `EventSource` that never gives up.

    Attributes:
        topics: what it asked for.
        cursor: what it sends as `Last-Event-ID`.
        heard: what came, in order, with `GAP` where it was told of one.
        ids: the id of each, in the same places.
        connections: how often it connected.
        silence: the longest time between two notifications, in seconds.
    """

    def __init__(self, topics: tuple[str, ...], cursor: str = "") -> None:
        self.topics, self.cursor = topics, cursor
        self.heard: list[Item] = []
        self.ids: list[str] = []
        self.newest: dict[int, int] = {}
        self.connections = 0
        self.silence = self._last = 0.0

    def wants(self, publisher: int) -> bool:
        """Tell whether what this publisher sends is addressed to one of the topics."""
        return "*" in self.topics[0] or f"news/{publisher}" in self.topics

    async def read(self, ports: Ports, chance: random.Random, tls: ssl.SSLContext | None = None) -> None:
        """Read from any hub, and come back to any one, until cancelled."""
        path = "/notifications/subscribe?" + "&".join(f"topic={topic}" for topic in self.topics)
        while True:
            with contextlib.suppress(OSError, *LOST):
                client = await Client.connect(("127.0.0.1", chance.choice(ports())), keep=False, tls=tls)
                try:
                    cursor = {"Last-Event-ID": self.cursor} if self.cursor else {}
                    await client.request("GET", path, headers=cursor)
                    assert await client.head() == 200
                    await self._listen(client)
                finally:
                    await client.aclose()
            await asyncio.sleep(BACK_SECONDS * chance.uniform(0.5, 1.5))

    async def _listen(self, client: Client) -> None:
        if client.headers.get("Transfer-Encoding") != "chunked":  # sent away: this hub can't serve it now
            await client.body()
            return
        self.connections += 1
        decoder, chunks = SpecDecoder(self.cursor), Chunks()
        while True:
            some = await client.at_most(READ_BYTES)
            for event in decoder.feed(chunks.feed(some)):
                self._take(event)
            self.cursor = decoder.last_event_id
            if chunks.complete:
                return

    def _take(self, event: Event) -> None:
        if not event.type.startswith("hub."):
            now = time.monotonic()
            self.silence, self._last = max(self.silence, now - (self._last or now)), now
            publisher, number = event.json()
            self.heard.append((publisher, number))
            self.ids.append(event.id)
            self.newest[publisher] = number
        elif event.type == "hub.gap":
            self.heard.append(GAP)
            self.ids.append(event.id)
        else:
            assert event.type in {"hub.open", "hub.close"}, event


class Outcome(NamedTuple):
    """How it went.

    Attributes:
        verdict: of all readers together.
        confirmed: how much was confirmed.
        vanished: how much of that is not in the history.
        refused: publishes that were told to come back.
        connections: of all readers.
        silence: the longest that any reader heard nothing, in seconds.
        seconds: that it took.
    """

    verdict: Verdict
    confirmed: int
    vanished: int
    refused: int
    connections: int
    silence: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.confirmed:,} confirmed, {self.vanished} of them not kept; {self.verdict}; {self.refused} × 503, "
            f"{self.connections} connections, {self.silence:.1f} s of silence, {self.seconds:.1f} s in all"
        )


class Traffic:
    """What goes on while something breaks.

    Args:
        ports: where the hubs are.
        seed: of what is left to chance.
        load: how much of it.
        tls: of a proxy before the hubs.
        headers: of each publish.

    Attributes:
        confirmed: per publisher, the ids it was told, by number.
        readers: who reads.
        refused: how often a publish was answered with 503.
    """

    def __init__(
        self,
        ports: Ports,
        seed: int,
        load: Load,
        *,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._ports, self._chance, self.load, self._tls = ports, random.Random(seed), load, tls
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._key = f"{seed}"
        self.confirmed: list[dict[int, str]] = [{} for _ in range(load.publishers)]
        self.readers = [Reader(load.topics_of(number)) for number in range(load.readers)]
        self.refused = 0
        self._stopping = False
        self._busy: list[asyncio.Task[None]] = []
        self._publishing: list[asyncio.Task[None]] = []
        self._began = time.monotonic()
        self.outcome: Outcome | None = None

    @contextlib.asynccontextmanager
    async def going_on(self, promise: Promise) -> AsyncIterator[Traffic]:
        """Publish and read meanwhile; in the end let all come to rest, and hold everybody to the *promise*.

        Raises:
            AssertionError: somebody missed something, or heard it twice, and was not told so.
            TimeoutError: it does not come to rest.
        """
        self._began = time.monotonic()
        for number, reader in enumerate(self.readers):
            self._busy.append(asyncio.create_task(reader.read(self._ports, random.Random(number), tls=self._tls)))
        try:
            # A reader without a cursor begins at the newest: none may miss the first ones because it came late.
            await self.holds(lambda: all(each.cursor for each in self.readers))
            self._publishing = [asyncio.create_task(self._publish(each)) for each in range(self.load.publishers)]
            self._busy += self._publishing
            yield self
            self._stopping = True
            await asyncio.wait_for(asyncio.gather(*self._publishing), DEADLINE)
            history = await self._come_to_rest()
        finally:
            for task in self._busy:
                task.cancel()
            await asyncio.gather(*self._busy, return_exceptions=True)
        self._judge(history, promise)

    # ---- publishers ----

    async def _publish(self, publisher: int) -> None:
        """Publish number after number, each until it is confirmed."""
        number = 0
        pause = self.load.publishers / self.load.rate
        client: Client | None = None
        while not self._stopping:
            body = {
                "topic": f"news/{publisher}",
                "data": [publisher, number],
                "key": f"{self._key}-{publisher}-{number}",
            }
            while True:
                try:
                    if client is None:
                        where = ("127.0.0.1", self._chance.choice(self._ports()))
                        client = await Client.connect(where, tls=self._tls)
                    answer = await self._ask(client, body)
                except (OSError, *LOST):
                    answer = None
                if answer is not None:
                    break
                if client is not None:
                    await client.aclose()
                client = None
                await asyncio.sleep(BACK_SECONDS)
            self.confirmed[publisher][number] = answer
            number += 1
            await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
        if client is not None:
            await client.aclose()

    async def _ask(self, client: Client, draft: dict[str, Any]) -> str | None:
        """Publish *draft* once; return its id, or None if it was not confirmed."""
        await client.request("POST", "/notifications/publish", headers=self._headers, body=json.dumps(draft).encode())
        status = await client.head()
        body = await client.body()
        if self._tls is not None and status in {502, 504}:  # the proxy has no answer of a hub
            return None
        answer = json.loads(body)
        if status == 503:
            assert int(client.headers["Retry-After"]) > 0
            self.refused += 1
            return None
        assert status in {200, 201}, (status, answer)
        return str(answer["id"])

    async def confirm(self, more: int) -> None:
        """Return when *more* have been confirmed than now."""
        goal = self.count + more
        await self.holds(lambda: self.count >= goal)

    @property
    def count(self) -> int:
        """How many were confirmed."""
        return sum(map(len, self.confirmed))

    @property
    def connections(self) -> int:
        """How often the readers connected, all together."""
        return sum(each.connections for each in self.readers)

    async def holds(self, condition: Callable[[], bool]) -> None:
        """Return as soon as *condition* holds; neither a publisher nor a reader may fail meanwhile."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                for task in self._busy:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    # ---- the end ----

    async def _come_to_rest(self) -> list[Item]:
        """Wait until everybody has heard the newest; return what is kept, in order."""
        ends = {publisher: max(ids) for publisher, ids in enumerate(self.confirmed)}

        def caught_up(reader: Reader) -> bool:
            return all(reader.newest.get(each) == end for each, end in ends.items() if reader.wants(each))

        history = Reader(("news/*",), "earliest")
        self._busy.append(asyncio.create_task(history.read(self._ports, self._chance, tls=self._tls)))
        await self.holds(lambda: all(map(caught_up, [history, *self.readers])))
        self._history_ids = dict(zip(history.heard, history.ids, strict=True))
        return [item for item in history.heard if item != GAP]

    def _judge(self, history: list[Item], promise: Promise) -> None:
        ends = {publisher: max(ids) for publisher, ids in enumerate(self.confirmed)}
        kept = set(history)
        assert len(kept) == len(history), "something is in the history twice"
        whole = Verdict()
        for reader in self.readers:
            verdict = judge(reader.heard, {each: end for each, end in ends.items() if reader.wants(each)}, kept)
            assert verdict.fine, f"the reader of {reader.topics}: {verdict}: {verdict.lost[:5]} {verdict.doubled[:5]}"
            whole = whole.and_of(verdict)
        vanished = 0
        for publisher, ids in enumerate(self.confirmed):
            for number, id in ids.items():
                if (publisher, number) in kept:
                    assert offset(self._history_ids[publisher, number]) == offset(id), (publisher, number, id)
                else:
                    vanished += 1
        assert promise == "told" or not vanished, f"{vanished} that were confirmed are not in the history"
        if promise == "everything":
            assert not whole.gaps, f"{whole.gaps} gaps, and nothing was lost"
            for reader in self.readers:
                wanted = [item for item in history if reader.wants(item[0])]
                assert in_order(reader.heard, wanted), f"the reader of {reader.topics} heard another order"
        silence = max(each.silence for each in self.readers)
        seconds = time.monotonic() - self._began
        self.outcome = Outcome(whole, self.count, vanished, self.refused, self.connections, silence, seconds)


def offset(id: str) -> int:
    """The offset in a position's text."""
    return int(id.rpartition("-")[2])
