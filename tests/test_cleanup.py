from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from hub import cleanup
from hub.cleanup import cleaned_up
from hub.metrics import Metrics


class Tasks:
    """Tasks that were told to end; they end with the test, whatever they do."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.named: dict[asyncio.Future[Any], str] = {}

    async def told_to_end(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.named[task] = name
        await asyncio.sleep(0)  # its first step
        task.cancel()
        return task

    async def cleans_up(self) -> None:
        try:
            await self.free.wait()
        finally:
            await self.free.wait()

    async def goes_on(self) -> None:
        while not self.free.is_set():
            with suppress(asyncio.CancelledError):
                await self.free.wait()


@pytest.fixture
async def tasks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tasks]:
    monkeypatch.setattr(cleanup, "CLEANUP_SECONDS", 0.05)
    monkeypatch.setattr(cleanup, "LAST_SECONDS", 0.05)
    tasks = Tasks()
    yield tasks
    tasks.free.set()
    if tasks.named:
        await asyncio.wait(tasks.named)


async def test_a_cleanup_is_awaited_and_not_disturbed(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_SECONDS", 10)
    task = await tasks.told_to_end("it", tasks.cleans_up())
    waiting = asyncio.create_task(cleaned_up(tasks.named, metrics := Metrics()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    tasks.free.set()
    await waiting
    assert (task.done(), task.cancelling(), metrics.left_behind) == (True, 1, 0)


async def test_a_cleanup_that_takes_too_long_is_cancelled_and_named(
    tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    task = await tasks.told_to_end("handler mine.hear", tasks.cleans_up())
    await cleaned_up(tasks.named, metrics := Metrics())
    assert (task.cancelled(), metrics.left_behind) == (True, 0)
    assert caplog.messages == ["handler mine.hear still cleans up after 0.05 s: it is cancelled"]


async def test_what_never_ends_is_left_behind_named_and_counted(tasks: Tasks, caplog: pytest.LogCaptureFixture) -> None:
    left = await tasks.told_to_end("handler mine.hear", tasks.goes_on())
    ended = await tasks.told_to_end("handler other", asyncio.sleep(0))
    await cleaned_up(tasks.named, metrics := Metrics())
    assert (left.done(), ended.done(), metrics.left_behind) == (False, True, 1)
    assert caplog.messages[-1] == "handler mine.hear does not end: it is left behind"


async def test_there_may_be_nothing_to_wait_for() -> None:
    await cleaned_up({}, Metrics())
