"""The processes end with their parent, however it ended, and whatever it has forked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.log.sqlite.home import Home
from tests.log.sqlite.processes import ended
from tests.torture import children
from tests.web.client import until
from tests.web.process import ROOT

pytestmark = pytest.mark.slow

PARENT = """
import asyncio, sys, time
from pathlib import Path
from hub.log.sqlite.log import SQLiteLog
from hub.notification import Draft

async def main():
    log = SQLiteLog(Path(sys.argv[1]), count=10, size=10**6, age=None, clock=time.time)
    await log.open()
    await log.append([Draft.of("x")])[0]
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_processes_end_with_a_parent_that_was_killed(home: Home):
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(home.path)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        assert await parent.stdout.readline() == b"open\n"
        started = children(parent.pid)
        assert len(started) == 2
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not any(Path(f"/proc/{each}").exists() for each in started))
    log = await home.open()
    assert log.bounds().newest.offset == 1


FORKING = """
import asyncio, os, signal, sys, time
from pathlib import Path
from hub.log.sqlite.log import SQLiteLog
from hub.notification import Draft

async def main():
    path, how = sys.argv[1:]
    log = SQLiteLog(Path(path), count=10, size=10**6, age=None, clock=time.time)
    await log.open()
    await log.append([Draft.of("x")])[0]
    workers = [each.process for each in (log._writer, log._reader)]
    child = os.fork()
    if not child:
        os.close(1)
        signal.pause()
    print(child, *(each._transport.get_pid() for each in workers), flush=True)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    await log.aclose()
    print(*(each._transport.get_returncode() for each in workers), flush=True)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def forking(home: Home, how: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[int]]]:
    """Yield a process with a log, and its workers; a child that it has forked outlives it."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKING, str(home.path), how),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    child = 0
    try:
        assert parent.stdout is not None
        child, *started = map(int, (await parent.stdout.readline()).split())
        yield parent, started
    finally:
        if parent.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent.pid, signal.SIGKILL)  # `parent.kill()` would take its exit status from the event loop
        if child:
            os.kill(child, signal.SIGKILL)
        await parent.wait()


async def test_a_forked_child_does_not_keep_the_processes_from_ending_with_the_log(home: Home):
    async with forking(home, "closed") as (parent, _):
        assert parent.stdout is not None
        async with asyncio.timeout(60):
            assert await parent.stdout.readline() == b"0 0\n", "both ended by themselves"
    assert not home.path.with_name("hub.db-wal").exists()


async def test_a_forked_child_does_not_keep_the_processes_of_a_killed_parent(home: Home):
    async with forking(home, "killed") as (_, started):
        await until(lambda: all(ended(each) for each in started))
        log = await home.open()
        assert log.bounds().newest.offset == 1


async def test_a_stopped_process_ends_with_a_parent_that_was_killed(home: Home):
    async with forking(home, "closed") as (parent, started):
        for each in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGSTOP)
        parent.kill()
        await until(lambda: all(ended(each) for each in started))
