"""The hub's process as the system sees it: memory and CPU."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import psutil

from hub.demo.load.errors import NoSuchProcess


class Usage(NamedTuple):
    """What the hub uses: resident bytes, percent of one core since the look before, seconds of CPU so far."""

    rss: int
    cpu_percent: float
    cpu_seconds: float


class Server:
    """The processes of one hub; several if they share the listening port."""

    def __init__(self, pids: Iterable[int]) -> None:
        """Look at *pids*.

        Raises:
            NoSuchProcess: one of them is not there, or not ours to look at.
        """
        self._processes = []
        for pid in pids:
            try:
                self._processes.append(psutil.Process(pid))
                self._processes[-1].memory_info()
            except psutil.Error:
                raise NoSuchProcess(pid) from None
        self._looked, self._spent = time.monotonic(), self._cpu_seconds()

    def look(self) -> Usage | None:
        """Return what the processes use now, or None once they are gone."""
        try:
            rss = sum(process.memory_info().rss for process in self._processes)
            spent, now = self._cpu_seconds(), time.monotonic()
        except psutil.Error:
            return None
        percent = 100 * (spent - self._spent) / max(now - self._looked, 1e-3)
        self._looked, self._spent = now, spent
        return Usage(rss, percent, spent)

    def _cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


def find_server(address: str, port: int) -> Server | None:
    """Return who listens on *address* and *port* of this machine; None if that cannot be told.

    Blocks for as long as it takes to walk the open files of all processes: some milliseconds.
    """
    places = {(host, port) for host in (address, "0.0.0.0", "::")}  # noqa: S104  # looked for, not listened on
    with suppress(psutil.Error, OSError, NoSuchProcess):
        listening = psutil.net_connections("tcp")
        pids = {one.pid for one in listening if one.status == psutil.CONN_LISTEN and tuple(one.laddr) in places}
        known = {pid for pid in pids if pid is not None}
        return Server(sorted(known)) if known else None
    return None
