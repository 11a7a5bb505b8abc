"""Streams that a handler makes itself, from an Observable or an async iterable."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import Any

import pytest
import reactivex
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from reactivex import Observable, abc, operators
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from hub import MessageEvent, sse
from hub.web.app import drain_hub
from hub.web.handler_streams import Drain, HandlerStreams
from tests.web.client import Client, StreamEnded, until
from tests.web.conftest import TLS, Complaints, Serve
from tests.web.server import Server

pytestmark = pytest.mark.both_loops

BIG = "x" * 1_000_000


class Source:
    """An Observable or an async iterable that knows who reads it.

    Attributes:
        subject: what each Observable gives.
        subscribed, disposed: how often, so far.
        produced: how many items were asked of the iterables.
    """

    def __init__(self) -> None:
        self.subject: Subject[Any] = Subject()
        self.subscribed = self.disposed = self.produced = 0
        self.item: object = "item"
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.expire: Callable[[], object] = lambda: None

    def observable(self, request: web.Request) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            self.subscribed += 1
            inner = self.subject.subscribe(observer)

            def dispose() -> None:
                self.disposed += 1
                inner.dispose()

            return Disposable(dispose)

        return Observable(subscribe)

    async def iterable(self, request: web.Request) -> AsyncIterator[object]:
        self.subscribed += 1
        try:
            while True:
                await self.go_on.wait()
                self.produced += 1
                yield self.item
                await asyncio.sleep(0)
        finally:
            self.disposed += 1


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the headers not wait long for a first event."""
    monkeypatch.setattr(sys.modules[HandlerStreams.__module__], "FIRST_EVENT_SECONDS", 0.02)


class Streaming:
    """A server with one handler stream, at `/stream`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.streams = server.app[HandlerStreams.KEY]

    async def open(self, method: str = "GET", *, version: str = "1.1", **options: Any) -> Client:
        """Return a client whose stream's headers have been read."""
        client = await self.ask(method, version=version, **options)
        assert await client.head() == 200
        assert client.headers["Content-Type"] == "text/event-stream"
        return client

    async def ask(self, method: str = "GET", *, version: str = "1.1", **options: Any) -> Client:
        """Return a client that has asked for the stream."""
        client = await self.server.client(**options)
        await client.request(method, "/stream", version=version, body=b"" if method == "POST" else None)
        return client


Stream = Callable[..., Awaitable[Streaming]]


@pytest.fixture
def stream(serve: Serve) -> Stream:
    async def stream(handler: Callable[..., Any], *, drain: Drain = "end", **options: Any) -> Streaming:
        app = web.Application()
        app.router.add_route("*", "/stream", sse(drain=drain)(handler))
        return Streaming(await serve(app=app, **options))

    return stream


# ---- what a handler may be, and give ----


async def test_an_observable_is_streamed_and_its_completion_ends_the_stream(stream: Stream) -> None:
    async def handler(request: web.Request) -> Observable[Any]:
        return reactivex.of("text", {"n": 1}, MessageEvent("typed", type="kind", id="7", retry=5, comment="hello"))

    client = await (await stream(handler)).open()
    assert (await client.next()).data == "text"
    assert (await client.next()).json() == {"n": 1}
    event = await client.next("kind")
    assert (event.data, event.id, client.decoder.retry, client.decoder.comments) == ("typed", "7", 5, ["hello"])
    await client.body()
    assert client.complete
    await client.gone()


async def test_an_async_generator_is_streamed_and_its_end_ends_the_stream(stream: Stream) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        yield "text"
        await asyncio.sleep(0)
        yield {"n": 1}
        yield MessageEvent("a\nb", type="kind")

    client = await (await stream(handler)).open()
    assert await client.body() == b'data: text\n\ndata: {"n":1}\n\nevent: kind\ndata: a\ndata: b\n\n'
    assert client.complete


def of_a_generator(items: list[object]) -> Callable[[web.Request], Any]:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        for item in items:
            yield item

    return handler


def of_an_observable(items: list[object]) -> Callable[[web.Request], Any]:
    return lambda request: reactivex.of(*items)


@pytest.mark.parametrize("handler_of", [of_a_generator, of_an_observable])
async def test_objects_are_data_and_the_hook_turns_the_rest_into_json(
    stream: Stream, complaints: Complaints, handler_of: Callable[[list[object]], Callable[[web.Request], Any]]
) -> None:
    noon = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
    items = [{"at": noon}, MessageEvent(uuid.UUID(int=7)), {"n": range(2)}, object(), "never sent"]
    streaming = await stream(handler_of(items))
    streaming.server.hub.json_default = list
    client = await streaming.open()
    assert await client.body() == (
        b'data: {"at":"2026-11-21T12:00:00Z"}\n\n'
        b'data: "00000000-0000-0000-0000-000000000007"\n\n'
        b'data: {"n":[0,1]}\n\n'
        b'event: failed\ndata: {"message":"the stream failed"}\n\n'
    )
    assert client.complete
    (complaint,) = complaints.take()
    assert "'object' object is not iterable" in complaint


async def test_what_the_hook_raises_fails_the_stream_and_does_not_hang_it(
    stream: Stream, complaints: Complaints
) -> None:
    def broken(item: object) -> object:
        raise AttributeError("the hook is broken")

    streaming = await stream(of_an_observable(["first", object()]))
    streaming.server.hub.json_default = broken
    client = await streaming.open()
    assert await client.body() == b'data: first\n\nevent: failed\ndata: {"message":"the stream failed"}\n\n'
    (complaint,) = complaints.take()
    assert "the hook is broken" in complaint


async def test_the_headers_are_those_of_every_event_stream(stream: Stream, source: Source) -> None:
    client = await (await stream(source.iterable)).open()
    assert client.headers["Cache-Control"] == "no-cache, no-transform"
    assert client.headers["Connection"] == "keep-alive"
    assert client.headers["X-Accel-Buffering"] == "no"
    assert client.headers["Transfer-Encoding"] == "chunked"


async def test_a_plain_function_and_a_method_are_handlers_too(serve: Serve) -> None:
    class Handlers:
        @sse
        def method(self, request: web.Request) -> Observable[Any]:
            return reactivex.of(request.match_info["word"])

    @sse
    def function(request: web.Request) -> Observable[Any]:
        return reactivex.of(request.query["word"])

    app = web.Application()
    app.router.add_get("/method/{word}", Handlers().method)
    app.router.add_get("/function", function)
    server = await serve(app=app)
    assert (await server.ask("GET", "/method/one")).body == b"data: one\n\n"
    assert (await server.ask("GET", "/function?word=two")).body == b"data: two\n\n"


async def test_a_handler_in_a_nested_application_streams(serve: Serve) -> None:
    @sse
    def handler(request: web.Request) -> Observable[Any]:
        return reactivex.of("nested")

    app, inner = web.Application(), web.Application()
    inner.router.add_get("/stream", handler)
    app.add_subapp("/inner", inner)
    server = await serve(app=app)
    assert (await server.ask("GET", "/inner/stream")).body == b"data: nested\n\n"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_any_method_can_be_answered_with_a_stream(stream: Stream, method: str) -> None:
    async def handler(request: web.Request) -> Observable[Any]:
        await request.read()
        return reactivex.of(request.method)

    client = await (await stream(handler)).open(method)
    assert (await client.next()).data == method


async def test_a_handler_may_answer_with_a_response_instead(stream: Stream) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"no": "stream"}, status=202)

    client = await (await stream(handler)).ask()
    assert await client.head() == 202
    assert await client.json() == {"no": "stream"}


async def test_a_source_without_events_is_an_empty_stream(stream: Stream) -> None:
    def handler(request: web.Request) -> Observable[Any]:
        return reactivex.empty()

    client = await (await stream(handler)).open()
    assert await client.body() == b""
    assert client.complete


async def test_the_headers_do_not_wait_for_a_late_first_event(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable)).open()
    source.subject.on_next("late")
    assert (await client.next()).data == "late"


async def test_a_source_on_other_threads_is_streamed_in_order(stream: Stream) -> None:
    def handler(request: web.Request) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def work() -> None:
                for number in range(100):
                    observer.on_next(number)
                observer.on_completed()

            threading.Thread(target=work).start()
            return Disposable()

        return Observable(subscribe)

    client = await (await stream(handler)).open()
    assert [int((await client.next()).data) for _ in range(100)] == list(range(100))
    await client.body()
    assert client.complete


async def test_time_operators_run_on_the_loop(stream: Stream) -> None:
    threads: list[int] = []

    def handler(request: web.Request) -> Observable[Any]:
        return reactivex.interval(0.01).pipe(
            operators.do_action(lambda _: threads.append(threading.get_ident())), operators.take(3)
        )

    client = await (await stream(handler)).open()
    assert await client.body() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert set(threads) == {threading.get_ident()}


async def test_each_request_subscribes_for_itself(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable)
    clients = [await streaming.ask() for _ in range(3)]
    await until(lambda: source.subscribed == 3)
    source.subject.on_next("all")
    for client in clients:
        await client.head()
        assert (await client.next()).data == "all"


async def test_http_1_0_gets_bare_frames_and_a_connection_that_closes(stream: Stream) -> None:
    def handler(request: web.Request) -> Observable[Any]:
        return reactivex.of(1, 2)

    client = await (await stream(handler)).open(version="1.0")
    assert client.headers["Connection"] == "close"
    assert "Transfer-Encoding" not in client.headers
    assert await client.body() == b"data: 1\n\ndata: 2\n\n"
    assert client.closed


@pytest.mark.usefixtures("hurried")
async def test_an_idle_stream_gets_comments(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable, heartbeat=0.05)).open()
    await client.block()
    await client.block()
    assert client.received.startswith(b":\n\n:\n\n")
    source.subject.on_next("still there")
    assert (await client.next()).data == "still there"


# ---- errors ----


async def test_an_error_before_the_first_event_is_the_ordinary_error(stream: Stream, complaints: Complaints) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        if "broken" in request.headers:
            raise RuntimeError("secret")
        raise web.HTTPForbidden(text="not yours")
        yield 1

    streaming = await stream(handler)
    refused = await streaming.ask()
    assert await refused.head() == 403
    assert await refused.body() == b"not yours"  # the application's own answer, as it made it
    broken = await streaming.server.client()
    await broken.request("GET", "/stream", headers={"broken": "1"})
    assert await broken.head() == 500
    assert broken.headers["Content-Type"] == "application/problem+json"
    assert b"secret" not in await broken.body()
    (complaint,) = complaints.take()
    assert "secret" in complaint


@pytest.mark.parametrize("kind", ["in the handler", "in the Observable"])
async def test_an_observable_that_fails_at_once_is_the_ordinary_error(
    stream: Stream, complaints: Complaints, kind: str
) -> None:
    async def handler(request: web.Request) -> Observable[Any]:
        if kind == "in the handler":
            raise RuntimeError("secret")
        return reactivex.throw(RuntimeError("secret"))

    client = await (await stream(handler)).ask()
    assert await client.head() == 500
    assert b"secret" not in await client.body()
    assert len(complaints.take()) == 1


async def test_an_error_after_the_first_event_is_told_in_the_stream_without_its_secrets(
    stream: Stream, complaints: Complaints
) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        yield 1
        raise RuntimeError("secret")

    client = await (await stream(handler)).open()
    assert (await client.next()).data == "1"
    failed = await client.next("failed")
    assert isinstance(failed.json()["message"], str)
    assert b"secret" not in await client.body()
    assert client.complete
    (complaint,) = complaints.take()
    assert "secret" in complaint


async def test_an_error_of_an_observable_is_told_behind_everything_before_it(
    stream: Stream, complaints: Complaints
) -> None:
    def handler(request: web.Request) -> Observable[Any]:
        return reactivex.concat(reactivex.of(1, 2, 3), reactivex.throw(RuntimeError("secret")))

    client = await (await stream(handler)).open()
    assert [(await client.next()).data for _ in range(3)] == ["1", "2", "3"]
    await client.next("failed")
    await client.body()
    assert client.complete
    assert complaints.take()


class Strange:
    """What nobody can turn into JSON; its name is the same in every process."""

    def __repr__(self) -> str:
        return "strange"


@pytest.mark.parametrize(
    "wrong",
    [
        MessageEvent("x", type="a\nb"),
        MessageEvent("x", id="a\rb"),
        MessageEvent("x", id="a\0b"),
        MessageEvent("x", retry=-1),
        MessageEvent("x", type="a\r\n\r\ndata: forged"),
        MessageEvent(Strange()),
        float("nan"),
        {Strange(): 1},
        "\ud800",
    ],
    ids=repr,
)
async def test_an_event_that_can_not_be_sent_fails_the_stream_and_never_corrupts_it(
    stream: Stream, complaints: Complaints, wrong: object
) -> None:
    async def iterable(request: web.Request) -> AsyncIterator[object]:
        yield "fine"
        yield wrong
        yield "never"

    client = await (await stream(iterable)).open()
    assert (await client.next()).data == "fine"
    await client.next("failed")
    await client.body()
    assert client.complete
    assert complaints.take()


async def test_a_comment_can_not_smuggle_anything_in(stream: Stream) -> None:
    def handler(request: web.Request) -> Observable[Any]:
        return reactivex.of(MessageEvent("x", comment="a\nid: 9\r\n\r\ndata: forged\rb"), "y")

    client = await (await stream(handler)).open()
    assert [event.data for event in await client.rest()] == ["x", "y"]
    assert client.decoder.last_event_id == ""
    assert client.decoder.comments == ["a", "id: 9", "", "data: forged", "b"]


async def test_a_handler_that_gives_neither_is_an_error(stream: Stream, complaints: Complaints) -> None:
    async def handler(request: web.Request) -> object:
        return [1, 2, 3]

    client = await (await stream(handler)).ask()
    assert await client.head() == 500
    await client.body()
    assert "list" in complaints.take()[0]


@pytest.mark.parametrize("failure", [TimeoutError, asyncio.CancelledError])
@pytest.mark.parametrize("kind", ["iterable", "Observable"])
async def test_a_timeout_or_a_cancellation_of_the_source_is_its_failure_and_not_its_clients(
    stream: Stream, complaints: Complaints, caplog: pytest.LogCaptureFixture, failure: type[BaseException], kind: str
) -> None:
    async def iterable(request: web.Request) -> AsyncIterator[object]:
        yield 1
        raise failure("secret")

    def observable(request: web.Request) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            observer.on_next(1)
            observer.on_error(failure("secret"))  # type: ignore[arg-type]  # an Observable may be as careless
            return Disposable()

        return Observable(subscribe)

    client = await (await stream(iterable if kind == "iterable" else observable)).open()
    assert (await client.next()).data == "1"
    await client.next("failed")
    assert b"secret" not in await client.body()
    assert client.complete
    (complaint,) = complaints.take()
    assert f"a stream of the handler {__name__}." in complaint
    assert "secret" in complaint
    assert "client took nothing" not in caplog.text


@pytest.mark.parametrize("failure", [TimeoutError, asyncio.CancelledError])
async def test_before_the_first_event_they_are_the_ordinary_error(
    stream: Stream, complaints: Complaints, failure: type[BaseException]
) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        await asyncio.sleep(0)
        raise failure("secret")
        yield 1

    client = await (await stream(handler)).ask()
    assert await client.head() == 500
    assert b"secret" not in await client.body()
    (complaint,) = complaints.take()
    assert "secret" in complaint


@pytest.mark.usefixtures("hurried")
async def test_an_error_behind_the_headers_is_told_in_the_stream_even_without_any_event(
    stream: Stream, source: Source, complaints: Complaints
) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        await source.go_on.wait()
        raise RuntimeError("secret")
        yield 1

    source.go_on.clear()
    client = await (await stream(handler)).open()
    source.go_on.set()
    await client.next("failed")
    await client.body()
    assert client.complete
    assert "secret" in complaints.take()[0]


# ---- one task ----


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("late", [False, True], ids=["first event at once", "first event behind the headers"])
@pytest.mark.parametrize("end", ["completes", "client leaves", "client leaves while it is written to"])
async def test_one_task_takes_every_step_of_an_iterable(stream: Stream, source: Source, late: bool, end: str) -> None:
    steps: list[asyncio.Task[Any] | None] = []

    class Iterable:
        """Two events, then an end, for those that complete."""

        left = 2

        def __aiter__(self) -> Iterable:
            return self

        async def __anext__(self) -> object:
            steps.append(asyncio.current_task())
            await source.go_on.wait()
            if end == "completes" and not self.left:
                raise StopAsyncIteration
            self.left -= 1
            if end == "client leaves" and self.left < 0:
                await asyncio.Event().wait()
            return BIG if end.endswith("written to") else self.left

        async def aclose(self) -> None:
            steps.append(asyncio.current_task())
            source.disposed += 1

    if late:
        source.go_on.clear()
    streaming = await stream(lambda request: Iterable())
    client = await streaming.open(receive_buffer=8_192)
    source.go_on.set()
    if end == "completes":
        assert [event.data for event in await client.rest()] == ["1", "0"]
        assert client.complete
    elif end == "client leaves":
        await client.next()
        await client.next()
        client.close()
    else:
        client.stop_reading()
        await until(lambda: [each for each in streaming.server.hub.connections if each._paused])
        client.reset()
    await until(lambda: source.disposed)
    assert len(steps) >= 2
    assert len(set(steps)) == 1


async def test_a_timeout_may_be_held_across_events(stream: Stream) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        try:
            async with asyncio.timeout(0.05):
                yield "in time"
                await asyncio.Event().wait()
        except TimeoutError:
            yield "too late"

    client = await (await stream(handler)).open()
    assert [event.data for event in await client.rest()] == ["in time", "too late"]
    assert client.complete


async def test_a_timeout_that_is_held_across_events_ends_while_the_client_takes_nothing(
    stream: Stream, source: Source
) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> AsyncIterator[object]:
        try:
            async with asyncio.timeout(None) as held:
                source.expire = lambda: held.reschedule(0)
                while True:
                    yield BIG
        except TimeoutError:
            seen.append("too late")
            yield "too late"

    streaming = await stream(handler)
    client = await streaming.open(receive_buffer=8_192, keep=False)
    client.stop_reading()
    await until(lambda: [each for each in streaming.server.hub.connections if each._paused])
    source.expire()
    await until(lambda: seen)
    client.read_on()
    assert (await client.rest())[-1].data == "too late"
    assert client.complete


async def test_a_task_group_may_be_held_across_events(stream: Stream) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        async with asyncio.TaskGroup() as group:
            yield "first"
            yield await group.create_task(asyncio.sleep(0, "from a task"))

    client = await (await stream(handler)).open()
    assert [event.data for event in await client.rest()] == ["first", "from a task"]
    assert client.complete


@pytest.mark.parametrize("end", ["a task fails", "client leaves", "client takes nothing"])
async def test_a_task_group_that_is_held_across_events_ends_its_tasks(
    stream: Stream, source: Source, complaints: Complaints, end: str
) -> None:
    async def work() -> None:
        try:
            await source.go_on.wait()
            raise RuntimeError("secret")
        finally:
            source.disposed += 1

    async def handler(request: web.Request) -> AsyncIterator[object]:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            while True:
                yield BIG

    source.go_on.clear()
    streaming = await stream(handler, peer_timeout=0.3 if end == "client takes nothing" else 30)
    client = await streaming.open(receive_buffer=8_192, keep=False)
    client.stop_reading()
    await until(lambda: [each for each in streaming.server.hub.connections if each._paused])
    if end == "a task fails":
        source.go_on.set()
        await until(lambda: source.disposed)
        client.read_on()
        assert (await client.rest())[-1].type == "failed"
        (complaint,) = complaints.take()
        assert "secret" in complaint
    elif end == "client leaves":
        client.reset()
    await until(lambda: source.disposed)
    await until(lambda: not len(streaming.server.hub.connections))
    await until(lambda: not streaming.streams._readings)


async def test_context_variables_are_those_of_the_request_and_stay(serve: Serve) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    left: list[str] = []

    @web.middleware
    async def middleware(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        user.set(request.query["user"])
        answer: web.StreamResponse = await handler(request)
        return answer

    @sse
    async def handler(request: web.Request) -> AsyncIterator[object]:
        before = user.get()
        token = user.set("somebody else")
        try:
            yield before
            yield user.get()
        finally:
            user.reset(token)  # in another context this would be an error
            left.append(user.get())

    app = web.Application(middlewares=[middleware])
    app.router.add_get("/stream", handler)
    server = await serve(app=app)
    answer = await server.ask("GET", "/stream?user=ann")
    assert answer.body == b"data: ann\n\ndata: somebody else\n\n"
    assert left == ["ann"]


async def test_a_source_that_never_waits_leaves_everybody_else_their_turn(stream: Stream, source: Source) -> None:
    turns: list[int] = []

    async def handler(request: web.Request) -> AsyncIterator[object]:
        while not turns and source.produced < 10_000:
            source.produced += 1
            yield ""
            if source.produced == 10:  # the headers are out
                asyncio.get_running_loop().call_soon(lambda: turns.append(source.produced))

    client = await (await stream(handler)).open()
    await client.rest()
    assert client.complete
    assert turns[0] <= 10 + 64


# ---- leaving ----


async def test_an_observable_is_disposed_of_when_the_client_leaves(
    stream: Stream,
    source: Source,
    leave: Callable[[Client], None],
    maybe_tls: TLS | None,
    handler_cancellation: bool,
) -> None:
    streaming = await stream(source.observable, tls=maybe_tls, handler_cancellation=handler_cancellation)
    client = await streaming.ask()
    await until(lambda: source.subscribed)
    source.subject.on_next("first")
    await client.head()
    await client.next()
    leave(client)
    await until(lambda: source.disposed == 1)
    await until(lambda: not len(streaming.server.hub.connections))
    assert not source.subject.observers


async def test_an_iterator_is_closed_when_the_client_leaves(
    stream: Stream,
    source: Source,
    leave: Callable[[Client], None],
    maybe_tls: TLS | None,
    handler_cancellation: bool,
) -> None:
    streaming = await stream(source.iterable, tls=maybe_tls, handler_cancellation=handler_cancellation)
    client = await streaming.open()
    await client.next()
    source.go_on.clear()
    leave(client)
    await until(lambda: source.disposed == 1)
    await until(lambda: not len(streaming.server.hub.connections))


@pytest.mark.usefixtures("hurried")
async def test_an_iterator_is_closed_when_the_client_leaves_before_the_first_event(
    stream: Stream, source: Source, leave: Callable[[Client], None], handler_cancellation: bool
) -> None:
    source.go_on.clear()
    streaming = await stream(source.iterable, handler_cancellation=handler_cancellation)
    client = await streaming.ask()
    await until(lambda: source.subscribed)
    leave(client)
    await until(lambda: source.disposed == 1)
    await until(lambda: not len(streaming.server.hub.connections))


@pytest.mark.parametrize("way", [Client.close, Client.reset])
async def test_an_iterator_is_closed_when_the_client_leaves_while_it_is_written_to(
    stream: Stream, source: Source, way: Callable[[Client], None], maybe_tls: TLS | None, handler_cancellation: bool
) -> None:
    source.item = BIG
    streaming = await stream(source.iterable, tls=maybe_tls, handler_cancellation=handler_cancellation)
    client = await streaming.open(receive_buffer=8_192)
    client.stop_reading()
    await until(lambda: [each for each in streaming.server.hub.connections if each._paused])
    way(client)
    await until(lambda: source.disposed == 1)
    await until(lambda: not len(streaming.server.hub.connections))


@pytest.mark.usefixtures("hurried")
async def test_a_client_that_floods_its_stream_is_cut(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable)).open()
    await client.send(b"x" * 66_000)
    await until(lambda: source.disposed == 1)
    await client.gone()


@pytest.mark.usefixtures("hurried")
async def test_the_hubs_own_streams_are_not_counted_with_these(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable)
    await streaming.open()
    stats = (await streaming.server.ask("GET", "/notifications/stats")).json()
    assert stats["connections"] == 0


# ---- slow readers ----


@pytest.mark.slow
async def test_an_iterable_is_read_no_further_than_its_client_takes_it(stream: Stream, source: Source) -> None:
    source.item = BIG
    streaming = await stream(source.iterable)
    client = await streaming.open(receive_buffer=8_192, keep=False)
    client.stop_reading()
    await until(lambda: [each for each in streaming.server.hub.connections if each._paused])
    for _ in range(200):
        await asyncio.sleep(0)
    ahead = source.produced
    assert ahead <= 12, "more than buffers could explain"
    client.read_on()
    for number in range(1, 31):
        await client.next()
        assert source.produced <= number + ahead + 1


async def test_a_reader_of_an_iterable_that_takes_nothing_is_cut(
    stream: Stream, source: Source, maybe_tls: TLS | None
) -> None:
    source.item = BIG
    streaming = await stream(source.iterable, tls=maybe_tls, peer_timeout=0.3)
    client = await streaming.open(receive_buffer=8_192)
    client.stop_reading()
    await until(lambda: source.disposed == 1)
    await until(lambda: not len(streaming.server.hub.connections))


@pytest.mark.slow
async def test_a_slow_reader_of_an_iterable_is_kept(stream: Stream, source: Source) -> None:
    source.item = BIG
    streaming = await stream(source.iterable, peer_timeout=0.5)
    client = await streaming.open(receive_buffer=8_192)
    client.stop_reading()
    loop = asyncio.get_running_loop()
    enough = loop.time() + 2
    while loop.time() < enough:
        client.sip(20_000)
        await asyncio.sleep(0.02)
    assert source.disposed == 0


@pytest.mark.usefixtures("hurried")
async def test_a_reader_slower_than_an_observable_is_cut(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable, buffer_bytes=128 * 1024)
    client = await streaming.open(receive_buffer=8_192)
    client.stop_reading()
    for _ in range(1_000):
        source.subject.on_next("x" * 10_000)
        await asyncio.sleep(0)
    await until(lambda: source.disposed == 1)
    client.read_on()
    await client.rest()
    assert not client.complete, "a stream that is cut has no end"


# ---- the end of the process ----


@pytest.mark.usefixtures("hurried")
async def test_shutdown_ends_streams_with_a_reason_and_a_time_to_come_back(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable)
    client = await streaming.open()
    await streaming.server.aclose_server()
    closing = await client.next("hub.close")
    assert closing.json() == {"reason": "shutdown"}
    assert client.decoder.retry is not None
    assert 1_000 <= client.decoder.retry <= 6_000
    await client.body()
    assert client.complete
    assert source.disposed == 1


async def test_a_stream_that_may_finish_does(stream: Stream, source: Source) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        yield 1
        await source.go_on.wait()
        yield 2

    source.go_on.clear()
    streaming = await stream(handler, drain="finish")
    client = await streaming.open()
    await client.next()
    ending = asyncio.create_task(drain_hub(streaming.server.app))
    await until(lambda: streaming.server.hub.connections.draining)
    refused = await streaming.ask()
    assert await refused.head() == 200
    away = await refused.next("hub.close")
    assert away.json() == {"reason": "draining"}
    assert 1_000 <= (refused.decoder.retry or 0) <= 6_000
    await refused.body()
    assert refused.complete
    source.go_on.set()
    assert (await client.next()).data == "2"
    await client.body()
    assert client.complete
    await ending


@pytest.mark.usefixtures("hurried")
async def test_a_stream_that_does_not_finish_in_time_is_ended(stream: Stream, source: Source) -> None:
    streaming = await stream(source.observable, drain="finish", finish=0.2)
    client = await streaming.open()
    await streaming.server.aclose_server()
    assert (await client.next("hub.close")).json() == {"reason": "shutdown"}
    await client.body()
    assert client.complete
    assert source.disposed == 1


class Cleanups:
    """A handler whose cleanup takes as long as the test says.

    Attributes:
        asked, begun: how many have begun, and how many clean up.
        go_on: lets them end.
        silent: they give no event.
        deaf: they do not let themselves be cancelled either.
    """

    def __init__(self) -> None:
        self.asked = self.begun = 0
        self.go_on = asyncio.Event()
        self.silent = self.deaf = False

    async def handler(self, request: web.Request) -> AsyncIterator[object]:
        self.asked += 1
        try:
            if not self.silent:
                yield 1
            await asyncio.Event().wait()
        finally:
            self.begun += 1
            while not self.go_on.is_set():
                with contextlib.suppress(*[asyncio.CancelledError] if self.deaf else []):
                    await self.go_on.wait()


@pytest.fixture
async def cleanups(stream: Stream) -> AsyncIterator[Cleanups]:
    cleanups = Cleanups()
    yield cleanups
    cleanups.go_on.set()


async def test_shutdown_waits_for_a_slow_cleanup_without_looking_again_and_again(
    stream: Stream, cleanups: Cleanups
) -> None:
    streaming = await stream(cleanups.handler)
    client = await streaming.open()
    await client.next()
    ending = asyncio.create_task(streaming.server.aclose_server())
    await client.next("hub.close")
    await until(lambda: cleanups.begun)
    calls: list[str] = []

    def count(frame: FrameType, kind: str, _: object) -> None:
        if kind == "call" and frame.f_code.co_filename == sys.modules[HandlerStreams.__module__].__file__:
            calls.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        for _ in range(1_000):
            await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    assert not ending.done()
    assert len(calls) < 50, "steps of the streams in a thousand turns of the loop"
    cleanups.go_on.set()
    await ending


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shutdown not wait long for a cleanup, but the headers for a first event."""
    monkeypatch.setattr(sys.modules[HandlerStreams.__module__], "FIRST_EVENT_SECONDS", 60)
    monkeypatch.setattr("hub.cleanup.CLEANUP_SECONDS", 0.05)
    monkeypatch.setattr("hub.cleanup.LAST_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("deaf", [False, True], ids=["hangs", "does not let itself be cancelled"])
@pytest.mark.parametrize("when", ["before the headers", "behind them", "after its client left"])
async def test_shutdown_does_not_wait_for_ever_for_a_cleanup(
    stream: Stream, complaints: Complaints, cleanups: Cleanups, when: str, deaf: bool
) -> None:
    cleanups.silent, cleanups.deaf = when == "before the headers", deaf
    streaming = await stream(cleanups.handler)
    if cleanups.silent:
        await streaming.ask()
        await until(lambda: cleanups.asked)
    else:
        client = await streaming.open()
        await client.next()
        if when == "after its client left":
            client.close()
            await until(lambda: cleanups.begun)
    async with asyncio.timeout(10):
        await drain_hub(streaming.server.app)
        await streaming.streams.aclose()
    said = "\n".join(complaints.take())
    assert f"{__name__}." in said
    assert "still cleans up after 0.05 s: it is cancelled" in said
    assert ("does not end: it is left behind" in said) == deaf
    assert streaming.server.hub.metrics.left_behind == len(streaming.streams._readings) == deaf
    cleanups.go_on.set()
    await until(lambda: not streaming.streams._readings)


async def test_a_source_that_does_not_let_itself_be_cancelled_goes_no_further_than_its_next_event(
    stream: Stream, source: Source
) -> None:
    async def handler(request: web.Request) -> AsyncIterator[object]:
        try:
            while True:
                source.produced += 1
                yield 1
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        finally:
            source.disposed += 1

    streaming = await stream(handler)
    client = await streaming.open()
    await client.next()
    client.close()
    await until(lambda: source.disposed)
    assert source.produced == 2
    await until(lambda: not len(streaming.server.hub.connections))


async def test_a_stream_whose_headers_go_out_while_the_hub_drains_ends_too(stream: Stream, source: Source) -> None:
    source.go_on.clear()
    streaming = await stream(source.iterable)
    client = await streaming.ask()
    await until(lambda: source.subscribed)
    await drain_hub(streaming.server.app)
    source.go_on.set()
    assert await client.head() == 200
    assert (await client.rest())[-1].type == "hub.close"
    assert client.complete
    await until(lambda: source.disposed)


async def test_shutdown_does_not_wait_for_a_reader_that_takes_nothing(stream: Stream, source: Source) -> None:
    source.item = BIG
    streaming = await stream(source.iterable, drain="end")
    client = await streaming.open(receive_buffer=8_192)
    client.stop_reading()
    await until(lambda: [each for each in streaming.server.hub.connections if each._paused])
    await streaming.server.aclose_server()
    assert source.disposed == 1
    client.read_on()
    await client.gone()


@pytest.mark.usefixtures("hurried")
async def test_a_stream_without_an_end_never_gets_one_when_it_is_cut(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable)).open()
    client.reset()
    await until(lambda: source.disposed == 1)
    with pytest.raises(StreamEnded):
        await client.event()


# ---- where it stands ----


async def test_a_method_of_a_view_streams_too():
    class Ticks(web.View):
        @sse
        async def get(self) -> AsyncIterator[str]:
            yield self.request.query["word"]

    app = web.Application()
    app.router.add_view("/ticks", Ticks)
    server = await Server.start({}, app=app)
    try:
        answer = await server.ask("GET", "/ticks?word=here")
        assert (answer.status, answer.body) == (200, b"data: here\n\n")
    finally:
        await server.aclose()


async def test_without_a_hub_it_says_what_is_missing():
    @sse
    async def ticks(request: web.Request) -> AsyncIterator[str]:
        yield "never"

    app = web.Application()
    request = make_mocked_request("GET", "/", app=app)
    with pytest.raises(RuntimeError, match=r"ticks with @sse needs a hub: call setup_hub\(app\)"):
        await ticks(request)


async def test_an_unexpected_error_before_the_stream_is_the_handlers_and_says_where(complaints: Complaints):
    @sse
    async def broken(request: web.Request) -> AsyncIterator[str]:
        yield request.query["missing"]

    app = web.Application()
    app.router.add_get("/broken", broken)
    server = await Server.start({}, app=app)
    try:
        answer = await server.ask("GET", "/broken?token=secret")
    finally:
        await server.aclose()
    assert (answer.status, answer.json()["detail"]) == (500, "the handler failed; the log says why")
    (line,) = complaints.take()
    assert line.startswith("GET /broken failed\n")
    assert "secret" not in line
