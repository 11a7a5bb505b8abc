"""What Python applications have without a hub: a queue per connection on two frameworks, WebSockets, a bare handler."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.served import Served
from tests.benchmarks.systems.system import Paths
from tests.ports import free_port


class _Application:
    """An application in this folder, run as a module."""

    name = title = ""
    paths = Paths("/sub", "/pub")
    packages: tuple[str, ...] = ()

    def missing(self) -> str:
        lacking = [name for name in self.packages if importlib.util.find_spec(name.replace("-", "_")) is None]
        return f"{', '.join(lacking)} not installed: pip install '.[bench]'" if lacking else ""

    def version(self) -> str:
        first, *others = self.packages
        return f"{version(first)} ({', '.join(f'{each} {version(each)}' for each in others)})"

    def serve(self, folder: Path, *, core: int | None) -> Served:
        port = free_port()
        command = [sys.executable, "-m", f"tests.benchmarks.systems.{self.name}_app", str(port)]
        return Served(command, port, core=core, folder=folder, environ={})


class Starlette(_Application):
    """sse-starlette on uvicorn, with uvloop and httptools."""

    name = "starlette"
    title = "sse-starlette"
    packages = ("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools")


class Queues(_Application):
    """aiohttp-sse as its documentation has it: a handler per connection that waits for a queue and sends."""

    name = "queues"
    title = "aiohttp-sse `send()`"
    packages = ("aiohttp-sse", "aiohttp", "uvloop")


class Websockets(_Application):
    """websockets: a set of connections, and its `broadcast`; nothing is compressed."""

    name = "websockets"
    title = "websockets `broadcast()`"
    paths = Paths("/", "/pub", wire="websocket")
    packages = ("websockets", "uvloop", "aiohttp")

    def serve(self, folder: Path, *, core: int | None) -> Served:
        port, post_port = free_port(), free_port()
        command = [sys.executable, "-m", "tests.benchmarks.systems.websockets_app", str(port), str(post_port)]
        return Served(command, port, core=core, folder=folder, environ={}, post_port=post_port)


class Nothing(_Application):
    """aiohttp with a handler that reads a body and answers: what a publish over HTTP costs at least."""

    name = "nothing"
    title = "aiohttp handler that does nothing"
    packages = ("aiohttp", "uvloop")
