"""The registry of all generations of a hub: begins them, finds them, and forgets them.

A producer runs in a task of its own, independent of the request that started it: closing the browser tab does not stop
it, and a second tab finds the same answer. With a log, each part is stored before any viewer gets it, so that after a
crash a viewer gets what was stored, and is told that the producer is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from hub.cleanup import cleaned_up
from hub.encoding import Limit
from hub.errors import (
    GenerationExpired,
    KeyReused,
    ShuttingDown,
    StateUnavailable,
    TooManyGenerations,
    UnknownGeneration,
)
from hub.generations.generation import Ending, Generation, Head, Phase
from hub.generations.producer import Producer
from hub.generations.providers.provider import Delta
from hub.generations.store import GenerationLog, key_topic
from hub.log.log import Log
from hub.metrics import Metrics
from hub.state.peers import Alone, News, Peers

logger = logging.getLogger("hub.generations")

ID_BYTES = 16
REMEMBERED = 50_000  # ids of expired generations, to answer 410 for them; each costs about 300 bytes
SWEEP_SECONDS = 1.0
CLAIM_PAUSE, CLAIM_TRIES = 0.05, 40
STOPPED = "the process of the answer was stopped for too long"

STREAMING, WATCHED, CANCEL = "generation", "watched", "cancel a generation"
"""What a process tells the others: that a generation streams in it, that one of another process is watched in it; and
what it asks them."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GenerationLimits:
    """Limits of generations; times are in seconds, sizes in bytes.

    Attributes:
        window: time for which text gathers before it becomes a part; 0: each append is a part.
        keep: time for which an ended generation can be watched.
        size: maximum size of one answer.
        kept_size: maximum memory of all ended generations, everything counted; beyond it those that ended first go.
        owned: maximum number of generations of one owner that stream at the same time.
        total: maximum number of generations that stream at the same time.
        first: maximum silence of the producer before the first piece of text.
        gap: maximum silence after it.
        whole: maximum time for the whole answer.
        lease: maximum time between two appends to a generation that the application appends to itself.
        unwatched: time after which a generation without viewers is cancelled; None: never.
    """

    window: float = 0.03
    keep: float = 300.0
    size: int = 1024 * 1024
    kept_size: int = 256 * 1024 * 1024
    owned: int = 16
    total: int = 10_000
    first: float = 60.0
    gap: float = 60.0
    whole: float = 600.0
    lease: float = 60.0
    unwatched: float | None = None


class Generations:
    """The generations of one hub. All calls belong to the event loop's thread.

    Args:
        limits: the limits; None: the defaults.
        log: a log that holds nothing but generations; None: they are kept in memory only.
        on_end: called with each generation that has ended.
        metrics: counts the generations that begin and end.
        clock: returns seconds since 1970.
        peers: the other processes of the hub, which have the same log if it is in Redis.
    """

    def __init__(
        self,
        limits: GenerationLimits | None = None,
        *,
        log: Log | None = None,
        on_end: Callable[[Generation], None] = lambda stream: None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
        peers: Peers | None = None,
    ) -> None:
        self._peers = peers = Alone() if peers is None else peers
        peers.follow(STREAMING, self._hear)
        peers.on_gone(self._gone)
        peers.answer(CANCEL, self._cancel)
        self._elsewhere: Counter[str | None] = Counter()  # by owner, how many stream in other processes
        self.limits = limits or GenerationLimits()
        self._on_end = on_end
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._streams: dict[str, Generation] = {}
        self._log = GenerationLog(log, self._lost, peers) if log is not None else None
        self._keys: dict[str, str] = {}  # topics of idempotency keys, with the ids of kept generations
        self._expired: OrderedDict[str, bytes | None] = OrderedDict()  # ids, with digests of their owners
        self._streaming: Counter[str | None] = Counter()
        self._unwatched: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leased: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._beginning: dict[object, asyncio.Task[Any]] = {}
        self._closed = False

    async def open(self) -> None:
        """Start on the running loop. The log is opened by the first generation, or soon if it holds earlier ones."""
        self._sweep_later()
        if self._log is not None:
            self._log.look()

    async def aclose(self) -> None:
        """Fail what still streams, and stop the producers, which have a bounded time to clean up."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._log is not None:  # generations that are about to begin may wait for the opening
            self._log.give_up_opening()
        try:
            await cleaned_up(dict.fromkeys(self._beginning.values(), "the beginning of a generation"), self._metrics)
            for stream in filter(self._is_own, list(self._streams.values())):
                stream.fail("producer_lost", "the hub was shut down before the answer was complete")
            await cleaned_up({task: task.get_name() for task in self._tasks}, self._metrics)
        finally:
            if self._log is not None:
                await self._log.aclose()

    def __len__(self) -> int:
        """Return the number of generations in memory, streaming or ended."""
        return len(self._streams)

    @property
    def streaming(self) -> int:
        """Number of generations that have not ended."""
        return self._streaming.total()

    # ---- beginning ----

    async def start(
        self,
        source: Callable[[], AsyncIterator[str | Delta]],
        *,
        owner: str | None = None,
        model: str | None = None,
        key: str | None = None,
        asked: str = "",
    ) -> tuple[Generation, bool]:
        """Begin a generation with a task that reads *source*; return it, and whether it is new.

        If the caller is cancelled, the generation goes on.

        Args:
            source: returns the source; called once, if the generation is new.
            owner: the user who may watch and stop it; None: everybody who knows its id.
            model: the name of the model, which viewers are told.
            key: idempotency key: while a generation that began with it is kept, that one is returned.
            asked: a digest of the question.

        Raises:
            KeyReused: *key* belongs to a generation with another question.
            TooManyGenerations: as many stream as may, of this owner or altogether.
            LogUnavailable: it can't be kept.
            ShuttingDown: the hub is shutting down.
        """
        name: object = object() if key is None else (owner, key)
        while (other := self._beginning.get(name)) is not None:
            await asyncio.wait([other])  # two requests with one key at the same time must get one generation
        return await self._detached(name, self._start(source, owner, model, key, asked))

    async def _detached(self, name: object, beginning: Coroutine[Any, Any, T]) -> T:
        """Run *beginning* in a task registered as *name*, which goes on if the caller is cancelled."""
        task = self._beginning[name] = asyncio.create_task(beginning)
        task.add_done_callback(lambda task: self._beginning.pop(name))
        return await asyncio.shield(task)

    async def _start(
        self,
        source: Callable[[], AsyncIterator[str | Delta]],
        owner: str | None,
        model: str | None,
        key: str | None,
        asked: str,
    ) -> tuple[Generation, bool]:
        if key is None:
            stream = await self._begin(owner, model, key, asked)
        else:
            async with self._claimed(key_topic(owner, key)):
                known = await self._begun_with(owner, key)
                if known is not None:
                    if known.head.asked not in {"", asked}:
                        raise KeyReused
                    return known, False
                stream = await self._begin(owner, model, key, asked)
                stream.key = key_topic(owner, key)
                self._keys[stream.key] = stream.id
        self._produce(stream, source)
        return stream, True

    @asynccontextmanager
    async def _claimed(self, name: str) -> AsyncIterator[None]:
        """Wait until no other process is about to begin what *name* is the key of, and keep them waiting.

        Raises:
            StateUnavailable: that takes too long, or can't be told now.
        """
        for _ in range(CLAIM_TRIES):
            if await self._peers.claim(name):
                break
            await asyncio.sleep(CLAIM_PAUSE)
        else:
            raise StateUnavailable("another process is about to begin the same answer")
        try:
            yield
        finally:
            with suppress(StateUnavailable):  # then it ends by itself
                await self._peers.release(name)

    async def _begun_with(self, owner: str | None, key: str) -> Generation | None:
        """Return the generation that began with *key*, in this process or an earlier one; None if it is not kept."""
        id = self._keys.get(key_topic(owner, key))
        if id is None and self._log is not None:
            await self._log.open()
            id = await self._log.begun_with(owner, key)
        if id is None or id in self._expired:
            return None
        return self._streams.get(id) or await self._restore(id)

    async def stream_from(self, source: AsyncIterator[str | Delta], *, owner: str | None = None) -> Generation:
        """Begin a generation from a *source* of your own, which yields text or `Delta`s and is closed at the end.

        Raises:
            TooManyGenerations, LogUnavailable, ShuttingDown: as for `start`; *source* was not used.
        """
        stream, _ = await self.start(lambda: source, owner=owner)
        return stream

    async def begin(self, *, owner: str | None = None, model: str | None = None) -> Generation:
        """Begin a generation that the caller appends to; it fails if nothing is appended for too long.

        Raises:
            TooManyGenerations, LogUnavailable, ShuttingDown: as for `start`.
        """
        return await self._detached(object(), self._begin(owner, model, leased=True))

    async def _begin(
        self,
        owner: str | None,
        model: str | None,
        key: str | None = None,
        asked: str = "",
        *,
        leased: bool = False,
    ) -> Generation:
        limits = self.limits
        if self._closed:
            raise ShuttingDown
        if self.streaming >= limits.total:
            raise TooManyGenerations("altogether", limits.total, Limit.AI_TOTAL)
        if owner is not None and self._streaming[owner] + self._elsewhere[owner] >= limits.owned:
            raise TooManyGenerations("of one owner", limits.owned, Limit.AI_PER_USER)
        head = Head(secrets.token_urlsafe(ID_BYTES), owner, model, self._clock(), asked, self._peers.id)
        self._streaming[owner] += 1  # before the first await: calls at the same time must not exceed the limits
        try:
            if self._log is not None:
                await self._log.open()
                await self._log.begin(head, key)
        except BaseException:
            self._release(owner)
            raise
        stream = Generation(head, self._keep, window=limits.window, most=limits.size)
        stream.touched = time.monotonic()
        self._streams[head.id] = stream
        if leased:
            self._leased.add(head.id)
        self._metrics.generations_begun += 1
        self._peers.hold(STREAMING, head.id, [owner])
        stream.on_end(self._ended)
        return stream

    def _release(self, owner: str | None) -> None:
        self._streaming[owner] -= 1
        if not self._streaming[owner]:
            del self._streaming[owner]

    def _ended(self, stream: Generation) -> None:
        stream.ended_at = self._clock()
        self._peers.hold(STREAMING, stream.id, None)
        self._leased.discard(stream.id)
        self._release(stream.head.owner)
        self._metrics.generations_done += stream.phase is Phase.DONE
        self._metrics.generations_failed += stream.phase is Phase.FAILED
        self._metrics.generations_cancelled += stream.phase is Phase.CANCELLED
        self._on_end(stream)

    # ---- other processes ----

    def _is_own(self, stream: Generation) -> bool:
        """Return whether *stream* is of this process, or has ended."""
        return stream.ending is not None or stream.head.process == self._peers.id

    def _hear(self, news: News) -> None:
        """Count what streams in other processes, and note who watches there what streams here."""
        if news.before is not None:
            self._elsewhere[news.before[0]] -= 1
            if not self._elsewhere[news.before[0]]:
                del self._elsewhere[news.before[0]]
        if news.now is not None:
            self._elsewhere[news.now[0]] += 1

    def _gone(self, process: str) -> None:
        """End what *process*, which is gone, has not finished; this one too may have lost its lease."""
        if process != self._peers.id:
            if self._log is not None:
                self._log.gone(process)
            return
        for stream in filter(self._is_own, list(self._streams.values())):
            self._give_up(stream, "producer_lost", STOPPED)

    async def cancel(self, stream: Generation) -> None:
        """Cancel *stream*, in whatever process it is, and wait until it has ended.

        Raises:
            StateUnavailable: its process does not answer.
        """
        if self._is_own(stream):
            stream.cancel()
        else:
            await self._peers.ask(stream.head.process, CANCEL, stream.id)
        await stream.ended()

    async def _cancel(self, id: Any) -> None:
        stream = self._streams.get(id)
        if stream is not None:
            stream.cancel()
            await stream.ended()

    # ---- producers ----

    def _produce(self, stream: Generation, source: Callable[[], AsyncIterator[str | Delta]]) -> None:
        limits = self.limits
        production = Producer(stream, first=limits.first, gap=limits.gap, whole=limits.whole)
        task = asyncio.create_task(production.run(source), name=f"the provider of generation {stream.id[:6]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        loop = asyncio.get_running_loop()
        # In the next iteration of the loop: before the task's first step there is nothing to stop.
        stream.stop_producer = lambda: loop.call_soon(production.stop)

    # ---- finding them ----

    async def find(self, id: str, owner: str | None = None) -> Generation:
        """Return the generation *id*, streaming or ended.

        Raises:
            UnknownGeneration: there is none with that id, or it belongs to another owner.
            GenerationExpired: it is no longer kept.
            LogUnavailable: it may be in the log, from before a restart, and the log can't be read now.
        """
        stream = self._streams.get(id)
        if stream is None and id not in self._expired:
            stream = await self._restore(id)
        if stream is not None:
            if stream.head.owner is not None and stream.head.owner != owner:
                raise UnknownGeneration
            return stream
        if id in self._expired and self._expired[id] in (None, _mark(owner)):
            raise GenerationExpired
        raise UnknownGeneration

    # ---- forgetting ----

    def _sweep_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweep_later()
        self.sweep()

    def sweep(self) -> None:
        """Forget what is too old or too large, fail what nobody appends to, and cancel what nobody watches."""
        now, moment = self._clock(), time.monotonic()
        if self._log is not None:
            self._log.trim()
        for id, stream in list(self._streams.items()):
            if stream.ending is not None:
                if now - stream.ended_at >= self.limits.keep and not stream.viewers:
                    self._expire(stream)
            elif id in self._leased and moment - stream.touched >= self.limits.lease:
                stream.fail("producer_lost", "nothing was appended for too long")
            elif not self._is_own(stream):
                self._peers.hold(WATCHED, id, True if stream.viewers else None)
            elif self.limits.unwatched is not None:
                if stream.viewers or self._peers.holder(WATCHED, id):
                    self._unwatched.pop(id, None)
                elif moment - self._unwatched.setdefault(id, moment) >= self.limits.unwatched:
                    stream.cancel()
        self._make_room()

    def _make_room(self) -> None:
        """Forget the generations that ended first until the ended ones fit into `kept_size`."""
        ended = [stream for stream in self._streams.values() if stream.ending is not None]
        size = sum(stream.cost for stream in ended)
        if size > self.limits.kept_size:
            for stream in sorted(ended, key=attrgetter("ended_at"))[:-1]:  # the newest stays, whatever its size
                size -= stream.cost
                self._expire(stream)
                if size <= self.limits.kept_size:
                    break

    def _expire(self, stream: Generation) -> None:
        id = stream.id
        self._streams.pop(id, None)
        self._unwatched.pop(id, None)
        if stream.key is not None and self._keys.get(stream.key) == id:
            del self._keys[stream.key]
        self._expired[id] = _mark(stream.head.owner)
        while len(self._expired) > REMEMBERED:
            self._expired.popitem(last=False)

    # ---- keeping ----

    def _keep(self, stream: Generation, what: str | Ending) -> None:
        stream.touched = time.monotonic()
        if self._log is None:
            stream.kept(what)
        elif self._peers.sure:
            self._log.keep(stream, what)
        else:  # others may have said that it has failed
            self._give_up(stream, "producer_lost", STOPPED)

    def _lost(self, stream: Generation, error: Exception) -> None:
        if stream.ending is None:  # else an earlier part was lost already
            logger.error("generation %s could not be kept: %s", stream.id[:6], error)
            self._give_up(stream, "unavailable", "the answer could not be kept")

    def _give_up(self, stream: Generation, reason: str, message: str) -> None:
        """End *stream* as failed, unless it has ended, whatever the log has of it; that is stored as well."""
        if stream.ending is None:
            stream.lose(reason, message)
            if self._log is not None:
                self._log.give_up(stream)

    async def _restore(self, id: str) -> Generation | None:
        """Return the generation *id* of an earlier process from the log; None if it is not there or has expired."""
        if self._log is None:
            return None
        await self._log.open()
        stream = await self._log.restore(id)
        if stream is None or id in self._streams:  # another task has restored it meanwhile
            return self._streams.get(id)
        if stream.ending is not None and self._clock() - stream.ended_at >= self.limits.keep:
            self._expire(stream)
            return None
        self._streams[id] = stream
        if stream.ending is None:
            stream.on_end(self._ended_elsewhere)
        return stream

    def _ended_elsewhere(self, stream: Generation) -> None:
        stream.ended_at = self._clock()
        self._peers.hold(WATCHED, stream.id, None)


def _mark(owner: str | None) -> bytes | None:
    """Return a digest of the owner's name: of a fixed size, and enough to recognize the owner."""
    if owner is None:
        return None
    return hashlib.blake2b(owner.encode(errors="surrogatepass"), digest_size=16).digest()
