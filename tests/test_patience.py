"""A timer that starts anew whenever something is heard."""

from __future__ import annotations

import asyncio

from hub.patience import Patience
from tests.web.client import until


async def test_silence_is_told_once():
    lost: list[float] = []
    patience = Patience(0.01, lambda: lost.append(patience.seconds))
    await until(lambda: lost)
    await asyncio.sleep(0.03)
    assert lost == [0.01]


async def test_whoever_is_heard_may_take_for_ever():
    loop, lost = asyncio.get_running_loop(), []
    patience = Patience(0.05, lambda: lost.append(1))
    end = loop.time() + 0.2
    while loop.time() < end:
        patience.heard(0.05)
        await asyncio.sleep(0.001)
    patience.stop()
    await asyncio.sleep(0.06)
    assert not lost


async def test_patience_can_grow():
    lost: list[int] = []
    patience = Patience(0.01, lambda: lost.append(1))
    patience.heard(60)
    await asyncio.sleep(0.05)
    assert not lost
    patience.stop()


async def test_patience_can_shrink():
    lost: list[int] = []
    patience = Patience(60, lambda: lost.append(1))
    patience.heard(0.01)
    await until(lambda: lost)
