"""websockets: its `broadcast` to all that are connected; what is published comes over HTTP, to a port beside it."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web
from websockets.asyncio.server import ServerConnection, broadcast, serve

clients: set[ServerConnection] = set()
numbers = iter(range(1, sys.maxsize))


async def subscribe(client: ServerConnection) -> None:
    clients.add(client)
    try:
        await client.wait_closed()
    finally:
        clients.discard(client)


async def publish(request: web.Request) -> web.Response:
    broadcast(clients, f'{{"id":"{next(numbers)}","data":{await request.text()}}}')
    return web.Response(status=202)


async def main(port: int, post_port: int) -> None:
    app = web.Application()
    app.router.add_post("/pub", publish)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", post_port).start()
    async with serve(subscribe, "127.0.0.1", port, compression=None, backlog=8192) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(int(sys.argv[1]), int(sys.argv[2])))
