"""The tail of the log in Redis: one connection that hears of every notification, in order.

What it hears is all that this process announces, also of what the process has sent itself. It hears of what is trimmed
in the same place, so that what is known here of the history is always the truth of some moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hub.errors import LogUnavailable
from hub.log.log import Announce, Bounds, Renewed, ignore_renewal
from hub.log.redis.entry import Keys, Notes, notification_of
from hub.log.redis.ring import Ring
from hub.log.redis.script import READ
from hub.log.trimmed import Trimmed, TrimmedState
from hub.notification import Notification, Position
from hub.redis_link import BROKEN, RedisConnection, RedisLink, reason

logger = logging.getLogger("hub.log")

BLOCK_SECONDS = 5.0
ANSWER_SECONDS = 2.0  # beyond that: a connection that is half open is noticed so
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
BATCH_BYTES = 4 * 1024 * 1024
BATCH_COUNT = 1_000
BEHIND_SECONDS = 5.0  # that anybody waits for what is in Redis to come here

Check = Callable[[RedisConnection], Awaitable[str]]
"""Returns the epoch of the history on a new connection, after looking whether it was rewound."""


class _Another(Exception):
    """What comes next does not follow what came before: the history is another one, or some of it was missed."""


class Tail:
    """Follows the log, through whatever connections that takes.

    Args:
        link: the way to Redis.
        keys: of the log.
        check: see `Check`.
        ring: holds the newest.

    Attributes:
        epoch: of the history that is followed; empty before `open`.
        bounds: how the log stands, as far as it was followed.
        trimmed: what was trimmed.
        trims: how often; and how often the history was rewound.
        away: why nothing is heard now; None: it is.
        answered: when Redis last answered here, in seconds of `time.monotonic`.
    """

    def __init__(self, link: RedisLink, keys: Keys, check: Check, ring: Ring) -> None:
        self._link, self._keys, self._check, self.ring = link, keys, check, ring
        self.announce: Announce = lambda notifications: None
        self.renewed: Renewed = ignore_renewal
        self.epoch = ""
        self.bounds = Bounds(Position("", 0), Position("", 0), 0, 0)
        self.trimmed = Trimmed()
        self.trims = 0
        self.away: LogUnavailable | None = LogUnavailable("it is not open")
        self.answered = time.monotonic()
        self._last = b"0-0"
        self._count = 100
        self._connection: RedisConnection | None = None
        self._following: asyncio.Task[None] | None = None
        self._beginning = False
        self._behind: dict[asyncio.Future[None], Callable[[], bool]] = {}

    # ---- the beginning and the end ----

    async def open(self) -> None:
        """Begin at the newest position, and follow from there.

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
        """End; whoever waits is told so."""
        self.away = LogUnavailable("it is closed")
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        for waiting in self._behind:
            if not waiting.done():
                waiting.set_exception(self.away)

    async def restart(self) -> None:
        """Look on a new connection whether the history is another one: somebody says so.

        Unless it is looked anyway, just now: many may say so before that has come to its end.
        """
        if self._connection is not None and self.away is None and not self._beginning:
            await self._connection.aclose()

    # ---- following ----

    async def _begin(self, connection: RedisConnection) -> None:
        """Look whether the history is the same; if not, begin with the one that is there."""
        self._beginning = True
        try:
            epoch = await self._check(connection)
            if epoch != self.epoch:
                await self._load(connection, epoch)
            self.away = None
        finally:
            self._beginning = False

    async def _load(self, connection: RedisConnection, epoch: str) -> None:
        for _ in range(len(PAUSES)):
            (answer,) = await READ.run(connection, self._keys.read, ["state", epoch])
            if answer[0] == b"read":
                break
            epoch = await self._check(connection)  # it was rewound in between
        else:
            raise OSError("its history changes all the time")
        trims, oldest, newest, notice, kept, size, overall, forgotten = map(int, [*answer[1:3], *answer[3:9]])
        gone = answer[10]
        topics = {gone[place].decode(): int(gone[place + 1]) for place in range(0, len(gone), 2)}
        first = not self.epoch
        self.epoch, self.trims = epoch, trims
        self._last = b"%d-%d" % (newest, notice)
        self.bounds = Bounds(Position(epoch, oldest), Position(epoch, newest), kept, size)
        self.trimmed.restore(TrimmedState(overall, topics, forgotten))
        self.ring.restart(epoch, newest)
        if not first:
            logger.warning("the history in Redis is another one, or was followed too late: streams begin anew")
            self.renewed(self.bounds.newest)
        self._look()

    async def _follow(self, connection: RedisConnection) -> None:
        pauses = iter(PAUSES)
        while True:
            try:
                self._connection = connection
                if self.away is not None:
                    await self._begin(connection)
                pauses = iter(PAUSES)
                await self._hear(connection)
            except BROKEN as error:
                if self.away is None:
                    logger.warning("the log is not followed: %s", reason(error))
                self.away = LogUnavailable(reason(error))
            except Exception:
                logger.exception("the log in Redis could not be followed")
                self.away = LogUnavailable("it failed; the hub's own log says why")
            finally:
                await connection.aclose()
            while connection.closed:
                # Some at once, some later: all the processes of a hub lose their connections at the same time.
                await asyncio.sleep(next(pauses, PAUSES[-1]) * random.uniform(0.5, 1))
                try:
                    connection = await self._link.connect()
                except BROKEN as error:
                    self.away = LogUnavailable(reason(error))

    async def _hear(self, connection: RedisConnection) -> None:
        """Take what comes, until the connection breaks."""
        block = int(BLOCK_SECONDS * 1000)
        while True:
            answer = await connection.call(
                *("XREAD", "COUNT", self._count, "BLOCK", block, "STREAMS", self._keys.log, self._last),
                seconds=BLOCK_SECONDS + ANSWER_SECONDS,
            )
            self.answered = time.monotonic()
            if not answer:
                await self._begin(connection)
                continue
            entries = answer[0][1]
            try:
                self._take(entries)
            except _Another:
                self._beginning = True
                try:
                    await self._load(connection, await self._check(connection))
                finally:
                    self._beginning = False
                continue
            size = sum(len(entry[1][-1]) + len(entry[1][1]) for entry in entries) // len(entries) + 1
            self._count = max(8, min(BATCH_COUNT, BATCH_BYTES // size))

    def _take(self, entries: Sequence[Any]) -> None:
        """Take *entries*, in order, and announce what is among them."""
        if not entries:  # there was something behind the last one, and it is gone
            raise _Another
        heard: list[Notification] = []
        try:
            for id, fields in entries:
                self._take_one(id, fields, heard)
                self._last = id
        finally:
            if heard:
                self.announce(heard)
            self._look()

    def _take_one(self, id: bytes, fields: list[bytes], heard: list[Notification]) -> None:
        offset, _, notice = id.partition(b"-")
        newest, number = self.bounds.newest.offset, int(offset)
        if notice != b"0":
            if fields[1].decode() != self.epoch or number != newest:
                raise _Another
            self._note(Notes.read(fields[3]), newest)
            return
        head, topics, text = fields[1], fields[3], fields[5]
        if number != newest + 1 or not head.startswith(self.epoch.encode() + b" "):
            raise _Another
        heard.append(self.ring.take(notification_of(self.epoch, number, head, topics, text)))
        if len(fields) > 6:
            self._note(Notes.read(fields[7]), number)
        else:
            self.bounds = self.bounds._replace(newest=Position(self.epoch, number))

    def _note(self, notes: Notes, newest: int) -> None:
        if notes.trims != self.trims + bool(notes.topics or notes.whole):
            raise _Another  # one that told of more was gone before it was heard here
        for topic, offset in notes.topics:
            self.trimmed.trim_topic((topic,), offset)
            self.ring.lose(topic, offset)
        for topic, offset in notes.whole:
            self.trimmed.trim_oldest((topic,), offset)
        if notes.whole:
            self.ring.lose_before(notes.oldest if notes.kept else newest + 1)
        self.trims = notes.trims
        oldest, now = Position(self.epoch, notes.oldest), Position(self.epoch, newest)
        self.bounds = Bounds(oldest, now, notes.kept, notes.size)

    # ---- those who wait for it ----

    def _look(self) -> None:
        """Tell those whose time has come."""
        for waiting, come in list(self._behind.items()):
            if not waiting.done() and come():
                waiting.set_result(None)

    async def announced(self, position: Position) -> None:
        """Wait until everything up to *position* has been announced here.

        Raises:
            LogUnavailable: it has not within a few seconds.
        """

        def come() -> bool:
            newest = self.bounds.newest
            return newest.epoch == position.epoch and newest.offset >= position.offset

        await self._come(come)

    async def heard(self, epoch: str, trims: int) -> None:
        """Wait until that is known here which Redis has trimmed *trims* times, in *epoch* or after it.

        Raises:
            LogUnavailable: it is not within a few seconds.
        """
        await self._come(lambda: self.epoch != epoch or self.trims >= trims)

    async def _come(self, come: Callable[[], bool]) -> None:
        if come():
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind[waiting] = come
        try:
            async with asyncio.timeout(BEHIND_SECONDS):
                await waiting
        except TimeoutError:
            raise LogUnavailable("what it holds has not come here yet") from None
        finally:
            del self._behind[waiting]
