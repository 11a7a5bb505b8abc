"""What is counted in a run: subscribers and publisher write it, the display and the report read it.

Deliveries are counted by sequence number: what came once, what twice, what late, what not at all. In bounded memory.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter

from hub.load.latency import Latencies
from hub.load.options import Options
from hub.load.process import Usage

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

    def skip_to(self, number: int) -> None:
        """Note that everything from `next` up to *number* was overtaken."""
        self.holes.append((self.next, number))
        if len(self.holes) > MAX_HOLES:
            start, end = self.holes.pop(0)
            self.forgotten += end - start

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
            track.skip_to(number)
            track.next = number + 1
        elif track.fill(number):
            self.missing -= 1
            self.out_of_order += 1
        else:
            self.duplicates += 1
            return False
        self.delivered += 1
        return True


class Figures(Tally):
    """The figures of one run so far.

    Attributes:
        began: when, in ISO 8601; `loop` is the module of the event loop.
        phase: connecting, publishing, settling or done.
        started, last_delivery: when the first event was due and when the last one came, in nanoseconds of the monotonic
            clock; 0 before.
        opening: seconds until all subscribers had their stream.
        connected: subscribers that have their stream now; `opened` counts those that have ever had one.
        reconnects: streams had again after a lost one.
        failed_attempts: to connect, that brought no stream.
        refusals: subscribers turned away for good, by HTTP status.
        gaps: resumes that the hub could not fulfil, by its reason.
        notices: what the hub announced about streams, by type.
        dropped: connections the storm cut.
        published: events that the hub has confirmed, the numbers below this.
        posts: publish requests that were answered; fewer than events if the publisher fell behind.
        retries: publish requests that had to be sent again; `trouble` says why the last one had to be.
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
