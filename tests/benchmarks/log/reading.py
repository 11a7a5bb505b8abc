"""The process that reads a log itself, without sockets: whole replays, and first pages after random positions."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from hub.load.latency import Latencies
from hub.log.log import Framing, Log
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.driver import shown
from tests.benchmarks.log.filling import ROOM, fill_with
from tests.benchmarks.log.inprocess import opened, run


async def read(task: dict[str, Any]) -> Answer:
    """Read the log at *log* as *replays* and *lookups* say; fill it first where *fill* gives topics and numbers.

    *replays* names subscriptions, to be read from the beginning to the end; *lookups* names some of which the first
    page after each of *times* random positions is read.
    """
    async with opened(task["log"], count=10**9, size=ROOM) as hub:
        for topics, number in task.get("fill", ()):
            await fill_with(hub.notifications, topics, number)
        replays = {name: await replay(hub.log, topics) for name, topics in task.get("replays", {}).items()}
        lookups = {
            name: await look_up(hub.log, topics, task["times"]) for name, topics in task.get("lookups", {}).items()
        }
    return {"replays": replays, "lookups": lookups}


async def replay(log: Log, topics: Sequence[str]) -> dict[str, float]:
    """Read everything, page after page; return how much it was and how long it took."""
    framing = _framing(log)
    began = time.perf_counter()
    newest = log.bounds().newest.offset
    after = number = pages = 0
    while after < newest:
        page = await framing.frames(after, topics, upto=newest)
        after, number, pages = page.reached, number + page.number, pages + 1
    return {"number": number, "pages": pages, "seconds": time.perf_counter() - began}


async def look_up(log: Log, topics: Sequence[str], times: int) -> dict[str, float]:
    """Read the first page after random positions; return the spread in milliseconds."""
    oldest, newest = (position.offset for position in log.bounds()[:2])
    chance = random.Random(1)
    framing, latencies = _framing(log), Latencies()
    for _ in range(times):
        after = chance.randrange(oldest, newest)
        began = time.perf_counter_ns()
        await framing.frames(after, topics, upto=newest)
        latencies.record(time.perf_counter_ns() - began)
    return shown(latencies)


def _framing(log: Log) -> Framing:
    assert isinstance(log, Framing)
    return log


if __name__ == "__main__":
    answer(lambda task: run(read(task)))
