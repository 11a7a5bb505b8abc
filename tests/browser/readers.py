"""Clients that hold streams open and read whatever comes, while a page shows them."""

from __future__ import annotations

import asyncio
import json

import aiohttp


class Readers:
    """Clients with open streams, who read whatever comes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        self._reading: list[asyncio.Task[None]] = []
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def open(self, *topics: str) -> str:
        """Open a stream; return its id when it is open."""
        query = [("topic", topic) for topic in topics]
        answer = await self._session.get(f"{self._url}/notifications/subscribe", params=query)
        while not (line := await answer.content.readline()).startswith(b"data: "):
            pass
        id: str = json.loads(line.removeprefix(b"data: "))["connection"]
        self._reading.append(asyncio.create_task(self._read(id, answer)))
        return id

    async def _read(self, id: str, answer: aiohttp.ClientResponse) -> None:
        while await answer.content.readany():
            pass
        self.ended.put_nowait(id)

    async def aclose(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self._session.close()
