"""The figures of a run: subscribers and publisher write them, the display and the report read them.

Deliveries are counted by sequence number, in bounded memory: delivered, repeated, out of order and missing.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import psutil

from hub.load.latency import Latencies
from hub.load.options import CannotRun, Options

MAX_HOLES = 64
"""Maximum number of holes that one track remembers; a hub that works never leaves so many."""


class Track:
    """The numbers that one subscriber has received: all below `next`, except for its holes.

    A hole is a range of numbers that have not come although later ones have, as (first, last + 1). Beyond `MAX_HOLES`
    of them the oldest is forgotten; its numbers stay missing, even if they come later.
    """

    __slots__ = ("forgotten", "holes", "next")

    def __init__(self) -> None:
        self.next = self.forgotten = 0
        self.holes: list[tuple[int, int]] = []

    def missing(self, total: int) -> int:
        """Return how many of the numbers 0 to *total* - 1 have not come."""
        skipped = sum(max(0, min(end, total) - start) for start, end in self.holes)
        return self.forgotten + skipped + max(0, total - self.next)

    def fill(self, number: int) -> bool:
        """Remove *number* from its hole; return False if it is in none."""
        for index, (start, end) in enumerate(self.holes):
            if start <= number < end:
                halves = ((start, number), (number + 1, end))
                self.holes[index : index + 1] = [(first, after) for first, after in halves if first < after]
                return True
        return False


class Tally:
    """The totals over all tracks.

    Attributes:
        delivered: numbers received, each counted once per track.
        duplicates: numbers received again.
        out_of_order: numbers received after a greater one.
        missing: numbers not received although a greater one was.
    """

    def __init__(self) -> None:
        self.delivered = self.duplicates = self.out_of_order = self.missing = 0

    def take(self, track: Track, number: int) -> bool:
        """Count *number* for *track*; return whether it was received for the first time."""
        if number == track.next:
            track.next = number + 1
        elif number > track.next:
            self.missing += number - track.next
            track.holes.append((track.next, number))
            track.next = number + 1
            if len(track.holes) > MAX_HOLES:
                start, end = track.holes.pop(0)
                track.forgotten += end - start
        elif track.fill(number):
            self.missing -= 1
            self.out_of_order += 1
        else:
            self.duplicates += 1
            return False
        self.delivered += 1
        return True


class Usage(NamedTuple):
    """The resources that processes use: resident bytes, percent of one core since the last look, CPU seconds so far."""

    rss: int
    cpu_percent: float
    cpu_seconds: float

    @classmethod
    def of(cls, processes: list[psutil.Process]) -> Usage | None:
        """Return what *processes* use together; None if there are none, or if they have ended."""
        with suppress(psutil.Error):
            memory = sum(process.memory_info().rss for process in processes)
            percent = sum(process.cpu_percent() for process in processes)
            spent = sum(sum(process.cpu_times()[:2]) for process in processes)
            return cls(memory, percent, spent) if processes else None
        return None


class Figures(Tally):
    """The figures of one run so far.

    Attributes:
        began: when the run began, in ISO 8601.
        started, last_delivery: when the first event was due, and when the last delivery came, in monotonic nanoseconds;
            0 before.
        phase: connecting, publishing, settling or done.
        opening: seconds until all subscribers had their stream.
        connected, opened: subscribers that have a stream now, and those that have ever had one.
        reconnects, failed_attempts: streams opened again after a lost one, and attempts that opened no stream.
        refusals, gaps, notices: subscribers refused for good, by HTTP status; resumes that the hub could not fulfil,
            by its reason; events of the hub about the streams, by type.
        dropped: connections that the storm closed.
        published: number of events that the hub has confirmed; they have the sequence numbers below it.
        posts, retries, trouble: publish requests that were answered, those that were sent again, and why the last was.
        interrupts: number of signals with which the user asked for an end.
        deliveries_per_s: over the last moments; at the end, over the whole run.
        caught_up: age at delivery of the events that fell due while the storm kept their receiver disconnected; they
            are not in `latencies`.
        lags: how late the loop of this driver ran.
        idle, open, now: usage of the hub's processes before the run, with all streams open, and now; None if unknown.
    """

    idle: Usage | None = None
    open: Usage | None = None
    now: Usage | None = None

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options, self.phase, self.trouble = options, "connecting", ""
        self.began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.loop = ""
        self.started = self.last_delivery = 0
        self.opening = self.deliveries_per_s = 0.0
        self.connected = self.opened = self.reconnects = self.failed_attempts = self.dropped = 0
        self.published = self.posts = self.retries = self.interrupts = 0
        self.refusals: Counter[int] = Counter()
        self.gaps: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()
        self.latencies, self.caught_up, self.lags = Latencies(), Latencies(), Latencies()

    @property
    def elapsed(self) -> float:
        """Seconds since the first event was due."""
        return time.monotonic() - self.started / 1e9 if self.started else 0.0

    @property
    def expected(self) -> int:
        """Confirmed events times subscribers."""
        return self.published * self.options.connections


def process(pid: int) -> psutil.Process:
    """Return the process *pid*; raise `CannotRun` if there is none, or if this user may not read its figures."""
    try:
        found = psutil.Process(pid)
        found.memory_info()
    except psutil.Error:
        raise CannotRun(f"--pid {pid}: no such process, or no right to look at it") from None
    return found


def processes_listening(address: str, port: int) -> list[psutil.Process]:
    """Return the processes that listen on *address* and *port* of this machine; none if that cannot be found out.

    Blocks for some milliseconds, while it reads the open files of all processes.
    """
    places = {(host, port) for host in (address, "0.0.0.0", "::")}  # noqa: S104  # only compared, not listened on
    with suppress(psutil.Error, OSError, CannotRun):
        listening = psutil.net_connections("tcp")
        pids = {one.pid for one in listening if one.status == psutil.CONN_LISTEN and tuple(one.laddr) in places}
        return [process(pid) for pid in sorted(pid for pid in pids if pid)]
    return []
