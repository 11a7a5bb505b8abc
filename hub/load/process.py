"""The hub's processes as the system sees them: memory and CPU."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import psutil

from hub.load.options import CannotRun


class Usage(NamedTuple):
    """What processes use: resident bytes, percent of one core since the look before, seconds of CPU so far."""

    rss: int
    cpu_percent: float
    cpu_seconds: float

    @classmethod
    def of(cls, processes: list[psutil.Process]) -> Usage | None:
        """Look at *processes*; None if there are none, or they are gone."""
        with suppress(psutil.Error):
            memory = sum(process.memory_info().rss for process in processes)
            percent = sum(process.cpu_percent() for process in processes)
            spent = sum(sum(process.cpu_times()[:2]) for process in processes)
            return cls(memory, percent, spent) if processes else None
        return None


def process(pid: int) -> psutil.Process:
    """Return the process *pid*; `CannotRun` if it is not there, or not ours to look at."""
    try:
        found = psutil.Process(pid)
        found.memory_info()
    except psutil.Error:
        raise CannotRun(f"--pid {pid}: no such process, or no right to look at it") from None
    return found


def processes_listening(address: str, port: int) -> list[psutil.Process]:
    """Return who listens on *address* and *port* of this machine; nobody if that cannot be told.

    Blocks for as long as it takes to walk the open files of all processes: some milliseconds.
    """
    places = {(host, port) for host in (address, "0.0.0.0", "::")}  # noqa: S104  # looked for, not listened on
    with suppress(psutil.Error, OSError, CannotRun):
        listening = psutil.net_connections("tcp")
        pids = {one.pid for one in listening if one.status == psutil.CONN_LISTEN and tuple(one.laddr) in places}
        return [process(pid) for pid in sorted(pid for pid in pids if pid)]
    return []
