"""What is new: streams in Redis that one connection follows, in order, through whatever connections that takes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from hub.errors import StateUnavailable
from hub.redis_link import BROKEN, RedisConnection, RedisLink, reason

logger = logging.getLogger("hub.state")

BLOCK_SECONDS = 5.0
ANSWER_SECONDS = 2.0  # beyond that: a connection that is half open is noticed so
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
COUNT = 500

Load = Callable[[RedisConnection], Awaitable[Mapping[str, bytes]]]
"""Reads everything anew; returns by stream the id of the entry behind which to follow."""
Take = Callable[[str, bytes, dict[bytes, bytes]], None]
"""Takes one entry of a stream; raises `Missed` if it does not follow the one before."""
Check = Callable[[RedisConnection], Awaitable[bool]]
"""Returns whether what is followed is still the same."""


class Missed(Exception):
    """What comes next does not follow what came before: all is to be read anew."""


class News:
    """Follows streams.

    Args:
        link: the way to Redis.
        what: is said in the hub's own log.
        load, take, check: see above. The first two are called when something may have been missed, the last one when
            nothing has come of a stream for 5 seconds, and on each new connection to the same server.

    Attributes:
        away: why nothing is heard now; empty: it is.
    """

    def __init__(self, link: RedisLink, what: str, *, load: Load, take: Take, check: Check) -> None:
        self._link, self._what = link, what
        self._load, self._take, self._check = load, take, check
        self.away = "it is not open"
        self._last: dict[str, bytes] = {}
        self._server: bytes | None = None
        self._connection: RedisConnection | None = None
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read everything, and follow from there.

        Raises:
            RedisError, OSError: Redis can't be used.
        """
        connection = await self._link.connect()
        try:
            await self._begin(connection)
        except BaseException:
            await connection.aclose()
            raise
        self._following = asyncio.get_running_loop().create_task(self._follow(connection))

    async def aclose(self) -> None:
        """End."""
        self.away = "it is closed"
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def restart(self) -> None:
        """Look on a new connection whether all is the same: somebody says that it is not."""
        self._server = None
        if self._connection is not None:
            await self._connection.aclose()

    async def _begin(self, connection: RedisConnection) -> None:
        server = await _server_of(connection)
        same = server is not None and server == self._server and await self._check(connection)
        if not same:
            self._last = dict(await self._load(connection))
        self._server, self.away = server, ""

    async def _follow(self, connection: RedisConnection) -> None:
        pauses = iter(PAUSES)
        while True:
            try:
                self._connection = connection
                if self.away:
                    await self._begin(connection)
                pauses = iter(PAUSES)
                await self._hear(connection)
            except BROKEN as error:
                self._lose(reason(error))
            except StateUnavailable as error:
                self._lose(error.why)
            except Exception:
                logger.exception("%s could not be followed", self._what)
                self._server, self.away = None, "it failed; the hub's own log says why"
            finally:
                await connection.aclose()
            while connection.closed:
                await asyncio.sleep(next(pauses, PAUSES[-1]) * random.uniform(0.5, 1))
                try:
                    connection = await self._link.connect()
                except BROKEN as error:
                    self._lose(reason(error))

    def _lose(self, why: str) -> None:
        if not self.away:
            logger.warning("%s is not followed: %s", self._what, why)
        self.away = why

    async def _hear(self, connection: RedisConnection) -> None:
        block = int(BLOCK_SECONDS * 1000)
        heard = dict.fromkeys(self._last, time.monotonic())
        while True:
            answer = await connection.call(
                *("XREAD", "COUNT", COUNT, "BLOCK", block, "STREAMS", *self._last, *self._last.values()),
                seconds=BLOCK_SECONDS + ANSWER_SECONDS,
            )
            now = time.monotonic()
            heard |= {key.decode(): now for key, _ in answer or ()}
            # Others may go on while one of the streams begins anew, and has nothing behind the last entry.
            same = now - min(heard.values()) < BLOCK_SECONDS or await self._check(connection)
            if not same or not self._take_all(answer or ()):
                self._last = dict(await self._load(connection))
            if now - min(heard.values()) >= BLOCK_SECONDS:
                heard = dict.fromkeys(self._last, now)

    def _take_all(self, answer: Iterable[Any]) -> bool:
        """Take what has come; return whether that was all that there is."""
        try:
            for key, entries in answer:
                stream = key.decode()
                for id, fields in entries:
                    self._take(stream, id, dict(zip(fields[::2], fields[1::2], strict=True)))
                    self._last[stream] = id
        except Missed:
            return False
        return True


async def _server_of(connection: RedisConnection) -> Any:
    """Return what tells this server, and what it holds, from any other; None: it does not say."""
    try:
        said: bytes = await connection.call("INFO", "server") + await connection.call("INFO", "replication")
    except BROKEN:
        if connection.closed:
            raise
        return None
    lines = [line for line in said.splitlines() if line.startswith((b"run_id:", b"master_replid:"))]
    return b" ".join(sorted(lines)) if len(lines) == 2 else None
