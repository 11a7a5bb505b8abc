"""From the address of a home to the log that lives there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hub.log.log import Log
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import SQLiteLog

MIB = 1024 * 1024


def make_log(
    home: str,
    *,
    count: int | None,
    size: int | None,
    age: float | None,
    topics: Mapping[str, int],
    clock: Callable[[], float],
    unobserved: Callable[[Exception], None],
) -> Log:
    """Return the log at *home*, `memory://` or `sqlite:///path`, still to be opened.

    A relative path has three slashes before it, an absolute one four. *count* and *size* (bytes) default to what suits
    the home: 100,000 and 48 MiB in memory, 1,000,000 and 1 GiB in a file. *topics* are bounds of single topics, by
    pattern.
    """
    if home == "memory://":
        return MemoryLog(count=count or 100_000, size=size or 48 * MIB, age=age, topics=topics, clock=clock)
    return SQLiteLog(
        Path(home.removeprefix("sqlite:///")),
        count=count or 1_000_000,
        size=size or 1024 * MIB,
        age=age,
        topics=topics,
        clock=clock,
        unobserved=unobserved,
    )
