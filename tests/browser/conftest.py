"""A real hub process, a network that can fail, and a real Chromium."""

from __future__ import annotations

import asyncio
import enum
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from tests.chance import TORTURE

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
DEMO = {"HUB_DEMO": "1", "HUB_EVENTS_API": "1", "HUB_LISTENERS": "listeners", "HUB_DRAIN": "0.3"}
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What Chromium itself says about a network that fails; everything else in the console is a defect of the page.
FAILED_NETWORK = re.compile(r"net::ERR_|the server responded with a status of (400|404|410|502)")

expect.set_options(timeout=60_000)


class HubProcess:
    """`hub serve` with the demo, in a process of its own. It keeps its port when it is started again.

    Args:
        log: where its standard error goes.
        environ: settings beside those of the demo.

    Attributes:
        url: where it listens; empty before the first start.
    """

    def __init__(self, log: Path, **environ: str) -> None:
        self.url = ""
        self._log = log
        self._environ = DEMO | environ
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start it and wait until it listens."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        environ |= self._environ
        command = [sys.executable, "-m", "hub", "serve", "--host", HOST, "--port", str(self.port)]
        with self._log.open("a") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - it outlives the coroutine, and starting takes no time
                command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._process = process
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        listening = re.search(r"listening on (http://\S+)", line)
        assert listening, f"the hub did not start: {line!r}\n{self._log.read_text()}"
        self.url = listening[1]

    @property
    def port(self) -> int:
        """Where it listens, or 0: any free port."""
        return int(self.url.rpartition(":")[2]) if self.url else 0

    def kill(self) -> None:
        """End it at once, without a word to anybody."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    async def stop(self) -> None:
        """Ask it to drain and end, and wait until it has."""
        assert self._process is not None
        self._process.terminate()
        await asyncio.to_thread(self._reap)

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        process.wait()
        process.stdout.close()

    async def post(self, path: str, body: object) -> Any:
        """Post *body* as JSON, not through the browser, and return what comes back."""
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.post(self.url + path, json=body) as answer,
        ):
            return await answer.json()

    async def get(self, path: str) -> Any:
        """Return the JSON at *path*, not through the browser."""
        headers = {"Accept": "application/json"}
        async with (
            aiohttp.ClientSession(raise_for_status=True, headers=headers) as session,
            session.get(self.url + path) as answer,
        ):
            return await answer.json()


@pytest_asyncio.fixture(loop_scope="session")
async def hub(tmp_path: Path) -> AsyncIterator[HubProcess]:
    """A hub that listens."""
    process = HubProcess(tmp_path / "hub.log")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


class Weather(enum.Enum):
    """What a network does with a connection."""

    FAIR = enum.auto()  # carry it
    CUT = enum.auto()  # reset it
    BAD_GATEWAY = enum.auto()  # answer for a hub that does not


class Network:
    """What lies between a browser and a hub: a TCP proxy with weather.

    Attributes:
        url: where the browser finds the hub.
    """

    def __init__(self, hub: HubProcess) -> None:
        self.url = ""
        self._hub = hub
        self._weather = Weather.FAIR
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        """Let nothing be left open."""
        assert self._server is not None
        self._server.close()
        await self.become(Weather.CUT)
        await self._server.wait_closed()

    async def become(self, weather: Weather) -> None:
        """Change the weather; unless it is fair, what is open is reset."""
        self._weather = weather
        if weather is not Weather.FAIR:
            for writer in [writer for writers in self._open.values() for writer in writers]:
                writer.transport.abort()
            await asyncio.gather(*self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._open[task] = [writer]
        try:
            if self._weather is Weather.FAIR:
                await self._carry(reader, writer, writers)
            elif self._weather is Weather.BAD_GATEWAY:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side is gone: so is the other
        finally:
            del self._open[task]
            for each in writers:
                each.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        onward_reader, onward = await asyncio.open_connection(HOST, self._hub.port)
        writers.append(onward)
        ways = [asyncio.create_task(_copy(reader, onward)), asyncio.create_task(_copy(onward_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return


@pytest_asyncio.fixture(loop_scope="session")
async def network(hub: HubProcess) -> AsyncIterator[Network]:
    """A network before the hub, in fair weather."""
    network = Network(hub)
    await network.start()
    try:
        yield network
    finally:
        await network.aclose()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is. Without one the tests are skipped, except where that would go unseen.

    The shell has the same engine and network, and no windows, profiles and services around them: a page costs it a
    third. `make torture` takes the whole browser.
    """
    shell = None if TORTURE else shutil.which("chromium-headless-shell")
    path = shell or shutil.which("chromium")
    if path is None:
        missing = "there is no Chromium on PATH: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """One Chromium for all tests; each has contexts of its own."""
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else [*FLAGS]  # the sandbox refuses to run as root
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Open pages, each as a visitor of its own; in the end none of them may have complained in its console."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not FAILED_NETWORK.search(message.text):
            complaints.append(message.text)

    async def visit(url: str, **options: Any) -> Page:
        # What moves is painted sixty times a second, without a graphics card a third of a core for each page.
        context = await browser.new_context(**{"reduced_motion": "reduce"} | options)
        contexts.append(context)
        page = await context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        return page

    yield visit
    for context in contexts:
        await context.close()
    assert complaints == []
