"""A how-to guide that is followed: its files are written, its commands are run, its servers are started."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.ports import free_port
from tests.proxy import missing, program

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PROJECT = "/path/to/broadcast-hub"
SERVERS = ("hub serve", "gunicorn --bind", "uvicorn --port", "nginx -p")
SHOWN = {"nginx -p": 8000, "gunicorn --bind": 8001, "uvicorn --port": 8001, "hub serve": 8080}
STARTING = 60.0  # seconds; a loaded machine takes long to start Python
INSTALLING = 600.0
NO_INDEX = "(from versions: none)"
"""What pip says where there is no network."""
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:# |<!-- )(at the end of )?([\w/]+\.(?:py|html|conf))(?: -->)?\n")


class File(NamedTuple):
    """A file that a guide shows; `appended` if it is the end of one that is there already."""

    path: str
    text: str
    appended: bool


class Guide:
    """The guide for *framework*, followed in the empty folder *place*; its ports are other ones than on the page.

    Attributes:
        url: where nginx shows the application and the hub.
        hub: where the hub is.
        own: where the framework is.
        files: the files that it shows, in its order.
        terminals: the commands that it shows, those of one terminal together.
    """

    def __init__(self, framework: str, place: Path) -> None:
        self.framework, self.place = framework, place
        text = (ROOT / "docs" / "howto" / f"use-from-{framework}.md").read_text(encoding="utf-8")
        self.files: list[File] = []
        self.terminals: list[list[str]] = []
        for language, block in _FENCE.findall(text):
            if language == "console":
                self.terminals.append([line[2:] for line in block.splitlines() if line.startswith("$ ")])
            elif named := _FILE.match(block):
                self.files.append(File(named[2], block, bool(named[1])))
        self._ports = {shown: free_port() for shown in (8000, 8001, 8080)}
        self.url, self.own, self.hub = (f"http://127.0.0.1:{port}" for port in self._ports.values())
        self._running: list[subprocess.Popen[bytes]] = []

    # ---- files ----

    def write(self, project: Path | None = None) -> None:
        """Write the files of the page; with *project*, what is in that folder instead."""
        if project is None:
            for file in self.files:
                path = self.place / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                before = path.read_text(encoding="utf-8") if file.appended else ""
                path.write_text(before + self._here(file.text), encoding="utf-8")
            return
        shutil.copytree(project, self.place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for path in self.place.rglob("*"):
            if path.suffix in {".py", ".html", ".conf"}:
                path.write_text(self._here(path.read_text(encoding="utf-8")), encoding="utf-8")

    def _here(self, text: str) -> str:
        for shown, real in self._ports.items():
            text = re.sub(rf"\b{shown}\b", str(real), text)
        return text

    # ---- commands ----

    @property
    def environment(self) -> dict[str, str]:
        """The variables of somebody who has just opened a terminal."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HUB_", "PYTHON", "COV_", "DJANGO_")) and name != "VIRTUAL_ENV"
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return kept | {"PATH": path, "HUB_PORT": str(self._ports[8080]), "HUB_DRAIN": "0"}

    def run(self, *commands: str, project: Path = ROOT) -> None:
        """Run *commands* in one terminal to their ends, and check that they succeed."""
        together = "\n".join(commands)
        done = subprocess.run(
            ["bash", "-ec", self._here(together).replace(PROJECT, str(project))],
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=INSTALLING,
            check=False,
        )
        printed = done.stdout.decode()
        if NO_INDEX in printed:
            missing("pip reaches no index of packages")
        assert done.returncode == 0, f"{together}\n{printed}"

    def serve(self, what: str) -> subprocess.Popen[bytes]:
        """Start the server whose command on the page contains *what*, and return when it listens."""
        (command,) = (each for terminal in self.terminals for each in terminal if what in each and is_server(each))
        kind = next(each for each in SERVERS if each in command)
        with (self.place / "servers.log").open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", self._here(command).replace("/usr/sbin/nginx", program("nginx"))],
                cwd=self.place,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(process)
        self._wait_for(self._ports[SHOWN[kind]], process)
        return process

    def _wait_for(self, port: int, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + STARTING
        while time.monotonic() < end:
            assert process.poll() is None, self.log
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(self.log)

    @property
    def log(self) -> str:
        """What the servers have said."""
        path = self.place / "servers.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def close(self) -> None:
        """End the servers, with all processes that they have started."""
        for process in reversed(self._running):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def is_server(command: str) -> bool:
    """Return whether *command* runs until it is told to end."""
    return any(each in command for each in SERVERS)


def installs(command: str) -> bool:
    """Return whether *command* makes the environment, which the tests have, or the files that the example has."""
    return any(each in command for each in ("-m venv", "pip install", "startproject", "startapp"))
