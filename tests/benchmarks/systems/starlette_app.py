"""sse-starlette: a queue and a generator per connection."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Queue = asyncio.Queue[tuple[int, str]]

clients: dict[Queue, None] = {}
numbers = iter(range(1, sys.maxsize))


async def subscribe(request: Request) -> EventSourceResponse:
    queue: Queue = asyncio.Queue()
    clients[queue] = None  # before the headers: who has them misses nothing

    async def events() -> AsyncIterator[ServerSentEvent]:
        try:
            while True:
                number, text = await queue.get()
                yield ServerSentEvent(text, id=str(number))
        finally:
            del clients[queue]

    return EventSourceResponse(events())


async def publish(request: Request) -> Response:
    item = (next(numbers), (await request.body()).decode())
    for queue in clients:
        queue.put_nowait(item)
    return Response(status_code=202)


app = Starlette(routes=[Route("/sub", subscribe), Route("/pub", publish, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), log_level="warning", access_log=False, loop="uvloop", http="httptools", backlog=8192
    )
