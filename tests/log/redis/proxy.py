"""A proxy before a server, which cuts connections where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Proxy:
    """Passes bytes on, resets connections, and holds all up, as a network does that is cut.

    Attributes:
        server: the socket behind it; another one holds for connections that come from then on.
        mute: answers that are dropped together with their connection: the server has done what it was asked for.
        deaf: requests that are dropped so: the server has heard nothing.
    """

    def __init__(self, server: Path) -> None:
        self.server = server
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.mute = self.deaf = 0
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        await self._passes.wait()
        try:
            to_reader, to_writer = await asyncio.open_unix_connection(str(self.server))
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_writer}
        ways = [self._pass(reader, to_writer, writer, "deaf"), self._pass(to_reader, writer, to_writer, "mute")]
        tasks = {asyncio.create_task(each) for each in ways}
        self._tasks |= tasks
        await asyncio.wait(tasks)
        self._tasks -= tasks
        self._writers -= {writer, to_writer}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: asyncio.StreamWriter, fault: str
    ) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(65_536):
                # Only what carries a call of the script, or its answer: the tail asks and hears other things.
                if getattr(self, fault) and (b"EVALSHA" in part if fault == "deaf" else part.startswith(b"*10\r\n")):
                    setattr(self, fault, getattr(self, fault) - 1)
                    break
                await self._passes.wait()
                writer.write(part)
                await writer.drain()
        writer.transport.abort()
        other.transport.abort()

    def cut(self) -> None:
        """Pass nothing on, neither bytes nor new connections; nobody is told."""
        self._passes.clear()

    def mend(self) -> None:
        """Pass on what was held up, and all that comes."""
        self._passes.set()

    def reset(self) -> None:
        """Reset all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def aclose(self) -> None:
        """Reset all, and wait for their end."""
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


@asynccontextmanager
async def proxy(server: Path, place: Path | socket.socket) -> AsyncIterator[Proxy]:
    """Run a proxy at *place*, which is a Unix socket, or a socket that is bound."""
    made = Proxy(server)
    if isinstance(place, Path):
        listening = await asyncio.start_unix_server(made.serve, str(place))
    else:
        listening = await asyncio.start_server(made.serve, sock=place)
    try:
        yield made
    finally:
        listening.close()
        await made.aclose()
        await asyncio.sleep(0)
