"""A server with one handler stream, and sources that know who reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from hub.web.handler_streams import HandlerStreams
from tests.web.client import Client
from tests.web.server import Server

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
