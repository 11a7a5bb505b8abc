"""Kill a hub at random moments while many publish and listen, and hold it to its word.

Each round: `hub serve` on a SQLite file, eight publishers that number what they publish, and a few subscribers that
come back by the rules of `EventSource`. The hub is killed with SIGKILL in the middle of it, again and again, and
started on the same port. Processes of its log are killed, or stopped, which it has to notice; children that it has
forked outlive it and hold its pipes open; and for root its file system comes back as another device. Then what got a
2xx is in the history exactly once, in the order in which each publisher was told so, and each subscriber has heard
exactly the history.

    python -m tests.torture [ROUNDS] [SEED]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tests.log.image import Image
from tests.ports import free_port
from tests.spec_decoder import Event, SpecDecoder
from tests.web.client import Chunks, Client, StreamEnded
from tests.web.process import ServeProcess
from tests.web.server import Site

PUBLISHERS = 8
SUBSCRIPTIONS = (("**",), ("from/0", "from/1"), ("from/*",), ("from/3",))
LIVES = 6  # of the hub in one round; all but the last end by SIGKILL
DEADLINE = 60.0  # seconds for one step of a round on a loaded machine; nothing waits that long when it works

Item = tuple[int, int]
"""A publisher and the number it gave to what it published."""


class Torture:
    """One file, one port, and the hubs that live there one after the other.

    Attributes:
        confirmed: per publisher the ids it was told, by number, in the order in which it was told.
        refused: how often a publisher was told to come back later.
        lives: how many hubs there were.
        result: what the round was like, once it is over.
    """

    result: Result

    def __init__(self, path: Path, seed: int, image: Image | None = None) -> None:
        self._path = path
        self._image = image
        self._forked = path.with_name(f"{seed}.forked")
        self._chance = random.Random(seed)
        self._port = free_port()
        self._hub: ServeProcess | None = None
        self.confirmed: list[dict[int, str]] = [{} for _ in range(PUBLISHERS)]
        self.refused = 0
        self.lives = 0
        self._stopping = False
        self._lost: tuple[type[BaseException], ...] = (StreamEnded, ConnectionError)

    async def start(self) -> None:
        """Start a hub where the last one was."""
        await self._start()

    async def _start(self, *more: str) -> None:
        self._hub = await ServeProcess.start(
            *("serve", "--port", str(self._port), "--log", f"sqlite:///{self._path}", "--drain", "0"),
            *("--heartbeat", "0.2", "--log-level", "warning", *more),
            environ={"FORKED": str(self._forked)},
        )
        await self._hub.listening()
        self.lives += 1

    async def kill(self) -> None:
        """End the hub without a word."""
        assert self._hub is not None
        await self._hub.aclose()

    @property
    def site(self) -> Site:
        """Where the hub that lives now answers."""
        assert self._hub is not None
        return self._hub.site

    def kill_worker(self, role: str | None = None) -> None:
        """End one of the processes that keep its log, if it is there; the hub has to start it anew by itself."""
        self._signal_worker(signal.SIGKILL, role)

    def _signal_worker(self, number: signal.Signals, role: str | None) -> None:
        assert self._hub is not None
        role = role or self._chance.choice(["writer", "reader"])
        for each in children(self._hub._process.pid):
            with contextlib.suppress(OSError):
                if role in Path(f"/proc/{each}/cmdline").read_bytes().decode().split("\0"):
                    os.kill(each, number)

    @property
    def url(self) -> str:
        """Its address."""
        assert self._hub is not None
        return self._hub.url

    def hang_worker(self, role: str | None = None) -> None:
        """Stop one of them: it runs no more, and its pipes and its lock are still held."""
        self._signal_worker(signal.SIGSTOP, role)

    async def stop(self, *, tidy: bool = True) -> None:
        """End the hub the way a deployment does; it has to end well, and if *tidy* without a complaint."""
        assert self._hub is not None
        self._hub.signal(signal.SIGTERM)
        assert await self._hub.end() == 0, self._hub.err
        assert "Traceback" not in self._hub.err, self._hub.err
        if tidy:
            self._hub.check_tidy()
        await self._hub.aclose()

    def signal(self, number: signal.Signals) -> None:
        """Send the hub a signal."""
        assert self._hub is not None
        self._hub.signal(number)

    @property
    def over(self) -> bool:
        """Whether the hub has ended, whoever still holds what it wrote to."""
        assert self._hub is not None
        try:
            stat = Path(f"/proc/{self._hub._process.pid}/stat").read_text("ascii", "replace")
        except FileNotFoundError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    @property
    def said(self) -> str:
        """What the hub has written to its standard error."""
        return self._hub.err if self._hub is not None else ""

    async def aclose(self) -> None:
        """Leave nothing behind."""
        if self._hub is not None:
            await self._hub.aclose()
        if self._forked.exists():
            for each in self._forked.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(each), signal.SIGKILL)

    # ---- the clients ----

    @contextlib.asynccontextmanager
    async def connection(self, **options: Any) -> AsyncIterator[Client]:
        """A connection to the hub, as soon as there is one that listens; *options* as for `Client.connect`."""
        while True:
            try:
                client = await Client.connect(("127.0.0.1", self._port), keep=False, **options)
                break
            except OSError:
                await asyncio.sleep(0.01)
        try:
            yield client
        finally:
            await client.aclose()

    async def publish(self, publisher: int) -> None:
        """Publish number after number; what is not confirmed is published again, with its key, until it is."""
        number = reached = 0  # between them lies what may have been kept without a confirmation
        while not self._stopping or number < reached:
            async with self.connection() as client:
                with contextlib.suppress(*self._lost):
                    while not self._stopping or number < reached:
                        reached = max(reached, number + self._chance.choice([1, 1, 1, 5]))
                        await self._publish(client, publisher, range(number, reached))
                        number = reached

    async def _publish(self, client: Client, publisher: int, numbers: range) -> None:
        """Publish *numbers* on *client*, each on its own or as one list, until all are confirmed."""
        drafts = [
            {"topic": f"from/{publisher}", "data": [publisher, number], "key": f"{publisher}-{number}"}
            for number in numbers
        ]
        while True:
            body = json.dumps(drafts if len(drafts) > 1 else drafts[0]).encode()
            headers = {"Content-Type": "application/json"}
            await client.request("POST", "/notifications/publish", headers=headers, body=body)
            status = await client.head()
            answer = json.loads(await whole(client))
            if status in {200, 201}:
                break
            assert status == 503, (status, answer)
            assert int(client.headers["Retry-After"]) > 0
            self.refused += 1
            await asyncio.sleep(0.01)
        for number, each in zip(numbers, answer if isinstance(answer, list) else [answer], strict=True):
            self.confirmed[publisher][number] = each["id"]

    async def subscribe(self, subscriber: Subscriber) -> None:
        """Let *subscriber* listen, and come back whenever the stream ends, until it is cancelled."""
        path = "/notifications/subscribe?" + "&".join(f"topic={topic}" for topic in subscriber.topics)
        while True:
            async with self.connection() as client:
                with contextlib.suppress(*self._lost):
                    cursor = {"Last-Event-ID": subscriber.cursor} if subscriber.cursor else {}
                    await client.request("GET", path, headers=cursor)
                    assert await client.head() == 200
                    await subscriber.listen(client, self._chance)
            await asyncio.sleep(0.01)

    # ---- a round ----

    async def run(self, end: Literal["killed", "stopped"] = "killed") -> Result:
        """Let the hub live and die while everybody is busy; then compare what everybody knows."""
        async with self.traffic() as busy:
            for _ in range(LIVES - 1):
                if end == "killed" and self._chance.random() < 0.5:
                    await self.confirm(self._chance.randint(0, 200), busy)
                    self.kill_worker()
                await self.confirm(self._chance.randint(0, 400), busy)
                await (self.kill() if end == "killed" else self.stop())
                await self.start()
            await self.confirm(50, busy)
        return self.result

    async def run_worse(self) -> Result:
        """Let processes hang as well, let children of the hub outlive it, and let its file system change its device."""
        self._lost += (TimeoutError,)  # the hub's patience with a process is that of a client here
        async with self.traffic() as busy:
            for _ in range(LIVES - 1):
                worst = self._chance.choice([self.kill_worker, self.hang_worker, None])
                if worst is not None:
                    await self.confirm(self._chance.randint(0, 200), busy)
                    worst()
                # At once, or when the hub has noticed.
                await self.confirm(self._chance.choice([0, 50, 400]), busy)
                await (self.kill() if self._chance.random() < 0.7 else self.stop(tidy=False))
                if self._image is not None:
                    await asyncio.to_thread(self._image.remount)
                await self._start(*(("--listeners", "tests.log.forking") if self._chance.random() < 0.5 else ()))
            await self.confirm(50, busy)
        return self.result

    @contextlib.asynccontextmanager
    async def traffic(self, *, tidy: bool = True) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Start a hub, publish and listen; then let all come to rest, stop it, and compare what everybody knows."""
        began = time.monotonic()
        await self.start()
        subscribers = [Subscriber(topics) for topics in SUBSCRIPTIONS]
        listening = [asyncio.create_task(self.subscribe(each)) for each in subscribers]
        # A subscriber without a cursor begins at the newest: none may miss the first ones because it came late.
        await holds(lambda: all(each.cursor for each in subscribers), listening)
        publishing = [asyncio.create_task(self.publish(number)) for number in range(PUBLISHERS)]
        busy = listening + publishing
        try:
            yield busy
            self._stopping = True
            await asyncio.wait_for(asyncio.gather(*publishing), DEADLINE)
            last = [ids[max(ids)] for ids in self.confirmed]
            history = await self._history(max(last, key=offset))
            for subscriber in subscribers:
                end = [event.id for event in history if subscriber.wants(event)][-1]
                await holds(partial(subscriber.has_heard, end), listening)
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
        await self.stop(tidy=tidy)
        self._check(history, subscribers)
        connections = sum(each.connections for each in subscribers)
        self.result = Result(len(history), self.lives, connections, time.monotonic() - began)

    async def confirm(self, more: int, busy: list[asyncio.Task[None]]) -> None:
        """Return when *more* have been confirmed than now."""
        goal = self._count + more
        await holds(lambda: self._count >= goal, busy)

    @property
    def _count(self) -> int:
        return sum(map(len, self.confirmed))

    async def _history(self, last: str) -> list[Event]:
        """Return everything in the log up to the id *last*, as a client of its own reads it."""
        epoch = last.rpartition("-")[0]
        history = Subscriber(("**",), f"{epoch}-0")
        async with self.connection() as client:
            await client.request("GET", "/notifications/subscribe?topic=**", headers={"Last-Event-ID": history.cursor})
            assert await client.head() == 200
            while not (history.heard and history.heard[-1].id == last):
                history.take(await client.event())
        return history.heard

    def _check(self, history: list[Event], subscribers: list[Subscriber]) -> None:
        """Compare what was confirmed, what is kept, and what was heard."""
        offsets = [offset(event.id) for event in history]
        assert offsets == sorted(set(offsets)), "positions only grow"
        kept: dict[Item, str] = {}
        for event in history:
            publisher, number = event.json()
            assert (publisher, number) not in kept, f"{publisher}-{number} is in the history twice"
            kept[publisher, number] = event.id
        for publisher, ids in enumerate(self.confirmed):
            assert list(ids) == list(range(len(ids))), "each number was confirmed once"
            for number, id in ids.items():
                assert kept.get((publisher, number)) == id, f"{publisher}-{number} was confirmed as {id}"
            told = [offset(id) for id in ids.values()]
            assert told == sorted(told), "the order of each publisher is kept"
        assert len(kept) == self._count, "nothing is kept that was never published"
        for subscriber in subscribers:
            wanted = [(event.id, event.data) for event in history if subscriber.wants(event)]
            heard = [(event.id, event.data) for event in subscriber.heard]
            assert heard == wanted, difference(subscriber.topics, heard, wanted)
            assert not subscriber.gaps, subscriber.gaps


@dataclass(frozen=True)
class Result:
    """What one round was like."""

    kept: int
    lives: int
    connections: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.kept:,} kept over {self.lives} lives of the hub, each heard once "
            f"over {self.connections} connections, {self.seconds:.1f} s"
        )


class Subscriber:
    """An `EventSource` that never gives up.

    Attributes:
        topics: what it asked for.
        cursor: what it sends as `Last-Event-ID`.
        heard: the notifications it has dispatched.
        gaps: what it was told it had missed.
        connections: how often it connected.
    """

    def __init__(self, topics: tuple[str, ...], cursor: str = "") -> None:
        self.topics, self.cursor = topics, cursor
        self.heard: list[Event] = []
        self.gaps: list[Event] = []
        self.connections = 0

    def wants(self, event: Event) -> bool:
        """Whether *event*, by who published it, is addressed to one of the topics."""
        return "*" in self.topics[0] or f"from/{event.json()[0]}" in self.topics

    def has_heard(self, id: str) -> bool:
        """Whether the notification *id* is what it heard last."""
        return bool(self.heard) and self.heard[-1].id == id

    async def listen(self, client: Client, chance: random.Random) -> None:
        """Hear what comes on *client*, until it ends or the line breaks, wherever in a frame that is."""
        self.connections += 1
        if client.headers.get("Transfer-Encoding") != "chunked":  # sent away by a hub that is about to end
            await client.body()
            return
        decoder, chunks = SpecDecoder(self.cursor), Chunks()
        left = chance.choice([2_000, 20_000, 200_000])
        while left > 0:
            some = await client.at_most(left)
            left -= len(some)
            for event in decoder.feed(chunks.feed(some)):
                self.take(event)
            self.cursor = decoder.last_event_id
            assert not decoder.unknown, decoder.unknown

    def take(self, event: Event) -> None:
        """Hear *event*."""
        if not event.type.startswith("hub."):
            self.heard.append(event)
        elif event.type != "hub.close" and event.json().get("recovered") is False:
            self.gaps.append(event)


async def whole(client: Client) -> bytes:
    """Return the body of the answer whose head has been read."""
    body = b""
    while more := await client.more():
        body += more
    return body


async def holds(condition: Callable[[], bool], busy: Sequence[asyncio.Task[None]]) -> None:
    """Return as soon as *condition* holds; none of the *busy* may fail meanwhile."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            for task in busy:
                if task.done():
                    task.result()
            await asyncio.sleep(0.002)


def difference(topics: tuple[str, ...], heard: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> str:
    """Say what the subscriber to *topics* missed and what it heard too much."""
    missed = [item for item in wanted if item not in heard]
    extra = [item for item in heard if heard.count(item) > 1 or item not in wanted]
    return f"subscriber to {topics}: missed {missed[:10]}, wrongly heard {extra[:10]}, or heard them out of order"


def offset(id: str) -> int:
    """The offset in a position's text."""
    return int(id.rpartition("-")[2])


def children(pid: int) -> list[int]:
    """The processes that the process *pid* has started (Linux)."""
    return [
        int(child) for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text("ascii").split()
    ]


@contextlib.asynccontextmanager
async def at(folder: Path, seed: int, image: Image | None = None) -> AsyncIterator[Torture]:
    """Yield the torture of a file in *folder*, or on *image*; what goes wrong carries what the hub had to say to it.

    Raises:
        AssertionError: the hub broke its word.
        TimeoutError: it did not answer.
    """
    torture = Torture((image.path if image else folder) / f"{seed}.db", seed, image)
    try:
        yield torture
    except (AssertionError, TimeoutError) as error:
        error.add_note(f"life {torture.lives} of the hub wrote: {torture.said}")
        raise
    finally:
        await torture.aclose()


async def run(folder: Path, seed: int) -> Result:
    """Run one round on a file in *folder*."""
    async with at(folder, seed) as torture:
        return await torture.run()


async def run_worse(folder: Path, seed: int, image: Image | None) -> Result:
    """Run one of the worse rounds on a file in *folder*, or on *image*."""
    async with at(folder, seed, image) as torture:
        return await torture.run_worse()


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Image | None]:
    """Yield a file system in *folder* that can be remounted; None where there can be none."""
    try:
        image = Image(folder)
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        yield image
    finally:
        image.close()


def main(rounds: int = 50, seed: int | None = None) -> int:
    """Run *rounds*, every second one of the worse kind, and say what each was like; the first that fails ends it."""
    first = seed if seed is not None else random.SystemRandom().randrange(10**6)
    for number in range(first, first + rounds):
        with tempfile.TemporaryDirectory() as folder, mounted(Path(folder)) as image:
            if image is None and number == first:
                say("file systems can't be mounted here (that takes root and loop devices): no device will change")
            try:
                round = run_worse(Path(folder), number, image) if number % 2 else run(Path(folder), number)
                result = asyncio.run(round)
            except BaseException:
                say(f"seed {number} failed: python -m tests.torture 1 {number}")
                raise
        say(f"{number - first + 1}/{rounds}  seed {number}: {result}")
    return 0


def say(line: str) -> None:
    """Print *line* at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
