"""A clock, a provider and a log that do as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from hub.errors import (
    LogUnavailable,
)
from hub.generations.generation import Generation
from hub.generations.providers.provider import Delta
from hub.log.choice import make_log
from hub.log.log import Announce, Log, Renewed, ignore_renewal
from hub.log.memory import MemoryLog
from hub.log.receipt import Receipt
from hub.log_url import LogURL
from hub.notification import Draft


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """A provider's answer that comes as the test says.

    Attributes:
        begun: how often it was asked for.
        closed: how often it has come to an end, its cleanup awaited.
    """

    def __init__(self, *script: Delta | str | Exception | None) -> None:
        self.more: asyncio.Queue[Delta | str | Exception | None] = asyncio.Queue()
        self.begun = self.closed = 0
        for each in script:
            self.say(each)

    def __call__(self) -> AsyncGenerator[Delta, None]:
        self.begun += 1
        return self._stream()

    def say(self, what: Delta | str | Exception | None) -> None:
        """Say *what* next; None: end."""
        self.more.put_nowait(what)

    async def _stream(self) -> AsyncGenerator[Delta, None]:
        try:
            while (what := await self.more.get()) is not None:
                if isinstance(what, Exception):
                    raise what
                yield Delta(what) if isinstance(what, str) else what
        finally:
            await asyncio.sleep(0)  # as it takes to close a connection
            self.closed += 1


def log_file(folder: Path, clock: Callable[[], float] | None = None, age: float | None = None) -> Log:
    """A log in a file of *folder*, which keeps what is *age* seconds old at most."""
    options: dict[str, Any] = {"count": 10**6, "size": None, "age": age, "topics": {}, "unobserved": print}
    return make_log(LogURL.parse(f"sqlite:///{folder / 'ai.db'}"), clock=clock or Clock(), **options)


class HeldLog:
    """A memory log that confirms, or fails, when the test says so; a beginning at once, unless it *holds* that too."""

    def __init__(self, *, holds: bool = False) -> None:
        self.holds = holds
        self._log = MemoryLog(clock=Clock())
        self._announce: Announce = lambda notifications: None
        self.waiting: list[tuple[Sequence[Draft], list[Receipt]]] = []
        self.refuses = False

    async def open(self) -> None:
        await self._log.open()

    def announce_to(self, announce: Announce, renewed: Renewed = ignore_renewal) -> None:
        self._log.announce_to(announce, renewed)

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self.refuses:
            raise LogUnavailable("too much waits")
        if drafts[0].type == "start" and not self.holds:
            return self._log.append(drafts)
        receipts = [Receipt(draft.topics) for draft in drafts]
        self.waiting.append((drafts, receipts))
        return receipts

    def confirm(self, count: int | None = None) -> None:
        for drafts, receipts in self._take(count):
            for receipt, kept in zip(receipts, self._log.append(drafts), strict=True):
                receipt.confirm(kept.result())

    def fail(self, count: int | None = None) -> None:
        for _, receipts in self._take(count):
            for receipt in receipts:
                receipt.fail(LogUnavailable("the disk is full"), print)

    async def aclose(self) -> None:
        self.confirm()
        await self._log.aclose()

    def _take(self, count: int | None) -> list[tuple[Sequence[Draft], list[Receipt]]]:
        count = len(self.waiting) if count is None else count
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


Make = Callable[..., Any]


async def over(stream: Generation) -> dict[str, Any]:
    """Return the facts of the end of *stream* as soon as it has come."""
    async with asyncio.timeout(60):
        await stream.ended()
    assert stream.ending is not None
    return {"phase": stream.phase, **stream.ending.facts}
