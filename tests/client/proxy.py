"""A proxy that cuts connections at random bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random


class CuttingProxy:
    """Passes bytes on to a hub, and cuts each connection after a random number of bytes, with FIN or RST.

    Args:
        port: of the hub, which may be away at times.
        seed: of the random numbers.
        most: bytes of answers after which a connection is cut at the latest.

    Attributes:
        url: its own address, once it is started.
        cuts: how many connections it has cut.
    """

    def __init__(self, port: int, seed: int, most: int) -> None:
        self._port, self._random, self._most = port, random.Random(seed), most
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.cuts = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        up = asyncio.create_task(self._pass(reader, hub_writer, self._budget()))
        down = asyncio.create_task(self._pass(hub_reader, writer, self._budget()))
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (up, down):
                each.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for end in (writer, hub_writer):
                if self._random.random() < 0.5:
                    end.transport.abort()
                else:
                    end.close()

    def _budget(self) -> int:
        # Some cut the head of an answer, or of a request.
        tiny = self._random.random() < 0.25
        return self._random.randint(1, 600) if tiny else self._random.randint(5_000, self._most)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(left):
                writer.write(part)
                await writer.drain()
                left -= len(part)
                if not left:
                    self.cuts += 1
                    return
