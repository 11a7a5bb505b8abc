"""A process and all that it has started."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

from hub.load.figures import Usage


def usage(pid: int) -> Usage:
    """Return what *pid* and its descendants use; memory that they share counts for each of them."""
    root = psutil.Process(pid)
    processes = [root, *root.children(recursive=True)]
    used = [found for each in processes if (found := Usage.of([each])) is not None]
    return Usage(
        sum(each.rss for each in used),
        sum(each.cpu_percent for each in used),
        sum(_cpu(each.pid) for each in processes),
    )


def _cpu(pid: int) -> float:
    """Return the CPU seconds of *pid*, to the nanosecond: /proc counts in hundredths; 0 if it has ended."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # the number of its clock, as clock_getcpuclockid(3) makes it
    return 0.0
