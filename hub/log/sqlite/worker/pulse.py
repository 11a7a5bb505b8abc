"""The pulse of a worker: while it works on a request it says now and then that it does.

So the parent can tell a process that stands still from one with much to do, or with a slow disk.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from hub.log.sqlite.worker.parent import check
from hub.log.sqlite.worker.pipe import BEAT, send

PULSE_SECONDS = 1.0


class Pulse:
    """The worker's mouth: its answers, and beats between them, from a thread of its own.

    Args:
        sink: where both go.
        parent: the process without which this one ends.
        sleep: waits for some seconds.
    """

    def __init__(self, sink: BinaryIO, parent: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sink = sink
        self._parent = parent
        self._sleep = sleep
        self._speaking = threading.Lock()
        self._working = True  # on the start

    def start(self) -> None:
        """Beat from now on, to the end of the process."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._sleep(PULSE_SECONDS)
            check(self._parent)
            with self._speaking:
                if self._working:
                    try:
                        self._sink.write(BEAT)
                        self._sink.flush()
                    except (OSError, ValueError):  # nobody listens any more: the next read says so
                        os._exit(1)

    def begin(self) -> None:
        """A request is being worked on."""
        self._working = True

    def answer(self, message: Any) -> None:
        """Send the answer to it."""
        with self._speaking:
            self._working = False
            send(self._sink, message)
