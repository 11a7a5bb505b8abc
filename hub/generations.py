"""All generations of a hub: they begin here, are found here, and are forgotten here.

A producer runs in a task of its own, detached from the request that started it: a tab that closes stops nothing, and a
second one finds the same answer. With a log, each part is in it before anybody sees it, so that after a crash a viewer
gets what was kept, and is told that the producer is gone.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from hub.errors import GenerationExpired, HubError, LogUnavailable, ShuttingDown, TooManyGenerations, UnknownGeneration
from hub.generation import Ending, Head, Phase, TokenStream
from hub.log import Log, Receipt, make_log
from hub.notification import Draft, Notification
from hub.providers import Delta, ProviderError
from hub.settings import Settings

logger = logging.getLogger("hub.generations")

ID_BYTES = 16
REMEMBERED = 100_000
SWEEP_SECONDS = 1.0

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What generations may cost, and how long they may take: seconds and bytes.

    Attributes:
        window: how long text gathers before it becomes a part; 0: each append is one.
        keep: how long an ended generation can be watched.
        size: bytes of one answer.
        owned: generations of one owner that may stream at once.
        total: generations that may stream at once.
        first: until the first piece of text.
        gap: between two pieces.
        whole: for the whole answer.
        lease: for a generation without a producer of ours: between two appends.
        unwatched: how long a generation goes on that nobody watches; None: to its end.
    """

    window: float = 0.03
    keep: float = 300.0
    size: int = 1024 * 1024
    owned: int = 16
    total: int = 10_000
    first: float = 60.0
    gap: float = 60.0
    whole: float = 600.0
    lease: float = 60.0
    unwatched: float | None = None


def generation_log(settings: Settings, clock: Callable[[], float]) -> Log | None:
    """Return the log for the generations of a hub with *settings*: a file beside its own; None if that is in memory."""
    if settings.log == "memory://":
        return None
    path, _, suffix = settings.log.rpartition(".")
    home = f"{path}.ai.{suffix}" if path and "/" not in suffix else f"{settings.log}.ai"
    age = settings.ai_timeout + settings.ai_keep
    return make_log(home, count=10**9, size=None, age=age, topics={}, clock=clock, unobserved=lambda error: None)


class Generations:
    """The generations of one hub. All calls belong to the event loop's thread.

    Args:
        limits: what they may cost.
        log: where they are kept, for them alone; None: in memory.
        on_end: hears of each that has ended.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        log: Log | None = None,
        on_end: Callable[[TokenStream], None] = lambda stream: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or Limits()
        self._log = log
        self._on_end = on_end
        self._clock = clock
        self._streams: dict[str, TokenStream] = {}
        self._keys: OrderedDict[tuple[str | None, str], str] = OrderedDict()
        self._expired: OrderedDict[str, str | None] = OrderedDict()
        self._streaming: Counter[str | None] = Counter()
        self._unwatched: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leased: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._opening = asyncio.Lock()
        self._opened = self._closed = False

    async def open(self) -> None:
        """Begin, on the running loop. The log is opened when the first one needs it."""
        self._sweep_later()

    async def _ready(self) -> None:
        """Open the log, if there is one and nobody has yet.

        Raises:
            LogUnavailable: it can't be used.
        """
        if self._log is None or self._opened:
            return
        async with self._opening:
            if not self._opened and not self._closed:
                await self._log.open()
                self._log.announce_to(self._announced)
                self._opened = True

    async def aclose(self) -> None:
        """End: what still streams fails, producers are stopped and have ended when this returns."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self._streams.values()):
            stream.fail("producer_lost", "the hub was shut down before the answer was complete")
        if self._tasks:
            await asyncio.wait(self._tasks)
        async with self._opening:
            if self._opened and self._log is not None:
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
        source: Callable[[], AsyncGenerator[Delta, None]],
        *,
        owner: str | None = None,
        model: str | None = None,
        key: str | None = None,
    ) -> tuple[TokenStream, bool]:
        """Begin a generation, with a task that reads *source*; return it, and whether it is new.

        Args:
            source: called once, if it is new.
            owner: who may watch and stop it; None: whoever knows its id.
            model: what answers, to be told to viewers.
            key: as long as the generation that began with it is kept, it leads to that one.

        Raises:
            TooManyGenerations: of this owner, or altogether.
            LogUnavailable: it can't be kept.
        """
        await self._ready()  # from here to where the key is noted nothing waits: two at once are one generation
        known = self._keys.get((owner, key)) if key is not None else None
        if known is not None and known in self._streams:
            return self._streams[known], False
        stream = await self.begin(owner=owner, model=model, leased=False)
        if key is not None:
            self._keys[owner, key] = stream.id
            while len(self._keys) > REMEMBERED:
                self._keys.popitem(last=False)
        self._produce(stream, source)
        return stream, True

    async def stream_from(self, source: AsyncIterator[str | Delta], *, owner: str | None = None) -> TokenStream:
        """Begin a generation of your own: *source* gives text, or `Delta`s, and is closed when it is over.

        Raises:
            TooManyGenerations, LogUnavailable: as for `start`.
        """
        stream = await self.begin(owner=owner, leased=False)
        self._produce(stream, lambda: _deltas(source))
        return stream

    async def begin(self, *, owner: str | None = None, model: str | None = None, leased: bool = True) -> TokenStream:
        """Begin a generation that the caller appends to; if it does not for too long, the generation fails.

        Raises:
            TooManyGenerations, LogUnavailable: as for `start`.
        """
        limits = self.limits
        await self._ready()
        if self._closed:
            raise ShuttingDown
        if self.streaming >= limits.total:
            raise TooManyGenerations("altogether", limits.total)
        if owner is not None and self._streaming[owner] >= limits.owned:
            raise TooManyGenerations("of one user", limits.owned)
        head = Head(secrets.token_urlsafe(ID_BYTES), owner, model, self._clock())
        if self._log is not None:
            self._append(head.id, {"owner": owner, "model": model, "created": head.created}, "start")
        stream = TokenStream(head, self._keep, window=limits.window, most=limits.size)
        stream.touched = time.monotonic()
        self._streams[head.id] = stream
        self._streaming[owner] += 1
        if leased:
            self._leased.add(head.id)
        stream.on_end(self._ended)
        return stream

    def _ended(self, stream: TokenStream) -> None:
        stream.ended_at = self._clock()
        self._leased.discard(stream.id)
        self._streaming[stream.head.owner] -= 1
        if not self._streaming[stream.head.owner]:
            del self._streaming[stream.head.owner]
        self._on_end(stream)

    # ---- their producers ----

    def _produce(self, stream: TokenStream, source: Callable[[], AsyncGenerator[Delta, None]]) -> None:
        task = asyncio.create_task(self._read(stream, source))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        loop = asyncio.get_running_loop()
        # Behind its first step: a task that is cancelled before it would not close what it reads.
        stream.stop_producer = lambda: loop.call_soon(task.cancel)

    async def _read(self, stream: TokenStream, make: Callable[[], AsyncGenerator[Delta, None]]) -> None:
        """Append what *make* makes until it ends, fails, takes too long, or the generation is over."""
        limits = self.limits
        try:
            async with aclosing(make()) as source, asyncio.timeout(limits.whole):
                last = await self._pieces(stream, source)
            stream.finish(last.finish_reason or "stop", last.usage)
        except TimeoutError as error:
            stream.fail("timeout", str(error) or f"the answer was not complete after {limits.whole:g} s")
        except ProviderError as error:
            logger.warning("generation %s: %s", stream.id[:6], error)
            stream.fail(error.reason, error.message)
        except HubError as error:
            stream.fail("too_large" if error.status == 413 else "unavailable", str(error))
        except asyncio.CancelledError:
            stream.fail("producer_lost", "who made the answer was stopped")  # unless that was by an ending
            raise
        except Exception:
            logger.exception("the provider of generation %s failed", stream.id[:6])
            stream.fail("provider_failed", "the provider failed")

    async def _pieces(self, stream: TokenStream, source: AsyncGenerator[Delta, None]) -> Delta:
        limits = self.limits
        last, said = Delta(), False
        while True:
            patience = limits.gap if said else limits.first
            try:
                async with asyncio.timeout(patience):
                    delta = await anext(source)
            except StopAsyncIteration:
                return last
            except TimeoutError:
                what = "nothing more" if said else "nothing"
                raise TimeoutError(f"the provider said {what} for {patience:g} s") from None
            if delta.text:
                said = True
                stream.append(delta.text)
                await stream.room()
            if delta.finish_reason or delta.usage:
                last = Delta("", delta.finish_reason or last.finish_reason, delta.usage or last.usage)

    # ---- finding them ----

    async def find(self, id: str, owner: str | None = None) -> TokenStream:
        """Return the generation *id*, streaming or ended.

        Raises:
            UnknownGeneration: there is none of that name, or it is somebody else's.
            GenerationExpired: it was kept for its time.
            LogUnavailable: it may have been kept before a restart, and that can't be read now.
        """
        stream = self._streams.get(id)
        if not _ID.fullmatch(id):  # nothing we gave out; to the log it might be a pattern
            raise UnknownGeneration
        if stream is None and id not in self._expired and self._log is not None:
            await self._ready()
            stream = await self._restore(id)
        if stream is not None:
            if stream.head.owner is not None and stream.head.owner != owner:
                raise UnknownGeneration
            return stream
        if id in self._expired and self._expired[id] in (None, owner):
            raise GenerationExpired
        raise UnknownGeneration

    # ---- their end ----

    def _sweep_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep_again)

    def _sweep_again(self) -> None:
        self.sweep()
        self._sweep_later()

    def sweep(self) -> None:
        """Forget what was kept for its time, fail what nobody appends to, stop what nobody watches."""
        now, moment = self._clock(), time.monotonic()
        if self._opened and self._log is not None:
            self._log.trim()
        for id, stream in list(self._streams.items()):
            if stream.ending is not None:
                if now - stream.ended_at >= self.limits.keep and not stream.viewers:
                    self._expire(id, stream.head.owner)
            elif id in self._leased and moment - stream.touched >= self.limits.lease:
                stream.fail("producer_lost", "nothing was appended for too long")
            elif self.limits.unwatched is not None:
                if stream.viewers:
                    self._unwatched.pop(id, None)
                elif moment - self._unwatched.setdefault(id, moment) >= self.limits.unwatched:
                    stream.cancel()

    def _expire(self, id: str, owner: str | None) -> None:
        self._streams.pop(id, None)
        self._unwatched.pop(id, None)
        self._expired[id] = owner
        while len(self._expired) > REMEMBERED:
            self._expired.popitem(last=False)

    # ---- the log: a topic for each generation ----

    def _keep(self, stream: TokenStream, what: str | Ending) -> None:
        stream.touched = time.monotonic()
        if self._log is None:
            stream.kept(what)
            return
        if isinstance(what, str):
            data, type = {"number": stream.given, "text": what}, "part"
        else:
            data, type = {"number": stream.given, "phase": what.phase, "facts": what.facts}, "end"
        try:
            receipt = self._append(stream.id, data, type)
        except HubError as error:
            self._lost(stream, error)
        else:
            self._watch_receipt(stream, receipt)

    def _append(self, id: str, data: object, type: str) -> Receipt:
        assert self._log is not None
        return self._log.append([Draft.of(data, topic=id, type=type)])[0]

    def _watch_receipt(self, stream: TokenStream, receipt: Receipt) -> None:
        async def look() -> None:
            try:
                await receipt
            except LogUnavailable as error:
                self._lost(stream, error)

        task = asyncio.create_task(look())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lost(self, stream: TokenStream, error: HubError) -> None:
        logger.error("generation %s could not be kept: %s", stream.id[:6], error)
        stream.lose("unavailable", "the answer could not be kept")

    def _announced(self, notifications: Sequence[Notification]) -> None:
        for each in notifications:
            stream = self._streams.get(each.topics[0])
            if stream is not None:
                _take(stream, each)

    async def _restore(self, id: str) -> TokenStream | None:
        """Return what is kept of a generation that began before this process did; nobody produces it any more."""
        assert self._log is not None
        stream: TokenStream | None = None
        after, upto = 0, self._log.bounds().newest.offset
        while after < upto:
            page = await self._log.read(after, (id,), upto=upto)
            after = page.reached
            for each in page.notifications:
                if each.type == "start":
                    facts = each.data
                    head = Head(id, facts["owner"], facts["model"], facts["created"])
                    stream = TokenStream(head, lambda stream, what: None)
                    stream.ended_at = each.at
                elif stream is not None:
                    _take(stream, each)
                    stream.ended_at = each.at
        if stream is None or id in self._streams:  # somebody else was faster
            return self._streams.get(id)
        if stream.ending is None:
            stream.lose("producer_lost", "the hub was restarted before the answer was complete")
        if self._clock() - stream.ended_at >= self.limits.keep:
            self._expire(id, stream.head.owner)
            return None
        self._streams[id] = stream
        return stream


def _take(stream: TokenStream, record: Notification) -> None:
    """Deliver what *record* says, unless something before it was not kept: who watches gets no text with a hole."""
    said: Any = record.data
    if record.type == "part" and said["number"] == stream.newest + 1:
        stream.kept(said["text"])
    elif record.type == "end" and said["number"] == stream.newest:
        stream.kept(Ending(Phase(said["phase"]), said["facts"]))


async def _deltas(source: AsyncIterator[str | Delta]) -> AsyncGenerator[Delta, None]:
    try:
        async for piece in source:
            yield piece if isinstance(piece, Delta) else Delta(piece)
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
