"""Signs of life."""

from __future__ import annotations

import io
import os
import threading
from typing import Any

from hub.log.sqlite.worker.pipe import BEAT, pack
from hub.log.sqlite.worker.pulse import Pulse


class Sink(io.BytesIO):
    """Holds what was said, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[bytes] = []

    def write(self, data: Any) -> int:
        self.said.append(bytes(data))
        return len(data)


async def test_a_worker_beats_while_it_works_and_at_no_other_time():
    asked = threading.Semaphore(0)
    rested = threading.Semaphore(0)

    def rest(seconds: float) -> None:
        rested.release()
        asked.acquire()

    def beat() -> list[bytes]:
        """Let the thread come round once, and return what was said."""
        asked.release()
        assert rested.acquire(timeout=30)
        return sink.said

    sink = Sink()
    worker = Pulse(sink, os.getppid(), rest)
    worker.start()
    assert rested.acquire(timeout=30)
    assert beat() == [BEAT], "its start is work, too"
    worker.answer({"a": 1})
    assert beat() == [BEAT, pack({"a": 1})]
    worker.begin()
    assert beat() == [BEAT, pack({"a": 1}), BEAT]
