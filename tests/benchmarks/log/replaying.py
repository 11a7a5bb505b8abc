"""The process that resumes streams of a hub from the beginning, on one socket at a time, and reads to the end."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence
from typing import Any

from hub.load.latency import Latencies
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.driver import shown
from tests.benchmarks.errors import CannotMeasure

EVENT = b'"n":'
READ_BYTES = 1024 * 1024
STILL_SECONDS = 30.0  # without a byte, before the end was reached


def replay(task: dict[str, Any]) -> Answer:
    """Replay *number* notifications of *topics* from *port*, *times* times, or until *seconds* have passed.

    Where there are *lookups*, resume from so many random positions of *epoch* up to *newest* instead, and read until
    the first notification is there.
    """
    port, topics = task["port"], task["topics"]
    if "lookups" in task:
        chance, latencies = random.Random(2), Latencies()
        for _ in range(task["lookups"]):
            after = f"{task['epoch']}-{chance.randrange(1, task['newest'])}"
            latencies.record(int(1e9 * resumed(port, topics, after, 1)))
        return {"latency": shown(latencies)}
    runs: list[float] = []
    until = time.monotonic() + task.get("seconds", 0.0)
    while len(runs) < task["times"] or time.monotonic() < until:
        runs.append(resumed(port, topics, "earliest", task["number"]))
    return {"runs": runs, "number": task["number"]}


def resumed(port: int, topics: Sequence[str], after: str, number: int) -> float:
    """Open a stream of *topics* after the id *after*; return how many seconds *number* notifications took.

    Raises:
        CannotMeasure: the stream ended before that, or stood still.
    """
    asked = "&".join(f"topic={topic}" for topic in topics)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), STILL_SECONDS) as stream:
        stream.sendall(
            f"GET /notifications/subscribe?{asked} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Last-Event-ID: {after}\r\n\r\n".encode()
        )
        got, tail = 0, b""
        while got < number:
            try:
                received = stream.recv(READ_BYTES)
            except TimeoutError:
                raise CannotMeasure(f"a replay stood still at {got:,} of {number:,}") from None
            if not received:
                raise CannotMeasure(f"a replay ended at {got:,} of {number:,}")
            got += (tail + received).count(EVENT)
            tail = (tail + received)[1 - len(EVENT) :]
    if number > 1 and got != number:
        raise CannotMeasure(f"a replay brought {got:,} instead of {number:,}")
    return time.monotonic() - began


if __name__ == "__main__":
    answer(replay)
