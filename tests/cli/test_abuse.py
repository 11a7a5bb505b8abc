"""A hub under abuse, as a real process: thousands of bad requests while honest readers read."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chance import examples
from tests.cli.abuse import SECRET, SLOW_ONES, said_by
from tests.cli.commands import Serving
from tests.web.client import Client, request
from tests.web.process import Process, ServeProcess

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

READERS, BAD_REQUESTS = 500, examples(3_000, 10_000)
PAUSE = 0.02  # seconds between two notifications
QUIET = 100  # notifications before the abuse
PATIENCE = 240.0
GROWTH = 64 * 1024  # KiB that the abuse may cost; the readers themselves are there before
_DATA = re.compile(rb"data: ([0-9]+) ([0-9.]+)\n")


async def holds(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns a true value, on a machine with much else to do."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the observed state has no event to wait for
            await asyncio.sleep(0.02)


# ---- the honest ----


class Reader(asyncio.Protocol):
    """A reader that notes the numbers it gets, and how long each was on its way."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.delays: list[float] = []
        self.lost = False
        self._unread = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        whole, end, self._unread = (self._unread + data).rpartition(b"\n\n")
        for number, sent in _DATA.findall(whole + end):
            self.numbers.append(int(number))
            self.delays.append(now - float(sent))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def readers_of(hub: ServeProcess) -> list[Reader]:
    """Return the honest readers, each one with a token, ten behind one address."""
    loop, readers = asyncio.get_running_loop(), []
    for number in range(READERS):
        _, reader = await loop.create_connection(Reader, *hub.site.address)
        assert reader.transport is not None
        headers = said_by(f"reader-{number}", f"192.0.2.{number // 10}", subscribe=["news"])
        reader.transport.write(request("GET", "/notifications/subscribe?topic=news", headers=headers))
        readers.append(reader)
    return readers


class Publisher:
    """Publishes numbers, each with the time, over HTTP until it is told to stop.

    Attributes:
        sent: how many were accepted.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._headers = said_by("editor", "198.51.100.1", publish=["news"]) | {"Content-Type": "application/json"}
        self.sent = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        while not self._stop.is_set():
            draft = {"topic": "news", "data": f"{self.sent} {time.monotonic():.6f}"}
            body = json.dumps(draft).encode()
            await self._client.request("POST", "/notifications/publish", headers=self._headers, body=body)
            assert await self._client.head() == 201
            await self._client.body()
            self.sent += 1
            await asyncio.sleep(PAUSE)  # a rate

    def stop(self) -> None:
        self._stop.set()


# ---- what it costs the hub ----


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> int:
    """Return the KiB of memory that the process *pid* has."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])


def shown(delays: list[float]) -> str:
    cuts = statistics.quantiles(delays, n=1000)
    return f"median {cuts[499] * 1e3:.1f} ms, 99 % {cuts[989] * 1e3:.1f} ms, most {max(delays) * 1e3:.1f} ms"


async def stats(hub: ServeProcess) -> dict[str, Any]:
    headers = said_by("root", "198.51.100.2", admin=True)
    answer = await hub.site.ask("GET", "/notifications/stats", headers=headers)
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


async def abuse(hub: ServeProcess, processes: list[Process]) -> dict[str, int]:
    """Have another process send bad requests; return how many were answered in which way."""
    process = await Process.start(str(hub.port), str(BAD_REQUESTS), program=("-m", "tests.cli.abuse"))
    processes.append(process)
    await holds(lambda: process.ended)
    assert await process.end() == 0, process.err
    answers: dict[str, int] = json.loads(process.out)
    return answers


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
async def test_bad_requests_take_nothing_from_honest_readers(serving: Serving, processes: list[Process]) -> None:
    environ = {"HUB_JWT_SECRET": SECRET, "HUB_TRUSTED_PROXIES": "127.0.0.1"}
    hub = await serving("--header-timeout", "3", "--body-timeout", "3", "--refuse-rate", "5", environ=environ)
    before = descriptors(hub.pid)
    readers = await readers_of(hub)
    publisher = Publisher(await hub.site.client(keep=False))
    while (await stats(hub))["connections"] < READERS:
        pass
    publishing = asyncio.create_task(publisher.run())
    await holds(lambda: publisher.sent >= QUIET or publishing.done())
    quiet = publisher.sent
    await holds(lambda: all(len(reader.numbers) >= quiet for reader in readers))
    memory, began = resident(hub.pid), time.monotonic()

    answers = await abuse(hub, processes)
    took, grown = time.monotonic() - began, resident(hub.pid) - memory
    assert sum(answers.values()) == BAD_REQUESTS
    assert (await hub.site.ask("GET", "/readyz")).status == 200
    publisher.stop()
    await publishing

    await check_that_nobody_lost_anything(hub, readers, publisher)
    assert grown < GROWTH
    await check_that_nothing_is_left(hub, readers, before)
    logger.info("%d bad requests in %.1f s, %d KiB more: %s", BAD_REQUESTS, took, grown, answers)
    for name, part in (("in the quiet", slice(quiet)), ("under abuse", slice(quiet, None))):
        delays = [delay for reader in readers for delay in reader.delays[part]]
        logger.info("latency of %d readers %s: %s", READERS, name, shown(delays))


async def check_that_nobody_lost_anything(hub: ServeProcess, readers: list[Reader], publisher: Publisher) -> None:
    await holds(lambda: all(len(reader.numbers) >= publisher.sent or reader.lost for reader in readers))
    assert [reader.numbers == list(range(publisher.sent)) for reader in readers] == [True] * READERS
    assert not any(reader.lost for reader in readers)
    counted = await stats(hub)
    assert counted["connections"] == READERS
    assert counted["published"] == publisher.sent
    assert counted["slow_requests"] >= SLOW_ONES
    for name in ("unauthorized", "forbidden", "limited"):
        assert counted[name] > 0


async def check_that_nothing_is_left(hub: ServeProcess, readers: list[Reader], before: int) -> None:
    """Check that the hub has no stream once the readers have left, and no more than *before* open files."""
    for reader in readers:
        assert reader.transport is not None
        reader.transport.abort()
    await hub.site.aclose()
    while (await stats(hub))["connections"]:
        pass
    await holds(lambda: descriptors(hub.pid) <= before)
    hub.check_tidy()
