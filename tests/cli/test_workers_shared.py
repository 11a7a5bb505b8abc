"""`hub serve --workers N` with a Redis of its own: several processes, one hub, and nobody loses anything."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.supervised import Supervised, runs
from tests.web.client import Client, StreamEnded

pytestmark = pytest.mark.slow

Sharing = Callable[..., Awaitable[Supervised]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: that of a Unix socket has an end."""
    made = Path(tempfile.mkdtemp(prefix="hub-workers-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def sharing(folder: Path) -> AsyncIterator[Sharing]:
    started: list[Supervised] = []

    async def sharing(*arguments: str, count: int = 2) -> Supervised:
        hub = await Supervised.serve(
            folder, "--workers", str(count), "--log", "redis+private:///redis", "--drain", "0.5", *arguments
        )
        started.append(hub)
        return hub

    yield sharing
    for hub in started:
        await hub.aclose()


class Reader:
    """Reads a topic from its beginning, and comes back with the last id whenever its stream ends."""

    def __init__(self, hub: Supervised, topic: str) -> None:
        self._hub, self._topic = hub, topic
        self._last: str | None = None
        self.seen: list[str] = []
        self.gaps = 0

    async def read(self, upto: str) -> None:
        """Return when what was read ends with *upto*."""
        while not self.seen or self.seen[-1] != upto:
            stream = await self._hub.site.client()
            try:
                await self._follow(stream, upto)
            except StreamEnded:
                pass
            finally:
                await stream.aclose()

    async def _follow(self, stream: Client, upto: str) -> None:
        cursor = {} if self._last is None else {"Last-Event-ID": self._last}
        query = {"lastEventId": "earliest"} if self._last is None else {}
        await stream.request("GET", self._hub.site.subscribe_path(self._topic, **query), headers=cursor)
        assert await stream.head() == 200
        while True:
            event = await stream.event()
            self.gaps += event.type == "hub.gap"
            if event.type == "message":
                self._last = event.id
                self.seen.append(event.data)
                if event.data == upto:
                    return


async def publish(hub: Supervised, topic: str, data: object) -> None:
    """Publish *data*, again with the same key as long as that may be needed."""
    while True:
        try:
            answer = await hub.site.publish({"topic": topic, "data": data, "key": f"{topic} {data}"})
        except StreamEnded:  # the worker was killed before it answered
            continue
        if answer.status in {200, 201}:
            return
        assert (answer.status, "Retry-After" in answer.headers) == (503, True), answer.body


async def publish_until(hub: Supervised, topic: str, done: asyncio.Event) -> int:
    """Publish numbers, one after the other, until *done*; return the last one, which is marked as such."""
    number = 0
    while not done.is_set():
        number += 1
        await publish(hub, topic, number)
        await asyncio.sleep(0.01)
    return number


async def test_what_one_worker_accepts_all_of_them_deliver_and_resume(sharing: Sharing) -> None:
    hub = await sharing("--log-level", "debug", count=2)
    streams = [await hub.site.subscribe("orders") for _ in range(24)]
    for number in hub.workers:
        await hub.tells(f" DEBUG [worker {number}] hub.connection: open c_")
    ids = [(await hub.site.publish({"topic": "orders", "data": number})).json()["id"] for number in range(10)]
    names = {f"{socket.gethostname()}-{number}" for number in hub.workers}
    async with asyncio.timeout(hub.patience):  # one that does not answer in time is left out
        while (stats := (await hub.site.ask("GET", "/notifications/stats")).json())["workers"].keys() != names:
            pass
    assert sum(each["streams"] for each in stats["workers"].values()) == stats["connections"] == 24
    assert stats["publish_confirmed_seconds"]["count"] == 10
    for stream in streams:
        assert [(await stream.next()).id for _ in ids] == ids
    for _ in range(12):
        late = await hub.site.subscribe("orders", last_event_id=ids[4])
        assert json.loads(late.opened.data)["recovered"] is True
        assert [(await late.next()).id for _ in ids[5:]] == ids[5:]
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    assert " ERROR " not in hub.err
    assert "Traceback" not in hub.err


@pytest.mark.parametrize("what", ["replaced", "killed"])
async def test_nothing_is_lost_and_nothing_comes_twice_while_workers_are(sharing: Sharing, what: str) -> None:
    hub = await sharing()
    before, done = hub.workers, asyncio.Event()
    publishing = {topic: asyncio.create_task(publish_until(hub, topic, done)) for topic in ("a", "b")}
    readers = [Reader(hub, topic) for topic in publishing for _ in range(3)]
    reading = [asyncio.create_task(reader.read("end")) for reader in readers]
    if what == "replaced":
        hub.signal(signal.SIGHUP)
        await hub.tells("all workers were replaced")
    else:
        for place, number in enumerate(hub.workers, 1):
            os.kill(before[number], signal.SIGKILL)
            await hub.restarted(len(before) + place)
    await hub.ended_are(before.values())
    done.set()
    counts = {topic: await task for topic, task in publishing.items()}
    for topic in publishing:
        await publish(hub, topic, "end")
    await asyncio.gather(*reading)
    for reader in readers:
        expected = counts[reader._topic]
        assert reader.seen == [*map(str, range(1, expected + 1)), "end"]
        assert reader.gaps == 0
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


async def test_its_redis_ends_with_the_last_worker_also_when_the_supervisor_is_killed(
    sharing: Sharing, folder: Path
) -> None:
    hub = await sharing()
    await publish(hub, "orders", 1)
    redis = server_in(folder)
    hub.signal(signal.SIGKILL)
    await hub.all_ended()
    await hub.ended_are([redis])
    again = await sharing()
    reader = Reader(again, "orders")
    await publish(again, "orders", 2)
    await reader.read("2")
    assert reader.seen == ["1", "2"]
    assert reader.gaps == 0


async def test_one_process_has_a_redis_of_its_own_as_well(folder: Path) -> None:
    hub = await Supervised.serve(folder, "--log", "redis+private:///redis", "--drain", "0")
    try:
        await publish(hub, "orders", 1)
        redis = server_in(folder)
        hub.signal(signal.SIGTERM)
        assert await hub.end() == 0
        hub.check_tidy()
        assert not runs(redis)
    finally:
        await hub.aclose()


def server_in(folder: Path) -> int:
    """Return the process of the Redis that has its files in *folder*."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            shown = found.read_bytes()
        except OSError:
            continue
        if f"{folder}/redis/redis.sock".encode() in shown and b"-server" in shown.split(b"\0")[0].split(b" ")[0]:
            return int(found.parent.name)
    raise AssertionError("there is none")
