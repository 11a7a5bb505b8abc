"""An application with a hub under gunicorn's aiohttp worker: several processes, one hub."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.redis_server import servers
from tests.web.client import Client
from tests.web.server import Site

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 60.0

APPLICATION = """
import os

from aiohttp import web

from hub import Settings, setup_hub


async def who(request):
    return web.json_response(os.getpid())


async def application():
    app = web.Application()
    setup_hub(app, Settings(log=os.environ["REDIS"], drain=0.5), routes="all")
    app.router.add_get("/who", who)
    return app
"""


class Gunicorn(Site):
    """gunicorn with two workers, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        super().__init__(("127.0.0.1", port))
        self.process = process
        self.said = ""
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, kind: str, folder: Path, redis: str) -> Gunicorn:
        (folder / "application.py").write_text(APPLICATION)
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gunicorn", "application:application", "--worker-class", f"aiohttp.{kind}"),
            *("--workers", "2", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "20", "--no-control-socket"),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS": redis},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(process, port)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said += line.decode()

    async def both(self) -> set[int]:
        """Return the processes of the two workers, as soon as both answer."""
        found: set[int] = set()
        async with asyncio.timeout(SECONDS):
            while len(found) < 2:
                try:
                    found.add((await self.ask("GET", "/who")).json())
                except ConnectionRefusedError:
                    assert self.process.returncode is None, self.said
                    await asyncio.sleep(0.05)
        return found

    async def end(self) -> int:
        async with asyncio.timeout(SECONDS):
            status = await self.process.wait()
            await self._reading
        return status

    async def aclose(self) -> None:
        await super().aclose()
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # the group that was made for it
        await self.end()


@pytest.fixture(params=["GunicornWebWorker", "GunicornUVLoopWebWorker"])
async def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Gunicorn]:
    with servers() as made:
        redis = made("redis")
        await redis.start()
        server = await Gunicorn.start(str(request.param), tmp_path, redis.url)
        yield server
        await server.aclose()


async def test_workers_of_gunicorn_are_one_hub_and_end_in_order(gunicorn: Gunicorn) -> None:
    workers = await gunicorn.both()
    assert len(workers) == 2
    streams = [await gunicorn.subscribe("orders") for _ in range(16)]
    answer = await gunicorn.publish([{"topic": "orders", "data": number} for number in range(20)])
    ids = [each["id"] for each in answer.json()]
    for stream in streams:
        assert [(await stream.next()).id for _ in ids] == ids
    for _ in range(8):
        late = await gunicorn.subscribe("orders", last_event_id=ids[9])
        assert late.opened.json()["recovered"] is True
        assert [(await late.next()).id for _ in ids[10:]] == ids[10:]
    gunicorn.process.send_signal(signal.SIGTERM)
    for stream in streams:
        assert (await stream.next("hub.close")).json() == {"reason": "shutdown"}
        await stream.gone()
        assert stream.complete
    assert await gunicorn.end() == 0
    assert "Traceback" not in gunicorn.said


async def test_a_vanished_reader_is_noticed_in_a_worker_of_gunicorn(gunicorn: Gunicorn) -> None:
    """The hand-over works there: the connection is the stream, and its end is seen at once."""
    await gunicorn.both()
    streams: list[Client] = [await gunicorn.subscribe("orders") for _ in range(8)]
    for stream in streams:
        stream.reset()
    left = -1
    async with asyncio.timeout(SECONDS):
        while left:
            counts = [(await gunicorn.ask("GET", "/notifications/stats")).json()["connections"] for _ in range(8)]
            left = max(counts)
