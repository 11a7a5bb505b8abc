"""The process that fills a log: so many notifications, in turn on each of its topics."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from hub.log.receipt import Receipt
from hub.notification import Draft
from hub.notifications import NotificationService
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.log.inprocess import PAD, opened, run

TOGETHER = 1_000
WAITING = 8_000
ROOM = 1024**4
"""Bytes that a log for a measurement may keep: the count is what bounds it."""


async def fill(task: dict[str, Any]) -> Answer:
    """Fill the log at *log* with *number* notifications on *topics*."""
    began = time.perf_counter()
    async with opened(task["log"], count=2 * task["number"], size=ROOM) as hub:
        await fill_with(hub.notifications, task["topics"], task["number"])
    return {"seconds": time.perf_counter() - began}


async def fill_with(notifications: NotificationService, topics: list[str], number: int) -> None:
    """Publish *number* notifications on *topics*, in turn; return when the last is confirmed."""
    waiting: deque[Receipt] = deque()
    for first in range(0, number, TOGETHER):
        drafts = [
            Draft.of({"p": PAD, "n": place}, topic=topics[place % len(topics)])
            for place in range(first, min(first + TOGETHER, number))
        ]
        waiting.extend(notifications.publish(drafts))
        await asyncio.sleep(0)
        while len(waiting) > WAITING:
            await waiting.popleft()
    for receipt in waiting:
        await receipt


if __name__ == "__main__":
    answer(lambda task: run(fill(task)))
