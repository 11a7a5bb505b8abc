"""Handlers that remember, wait or fail, and the cost of calling them."""

import asyncio
import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hub.events.event import Event

NOON = 1_700_000_000.5


class Recorder:
    """Hears events and remembers their names, and the end of an observable."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, event: Event) -> None:
        self.names.append(event.name)

    def complete(self) -> None:
        self.names.append("(completed)")


class Gate:
    """An async handler that stays inside until it is let go, and notes how it left."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, event: Event) -> None:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")


def note(notes: list[Any], value: object, _: Event) -> None:
    notes.append(value)


def fail(event: Event) -> None:
    raise LookupError(event.name)


async def fail_later(event: Event) -> None:
    await asyncio.sleep(0)
    raise ValueError(event.name)


class Failing:
    def __call__(self, event: Event) -> None:
        fail(event)

    def method(self, event: Event) -> None:
        fail(event)


def steps(action: Callable[[], object]) -> int:
    """Return how many lines of Python *action* runs: a cost that no busy machine changes."""
    count = 0

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal count
        count += kind == "line"
        return trace

    before = sys.gettrace()
    gc.disable()  # a finalizer would be counted too
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        gc.enable()
    return count
