"""From the address of a log to the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hub.errors import InvalidSettings
from hub.log.log import Log
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import SQLiteLog
from hub.log_url import MEMORY, PRIVATE, REDIS, LogURL

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
    prefix: str = "hub",
    wait: int = 0,
    fence: bool = True,
) -> Log:
    """Return the log at *url*, not opened yet.

    Args:
        url: where it is kept.
        count: how many notifications to keep; None: 100,000 in memory, 1,000,000 elsewhere.
        size: how many bytes to keep; None: 48 MiB in memory, 1 GiB elsewhere.
        age: how many seconds to keep a notification; None: for ever.
        topics: by pattern, how many to keep of each topic that matches.
        clock: seconds since 1970; in Redis, its own clock counts.
        unobserved: called with the error of each failed publish that nobody awaited.
        prefix: the hash tag of the keys in Redis.
        wait: how many replicas of Redis have to have a notification before it is confirmed.
        fence: whether Redis is asked at each call which server it is.

    Raises:
        InvalidSettings: what a log in Redis needs is not installed.
    """
    if url.scheme == MEMORY:
        return MemoryLog(count=count or 100_000, size=size or 48 * MIB, age=age, topics=topics, clock=clock)
    if url.scheme == PRIVATE:  # those two put the address of the server that they start in its place
        raise InvalidSettings([f"log (HUB_LOG): {url}: only `hub serve` and `setup_hub` start a Redis"])
    count, size = count or 1_000_000, size or 1024 * MIB
    if url.scheme == REDIS:
        try:
            from hub.log.redis.log import RedisLog  # noqa: PLC0415 - only where it is used
        except ModuleNotFoundError as missing:
            raise needs(url, missing) from None
        return RedisLog(
            url.redis,
            prefix=prefix,
            name=url.name,
            count=count,
            size=size,
            age=age,
            topics=topics,
            wait=wait,
            fence=fence,
            unobserved=unobserved,
        )
    return SQLiteLog(
        url.path,
        count=count,
        size=size,
        age=age,
        topics=topics,
        clock=clock,
        unobserved=unobserved,
    )


def needs(url: LogURL, missing: ModuleNotFoundError) -> InvalidSettings:
    """Return the error of a hub with a log at *url* that lacks a package."""
    extra = "pip install '/path/to/broadcast-hub[redis]'"
    return InvalidSettings([f"log (HUB_LOG): {url} needs the package {missing.name}: {extra}"])
