"""One worker process of a log, replaced as soon as it dies or hangs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from hub.errors import LogUnavailable
from hub.log.sqlite.process import KILL_SECONDS, Answer, WorkerProcess

logger = logging.getLogger("hub.log")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
SHORT_PAUSE = 1.0  # for which a publish may wait; beyond it, it is refused at once
HEALTHY_TICKS = 5  # a process that lived as long is replaced without a pause

Start = Callable[[bool], Awaitable[tuple[WorkerProcess, Answer]]]


class Supervisor:
    """Keeps one worker process running, from `begin` to `aclose`.

    One that dies, or hangs and is killed, is replaced at once; if that goes on, or fails, after growing pauses. There
    are never two of them: the next one is started when the last one has ended.

    Args:
        does: what it does: `writes` or `reads`.
        path: the file, for the log.
        start: starts a process and returns it with what it said; told whether it replaces another one.
        replaced: called with what a replacement said, before anybody can ask it.
        sleep: waits for some seconds.
        what: what the file is, for the hub's own log.
    """

    def __init__(
        self,
        does: str,
        path: Path,
        start: Start,
        replaced: Callable[[Answer], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        what: str = "log",
    ) -> None:
        self._sleep = sleep
        self._what = what
        self._does, self._path = does, path
        self._start = start
        self._replaced = replaced
        self._process: WorkerProcess | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._attempt: asyncio.Future[None] | None = None
        self._pause = 0.0  # before the next attempt
        self._waits = False  # for that pause to pass
        self._age = 0
        self._said = ""
        self._why = "its file is not open"
        self._answered = time.monotonic()  # when the process before this one last did

    async def begin(self) -> Answer:
        """Start the first process and return what it said.

        Raises:
            LogUnavailable: the file can't be used; says why.
        """
        process, answer = await self._start(False)
        self._take(process)
        return answer

    def _take(self, process: WorkerProcess) -> None:
        self._process, self._age, self._said = process, 0, ""
        process.on_end = self._replace_soon

    @property
    def process(self) -> WorkerProcess | None:
        """The process, dead or alive; None before the beginning and after the end."""
        return self._process

    @property
    def answered(self) -> float:
        """When a process last answered, in seconds of `time.monotonic`."""
        if not self.dead and self._process is not None:
            self._answered = self._process.answered
        return self._answered

    @property
    def late(self) -> bool:
        """Whether it has owed an answer for so long that it takes no more questions."""
        return self._process is not None and self._process.late

    @property
    def up(self) -> bool:
        """Whether it can be asked, and answers as soon as one that works does."""
        return self._process is not None and not self._process.dead and not self._process.doubtful

    @property
    def dead(self) -> bool:
        """Whether it can't be asked now."""
        return self._process is None or self._process.dead

    @property
    def why(self) -> LogUnavailable:
        """Why it can't; a new one each time, for one that is raised again and again gathers tracebacks."""
        if not self.dead:
            return LogUnavailable(f"the process that {self._does} it does not answer")
        return LogUnavailable(self._why)

    async def get(self) -> WorkerProcess:
        """Return the process; wait for the one that is about to replace it.

        Raises:
            LogUnavailable: there is none, and none will be there soon; says why.
        """
        process = self._process
        if process is not None and process.dead:
            self._replace_soon()
            assert self._attempt is not None
            if self._waits and self._pause > SHORT_PAUSE:
                raise self.why
            await asyncio.wait([self._attempt])
            process = self._process if self._process is not None and not self._process.dead else None
        if process is None:
            raise self.why
        return process

    def tick(self) -> None:
        """Look after it; to be called every second."""
        if self._process is None:
            return
        self._age += 1
        self._process.tick()
        if self._process.dead:
            self._replace_soon()

    # ---- replacing it ----

    def _replace_soon(self) -> None:
        if self._process is None or self._replacing is not None or not self._process.dead:
            return
        why = self._process.why
        logger.error("the process that %s the %s %s %s and is started anew", self._does, self._what, self._path, why)
        self._why = f"the process that {self._does} it {why}"
        if self._age >= HEALTHY_TICKS:
            self._pause = 0.0
        loop = asyncio.get_running_loop()
        self._attempt = loop.create_future()
        self._replacing = loop.create_task(self._replace(self._process))

    async def _replace(self, old: WorkerProcess) -> None:
        try:
            while self._process is old:
                assert self._attempt is not None
                self._waits = True
                await self._sleep(self._pause)
                self._waits = False
                self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
                try:
                    await self._try(old)
                except LogUnavailable as error:
                    self._complain(error.why)
                except Exception:
                    logger.exception(
                        "the process that %s the %s %s can't be started anew", self._does, self._what, self._path
                    )
                ended, self._attempt = self._attempt, asyncio.get_running_loop().create_future()
                ended.set_result(None)
        finally:
            self._replacing = None
            if self._attempt is not None and not self._attempt.done():
                self._attempt.set_result(None)

    async def _try(self, old: WorkerProcess) -> None:
        if not await old.ended(KILL_SECONDS):
            old.give_up()
            raise LogUnavailable("the one before it hangs, and can't be ended")
        await old.aclose()
        process, answer = await self._start(True)
        try:
            self._replaced(answer)
        except BaseException:
            await process.aclose()
            raise
        self._take(process)

    def _complain(self, why: str) -> None:
        """Log, once, why there is none; answers over the network name no path."""
        if why != self._said:
            logger.error(
                "the process that %s the %s %s can't be started anew: %s", self._does, self._what, self._path, why
            )
        self._said = why
        self._why = f"the process that {self._does} it can't be started; the hub's own log says why"

    # ---- the end ----

    async def aclose(self) -> None:
        """End the process, and replace it no more."""
        process, self._process = self._process, None
        self._why = "its file is not open"
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.wait([self._replacing])
        if process is not None:
            await process.aclose()
