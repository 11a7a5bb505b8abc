"""One task takes every step of the iterable of a handler stream: what it holds across events stays its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from hub import sse
from tests.web.client import until
from tests.web.conftest import Complaints, Serve
from tests.web.handler_stream import BIG, Source, Stream

pytestmark = pytest.mark.both_loops


@pytest.mark.usefixtures("headers_at_once")
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
