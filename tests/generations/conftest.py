"""Generations that end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hub.generations.generation import Generation
from hub.generations.registry import GenerationLimits, Generations
from hub.log.log import Log
from tests.generations.support import Clock


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    made: list[Generations] = []

    async def make(
        *, log: Log | None = None, on_end: Callable[[Generation], None] = lambda stream: None, **limits: Any
    ) -> Generations:
        generations = Generations(GenerationLimits(**{"window": 0.0, **limits}), log=log, on_end=on_end, clock=clock)
        await generations.open()
        made.append(generations)
        return generations

    yield make
    for each in made:
        await each.aclose()
