"""The parent's end of a worker process: requests out, answers in, in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import marshal
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from hub.errors import LogUnavailable
from hub.log.sqlite.interpreter import interpreter
from hub.log.sqlite.worker.pipe import SIZE, pack

logger = logging.getLogger("hub.log")

START_SECONDS = 60.0
SECONDS_PER_GIB = 30.0  # at the start the whole file is read, to see whether it is sound
RESTART_SECONDS = 20.0  # to replace a process: the file was looked through before
END_SECONDS = 5.0
KILL_SECONDS = 2.0  # for the end of a process that was killed; one that waits for a disk does not end before that
LAST_SECONDS = 1.0  # of it, for what is still to be read when it has ended

# Counted in ticks of the loop, about a second each, not by the clock: a hub that stood still itself blames nobody.
PROBE_TICKS = 2  # a process that nobody asks anything is asked whether it is there
DOUBT_TICKS = 5  # without an answer: the log is not ready, and says so before it does anything about it
SILENT_TICKS = 10  # without a sign of life: it is stopped, and won't go on
ANSWER_TICKS = 30  # with signs of life, for one answer: nothing that is asked takes as long, but a disk may

# Behind the standard library on the path, and only modules that import nothing but that: a worker starts fast.
_SCRIPT = f"""
import sys
sys.path.append({str(Path(__file__).parents[3])!r})
from {{}} import main
sys.exit(main())
"""
_MAIN = "hub.log.sqlite.worker.main"

Answer = dict[str, Any]


class WorkerDied(Exception):
    """There will be no answer: the process has ended, or was given up."""


class WorkerProcess(asyncio.SubprocessProtocol):
    """A running worker. Its answers are futures, resolved in the order of the requests.

    Attributes:
        on_end: called once, when it has ended.
        why: what became of it, for the log.
        answered: when it last answered, in seconds of `time.monotonic`; at first, when it was started.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.on_end: Callable[[], None] = lambda: None
        self.why = "died"
        self.answered = time.monotonic()
        self._received = bytearray()
        self._asked: deque[tuple[asyncio.Future[Answer], int]] = deque()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._killed = False
        self._idle = 0  # ticks since it was asked something
        self._silent = 0  # ticks since it gave a sign of life, while it was asked something
        self._late = 0  # ticks since its last answer, while it was asked something

    @classmethod
    async def start(
        cls,
        role: str,
        path: Path,
        options: Mapping[str, Any],
        *,
        name: Path,
        seconds: float | None = None,
        main: str = _MAIN,
    ) -> tuple[WorkerProcess, Answer]:
        """Start a worker of *role* on *path* and return it with what it said of the file.

        It is its own session, so that a Ctrl-C in the terminal reaches only the parent, and inherits no descriptor
        but its two pipes. It has *seconds* for it (None: what a file of this size may take). *name* is how the file is
        called in messages. *main* is the module whose `main` it runs.

        Raises:
            LogUnavailable: the file can't be used; says why.
        """
        loop = asyncio.get_running_loop()
        version = "{}.{}".format(*sys.version_info)
        arguments = (interpreter(), "-IS", "-c", _SCRIPT.format(main), str(os.getpid()), version, role, str(path))
        try:
            transport, process = await loop.subprocess_exec(cls, *arguments, stderr=None, start_new_session=True)
        except OSError as error:
            raise LogUnavailable(f"{name}: the process that keeps it can't be started ({error.strerror})") from None
        process._transport = transport
        process._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        try:
            async with asyncio.timeout(seconds or START_SECONDS + SECONDS_PER_GIB * _gibibytes(path)):
                state = await process.request(dict(options))
        except (WorkerDied, TimeoutError) as error:
            process.kill()
            await process.aclose()
            raise LogUnavailable(f"{name}: the process that keeps it did not start ({error})") from None
        except BaseException:
            process.kill()
            await process.aclose()  # also when this is cancelled: it holds the file's lock
            raise
        if "refused" in state:
            await process.aclose()
            raise LogUnavailable(f"{name}: {state['refused']}")
        return process, state

    @property
    def dead(self) -> bool:
        """Whether it has ended, or can't be asked any more because it is about to."""
        return self._killed or self._ended.done() or self._stdin is None or self._stdin.is_closing()

    @property
    def doubtful(self) -> bool:
        """Whether it has owed an answer for longer than one that works takes."""
        return self._late >= DOUBT_TICKS

    @property
    def late(self) -> bool:
        """Whether it has owed an answer for so long that nobody should wait for the next one."""
        return self._late >= SILENT_TICKS

    # ---- requests and answers ----

    def request(self, *request: Any, ticks: int = ANSWER_TICKS) -> asyncio.Future[Answer]:
        """Send a request and return the future of its answer, or of `WorkerDied`.

        Once its turn has come it may take *ticks*; then the process is killed.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self.dead:
            answer.set_exception(WorkerDied("it is not running"))
            return answer
        if not self._asked:
            self._idle = self._silent = self._late = 0
        self._asked.append((answer, ticks))
        assert self._stdin is not None
        self._stdin.write(pack(request if len(request) > 1 or isinstance(request[0], str) else request[0]))
        return answer

    async def ask(self, *request: Any, ticks: int = ANSWER_TICKS) -> Answer:
        """Send a request and return its answer.

        Raises:
            WorkerDied: there will be none.
        """
        return await self.request(*request, ticks=ticks)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Resolve the requests that *data* answers; a message of no bytes is a sign of life."""
        received, size = self._received, SIZE.size
        received += data
        place = 0
        while len(received) - place >= size:
            end = place + size + SIZE.unpack_from(received, place)[0]
            if len(received) < end:
                break
            if end > place + size and self._asked:
                answer, _ = self._asked.popleft()
                self._late = 0
                self.answered = time.monotonic()
                if not answer.done():
                    answer.set_result(marshal.loads(memoryview(received)[place + size : end]))  # noqa: S302 - our own child
            place = end
        if place:
            del received[:place]
        self._silent = 0

    # ---- watching it ----

    def tick(self) -> None:
        """Count how long it has said nothing; kill it if that is too long. To be called every second."""
        if self.dead:
            return
        if not self._asked:
            self._idle += 1
            if self._idle >= PROBE_TICKS:
                self.request("look")
            return
        self._silent += 1
        self._late += 1
        if self._silent >= SILENT_TICKS:
            self.why = f"gave no sign of life for {SILENT_TICKS} s"
            self.kill()
        elif self._late >= self._asked[0][1]:
            self.why = f"gave no answer for {self._late} s"
            self.kill()

    # ---- its end ----

    def kill(self) -> None:
        """End it, stopped or not. What it was asked stays open until it has ended: it may have answered."""
        self._killed = True
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    def process_exited(self) -> None:
        """Wait for its pipes no longer than a while: something forked just then may hold them open."""
        asyncio.get_running_loop().call_later(LAST_SECONDS, self.connection_lost, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it has ended and all it said was read: whoever waits gets no answer."""
        if not self._ended.done():
            self._ended.set_result(None)
            self.give_up()
            self.on_end()

    def give_up(self) -> None:
        """Tell whoever waits that there will be no answer."""
        while self._asked:
            answer, _ = self._asked.popleft()
            if not answer.done():
                answer.set_exception(WorkerDied("it ended"))
                answer.exception()  # whether somebody looks at it or not

    async def ended(self, seconds: float) -> bool:
        """Wait up to *seconds* for its end; tell whether it has come."""
        await asyncio.wait([self._ended], timeout=seconds)
        return self._ended.done()

    async def aclose(self) -> None:
        """Wait until it has answered what it was asked and has ended; kill it if that takes too long."""
        try:
            if self._stdin is not None and not self._killed:
                if not self._stdin.is_closing():
                    self._stdin.write(pack(None))  # the end of the pipe is none, if something forked holds it open
                    self._stdin.close()
                await self.ended(END_SECONDS)
            if not self._ended.done():
                self.kill()
                if not await self.ended(KILL_SECONDS):
                    logger.error("a process of the log can't be ended: it waits for a disk")
                    self.give_up()
        finally:
            if self._transport is not None:
                self._transport.close()  # which kills what runs still


def _gibibytes(path: Path) -> float:
    try:
        return path.stat().st_size / 1024**3
    except OSError:
        return 0.0
