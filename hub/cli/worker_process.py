"""The supervisor's end of a worker: its start, its readiness, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from hub.cli.control import READY, lend, take_back
from hub.cli.sockets import Received, without_received

START_SECONDS = 60.0
"""In which a worker has to listen; it may have to open a large file or to find its log."""

# The working directory is put on the path by the worker itself, behind the hub: a folder `hub` there is not this one.
_SCRIPT = "import sys; sys.path.append({!r}); from hub.cli.worker import main; sys.exit(main())"
_ROOT = str(Path(__file__).parents[2])


class StartFailed(Exception):
    """A worker ended, or was killed, before it listened.

    Attributes:
        status: its exit status; 1: it was killed.
    """

    def __init__(self, why: str, status: int) -> None:
        super().__init__(why)
        self.status = status if status > 0 else 1


class WorkerProcess:
    """A worker that listens; made by `start`.

    Attributes:
        number: which of the workers it is, from 1 on.
        missed: the beats that its event loop has missed in a row, as the supervisor counts them.
        lent: the workers whose sockets it accepts from as well.
    """

    def __init__(self, number: int, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self.number = number
        self.missed = 0
        self.lent: set[int] = set()
        self._process = process
        self._control = control  # open as long as this process lives: with its end the worker ends

    def __str__(self) -> str:
        return f"worker {self.number} (process {self._process.pid})"

    @classmethod
    async def start(cls, number: int, flags: Mapping[str, Any], config: Path | None, sockets: Received) -> Self:
        """Start a worker and return it when it listens on *sockets*; this process keeps them open as well.

        It is its own session, so that a Ctrl-C in the terminal reaches only the supervisor, which tells it.

        Raises:
            StartFailed: it does not listen; why is told by itself, or by the error.
        """
        listeners = [sock.fileno() for sock in (*sockets.users, *sockets.admin)]
        flags_of_python: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as multiprocessing does
        arguments = [*flags_of_python, "-P", "-c", _SCRIPT.format(_ROOT)]
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise _can_not_start(number, error) from None
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *(*arguments, str(theirs.fileno()), f"worker {number}"),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *listeners),
                    start_new_session=True,
                    env=without_received(os.environ),
                )
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise _can_not_start(number, error) from None
            raise
        ours.setblocking(False)
        assignment = {
            "number": number,
            "flags": dict(flags),
            "config": None if config is None else str(config),
            "users": [sock.fileno() for sock in sockets.users],
            "admin": [sock.fileno() for sock in sockets.admin],
        }
        worker = cls(number, process, ours)
        try:
            await worker._listens(json.dumps(assignment).encode() + b"\n")
        except BaseException:
            worker.kill()
            await worker.ended()
            raise
        return worker

    async def _listens(self, assignment: bytes) -> None:
        """Tell it its *assignment*, wait until it says that it listens, and count its beats from then on."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(START_SECONDS):
                with suppress(ConnectionError):
                    await loop.sock_sendall(self._control, assignment)
                    if await loop.sock_recv(self._control, len(READY)) == READY:
                        loop.add_reader(self._control, self._hear)
                        return
                await self._process.wait()
        except TimeoutError:
            raise StartFailed(f"worker {self.number} did not listen within {START_SECONDS:g} s", 1) from None
        raise StartFailed(f"worker {self.number} {self.end()} before it listened", self.status)

    def _hear(self) -> None:
        """Take its beats, as many as there are."""
        with suppress(BlockingIOError, ConnectionError):
            if self._control.recv(4096):
                self.missed = 0
                return
        asyncio.get_running_loop().remove_reader(self._control)

    def accept_for(self, slots: Mapping[int, list[socket.socket]]) -> None:
        """Make it accept from the sockets of these workers beside its own, and from no others.

        It is told what has changed; if it can't be told now, the next call tells it.
        """
        with suppress(OSError):
            for slot in slots.keys() - self.lent:
                lend(self._control, slot, slots[slot])
                self.lent.add(slot)
            for slot in self.lent - slots.keys():
                take_back(self._control, slot)
                self.lent.remove(slot)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @property
    def status(self) -> int:
        """Its exit status, when it has ended; below 0: the signal that killed it."""
        return self._process.returncode or 0

    def end(self) -> str:
        """Return how it ended, as a verb."""
        status = self.status
        if status >= 0:
            return f"ended with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"

    def signal(self, number: int) -> None:
        """Send it the signal *number*, if it has not ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until it has ended."""
        await self._process.wait()
        if self._control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()


def _can_not_start(number: int, error: OSError) -> StartFailed:
    return StartFailed(f"worker {number} can't be started: {error.strerror or error}", 1)
