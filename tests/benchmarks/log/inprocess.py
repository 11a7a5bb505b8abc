"""A hub in this process, without a socket, on the loop that `hub serve` would use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from hub import Hub, Settings
from tests.benchmarks.child import Answer

PAD = "x" * 100


@asynccontextmanager
async def opened(log: str, *, count: int | None = None, size: int | None = None) -> AsyncIterator[Hub]:
    """A hub on *log* that keeps *count* notifications and *size* bytes, open as long as the block."""
    hub = Hub(Settings(log=log, retain_count=count, retain_bytes=size))
    await hub.open()
    try:
        yield hub
    finally:
        await hub.aclose()


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run *work* on uvloop if it is installed, on the plain loop otherwise."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
