"""What is counted and looked at in a run: subscribers and publisher write it, the display and the report read it.

Deliveries are counted by sequence number: what came once, what twice, what late, what not at all. In bounded memory.
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
"""Runs of skipped numbers that one track remembers; far more than a hub that works ever leaves open."""


class Track:
    """What one subscriber has received: everything below `next`, except for its holes.

    A hole is a run of numbers that later ones overtook, as [first, after the last). Beyond `MAX_HOLES` of them the
    oldest is forgotten, and its numbers stay missing, whatever comes later.
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
        """Take *number* out of its hole; false if it lies in none."""
        for index, (start, end) in enumerate(self.holes):
            if start <= number < end:
                halves = ((start, number), (number + 1, end))
                self.holes[index : index + 1] = [(first, after) for first, after in halves if first < after]
                return True
        return False


class Tally:
    """The totals over all tracks.

    Attributes:
        delivered: numbers that came, each counted once per track.
        duplicates: numbers that came again.
        out_of_order: numbers that came after a greater one.
        missing: numbers overtaken and still not here.
    """

    def __init__(self) -> None:
        self.delivered = self.duplicates = self.out_of_order = self.missing = 0

    def take(self, track: Track, number: int) -> bool:
        """Count *number* for *track*; true if it is there for the first time."""
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


class Figures(Tally):
    """The figures of one run so far.

    Attributes:
        began: when, in ISO 8601.
        started, last_delivery: when the first event was due and the last one came, in monotonic nanoseconds; 0 before.
        phase: connecting, publishing, settling or done.
        opening: seconds until all subscribers had their stream.
        connected, opened: subscribers that have their stream now, and those that have ever had one.
        reconnects, failed_attempts: streams had again after a lost one; attempts to connect that brought none.
        refusals, gaps, notices: subscribers turned away for good, by HTTP status; resumes that the hub could not
            fulfil, by its reason; what the hub announced about streams, by type.
        dropped: connections the storm cut.
        published: events that the hub has confirmed, the numbers below this.
        posts, retries, trouble: publish requests that were answered, those that were sent again, and why the last was.
        interrupts: how often the user asked for an end.
        deliveries_per_s: over the last moments; at the end over the whole run.
        caught_up: age at delivery of what fell due while the storm kept its receiver away; not in `latencies`.
        lags: how late the driver's own loop ran.
        idle, open, now: what the hub's processes used before the run, with all streams open, and now; None if unknown.
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
