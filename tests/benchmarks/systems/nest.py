"""NestJS, whose `@Sse` handler returns an rxjs `Subject`; its packages come from npm when it is first measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.place import HOME
from tests.benchmarks.served import Served
from tests.benchmarks.systems.system import Paths
from tests.ports import free_port

SOURCE = Path(__file__).parent / "nestjs"
INSTALLED = HOME / "nestjs"
INSTALL_SECONDS = 180.0


class Nest:
    """One Node process."""

    name = "nestjs"
    title = "NestJS `@Sse`"
    paths = Paths("/sub", "/pub")

    def missing(self) -> str:
        """Install what is not there yet; return what keeps it from being started."""
        if not shutil.which("node") or not shutil.which("npm"):
            return "node and npm are not installed"
        wanted = (SOURCE / "package.json").read_text("utf-8")
        marker = INSTALLED / "installed.json"
        INSTALLED.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / "main.js", INSTALLED)
        if marker.exists() and marker.read_text("utf-8") == wanted:
            return ""
        (INSTALLED / "package.json").write_text(wanted, "utf-8")
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(
                command, cwd=INSTALLED, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"npm install took more than {INSTALL_SECONDS:g} s"
        if done.returncode:
            return f"npm install failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"
        marker.write_text(wanted, "utf-8")
        return ""

    def version(self) -> str:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        wanted = json.loads((SOURCE / "package.json").read_text("utf-8"))["dependencies"]
        return f"{wanted['@nestjs/core']} (Node {node.removeprefix('v')}, rxjs {wanted['rxjs']}, Express adapter)"

    def serve(self, folder: Path, *, core: int | None) -> Served:
        port = free_port()
        return Served(["node", str(INSTALLED / "main.js"), str(port)], port, core=core, folder=folder, environ={})
