"""What the user asks for while a run goes on: an end, and then an end at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """What was asked for.

    Attributes:
        stop: publish no more, wait for what is on its way, report.
        now: do not wait either.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.now = asyncio.Event()

    def ask(self) -> None:
        """Take one request to end."""
        (self.now if self.stop.is_set() else self.stop).set()


@contextmanager
def hear_signals() -> Iterator[Signals]:
    """Let SIGINT and SIGTERM ask instead of kill, where this thread may decide that."""
    signals, loop, taken = Signals(), asyncio.get_running_loop(), []
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signals.ask)
            taken.append(number)
    except (ValueError, RuntimeError, NotImplementedError):
        pass  # not the main thread, or Windows: the default stays
    try:
        yield signals
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
