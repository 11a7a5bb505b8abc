"""The file of the state, seen from the hub: read once, at the start, and written by a process of its own.

A thread would be enough for the loop never to wait. But the kernel ends no process of which a thread waits for a disk
that does not answer: the hub could not end, not even by SIGKILL. So the state is written as the log is, by a process
that is replaced when it dies or hangs, and left behind when it can't be ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hub.errors import LogUnavailable, StateUnavailable
from hub.log.sqlite.process import RESTART_SECONDS, WorkerDied, WorkerProcess
from hub.log.sqlite.supervisor import Supervisor

logger = logging.getLogger("hub.state")

TICK_SECONDS = 1.0
PATIENCE = 10.0  # for one commit; a process that says nothing for so long is killed
CLOSE_SECONDS = 5.0  # for what waits to be written when it is closed
WAITING = 10_000  # writes
PART = 10_000  # memberships that are read at a time

Statement = tuple[str, tuple[Any, ...]]
MembershipRow = tuple[str, str, int, int, float, bool, bool]


class Rows(NamedTuple):
    """What a file holds, in the order in which it was written."""

    revocations: list[tuple[bytes, float, float | None]]
    buckets: list[tuple[int, float]]
    entries: list[tuple[str, str, float, str]]
    eras: list[tuple[int, str, int | None, int]]


class _Write(NamedTuple):
    """Statements on their way into the file, and whoever waits for that."""

    statements: Sequence[Statement]
    done: asyncio.Future[None]


class Journal:
    """Writes statements into the file at *path*; what comes during one commit shares the next one.

    Args:
        path: the file.
        patience: seconds for one commit.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._worker = Supervisor("writes", path, self._start, lambda answer: None, what="state")
        self._inode: tuple[int, int] | None = None
        self._waiting: list[_Write] = []
        self._committing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._why = ""  # why the last commit failed
        self._opened = False

    async def open(self) -> Rows:
        """Open the file, make it if it is not there, and return what it holds.

        Raises:
            StateUnavailable: it can't be used; says why.
        """
        try:
            answer = await self._worker.begin()
        except LogUnavailable as error:
            raise StateUnavailable(error.why) from None
        self._inode = answer["inode"]
        self._opened = True
        self._tick()
        return Rows(answer["revocations"], answer["buckets"], answer["entries"], answer["eras"])

    async def memberships(self) -> AsyncIterator[list[MembershipRow]]:
        """Yield all memberships that the file holds, in parts; to be read before anything is written.

        Raises:
            StateUnavailable: they can't be read; says why.
        """
        room = user = ""
        while True:
            try:
                answer = await (await self._worker.get()).ask("memberships", room, user, PART)
            except (LogUnavailable, WorkerDied):
                answer = {"error": "its file could not be read"}
            if "error" in answer:
                raise StateUnavailable(answer["error"])
            yield answer["rows"]
            if len(answer["rows"]) < PART:
                return
            room, user = answer["rows"][-1][:2]

    async def _start(self, again: bool) -> tuple[WorkerProcess, dict[str, Any]]:
        seconds = RESTART_SECONDS if again else None
        options = {"inode": self._inode} if again else {}
        return await WorkerProcess.start(
            "state", self._real(), options, name=self._path, seconds=seconds, main="hub.state.file"
        )

    def _real(self) -> Path:
        return Path(os.path.realpath(self._path))

    def _tick(self) -> None:
        """Look after the process, again and again."""
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        self._worker.tick()

    @property
    def up(self) -> bool:
        """Whether it can be asked, and answers as soon as one that works does."""
        return self._worker.up

    def write(self, *statements: Statement) -> asyncio.Future[None]:
        """Have *statements* kept, after all that was written before; nobody has to await the future.

        It raises `StateUnavailable` if they are not kept.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        done.add_done_callback(_looked_at)
        if not self._opened:
            done.set_exception(StateUnavailable("its file is not open"))
        elif self._worker.late or len(self._waiting) >= WAITING:
            done.set_exception(StateUnavailable("the process that writes it does not answer"))
        else:
            self._waiting.append(_Write(statements, done))
            if self._committing is None:
                self._committing = loop.create_task(self._commit_all())
        return done

    async def keep(self, *statements: Statement) -> None:
        """Have *statements* kept; return when they are.

        Raises:
            StateUnavailable: they are not, or that takes too long; then they may be kept later.
        """
        done = self.write(*statements)
        await asyncio.wait([done], timeout=self._patience)
        if not done.done():
            raise StateUnavailable("the process that writes it does not answer")
        done.result()

    async def _commit_all(self) -> None:
        """Commit what waits, batch after batch."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                why = await self._commit([each for write in batch for each in write.statements])
                if why and why != self._why:
                    logger.error("the state %s could not be written: %s", self._path, why)
                self._why = why
                for _, done in batch:
                    _settle(done, why)
        finally:
            self._committing = None

    async def _commit(self, statements: list[Statement]) -> str:
        """Commit *statements* and return why they were not kept; empty if they were."""
        try:
            worker = await self._worker.get()
            answer = await worker.ask("commit", statements)
        except LogUnavailable as error:
            return error.why
        except WorkerDied:
            return "the process that writes it died"
        except Exception:
            logger.exception("the state %s failed", self._path)
            return "it failed"
        return str(answer.get("error", ""))

    async def aclose(self) -> None:
        """Write what waits, within 5 seconds, and end the process."""
        self._opened = False
        try:
            if self._committing is not None:
                await asyncio.wait([self._committing], timeout=CLOSE_SECONDS)
            await self._worker.aclose()
            if self._committing is not None:  # nothing it could wait for is left
                await asyncio.wait([self._committing])
        finally:
            if self._timer is not None:
                self._timer.cancel()


def _settle(done: asyncio.Future[None], why: str) -> None:
    if done.done():  # whoever waited was cancelled
        return
    if why:
        done.set_exception(StateUnavailable("its file could not be written; the hub's own log says why"))
    else:
        done.set_result(None)


def _looked_at(future: asyncio.Future[None]) -> None:
    """Have nobody warned of an error that nobody awaits; `Journal` has logged it."""
    if not future.cancelled():
        future.exception()
