"""A timeout that starts anew whenever something is heard."""

from __future__ import annotations

import asyncio

import pytest

from hub.patience import Patience


async def test_silence_ends_the_block():
    patience = Patience(0.01)
    with pytest.raises(TimeoutError):
        async with patience:
            await asyncio.Event().wait()
    assert patience.expired
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]


async def test_whoever_is_heard_may_take_for_ever():
    loop = asyncio.get_running_loop()
    patience = Patience(0.05)
    async with patience:
        until = loop.time() + 0.2
        while loop.time() < until:
            patience.heard(0.05)
            await asyncio.sleep(0.001)
    assert not patience.expired


@pytest.mark.parametrize(("first", "then"), [(0.01, 60.0), (60.0, 0.01)])
async def test_patience_can_grow_and_shrink(first: float, then: float):
    patience = Patience(first)
    ended = False
    try:
        async with patience:
            patience.heard(then)
            await asyncio.sleep(0.1)
    except TimeoutError:
        ended = True
    assert ended is patience.expired is (then < first)
    assert patience.seconds == then


async def test_whexpireds_otherwise_passes_and_leaves_no_timer():
    patience = Patience(0.01)
    with pytest.raises(TimeoutError, match="mine"):
        async with patience:
            raise TimeoutError("mine")
    assert not patience.expired
    task = asyncio.create_task(_wait(Patience(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.02)
    assert not patience.expired


async def _wait(patience: Patience) -> None:
    async with patience:
        await asyncio.Event().wait()
