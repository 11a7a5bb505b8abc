"""aiohttp-sse: a queue and a task per connection."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from aiohttp_sse import sse_response

Queue = asyncio.Queue[tuple[int, str]]

clients: dict[Queue, None] = {}
numbers = iter(range(1, sys.maxsize))


async def subscribe(request: web.Request) -> web.StreamResponse:
    queue: Queue = asyncio.Queue()
    clients[queue] = None  # before the headers: who has them misses nothing
    try:
        async with sse_response(request) as response:
            while True:
                number, text = await queue.get()
                await response.send(text, id=str(number))
    finally:
        del clients[queue]


async def publish(request: web.Request) -> web.Response:
    item = (next(numbers), await request.text())
    for queue in clients:
        queue.put_nowait(item)
    return web.Response(status=202)


async def serve(port: int) -> None:
    app = web.Application()
    app.router.add_get("/sub", subscribe)
    app.router.add_post("/pub", publish)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=8192).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            loop.run(serve(int(sys.argv[1])))
