"""aiohttp: a handler that reads what is posted and answers. Nothing can be published with less."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web


async def publish(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=201, body=b'{"id":"0123456789-1"}', content_type="application/json")


async def serve(port: int) -> None:
    app = web.Application()
    app.router.add_post("/pub", publish)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=8192).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(int(sys.argv[1])))
