"""Work in the background that always has an owner: it ends with the block or the call that began it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager


async def unless(event: asyncio.Event, work: Coroutine[object, object, object]) -> None:
    """Do *work*, but cancel it when *event* is set before it is done."""
    task, asked = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(asked)
        await end(task)


@asynccontextmanager
async def alongside(work: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Do *work* as long as the block lasts; what it raises comes out at the end of the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        await end(task)


async def end(task: asyncio.Task[object]) -> None:
    """Cancel *task* unless it is done, wait for it, and raise what it raised."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
