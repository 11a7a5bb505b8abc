"""A hub that ends and starts again behind a socket that systemd keeps."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.supervised import PROGRAM
from tests.ports import free_port
from tests.proxy import program
from tests.web.process import ROOT

pytestmark = pytest.mark.slow

CLIENTS = 200
PATIENCE = 90.0

# systemd keeps the socket open and starts the service again; systemd-socket-activate becomes what it starts, once. So
# it starts this shell, which keeps the descriptor and starts the hub again when it ends well, until there is a file.
KEEPER = """
until [ -e stop ]; do
    (echo $BASHPID > pid; LISTEN_PID=$BASHPID; export LISTEN_PID; exec "$@") >> out 2>> err
    status=$?
    echo $status >> ended
    [ $status = 0 ] || break
done
"""


async def become(condition: Callable[[], object]) -> None:
    """Wait until *condition* returns a true value; processes take their time to start."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what a process writes has no event to wait for
            await asyncio.sleep(0.01)


class Activated:
    """A hub on a socket that is not its own."""

    def __init__(self, folder: Path, port: int, process: asyncio.subprocess.Process, processes: int) -> None:
        self._folder, self.port, self._process, self.processes = folder, port, process, processes

    @property
    def pid(self) -> int:
        return int(self.said("pid") or 0)

    @property
    def starts(self) -> int:
        """How often a hub has said that it listens."""
        return self.said("out").count(f"hub: listening on http://127.0.0.1:{self.port}\n")

    def said(self, name: str) -> str:
        file = self._folder / name
        return file.read_text() if file.exists() else ""

    async def aclose(self) -> None:
        (self._folder / "stop").touch()
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
            else:
                self._process.kill()
        async with asyncio.timeout(PATIENCE):
            await self._process.wait()


@pytest.fixture(params=[1, 2], ids=["one process", "workers"])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Activated]:
    port = free_port()
    (tmp_path / "served.py").write_text(PROGRAM)
    with (tmp_path / "keeper").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", "-E", f"PYTHONPATH={ROOT}"),
            *("bash", "-c", KEEPER, "bash", sys.executable, "served.py"),
            *("serve", "--port", "1", "--drain", "0.5", "--workers", str(request.param)),
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    hub = Activated(tmp_path, port, process, request.param)
    try:
        await become(lambda: "Listening on" in hub.said("keeper"))
        yield hub
    finally:
        await hub.aclose()


class Client:
    """A connection for one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, hub: Activated) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", hub.port))

    async def ask(self, method: str, path: str, body: str = "") -> str:
        """Return the status line of the answer."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        async with asyncio.timeout(PATIENCE):
            answer = await self._reader.read()
        self._writer.close()
        return answer.decode().partition("\r\n")[0]


async def test_a_restart_refuses_nobody_and_answers_everybody(hub: Activated) -> None:
    first = await (await Client.connect(hub)).ask("GET", "/readyz")  # starts it
    assert first == "HTTP/1.1 200 OK"
    await become(lambda: hub.starts == 1)  # all workers
    stream = await asyncio.open_connection("127.0.0.1", hub.port)
    stream[1].write(b"GET /notifications/subscribe HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"hub.open" in await stream[0].readuntil(b"hub.open")

    part = CLIENTS // 4
    asking: list[asyncio.Task[str]] = []

    async def come(method: str, path: str, body: str = "") -> None:
        for _ in range(part):
            client = await Client.connect(hub)  # raises if it is refused
            asking.append(asyncio.create_task(client.ask(method, path, body)))

    await come("GET", "/healthz")
    os.kill(hub.pid, signal.SIGTERM)
    await become(lambda: hub.said("err").count("draining") == hub.processes)
    for reached in (lambda: True, lambda: hub.said("ended") == "0\n", lambda: hub.starts == 2):
        await become(reached)
        await come("POST", "/notifications/publish", '{"data": 1}')
    answers = await asyncio.gather(*asking)
    assert answers == ["HTTP/1.1 200 OK"] * part + ["HTTP/1.1 201 Created"] * 3 * part
    assert b"hub.close" in await stream[0].read()
    stream[1].close()
    assert "Traceback" not in hub.said("err")
