"""The way of drafts into Redis: in order, many in one call, each kept once or not at all.

One call is under way at a time. It carries what was appended since the one before, so that a busy hub makes few calls
with many drafts. A call that gets no answer is made again: it has a number, and a number is kept once. A publish that
is given up says whether it was not kept, or whether that is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hub.errors import LogUnavailable, Outcome
from hub.log.keys import KEY_AGE, KEY_BYTES, KEY_COUNT, digest_of
from hub.log.receipt import Receipt
from hub.log.redis.entry import FORMAT, Keys, ended_of, facts, size_of
from hub.log.redis.script import APPEND
from hub.log.topic_limits import TopicLimits
from hub.notification import Draft, Position, new_epoch
from hub.redis_link import BROKEN, NoServer, RedisConnection, RedisLink, is_elsewhere, is_refusal, reason

logger = logging.getLogger("hub.log")

PATIENCE = 1.0  # seconds without an answer of Redis after which a publish has failed
DRAFTS_PER_SECOND = 5_000  # by which a call with very many may take longer
TICK_SECONDS = 1.0
CALL_DRAFTS = 500
CALL_BYTES = 1024 * 1024
WAITING_BYTES = 64 * 1024 * 1024
PAUSE_SECONDS = 0.03
CLOSE_SECONDS = 2.0
SPARE_COUNT = 30_000
SPARE_BYTES = 16 * 1024 * 1024
"""What was trimmed stays in the stream until so much more was, for the processes that have not come so far."""


class Standing(NamedTuple):
    """How the history stood when a call was made.

    Attributes:
        newest: the newest position, of what was appended before the question.
        ended: how far each earlier epoch went.
    """

    newest: Position
    ended: dict[str, int]


class _Group:
    """The drafts of one call of `append`: kept together, or not at all."""

    __slots__ = ("arguments", "at", "receipts", "size")

    def __init__(self, arguments: list[Any], receipts: list[Receipt], size: int, at: float) -> None:
        self.arguments, self.receipts, self.size, self.at = arguments, receipts, size, at


class _Question:
    """Somebody who asks where the log stands, behind all that was appended before."""

    __slots__ = ("answer", "at")

    def __init__(self, answer: asyncio.Future[Standing], at: float) -> None:
        self.answer, self.at = answer, at


@dataclass(frozen=True)
class Retention:
    """What is kept: how many, how many bytes, how many seconds (None: for ever), and how many of single topics."""

    count: int
    size: int
    age: float | None
    topics: TopicLimits


class Sender:
    """Sends what is appended, and asks what is asked, in the order of the calls.

    Args:
        link: the way to Redis.
        keys: of the log.
        retention: what is kept.
        seen: returns the newest position that is known here.
        changed: called when an answer names another epoch than the one that is known here.
        wait: how many replicas confirm, before a publish is confirmed.
        fence: whether Redis is asked which server it is.
        remembered: how many topics are remembered that lost something.
        clock: seconds since 1970; None: those of Redis.
        unobserved: called with the error of each failed publish that nobody awaited.

    Attributes:
        away: why nothing can be sent now; None: it can.
        waiting_bytes: of what is not confirmed.
    """

    def __init__(
        self,
        link: RedisLink,
        keys: Keys,
        retention: Retention,
        *,
        seen: Callable[[], Position],
        changed: Callable[[str], None],
        wait: int,
        fence: bool,
        remembered: int,
        clock: Callable[[], float] | None,
        unobserved: Callable[[Exception], None],
    ) -> None:
        self._link, self._keys, self._retention = link, keys, retention
        self._seen, self._changed = seen, changed
        self._wait, self._fence, self._remembered = wait, fence, remembered
        self._clock, self._unobserved = clock, unobserved
        self.away: LogUnavailable | None = None
        self.waiting_bytes = 0
        self._name, self._number = "", 0
        self._newest = Position("", 0)  # of those that were given here
        self._beside = ""  # the epoch that had been heard of then
        self._redis_time: tuple[float, float] | None = None  # of the last answer, and when that was here
        self._queue: deque[_Group | _Question] = deque()
        self._wanted = asyncio.Event()
        self._trims = self._closing = False
        self._connection: RedisConnection | None = None
        self._working: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to send."""
        self._name = secrets.token_hex(8)  # not before: many processes may be forked from one that has made this
        self._working = asyncio.get_running_loop().create_task(self._work())

    async def aclose(self) -> None:
        """Send what waits, within two seconds; fail the rest."""
        self._closing = True
        self._wanted.set()
        if self._working is not None:
            await asyncio.wait([self._working], timeout=CLOSE_SECONDS)
            self._working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._working
        self._fail(list(self._queue), LogUnavailable("it is closed", "not_kept"))
        self._queue.clear()
        if self._connection is not None:
            await self._connection.aclose()

    # ---- what is asked for ----

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Take *drafts* into the order."""
        limit = self._retention.topics.of if self._retention.topics else None
        arguments: list[Any] = []
        size = 0
        for draft in drafts:
            topics = draft.topics
            text, more = draft.text.encode(), facts(draft)
            joined = (topics[0] if len(topics) == 1 else "\n".join(topics)).encode()
            limits = "" if limit is None else _limits([limit(topic) for topic in topics])
            key = "" if draft.key is None else digest_of(draft.key).hex()
            cost = size_of(topics, joined, text, more)
            arguments += (joined, more, text, f"{cost} {key} {limits}" if key or limits else cost)
            size += cost
        receipts = [Receipt(draft.topics) for draft in drafts]
        self.waiting_bytes += size
        self._put(_Group(arguments, receipts, size, self._now()))
        return receipts

    def ask(self) -> asyncio.Future[Standing]:
        """Return where the log stands behind all that was appended before this call.

        It raises `LogUnavailable` if that can't be told within a second.
        """
        answer: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        self._put(_Question(answer, self._now()))
        return answer

    def trim(self) -> None:
        """Have Redis trim, beside what is sent anyway."""
        self._trims = True
        self._wanted.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _put(self, item: _Group | _Question) -> None:
        self._queue.append(item)
        self._wanted.set()

    # ---- sending ----

    async def _work(self) -> None:
        while not (self._closing and not self._queue):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()
            self._trims = False
            batch = (
                self._gathered()
            )  # nothing, when nothing came for a second: then it is only looked whether all is well
            try:
                await self._send(batch)
            except asyncio.CancelledError:
                self._fail(batch, LogUnavailable("it is closed", "unknown"))
                raise
            except Exception:
                logger.exception("the log in Redis failed")
                self._fail(batch, LogUnavailable("it failed; the hub's own log says why", "unknown"))
            if self._queue or self._trims:
                self._wanted.set()

    def _gathered(self) -> list[_Group | _Question]:
        """Take what makes a call from the queue: one group at least, and no part of one."""
        batch: list[_Group | _Question] = []
        drafts = size = 0
        while self._queue:
            item = self._queue[0]
            if isinstance(item, _Group):
                drafts, size = drafts + len(item.receipts), size + item.size
                if drafts > len(item.receipts) and (drafts > CALL_DRAFTS or size > CALL_BYTES):
                    break
            batch.append(self._queue.popleft())
        return batch

    async def _send(self, batch: list[_Group | _Question]) -> None:
        """Make one call, again and again if it takes that, and tell everybody in *batch* what came of it."""
        now = self._now
        drafts = [item for item in batch if isinstance(item, _Group)]
        # While Redis answers, what waits behind much else may wait: there is a bound to its bytes. When it does not,
        # it is given so much time for all that came meanwhile, not for each call.
        deadline = (batch[0].at if batch and self.away is not None else now()) + PATIENCE
        deadline += sum(len(group.receipts) for group in drafts) / DRAFTS_PER_SECOND
        if drafts:
            self._number += 1
        begun, attempt = self._time_there(), 0
        outcome: Outcome = "not_kept"
        error: Exception = NoServer("too much waits to be sent")
        while (left := deadline - now()) > 0:
            before = outcome
            try:
                async with asyncio.timeout(left):
                    connection = await self._connected()
                attempt += 1
                outcome = "unknown"
                answer = await self._call(connection, drafts, attempt, begun, deadline - now())
            except BROKEN as caught:
                # That it is kept, but by too few, says more than that there was no time to ask again.
                error = error if isinstance(error, TooFewReplicas) else caught
                if is_refusal(caught) and attempt:
                    outcome = before  # it was not done, this time
                    if not is_elsewhere(caught):
                        break
                    await self._disconnect()
                await asyncio.sleep(min(PAUSE_SECONDS, max(0.0, deadline - now())))
                continue
            self.away = None
            self._answered(batch, answer)
            if self._newest.epoch != self._seen().epoch:
                # This may be an old master whom nobody has told yet: the next call goes to the one that is named then.
                await self._disconnect()
            return
        await self._disconnect()
        if self.away is None:
            logger.warning("the log can't be written: %s", reason(error))
        self.away = LogUnavailable(reason(error))
        self._fail(batch, LogUnavailable(reason(error), outcome))

    def _time_there(self) -> float:
        """Return about what the time is in Redis; 0 if that is not known."""
        if self._redis_time is None:
            return 0.0
        there, here = self._redis_time
        return there + self._now() - here

    async def _connected(self) -> RedisConnection:
        if self._connection is None or self._connection.closed:
            self._connection = await self._link.connect()
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.aclose()

    async def _call(
        self, connection: RedisConnection, groups: Sequence[_Group], attempt: int, begun: float, seconds: float
    ) -> list[Any]:
        wait: tuple[Any, ...] = ()
        if self._wait and groups:
            wait = ("WAIT", self._wait, max(1, int(seconds * 600)))
        arguments = self._arguments(groups, attempt, begun)
        answer, *waited = await APPEND.run(connection, self._keys, arguments, seconds=max(seconds, 0.001), then=wait)
        if wait and isinstance(waited[0], Exception):
            raise TooFewReplicas(f"it is not known how many replicas have it ({reason(waited[0])})")
        if wait and waited[0] < self._wait:
            raise TooFewReplicas(f"{waited[0]} of {self._wait} replicas have it")
        kept: list[Any] = answer
        return kept

    def _arguments(self, groups: Sequence[_Group] = (), attempt: int = 1, begun: float = 0.0) -> list[Any]:
        seen, retention = self._newest_known(), self._retention
        drafts = [argument for group in groups for argument in group.arguments]
        return [
            *("on" if self._fence else "off", seen.epoch, seen.offset, new_epoch()),
            *("" if self._clock is None else repr(self._clock()),),
            *(retention.count, retention.size, "" if retention.age is None else repr(retention.age)),
            *(self._name, self._number, attempt, repr(begun)),
            *(self._remembered, KEY_AGE, KEY_COUNT, KEY_BYTES, SPARE_COUNT, SPARE_BYTES),
            *(FORMAT, sum(len(group.receipts) for group in groups)),
            *drafts,
        ]

    def _newest_known(self) -> Position:
        """Return the newest position that was heard or given here: should Redis have lost it, it is told so."""
        seen = self._seen()
        if self._newest.epoch == seen.epoch:
            return max(seen, self._newest)
        # Of two epochs, that of the last answer is the later one until another one was heard of.
        return self._newest if self._beside == seen.epoch else seen

    async def check(self, connection: RedisConnection) -> str:
        """Look on a new connection whether the history was rewound, and return its epoch.

        Raises:
            RedisError, OSError: that can't be told.
        """
        (answer,) = await APPEND.run(connection, self._keys, self._arguments())
        epoch: str = answer[1].decode()
        return epoch

    # ---- what came of it ----

    def _answered(self, batch: Sequence[_Group | _Question], answer: list[Any]) -> None:
        verdict, epoch, present = answer[0].decode(), answer[1].decode(), answer[9].decode()
        self._redis_time = float(answer[5]), self._now()
        if verdict not in {"kept", "done"}:
            why = "it has no position left to give" if verdict == "full" else "it was called too late"
            self._fail(batch, LogUnavailable(why, "not_kept" if verdict == "full" else "unknown"))
            return
        if answer[6] and not self._closing:
            self.trim()
        repeats = _repeats(answer[7])
        ended, newest = ended_of(answer[8]), Position(present, int(answer[3]))
        number, offset = 0, int(answer[2])
        for item in batch:
            if isinstance(item, _Question):
                if not item.answer.done():
                    # What was kept in an earlier epoch, before this attempt, stands before all of this one.
                    stands = Position(epoch, offset) if epoch == present else newest
                    item.answer.set_result(Standing(stands, ended))
                continue
            self.waiting_bytes -= item.size
            for receipt in item.receipts:
                first = repeats.get(number)
                number += 1
                if first is None:
                    offset += 1
                    receipt.confirm(Position(epoch, offset))
                else:
                    receipt.repeated, receipt.topics = True, first[1]
                    receipt.confirm(Position(epoch, first[0]))
        self._newest, self._beside = newest, self._seen().epoch
        if present != self._beside:
            self._changed(present)

    def _fail(self, batch: Iterable[_Group | _Question], error: LogUnavailable) -> None:
        failed = 0
        for item in batch:
            if isinstance(item, _Question):
                if not item.answer.done():
                    item.answer.set_exception(error)
                    item.answer.exception()  # whether somebody looks at it or not
                continue
            self.waiting_bytes -= item.size
            failed += len(item.receipts)
            for receipt in item.receipts:
                receipt.fail(error, self._unobserved)
        if failed:
            logger.error("%d publishes were not confirmed (%s): %s", failed, error.outcome, error)


class TooFewReplicas(NoServer):
    """A publish was kept, but not by as many replicas as it has to be."""


def _limits(counts: Collection[float]) -> str:
    """Return how many are kept of each topic; nothing where no topic has a bound."""
    if min(counts) == float("inf"):
        return ""
    return " ".join("-" if count == float("inf") else f"{count:.0f}" for count in counts)


def _repeats(text: bytes) -> dict[int, tuple[int, tuple[str, ...]]]:
    """Return by number of the draft whose key was used before: where the first one stands, and its topics."""
    found: dict[int, tuple[int, tuple[str, ...]]] = {}
    for line in text.decode().split("\n") if text else ():
        number, offset, topics = line.split(" ", 2)
        found[int(number)] = int(offset), tuple(topics.split("\t"))
    return found
