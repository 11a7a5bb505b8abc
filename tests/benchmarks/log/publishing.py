"""The process in which many publish at once and wait for each confirmation."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hub.load.latency import Latencies
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.driver import shown
from tests.benchmarks.log.inprocess import PAD, opened, run

LOOK_SECONDS = 0.2


async def publish(task: dict[str, Any]) -> Answer:
    """Let *publishers* publish *number* notifications altogether, and look at the size of *file* meanwhile, if given.

    Each waits for its confirmation, gives way to the others, and goes on.
    """
    confirmed = 0
    latencies = Latencies()
    numbers = iter(range(task["number"]))
    sizes: list[tuple[int, int]] = []

    async with opened(task["log"], count=task["count"]) as hub:

        async def one(topic: str) -> None:
            nonlocal confirmed
            for number in numbers:
                began = time.perf_counter_ns()
                await hub.notifications.send_notification({"p": PAD, "n": number}, topic=topic)
                latencies.record(time.perf_counter_ns() - began)
                confirmed += 1
                await asyncio.sleep(0)  # the log in memory confirms at once

        async def look(path: Path) -> None:
            while True:
                sizes.append((confirmed, size_of(path)))
                await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(look(Path(task["file"]))) if task["file"] else None
        began = time.perf_counter()
        await asyncio.gather(*(one(f"bench/{who}") for who in range(task["publishers"])))
        seconds = time.perf_counter() - began
        if looking is not None:
            looking.cancel()
            sizes.append((confirmed, size_of(Path(task["file"]))))
    return {"confirmed": confirmed, "seconds": seconds, "latency": shown(latencies), "sizes": sizes}


def size_of(path: Path) -> int:
    """Return the bytes of a SQLite file with what stands beside it."""
    size = 0
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            size += Path(f"{path}{end}").stat().st_size
    return size


if __name__ == "__main__":
    answer(lambda task: run(publish(task)))
