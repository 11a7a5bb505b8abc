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


class Hub:
    """The hub, with its log in memory or in a SQLite file."""

    def __init__(self, *, durable: bool = False) -> None:
        self.name = "hub-sqlite" if durable else "hub"
        self.title = "hub, SQLite" if durable else "hub"
        self.paths = Paths(
            "/notifications/subscribe?topic={topic}", "/notifications/publish", '{"topic":"{topic}","data":', "}"
        )
        self._durable = durable

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        parts = ("aiohttp", "reactivex", "uvloop")
        return f"{version('broadcast-hub')} ({', '.join(f'{part} {version(part)}' for part in parts)})"

    def serve(self, folder: Path, *, core: int | None) -> Served:
        log = f"sqlite:///{folder}/hub.db" if self._durable else "memory://"
        return serve_hub(folder, log=log, core=core)
