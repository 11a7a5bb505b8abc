"""This project, as `hub serve` starts it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.served import Served
from tests.benchmarks.systems.system import Paths
from tests.ports import free_port


def serve_hub(folder: Path, *options: str, log: str = "memory://", core: int | None = None) -> Served:
    """Return a hub with *log* and *options* of `hub serve`; its own log holds warnings only."""
    port = free_port()
    given = ("--port", str(port), "--log", log, "--log-level", "warning", "--drain", "0", *options)
    command = [sys.executable, "-m", "hub", "serve", *given]
    return Served(command, port, core=core, folder=folder, environ={}, says="hub: listening on ")


def _paths(subscribe: str, wire: str) -> Paths:
    return Paths(subscribe, "/notifications/publish", '{"topic":"{topic}","data":', "}", wire)


class Hub:
    """The hub, with its log in memory or in a SQLite file."""

    def __init__(self, *, durable: bool = False) -> None:
        self.name = "hub-sqlite" if durable else "hub"
        self.title = "hub, SQLite" if durable else "hub"
        self.paths = _paths("/notifications/subscribe?topic={topic}", "sse")
        self._durable = durable

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        parts = ("aiohttp", "reactivex", "uvloop")
        return f"{version('broadcast-hub')} ({', '.join(f'{part} {version(part)}' for part in parts)})"

    def serve(self, folder: Path, *, core: int | None) -> Served:
        log = f"sqlite:///{folder}/hub.db" if self._durable else "memory://"
        return serve_hub(folder, log=log, core=core)


class HubWire(Hub):
    """The hub, over one of its wires."""

    def __init__(self, name: str, title: str, path: str, wire: str) -> None:
        super().__init__()
        self.name, self.title, self.paths = name, title, _paths(path, wire)


WIRES = (
    HubWire("sse", "hub, SSE", "/notifications/subscribe?topic={topic}", "sse"),
    HubWire("websocket", "hub, WebSocket", "/notifications/ws", "hub.v1.json"),
    HubWire("ndjson", "hub, NDJSON", "/notifications/subscribe?topic={topic}", "ndjson"),
    HubWire("poll", "hub, long-poll", "/notifications/poll?topic={topic}&wait=60", "poll"),
)
"""The wires of the hub, the one first that the others are compared with."""
