"""The log in Redis: what many processes and machines have in common.

What is appended goes one way (`sender.py`), what is announced comes another one (`tail.py`), the same in every process;
what is read comes from the newest that this process holds (`ring.py`), or in pages from Redis (`pages.py`). The order,
the positions and what is kept are made there, by one script (`append.lua`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from hub.access.visibility import EVERYTHING, Visibility
from hub.errors import LogUnavailable
from hub.log import trimmed as trimmed_topics
from hub.log.log import Announce, Bounds, Located, Page, Renewed, ignore_renewal, located
from hub.log.receipt import Receipt
from hub.log.redis.entry import Keys
from hub.log.redis.pages import Pages
from hub.log.redis.ring import Ring
from hub.log.redis.sender import WAITING_BYTES, Retention, Sender
from hub.log.redis.tail import Tail
from hub.log.topic_limits import TopicLimits
from hub.notification import Draft, Position
from hub.redis_link import BROKEN, RedisConnection, RedisLink, reason
from hub.redis_url import RedisURL

logger = logging.getLogger("hub.log")

T = TypeVar("T")

RING_BYTES = 32 * 1024 * 1024


class RedisLog:
    """Keeps the newest notifications in Redis, bounded by count, bytes and age; confirms when Redis has them.

    Args:
        url: where Redis is.
        prefix: the hash tag of the keys: a hub has one of its own.
        name: of a second log of the same hub.
        count: how many to keep.
        size: how many bytes to keep.
        age: how many seconds to keep; None for ever.
        topics: by pattern, how many to keep of each topic that matches; a notification is trimmed when none of its
            topics keeps it.
        wait: how many replicas have to have a notification before it is confirmed.
        fence: whether a history that was rewound is recognized by the server that has it; without that, only where a
            process knows of something newer.
        clock: seconds since 1970; None: those of Redis.
        unobserved: called with the error of each failed publish that nobody awaited.
    """

    def __init__(
        self,
        url: RedisURL,
        *,
        prefix: str = "hub",
        name: str = "",
        count: int,
        size: int,
        age: float | None,
        topics: Mapping[str, int] | None = None,
        wait: int = 0,
        fence: bool = True,
        clock: Callable[[], float] | None = None,
        unobserved: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._link = RedisLink(url, prefix)
        keys = Keys.of(prefix, name)
        self._ring = Ring(RING_BYTES)
        self._sender = Sender(
            self._link,
            keys,
            Retention(count, size, age, TopicLimits(topics or {})),
            seen=lambda: self._tail.bounds.newest,
            changed=self._changed,
            wait=wait,
            fence=fence,
            remembered=trimmed_topics.REMEMBERED_TOPICS,
            clock=clock,
            unobserved=unobserved,
        )
        self._tail = Tail(self._link, keys, self._sender.check, self._ring)
        self._pages = Pages(self._link, keys, self._sender.check, self._tail)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opened = self._closed = False

    @property
    def epoch(self) -> str:
        """The name of the history that is followed; empty before the log is open."""
        return self._tail.epoch

    def announce_to(self, announce: Announce, renewed: Renewed = ignore_renewal) -> None:
        self._tail.announce, self._tail.renewed = announce, renewed

    async def open(self) -> None:
        try:
            await self._look_over()
            await self._tail.open()
        except BROKEN as error:
            raise LogUnavailable(f"{self._link}: {_explained(error)}") from None
        self._sender.open()
        self._opened = True

    async def _look_over(self) -> None:
        """Refuse a Redis that throws away what it is to keep.

        Raises:
            LogUnavailable: it does.
        """
        connection = await self._link.connect()
        try:
            await check_eviction(connection)
        finally:
            await connection.aclose()

    async def aclose(self) -> None:
        self._closed = True
        await self._sender.aclose()
        await self._tail.aclose()
        await self._pages.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _changed(self, epoch: str) -> None:
        """Look at once, on the tail, for what an answer has just named."""
        self._task(self._tail.restart())

    def _task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- in ----

    def _must_be_open(self) -> None:
        if self._closed or not self._opened:
            raise LogUnavailable("it is closed" if self._closed else "it is not open")

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        self._must_be_open()
        if self._sender.waiting_bytes > WAITING_BYTES:
            raise LogUnavailable("too much waits to be confirmed", "not_kept")
        return self._sender.append(drafts) if drafts else []

    def given(self) -> asyncio.Future[Position]:
        try:
            self._must_be_open()
        except LogUnavailable as error:
            return _failed(error)
        # Asked in this very step: behind what was appended before, and before what follows.
        return self._task(self._given(self._sender.ask()))

    async def _given(self, asked: asyncio.Future[Any]) -> Position:
        newest: Position = (await asked).newest
        await self._tail.announced(newest)
        return newest

    def locate(self, position: Position) -> asyncio.Future[Located]:
        try:
            self._must_be_open()
        except LogUnavailable as error:
            return _failed(error)
        return self._task(self._locate(position))

    async def _locate(self, position: Position) -> Located:
        # Redis is asked even for what is known here: it may have lost that.
        newest, ended = await self._sender.ask()
        found = located(position, newest, ended)
        if found.after is not None:
            await self._tail.announced(newest._replace(offset=found.after))
        return found

    # ---- out ----

    @property
    def answered(self) -> float:
        """When Redis last answered on the connection that follows the log: every 5 seconds, if nothing comes."""
        return self._tail.answered

    def bounds(self) -> Bounds:
        self._must_be_open()
        away = self._tail.away or self._sender.away
        if away is not None:
            raise away
        return self._tail.bounds

    def read(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Page]:
        tail = self._tail
        try:
            self._must_be_open()
            floors = visibility.floors(tail.epoch, after)
            oldest = tail.bounds.oldest.offset
            if upto > tail.bounds.newest.offset or not self._ring.has(after, topics, oldest, visibility):
                return self._task(self._pages.read(after, topics, upto, latest, visibility))
            page = self._ring.page(after, topics, upto, latest, visibility)
        except LogUnavailable as error:
            return _failed(error)
        answer: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        answer.set_result(page._replace(hole=tail.trimmed.hole(topics, after, floors), oldest=oldest))
        return answer

    def trimmed(self, topics: Collection[str], after: int = 0, visibility: Visibility = EVERYTHING) -> int:
        return self._tail.trimmed.newest(topics, after, visibility.floors(self.epoch, after))

    def trim(self) -> None:
        if self._opened and not self._closed:
            self._sender.trim()


def _failed(error: LogUnavailable) -> asyncio.Future[Any]:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    answer.set_exception(error)
    return answer


async def check_eviction(connection: RedisConnection) -> None:
    """Look whether Redis throws keys away when its memory is full.

    Raises:
        LogUnavailable: it does so with those of the hub.
        RedisError, OSError: it does not answer.
    """
    try:
        memory = (await connection.call("INFO", "memory")).decode()
    except BROKEN as error:
        if connection.closed:
            raise
        logger.warning("what Redis does when its memory is full can't be told: %s", reason(error))
        return
    policy = next((line.partition(":")[2] for line in memory.splitlines() if line.startswith("maxmemory_policy:")), "")
    if policy.startswith("allkeys-"):
        raise LogUnavailable(
            f"Redis throws away any key when its memory is full ({policy}): set maxmemory-policy noeviction"
        )
    if policy.startswith("volatile-"):
        logger.warning(
            "Redis throws away keys that expire when its memory is full (%s): better is maxmemory-policy noeviction",
            policy,
        )


def _explained(error: BaseException) -> str:
    if "NOFENCE" in str(error):
        return (
            "it hides INFO replication, so that a failover that lost notifications can't be recognized; "
            "with HUB_REDIS_FENCE=off the hub runs all the same"
        )
    return reason(error)
