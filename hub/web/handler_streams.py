"""`@sse`: streams that a handler makes itself, from an Observable or an async iterable.

The socket is handed over here too, so that the client's leave is noticed at once; the handler stays, as the owner of
the one task that reads the source, writes what it gives, and lets it clean up.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Literal, cast

from aiohttp import web
from reactivex import Observable
from reactivex.scheduler.eventloop import AsyncIOThreadSafeScheduler

from hub.cleanup import cleaned_up
from hub.connections.client_stream import ClientStream, CloseReason, Ending, StreamKind
from hub.connections.holders import NOBODY, Holder
from hub.connections.registry import StreamRegistry
from hub.encoding import SSE, End
from hub.errors import InvalidInput
from hub.events.event import qualified_name
from hub.eventstream import JsonDefault, MessageEvent, block, compact_json
from hub.hub import Hub
from hub.notification import Notification
from hub.web.endpoint import answered, cors
from hub.web.limits import holder_of
from hub.web.problems import problem
from hub.web.stream import EventStream, is_chunked, sent_away

logger = logging.getLogger("hub.sse")

FIRST_EVENT_SECONDS = 1.0
LOOK_SECONDS = 0.1
AT_ONCE = 64  # events that are taken from a source that never waits, before everybody else has a turn

Source = Observable[Any] | AsyncIterable[Any]
Drain = Literal["end", "finish"]
Answer = Callable[..., Coroutine[Any, Any, web.StreamResponse]]


def sse(handler: Callable[..., Any] | None = None, *, drain: Drain = "end") -> Any:
    """Turn a handler that returns an `Observable` or an async iterable into one that answers with an SSE stream.

    What the source gives is a `MessageEvent`, a `Notification`, or anything else, taken as data; `json_default` of
    `setup_hub` is called with what is not JSON. The source is subscribed to per request and disposed of (an iterator is
    closed) as soon as the client leaves. When it completes, the stream ends.
    An error before the first byte becomes the ordinary HTTP error; after it, the client gets `event: failed` with a
    message that tells nothing, and the log tells all. The first byte goes out with the first event, or after a second.

    One task takes every step of an async iterable, its cleanup too, with the context variables of the request: what it
    holds across a `yield`, such as `asyncio.timeout` or a `TaskGroup`, works as in any coroutine.

    An async iterable is read no faster than the client takes it. An Observable can't be slowed down: a client that
    lets more than `HUB_BUFFER_BYTES` wait is cut.

    Args:
        handler: `async def` or `def`, its last argument the request; an async generator function will do, and a method
            of a `web.View`.
        drain: what shutdown does to the stream: `end` it, or let it `finish` for up to `HUB_FINISH` seconds.
    """
    if handler is None:
        return functools.partial(sse, drain=drain)

    @functools.wraps(handler)
    async def answer(*args: Any) -> web.StreamResponse:
        request = _request(args[-1])
        streams = request.config_dict.get(HandlerStreams.KEY)
        if streams is None:
            raise RuntimeError(f"{qualified_name(handler)} with @sse needs a hub: call setup_hub(app) before the start")

        async def handle() -> web.StreamResponse:
            if request.method == "HEAD":
                return problem(405, "HEAD is not supported here: there is only a stream")
            away = sent_away(streams.hub, request, holder_of(streams.hub, request))
            if away is not None:
                return away
            source = handler(*args)
            if not isinstance(source, Observable) and inspect.isawaitable(source):
                source = await source
            if isinstance(source, web.StreamResponse):
                return source
            return await streams.answer(request, source, drain, qualified_name(handler))

        try:
            response = await answered(request, handle(), own=False)
        except web.HTTPException as error:
            error.headers.update(streams.cors(request))
            raise
        if not response.prepared:
            response.headers.update(streams.cors(request))
        return response

    return answer


def _request(last: Any) -> web.Request:
    """Return the request: the last argument of a handler, or what a `web.View` holds."""
    return last.request if isinstance(last, web.View) else cast(web.Request, last)


class HandlerStreams:
    """The sources of all handler streams of one application: who reads them, until they have cleaned up.

    Attributes:
        hub: what their client streams belong to.
    """

    KEY: ClassVar[web.AppKey[HandlerStreams]]

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._readings: dict[asyncio.Task[None], _Reading] = {}

    def cors(self, request: web.Request) -> dict[str, str]:
        """Return the headers that let a page of an allowed origin read the answer to *request*."""
        return cors(request, self.hub.settings.cors_origins)

    async def answer(
        self, request: web.Request, source: Source, drain: Drain, name: str, *, holder: Holder | None = None
    ) -> web.StreamResponse:
        """Stream *source*, which the handler *name* made, to the client of *request*, who is *holder* if that is known.

        Return when it has ended, or the client has left, and *source* has cleaned up.
        """
        encode = functools.partial(_encode, self.hub.json_default)
        reading = _Reading(_Events(source, self.hub.settings.buffer_bytes, encode), name)
        self._readings[reading.task] = reading
        reading.task.add_done_callback(self._readings.pop)
        try:
            await reading.begun(FIRST_EVENT_SECONDS, request)
            response = EventStream(request)
            response.headers.update(self.cors(request))
            stream = HandlerStream(
                self.hub.connections,
                chunked=is_chunked(request),
                finishes=drain == "finish",
                on_end=reading.stop,
                holder=holder_of(self.hub, request) if holder is None else holder,
            )
            if await response.hand_over(request, stream):
                reading.write_to(stream)
                try:
                    await asyncio.wait([reading.task])
                finally:
                    if stream.closed_because is None:
                        stream.abort()
        finally:
            reading.stop()
            await asyncio.wait([reading.task])
        return response

    async def aclose(self) -> None:
        """Stop reading, and wait a bounded time for the cleanup of every source."""
        for reading in self._readings.values():
            reading.stop()
        await cleaned_up({task: reading.name for task, reading in self._readings.items()}, self.hub.metrics)


HandlerStreams.KEY = web.AppKey("handler_streams", HandlerStreams)


def _cut(stream: HandlerStream) -> None:
    logger.info("a handler's stream was aborted: its client was slower than its Observable")
    stream.abort(CloseReason.SLOW)


class _Cancelled(Exception):
    """A source was cancelled, but not by the hub: it let the cancellation of something it waited for end it."""


class _Reading:
    """The one task that reads a source: it takes every step of it, its cleanup too, and writes what it gives.

    Attributes:
        name: the handler that made the source.
        task: ends when the source has cleaned up.
    """

    def __init__(self, events: _Events, name: str) -> None:
        self.name = name
        self._events = events
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._stream: asyncio.Future[HandlerStream] = loop.create_future()
        self._failure: Exception | None = None  # before any byte was out
        self._stopped = self._cleans_up = False
        self.task = asyncio.create_task(self._run())

    # ---- the handler's side ----

    async def begun(self, seconds: float, request: web.BaseRequest) -> None:
        """Return when the headers may go out: there is an event or an end, or *seconds* are over; or nobody is left.

        Raises:
            Exception: what the source raised before that.
        """
        deadline = time.monotonic() + seconds
        while not self._begun.done() and request.transport is not None and time.monotonic() < deadline:
            # aiohttp keeps the socket until the headers are out, and tells nobody that the client has left.
            await asyncio.wait([self._begun], timeout=LOOK_SECONDS)
        self._begin()
        if self._failure is not None:
            raise self._failure

    def write_to(self, stream: HandlerStream) -> None:
        """Write into *stream*, whose headers are out."""
        self._events.when_too_slow(functools.partial(_cut, stream))
        self._stream.set_result(stream)

    def stop(self) -> None:
        """Stop reading, and let the source clean up.

        Nothing happens a second time, nor once it cleans up: whoever is cancelled while it closes a connection may
        leave it open.
        """
        if not self._stopped:
            self._stopped = True
            # Behind its first step, before which there is nothing to clean up in.
            asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if not self._cleans_up:
            self.task.cancel()

    # ---- the task ----

    async def _run(self) -> None:
        try:
            await self._read()
        finally:
            self._cleans_up = True
            await self._events.aclose()

    async def _read(self) -> None:
        """Write what the source gives until it ends, the client leaves, or the stream is ended from outside."""
        last = b""
        try:
            await self._write_all()
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if self._stopped or task is None or task.cancelling():
                raise
            failure = _Cancelled(f"{self.name} was cancelled by something it waited for")
            failure.__cause__ = cancelled
            last = self._fail(failure)
        except Exception as error:
            last = self._fail(error)
        self._begin()
        if not self._stopped and self._failure is None:
            (await self._stream).complete(last)

    async def _write_all(self) -> None:
        step: Callable[[], Awaitable[bytes]] = self._events.next
        number = 0
        while True:
            try:
                event = await step()
            except StopAsyncIteration:
                return
            step = self._events.next
            if self._stopped:
                raise asyncio.CancelledError  # which the source kept to itself
            number += 1
            try:
                self._begin()
                stream = await self._stream
                await stream.send(event)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            except asyncio.CancelledError as cancelled:
                # The client has left; or it is a timeout or a task group that the source holds across its yield. Either
                # way the source is to see it where it stands, as if it had waited there itself.
                step = functools.partial(self._events.throw, cancelled)

    def _begin(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)

    def _fail(self, error: Exception) -> bytes:
        """Keep *error* for the ordinary answer, if there can still be one; else return what the client gets to hear."""
        if not self._begun.done() and not self._stopped:
            self._failure = error
            return b""
        logger.error("a stream of the handler %s failed", self.name, exc_info=error)
        return block(compact_json({"message": "the stream failed"}), type="failed")


class _Events:
    """The events of a source as encoded blocks, one at a time."""

    def __init__(self, source: Source, bound: int, encode: Callable[[Any], bytes]) -> None:
        if isinstance(source, Observable):
            self._source: AsyncIterator[Any] = _Observed(source, bound, encode)
            self._encode: Callable[[Any], bytes] = bytes  # encoded when they came, for their size counts
        elif isinstance(source, AsyncIterable):
            self._source = aiter(source)
            self._encode = encode
        else:
            raise TypeError(
                f"a handler with @sse returned {type(source).__name__}, not an Observable or async iterable"
            )

    def when_too_slow(self, cut: Callable[[], None]) -> None:
        """Call *cut* as soon as more waits than may, which only an Observable can bring about."""
        if isinstance(self._source, _Observed):
            self._source.when_too_slow(cut)

    async def next(self) -> bytes:
        """Return the next event.

        Raises:
            StopAsyncIteration: there is none.
            Exception: whatever the source raises.
        """
        return self._encode(await anext(self._source))

    async def throw(self, error: BaseException) -> bytes:
        """Raise *error* where a generator stands, and return its next event; raise it here if it is no generator."""
        if not isinstance(self._source, AsyncGenerator):
            raise error
        return self._encode(await self._source.athrow(error))

    async def aclose(self) -> None:
        """Close the iterator, or dispose of the subscription."""
        aclose = cast(Callable[[], Awaitable[None]] | None, getattr(self._source, "aclose", None))
        if aclose is not None:
            try:
                await aclose()
            except (Exception, BaseExceptionGroup) as error:
                # A task group that a generator holds across its yield wraps the GeneratorExit, too.
                rest = error.split(GeneratorExit)[1] if isinstance(error, BaseExceptionGroup) else error
                if rest is not None:
                    logger.error("a handler's stream failed while it was closed", exc_info=rest)


def _encode(json_default: JsonDefault | None, item: Any) -> bytes:
    if isinstance(item, Notification):
        return item.frame
    try:
        return MessageEvent.of(item).encode(json_default)
    except InvalidInput as error:
        raise ValueError(f"a handler gave an event that can't be sent: {error}") from error


class _Observed(AsyncIterator[bytes]):
    """An Observable as an async iterator of encoded events, those not read yet bounded in bytes."""

    def __init__(self, source: Observable[Any], bound: int, encode: Callable[[Any], bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._bound = bound
        self._encode = encode
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._end: BaseException | None = None
        self._too_slow = False
        self._cut: Callable[[], None] = lambda: None
        self._news = asyncio.Event()
        self._subscription = source.subscribe(
            functools.partial(self._on_loop, self._put),
            functools.partial(self._on_loop, self._stop),
            functools.partial(self._on_loop, self._stop, StopAsyncIteration()),
            scheduler=AsyncIOThreadSafeScheduler(self._loop),
        )

    def _on_loop(self, call: Callable[[Any], None], argument: Any) -> None:
        if threading.get_ident() == self._thread:
            call(argument)
        else:
            self._loop.call_soon_threadsafe(call, argument)

    def _put(self, item: Any) -> None:
        if self._end is not None:
            return
        try:
            event = self._encode(item)
        except Exception as error:  # of the application's own, too: what turns its objects into JSON
            self._stop(error)
            return
        self._waiting.append(event)
        self._size += len(event)
        if self._size > self._bound:
            self._end = StopAsyncIteration()
            self._waiting.clear()
            self._too_slow = True
            self._cut()
        self._news.set()

    def when_too_slow(self, cut: Callable[[], None]) -> None:
        self._cut = cut
        if self._too_slow:
            cut()

    def _stop(self, end: BaseException) -> None:
        self._end = self._end or end
        self._news.set()

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._news.clear()
            await self._news.wait()
        event = self._waiting.popleft()
        self._size -= len(event)
        return event

    async def aclose(self) -> None:
        self._subscription.dispose()


class HandlerStream(ClientStream):
    """The client stream of a handler.

    Args:
        finishes: shutdown lets it end by itself, within `HUB_FINISH` seconds.
        on_end: called once, when it has ended for whatever reason.
    """

    kind: ClassVar[StreamKind] = StreamKind.HANDLER

    __slots__ = ("_count", "_on_end", "_room", "_sse", "finishes")

    def __init__(
        self,
        registry: StreamRegistry,
        *,
        chunked: bool,
        finishes: bool,
        on_end: Callable[[], object],
        holder: Holder = NOBODY,
    ) -> None:
        super().__init__(registry, holder)
        self.finishes = finishes
        self._on_end = on_end
        self._sse = SSE(chunked=chunked)
        self._room = asyncio.Event()
        self._room.set()
        self._count = 0

    def _begin(self) -> None:
        """Write nothing yet: what the stream begins with is the source's affair."""

    def pause_writing(self) -> None:
        """Pause: `send` waits from here on."""
        super().pause_writing()
        self._room.clear()

    def _go_on(self) -> None:
        if not self._paused:
            self._room.set()

    async def send(self, event: bytes) -> None:
        """Write *event*, and wait until the client has room for more, or the stream has ended."""
        if self.closed_because is None:
            self._count += 1
            self._write(self._sse.framed(event))
        await self._room.wait()

    def complete(self, last: bytes = b"") -> None:
        """Write the blocks *last* and the end of the answer; the socket closes when the client has them."""
        if self.closed_because is None:
            self._write(self._sse.last(last))
            self._close(CloseReason.COMPLETE)

    def _heartbeat(self) -> bytes:
        return self._sse.framed(block(comment=""))

    def _farewell(self, ending: Ending) -> bytes:
        return self._sse.end(End(*ending))

    def _left(self) -> None:
        self._room.set()
        self._on_end()

    @property
    def _delivered(self) -> int:
        return self._count
