"""From the address of a log to the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hub.log.log import Log
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import SQLiteLog
from hub.log_url import MEMORY, LogURL

MIB = 1024 * 1024


def make_log(
    url: LogURL,
    *,
    count: int | None,
    size: int | None,
    age: float | None,
    topics: Mapping[str, int],
    clock: Callable[[], float],
    unobserved: Callable[[Exception], None],
) -> Log:
    """Return the log at *url*, not opened yet.

    Args:
        url: where it is kept.
        count: how many notifications to keep; None: 100,000 in memory, 1,000,000 in a file.
        size: how many bytes to keep; None: 48 MiB in memory, 1 GiB in a file.
        age: how many seconds to keep a notification; None: for ever.
        topics: by pattern, how many to keep of each topic that matches.
        clock: seconds since 1970.
        unobserved: called with the error of each failed publish that nobody awaited.
    """
    if url.scheme == MEMORY:
        return MemoryLog(count=count or 100_000, size=size or 48 * MIB, age=age, topics=topics, clock=clock)
    return SQLiteLog(
        url.path,
        count=count or 1_000_000,
        size=size or 1024 * MIB,
        age=age,
        topics=topics,
        clock=clock,
        unobserved=unobserved,
    )
