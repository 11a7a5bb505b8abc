"""A `hub` command in a process of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.web.server import Site

ROOT = Path(__file__).parents[2]
LISTENING = re.compile(r"hub: listening on (https?)://(.+):([0-9]+)\n")
STARTING = 60.0  # seconds; a loaded machine takes long to start Python


class Process:
    """A process that runs `hub …`; everything it writes is kept.

    Attributes:
        out, err: its standard output and standard error so far.
        patience: the seconds that it may take to start, to say something, and to end.
    """

    patience = STARTING

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.out = self.err = ""
        self._reading = asyncio.gather(self._read("out", process.stdout), self._read("err", process.stderr))

    @classmethod
    async def start(
        cls,
        *arguments: str,
        program: Sequence[str] = ("-m", "hub"),
        environ: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        stdin: str | None = None,
        descriptors: Sequence[int] = (),
    ) -> Self:
        """Start `hub`, or another Python *program*, with *arguments*.

        Of the variables `HUB_*` the process gets only those in *environ*. It shows every warning. It has *descriptors*
        as 3, 4, and so on.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
        # The shell gives descriptors their numbers; those to be had are out of the way, at 100 and beyond.
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in descriptors]
        shell = " ".join(f"{place}<&{fd} {fd}<&-" for place, fd in enumerate(moved, 3))
        process = await asyncio.create_subprocess_exec(
            *(("bash", "-c", f'exec {shell}; exec "$@"', "bash") if moved else ()),
            sys.executable,
            "-W",
            "default",
            *program,
            *arguments,
            cwd=cwd,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environ or {})},
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=moved,
        )
        for fd in moved:
            os.close(fd)
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin.encode())
            process.stdin.close()
        return cls(process)

    async def _read(self, name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while line := await stream.readline():
            setattr(self, name, getattr(self, name) + line.decode())

    def signal(self, number: signal.Signals) -> None:
        """Send the signal *number* to the process."""
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def tells(self, text: str) -> None:
        """Wait until *text* is on its standard error; a process takes its time to start."""
        async with asyncio.timeout(self.patience):
            while text not in self.err:
                assert not self.ended, self.err
                await asyncio.sleep(0.005)

    async def prints(self, text: str) -> None:
        """Wait until *text* is on its standard output; unbuffered, it comes in pieces."""
        async with asyncio.timeout(self.patience):
            while text not in self.out:
                assert not self.ended, self.err
                await asyncio.sleep(0.005)

    async def end(self) -> int:
        """Wait until the process ends by itself; return its exit status."""
        async with asyncio.timeout(self.patience):
            await self._process.wait()
            await self._reading
        assert self._process.returncode is not None
        return self._process.returncode

    async def aclose(self) -> None:
        """Kill the process if it still runs."""
        if not self.ended:
            self._process.kill()
        await self._process.wait()
        await self._reading

    def check_tidy(self) -> None:
        """Assert that it wrote no traceback and no warning."""
        for sign in ("Traceback", "Warning", " ERROR ", " WARNING ", "exception"):
            assert sign not in self.err, self.err


class ServeProcess(Process):
    """`hub serve` on a free port.

    Attributes:
        site, url, port: its address, once it listens.
    """

    site: Site
    url = ""
    port = 0

    async def listening(self) -> Self:
        """Wait until it listens; return this object."""
        async with asyncio.timeout(self.patience):
            while not (match := LISTENING.search(self.out)):
                assert not self.ended, self.err
                await asyncio.sleep(0.005)
        self.url = f"{match[1]}://{match[2]}:{match[3]}"
        self.port = int(match[3])
        self.site = Site(("127.0.0.1", self.port))
        return self

    async def aclose(self) -> None:
        await super().aclose()
        if hasattr(self, "site"):
            await self.site.aclose()
