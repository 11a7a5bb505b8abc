"""The parent's end of a worker process: requests out, answers in, in order."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hub.errors import LogUnavailable
from hub.log.worker.pipe import SIZE, pack

START_SECONDS = 60.0
SECONDS_PER_GIB = 30.0  # at the start the whole file is read, to see whether it is sound
END_SECONDS = 10.0

# The folder alone, not the package around it: nothing of the hub is imported there, nor what it needs. Only single
# modules that import nothing else of it are, so that what `hub` itself imports at its start stays away.
_SCRIPT = f"""
import sys, types
hub = sys.modules["hub"] = types.ModuleType("hub")
hub.__path__ = [{str(Path(__file__).parents[1])!r}]
sys.path.insert(0, {str(Path(__file__).parent)!r})
from worker.main import main
sys.exit(main())
"""

Answer = dict[str, Any]


class WorkerDied(Exception):
    """The process ended before it answered."""


class WorkerProcess(asyncio.SubprocessProtocol):
    """A running worker. Its answers are futures, resolved in the order of the requests."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._asked: deque[asyncio.Future[Answer]] = deque()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None

    @classmethod
    async def start(cls, role: str, path: Path, options: Mapping[str, Any]) -> tuple[WorkerProcess, Answer]:
        """Start a worker of *role* on *path* and return it with what it said of the file.

        It is its own session, so that a Ctrl-C in the terminal reaches only the parent, and inherits no descriptor
        but its two pipes.

        Raises:
            LogUnavailable: the file can't be used; says why.
        """
        loop = asyncio.get_running_loop()
        try:
            transport, process = await loop.subprocess_exec(
                cls, sys.executable, "-IS", "-c", _SCRIPT, role, str(path), stderr=None, start_new_session=True
            )
        except OSError as error:
            raise LogUnavailable(f"{path}: the process that keeps it can't be started ({error.strerror})") from None
        process._transport = transport
        process._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        try:
            async with asyncio.timeout(START_SECONDS + SECONDS_PER_GIB * _gibibytes(path)):
                state = await process.request(dict(options))
        except (WorkerDied, TimeoutError) as error:
            await process.aclose()
            raise LogUnavailable(f"{path}: the process that keeps it did not start ({error})") from None
        except BaseException:
            transport.close()  # it holds the file's lock
            raise
        if "refused" in state:
            await process.aclose()
            raise LogUnavailable(f"{path}: {state['refused']}")
        return process, state

    @property
    def dead(self) -> bool:
        """Whether it has ended, or can't be asked any more because it is about to."""
        return self._ended.done() or self._stdin is None or self._stdin.is_closing()

    def request(self, *request: Any) -> asyncio.Future[Answer]:
        """Send a request and return the future of its answer, or of `WorkerDied`."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self.dead:
            answer.set_exception(WorkerDied("it is not running"))
            return answer
        self._asked.append(answer)
        assert self._stdin is not None
        self._stdin.write(pack(request if len(request) > 1 else request[0]))
        return answer

    async def ask(self, *request: Any) -> Answer:
        """Send a request and return its answer.

        Raises:
            WorkerDied: there will be none.
        """
        return await self.request(*request)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Resolve the requests that *data* answers."""
        received, size = self._received, SIZE.size
        received += data
        place = 0
        while len(received) - place >= size:
            end = place + size + SIZE.unpack_from(received, place)[0]
            if len(received) < end:
                break
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_result(marshal.loads(memoryview(received)[place + size : end]))  # noqa: S302 - our own child
            place = end
        if place:
            del received[:place]

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that it has ended and all it said was read: tell everybody who waits that there will be no answer."""
        if not self._ended.done():
            self._ended.set_result(None)
        while self._asked:
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_exception(WorkerDied("it ended"))

    async def aclose(self) -> None:
        """Let it finish what it was asked, and wait for its end."""
        if self._stdin is not None:
            self._stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await asyncio.shield(self._ended)
        if self._transport is not None:
            self._transport.close()  # ends it if it has not by now


def _gibibytes(path: Path) -> float:
    try:
        return path.stat().st_size / 1024**3
    except OSError:
        return 0.0
