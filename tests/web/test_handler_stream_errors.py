"""A source of a handler stream that fails: what its client is told, and what is logged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex
from aiohttp import web
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from hub import MessageEvent
from tests.web.conftest import Complaints
from tests.web.handler_stream import Source, Stream

pytestmark = pytest.mark.both_loops


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


@pytest.mark.usefixtures("headers_at_once")
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
