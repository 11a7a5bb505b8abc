"""Streams that a handler makes itself, from an Observable or an async iterable."""

from __future__ import annotations

import asyncio
import datetime
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import reactivex
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from reactivex import Observable, abc, operators
from reactivex.disposable import Disposable

from hub import MessageEvent, sse
from tests.web.client import Client, until
from tests.web.conftest import TLS, Complaints, Serve
from tests.web.handler_stream import BIG, Source, Stream
from tests.web.server import Server

pytestmark = pytest.mark.both_loops


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


@pytest.mark.usefixtures("headers_at_once")
async def test_an_idle_stream_gets_comments(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable, heartbeat=0.05)).open()
    await client.block()
    await client.block()
    assert client.received.startswith(b":\n\n:\n\n")
    source.subject.on_next("still there")
    assert (await client.next()).data == "still there"


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


@pytest.mark.usefixtures("headers_at_once")
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


@pytest.mark.usefixtures("headers_at_once")
async def test_a_client_that_floods_its_stream_is_cut(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable)).open()
    await client.send(b"x" * 66_000)
    await until(lambda: source.disposed == 1)
    await client.gone()


@pytest.mark.usefixtures("headers_at_once")
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


@pytest.mark.usefixtures("headers_at_once")
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
