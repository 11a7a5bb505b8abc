"""A process and all that it has started, as Linux sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def processes(pid: int) -> Iterator[int]:
    """Yield *pid* and its descendants."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text("ascii").split():
                yield from processes(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the tree so far, user and system, in steps of a hundredth of a second."""
    return sum(map(_cpu_seconds, processes(pid)))


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def rss(pid: int) -> int:
    """Return the resident bytes of the tree; what processes share counts for each of them."""
    return sum(map(resident, processes(pid)))


def resident(pid: int) -> int:
    """Return the resident bytes of *pid* alone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * _PAGE
    return 0
