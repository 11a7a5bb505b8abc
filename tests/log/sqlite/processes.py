"""The processes of a log: which they are, how a test ends them, and when they are back."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from pathlib import Path
from typing import Any, cast

from hub.errors import LogUnavailable
from hub.log.sqlite.log import SQLiteLog
from hub.log.sqlite.process import WorkerProcess
from tests.contracts.test_log import drafts
from tests.web.client import until


def workers(log: SQLiteLog) -> list[WorkerProcess]:
    """The writer and the reader of *log*."""
    return [each.process for each in (log._writer, log._reader) if each.process is not None]


def pid(process: WorkerProcess) -> int:
    assert process._transport is not None
    return process._transport.get_pid()


def processes(role: str, path: Path) -> list[int]:
    """The processes that were started on *path* to be its writer or reader (Linux)."""
    wanted = [role, str(path)]
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if each.read_text().split("\0")[-3:-1] == wanted:
                found.append(int(each.parent.name))
    return found


def ended(process: int) -> bool:
    """Whether *process* is gone, or is only waited for by whoever inherited it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def pipe(process: WorkerProcess) -> Any:
    """The transport that *process* answers on."""
    return cast(Any, process._transport).get_pipe_transport(1)


def bytes_in(pipe: int) -> int:
    """How many bytes wait in *pipe*."""
    return cast(int, struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


def stop(worker: WorkerProcess) -> None:
    os.kill(pid(worker), signal.SIGSTOP)


async def kill(*processes: WorkerProcess) -> None:
    """End *processes* the way a machine out of memory does, and return when that was noticed."""
    for process in processes:
        os.kill(pid(process), signal.SIGKILL)
    await until(lambda: all(process.dead for process in processes))


async def crash(log: SQLiteLog) -> None:
    """End the processes of *log* and its watch over them, as a crash of the whole hub does: nobody replaces them."""
    assert log._timer is not None
    log._timer.cancel()
    for process in workers(log):
        process.on_end = lambda: None
    await kill(*workers(log))
    await log.aclose()


async def mended(log: SQLiteLog) -> None:
    """Do what the hub's sweep does until both processes run and have nothing to do."""
    async with asyncio.timeout(60):
        while len(workers(log)) < 2 or any(each.dead for each in workers(log)):
            log.trim()
            await asyncio.sleep(0.005)
    await until(lambda: log._committing is None)


async def goes_on(log: SQLiteLog) -> int:
    """Append until one is kept; between the tries do what the hub's sweep does. Return its offset."""
    async with asyncio.timeout(60):
        while True:
            try:
                position = await log.append(drafts("on"))[0]
                break
            except LogUnavailable:
                log.trim()
                await asyncio.sleep(0.01)
    await mended(log)
    return position.offset


async def swept(log: SQLiteLog) -> None:
    """Do what the hub's sweep does, once, and wait until everything is trimmed that is due."""
    await until(lambda: log._committing is None)
    log.trim()
    await until(lambda: log._committing is None)
