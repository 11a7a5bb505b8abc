"""All generations of a hub: they begin here, are found here, and are forgotten here.

A producer runs in a task of its own, detached from the request that started it: a tab that closes stops nothing, and a
second one finds the same answer. With a log, each part is in it before anybody sees it, so that after a crash a viewer
gets what was kept, and is told that the producer is gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from hub.cleanup import cleaned_up
from hub.errors import GenerationExpired, KeyReused, ShuttingDown, TooManyGenerations, UnknownGeneration
from hub.generations.generation import Ending, Generation, Head, Phase
from hub.generations.producer import Producer
from hub.generations.providers.provider import Delta
from hub.generations.store import GenerationLog, key_topic
from hub.log.log import Log
from hub.metrics import Metrics

logger = logging.getLogger("hub.generations")

ID_BYTES = 16
REMEMBERED = 50_000  # ids of what is gone, to say so; each costs some 300 bytes, whoever its owner is
SWEEP_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GenerationLimits:
    """What generations may cost, and how long they may take: seconds and bytes.

    Attributes:
        window: how long text gathers before it becomes a part; 0: each append is one.
        keep: how long an ended generation can be watched.
        size: bytes of one answer.
        kept_size: bytes of all that have ended, everything counted; beyond it those that ended first go.
        owned: generations of one owner that may stream at once.
        total: generations that may stream at once.
        first: of silence before the first piece of text.
        gap: of silence after it.
        whole: for the whole answer.
        lease: for a generation without a producer of ours: between two appends.
        unwatched: how long a generation goes on that nobody watches; None: to its end.
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
        limits: what they may cost.
        log: where they are kept, for them alone; None: in memory.
        on_end: hears of each that has ended.
        metrics: begun and ended ones are counted here.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        limits: GenerationLimits | None = None,
        *,
        log: Log | None = None,
        on_end: Callable[[Generation], None] = lambda stream: None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or GenerationLimits()
        self._on_end = on_end
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._streams: dict[str, Generation] = {}
        self._log = GenerationLog(log, self._lost) if log is not None else None
        self._keys: dict[str, str] = {}  # of those that are kept
        self._expired: OrderedDict[str, bytes | None] = OrderedDict()  # ids, and who their owners were
        self._streaming: Counter[str | None] = Counter()
        self._unwatched: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leased: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._beginning: dict[object, asyncio.Task[Any]] = {}
        self._closed = False

    async def open(self) -> None:
        """Begin, on the running loop. The log is opened when the first one needs it, or if there is some in it."""
        self._sweep_later()
        if self._log is not None:
            self._log.look()

    async def aclose(self) -> None:
        """End: what still streams fails; producers are stopped, and have a bounded time to clean up."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._log is not None:  # those that begin may wait for it
            self._log.give_up_opening()
        try:
            await cleaned_up(dict.fromkeys(self._beginning.values(), "the beginning of a generation"), self._metrics)
            for stream in list(self._streams.values()):
                stream.fail("producer_lost", "the hub was shut down before the answer was complete")
            await cleaned_up({task: task.get_name() for task in self._tasks}, self._metrics)
        finally:
            if self._log is not None:
                await self._log.aclose()

    def __len__(self) -> int:
        """Return how many are kept, streaming or ended."""
        return len(self._streams)

    @property
    def streaming(self) -> int:
        """How many are being generated."""
        return self._streaming.total()

    # ---- their beginning ----

    async def start(
        self,
        source: Callable[[], AsyncIterator[str | Delta]],
        *,
        owner: str | None = None,
        model: str | None = None,
        key: str | None = None,
        asked: str = "",
    ) -> tuple[Generation, bool]:
        """Begin a generation, with a task that reads *source*; return it, and whether it is new.

        What has begun here goes on if the caller is cancelled.

        Args:
            source: called once, if it is new.
            owner: who may watch and stop it; None: whoever knows its id.
            model: what answers, to be told to viewers.
            key: as long as the generation that began with it is kept, it leads to that one.
            asked: a digest of the question.

        Raises:
            KeyReused: the generation that began with *key* answers something else.
            TooManyGenerations: of this owner, or altogether.
            LogUnavailable: it can't be kept.
            ShuttingDown: the hub ends.
        """
        name: object = object() if key is None else (owner, key)
        while (other := self._beginning.get(name)) is not None:
            await asyncio.wait([other])  # two at once with one key are one generation
        return await self._detached(name, self._start(source, owner, model, key, asked))

    async def _detached(self, name: object, beginning: Coroutine[Any, Any, T]) -> T:
        """Let something begin, under a *name* of its own, whatever becomes of the caller."""
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
        known = await self._begun_with(owner, key) if key is not None else None
        if known is not None:
            if known.head.asked not in {"", asked}:
                raise KeyReused
            return known, False
        stream = await self._begin(owner, model, key, asked)
        if key is not None:
            stream.key = key_topic(owner, key)
            self._keys[stream.key] = stream.id
        self._produce(stream, source)
        return stream, True

    async def _begun_with(self, owner: str | None, key: str) -> Generation | None:
        """Return the generation that began with *key*, here or in an earlier process, if it is still kept."""
        id = self._keys.get(key_topic(owner, key))
        if id is None and self._log is not None:
            await self._log.open()
            id = await self._log.begun_with(owner, key)
        if id is None or id in self._expired:
            return None
        return self._streams.get(id) or await self._restore(id)

    async def stream_from(self, source: AsyncIterator[str | Delta], *, owner: str | None = None) -> Generation:
        """Begin a generation of your own: *source* gives text, or `Delta`s, and is closed when it is over.

        Raises:
            TooManyGenerations, LogUnavailable, ShuttingDown: as for `start`; *source* was not touched.
        """
        stream, _ = await self.start(lambda: source, owner=owner)
        return stream

    async def begin(self, *, owner: str | None = None, model: str | None = None) -> Generation:
        """Begin a generation that the caller appends to; if it does not for too long, the generation fails.

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
            raise TooManyGenerations("altogether", limits.total)
        if owner is not None and self._streaming[owner] >= limits.owned:
            raise TooManyGenerations("of one owner", limits.owned)
        head = Head(secrets.token_urlsafe(ID_BYTES), owner, model, self._clock(), asked)
        self._streaming[owner] += 1  # before anything is waited for: the next one is one too many
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
        stream.on_end(self._ended)
        return stream

    def _release(self, owner: str | None) -> None:
        self._streaming[owner] -= 1
        if not self._streaming[owner]:
            del self._streaming[owner]

    def _ended(self, stream: Generation) -> None:
        stream.ended_at = self._clock()
        self._leased.discard(stream.id)
        self._release(stream.head.owner)
        self._metrics.generations_done += stream.phase is Phase.DONE
        self._metrics.generations_failed += stream.phase is Phase.FAILED
        self._metrics.generations_cancelled += stream.phase is Phase.CANCELLED
        self._on_end(stream)

    # ---- their producers ----

    def _produce(self, stream: Generation, source: Callable[[], AsyncIterator[str | Delta]]) -> None:
        limits = self.limits
        production = Producer(stream, first=limits.first, gap=limits.gap, whole=limits.whole)
        task = asyncio.create_task(production.run(source), name=f"the provider of generation {stream.id[:6]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        loop = asyncio.get_running_loop()
        # Behind its first step, before which there is nothing to stop.
        stream.stop_producer = lambda: loop.call_soon(production.stop)

    # ---- finding them ----

    async def find(self, id: str, owner: str | None = None) -> Generation:
        """Return the generation *id*, streaming or ended.

        Raises:
            UnknownGeneration: there is none of that name, or it is somebody else's.
            GenerationExpired: it was kept for its time.
            LogUnavailable: it may have been kept before a restart, and that can't be read now.
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

    # ---- their end ----

    def _sweep_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweep_later()
        self.sweep()

    def sweep(self) -> None:
        """Forget what was kept for its time or is too much, fail what nobody appends to, stop what nobody watches."""
        now, moment = self._clock(), time.monotonic()
        if self._log is not None:
            self._log.trim()
        for id, stream in list(self._streams.items()):
            if stream.ending is not None:
                if now - stream.ended_at >= self.limits.keep and not stream.viewers:
                    self._expire(stream)
            elif id in self._leased and moment - stream.touched >= self.limits.lease:
                stream.fail("producer_lost", "nothing was appended for too long")
            elif self.limits.unwatched is not None:
                if stream.viewers:
                    self._unwatched.pop(id, None)
                elif moment - self._unwatched.setdefault(id, moment) >= self.limits.unwatched:
                    stream.cancel()
        self._make_room()

    def _make_room(self) -> None:
        """Forget those that ended first while all that ended are too large together."""
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

    # ---- keeping them ----

    def _keep(self, stream: Generation, what: str | Ending) -> None:
        stream.touched = time.monotonic()
        if self._log is not None:
            self._log.keep(stream, what)
        else:
            stream.kept(what)

    def _lost(self, stream: Generation, error: Exception) -> None:
        if stream.ending is not None:  # it is lost already, with the parts behind
            return
        logger.error("generation %s could not be kept: %s", stream.id[:6], error)
        stream.lose("unavailable", "the answer could not be kept")

    async def _restore(self, id: str) -> Generation | None:
        """Return a generation of an earlier process, if it is still to be kept."""
        if self._log is None:
            return None
        await self._log.open()
        stream = await self._log.restore(id)
        if stream is None or id in self._streams:  # somebody else was faster
            return self._streams.get(id)
        if self._clock() - stream.ended_at >= self.limits.keep:
            self._expire(stream)
            return None
        self._streams[id] = stream
        return stream


def _mark(owner: str | None) -> bytes | None:
    """Return what is remembered of an owner: enough to recognize him, however long his name is."""
    if owner is None:
        return None
    return hashlib.blake2b(owner.encode(errors="surrogatepass"), digest_size=16).digest()
