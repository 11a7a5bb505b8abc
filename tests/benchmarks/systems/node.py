"""Servers that run on Node; their packages come from npm when they are first measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.place import HOME
from tests.benchmarks.served import Served
from tests.benchmarks.systems.system import Paths
from tests.ports import free_port

INSTALL_SECONDS = 180.0


class _Node:
    """One Node process; what it runs is in the folder *source* beside this file."""

    name = title = source = ""
    paths = Paths("/sub", "/pub")
    packages: tuple[str, ...] = ()

    @property
    def _source(self) -> Path:
        return Path(__file__).parent / self.source

    @property
    def _installed(self) -> Path:
        return HOME / self.source

    def missing(self) -> str:
        """Install what is not there yet; return what keeps it from being started."""
        if not shutil.which("node") or not shutil.which("npm"):
            return "node and npm are not installed"
        installed, marker = self._installed, self._installed / "installed.json"
        installed.mkdir(parents=True, exist_ok=True)
        for each in self._source.iterdir():
            shutil.copy(each, installed)
        wanted = (self._source / "package.json").read_text("utf-8")
        if marker.exists() and marker.read_text("utf-8") == wanted:
            return ""
        order = "ci" if (installed / "package-lock.json").exists() else "install"
        try:
            done = subprocess.run(
                ["npm", order, "--silent", "--no-audit", "--no-fund"],
                cwd=installed, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"npm {order} took more than {INSTALL_SECONDS:g} s"
        if done.returncode:
            return f"npm {order} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"
        marker.write_text(wanted, "utf-8")
        return ""

    def version(self) -> str:
        wanted = json.loads((self._source / "package.json").read_text("utf-8"))["dependencies"]
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        first, *others = self.packages
        return f"{wanted[first]} ({', '.join([f'Node {node[1:]}', *(f'{each} {wanted[each]}' for each in others)])})"

    def serve(self, folder: Path, *, core: int | None) -> Served:
        port = free_port()
        command = ["node", str(self._installed / "main.js"), str(port)]
        return Served(command, port, core=core, folder=folder, environ={})


class Nest(_Node):
    """NestJS, whose `@Sse` handler returns an rxjs `Subject`."""

    name = source = "nestjs"
    title = "NestJS `@Sse`"
    packages = ("@nestjs/core", "rxjs", "@nestjs/platform-express")


class SocketIO(_Node):
    """Socket.IO, which emits to a room; its clients begin with a WebSocket."""

    name = source = "socketio"
    title = "Socket.IO `to(room).emit()`"
    paths = Paths("/socket.io/?EIO=4&transport=websocket", "/pub", wire="socket.io")
    packages = ("socket.io",)
