"""Fixtures of the tests over real sockets: hubs on free ports, on either event loop, over TCP or TLS."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol

import pytest
import trustme
from aiohttp import web

from hub import sse
from hub.web.handler_streams import Drain, HandlerStreams
from tests.web.chat import Chat
from tests.web.client import Client
from tests.web.handler_stream import Source, Stream, Streaming
from tests.web.network import Network
from tests.web.server import Server

TLS = tuple[ssl.SSLContext, ssl.SSLContext]
LoopFactories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_loops: run on asyncio's own event loop and on uvloop")


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    """Return both event loops for tests marked with `both_loops`, else asyncio's own."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        try:
            import uvloop
        except ImportError:
            if os.environ.get("CI"):
                raise
        else:
            factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(scope="session")
def tls() -> TLS:
    """The TLS contexts of a server, and of clients that trust it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


# Before 3.11.4 asyncio says so of a subprocess of any earlier test that ended before it had read its standard input.
NOT_RETRIEVED = re.compile(r"Future exception was never retrieved\n.*finished exception=BrokenPipeError\(.*\)>")


class Complaints(logging.Handler):
    """A handler that collects warnings and errors of the loop, aiohttp and the hub; a test takes those it expects."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if NOT_RETRIEVED.fullmatch(record.getMessage()):
            return
        # Not the record itself: it could keep objects alive that the test expects to be freed.
        self._lines.append(self.format(record))

    def take(self) -> list[str]:
        """Return the lines so far, and remove them."""
        taken, self._lines = self._lines, []
        return taken


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints = Complaints()
    loggers = [logging.getLogger(name) for name in ("asyncio", "aiohttp", "hub")]
    for logger in loggers:
        logger.addHandler(complaints)
    yield complaints
    for logger in loggers:
        logger.removeHandler(complaints)
    assert complaints.take() == []


class Serve(Protocol):
    """A function that starts a hub for one test; keywords that `Server.start` does not have are settings."""

    async def __call__(
        self,
        *,
        app: web.Application | None = None,
        prefix: str = "",
        demo: bool = False,
        handler_cancellation: bool = False,
        tls: TLS | None = None,
        setup: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Server: ...


@pytest.fixture
async def serve(complaints: Complaints) -> AsyncIterator[Serve]:
    servers: list[Server] = []

    async def serve(
        *,
        app: web.Application | None = None,
        prefix: str = "",
        demo: bool = False,
        handler_cancellation: bool = False,
        tls: TLS | None = None,
        setup: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Server:
        server = await Server.start(
            settings,
            app=app,
            prefix=prefix,
            demo=demo,
            handler_cancellation=handler_cancellation,
            tls=tls,
            setup=setup,
        )
        servers.append(server)
        return server

    yield serve
    for server in servers:
        await server.aclose()


@pytest.fixture
async def server(serve: Serve) -> Server:
    """A hub with the default settings."""
    return await serve()


# ---- what several files test ----


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
def headers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the headers of a handler stream not wait long for its first event."""
    monkeypatch.setattr(sys.modules[HandlerStreams.__module__], "FIRST_EVENT_SECONDS", 0.02)


@pytest.fixture
def stream(serve: Serve) -> Stream:
    async def stream(handler: Callable[..., Any], *, drain: Drain = "end", **options: Any) -> Streaming:
        app = web.Application()
        app.router.add_route("*", "/stream", sse(drain=drain)(handler))
        return Streaming(await serve(app=app, **options))

    return stream


@pytest.fixture
async def chat(serve: Serve) -> Chat:
    return Chat(await serve(ai_window=0))


@pytest.fixture
async def nothing_goes_wrong_behind_the_scenes() -> AsyncIterator[None]:
    """Fail on whatever the loop's exception handler is told, tasks that were destroyed while pending included."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context))
    yield
    gc.collect()
    loop.set_exception_handler(None)
    assert told == []


# ---- the ways in which a client disconnects ----


@pytest.fixture
def network() -> Iterator[Network]:
    missing = [command for command in ("ip", "iptables") if not shutil.which(command)]
    why = f"not installed: {', '.join(missing)} (apt-get install iproute2 iptables)" if missing else ""
    network = None
    if not why:
        try:
            network = Network()
        except OSError as error:
            why = f"no network namespace may be made here ({error.strerror}): run as root, with CAP_SYS_ADMIN"
    if network is None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    yield network
    network.close()


@pytest.fixture(params=["FIN", "RST", "half-close"])
def leave(request: pytest.FixtureRequest) -> Callable[[Client], None]:
    ways: dict[str, Callable[[Client], None]] = {
        "FIN": Client.close,
        "RST": Client.reset,
        "half-close": Client.half_close,
    }
    return ways[request.param]


@pytest.fixture(params=["tcp", "tls"])
def maybe_tls(request: pytest.FixtureRequest, tls: TLS) -> TLS | None:
    return tls if request.param == "tls" else None


@pytest.fixture(params=[False, True], ids=["handler runs on", "handler cancelled"])
def handler_cancellation(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
