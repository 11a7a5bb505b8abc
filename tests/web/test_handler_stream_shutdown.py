"""Handler streams when the process ends: a reason, a time to come back, and cleanups that take long."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from types import FrameType

import pytest
from aiohttp import web

from hub.web.app import drain_hub
from hub.web.handler_streams import HandlerStreams
from tests.web.client import StreamEnded, until
from tests.web.conftest import Complaints
from tests.web.handler_stream import BIG, Source, Stream

pytestmark = pytest.mark.both_loops


@pytest.mark.usefixtures("headers_at_once")
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


@pytest.mark.usefixtures("headers_at_once")
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
    async with asyncio.timeout(60):
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


@pytest.mark.usefixtures("headers_at_once")
async def test_a_stream_without_an_end_never_gets_one_when_it_is_cut(stream: Stream, source: Source) -> None:
    client = await (await stream(source.observable)).open()
    client.reset()
    await until(lambda: source.disposed == 1)
    with pytest.raises(StreamEnded):
        await client.event()
