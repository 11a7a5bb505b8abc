"""`hub serve --workers N` as real processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tests.web.process import STARTING, ServeProcess

# Each worker keeps a log of its own: enough where only the processes are looked at, not what they share.
PROGRAM = """
import hub.cli.supervisor
from hub.cli.entry import command

hub.cli.supervisor.check_log = lambda log: None
command()
"""
_ACCEPTS = re.compile(r"hub: worker ([0-9]+) \(process ([0-9]+)\) accepts connections\n")


class Supervised(ServeProcess):
    """A supervisor and its workers."""

    patience = 3 * STARTING  # the first worker starts before the others

    @classmethod
    async def serve(
        cls, folder: Path, *arguments: str, program: str = PROGRAM, environ: Mapping[str, str] | None = None
    ) -> Supervised:
        """Start a hub of workers that share nothing, in *folder*, and return it when all of them listen."""
        file = folder / "supervised.py"
        file.write_text(program)
        hub = await cls.start("serve", "--port", "0", *arguments, program=(str(file),), environ=environ, cwd=folder)
        try:
            return await hub.listening()
        except BaseException:
            await hub.aclose()
            raise

    @property
    def started(self) -> list[tuple[int, int]]:
        """The number and the process of each worker that ever listened, in order."""
        return [(int(number), int(pid)) for number, pid in _ACCEPTS.findall(self.err)]

    @property
    def workers(self) -> dict[int, int]:
        """The process of each worker, by its number."""
        return dict(self.started)

    def accepts_from(self, number: int) -> set[str]:
        """Return which sockets that listen on its port the worker with this *number* has, by inode."""
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = {row[9] for row in rows if row[1].endswith(f":{self.port:04X}") and row[3] == "0A"}  # TCP_LISTEN
        held = set()
        for file in Path(f"/proc/{self.workers[number]}/fd").iterdir():
            with suppress(FileNotFoundError):
                held.add(str(file.readlink()))
        return {inode for inode in ours if f"socket:[{inode}]" in held}

    async def has_sockets(self, number: int, sockets: set[str]) -> None:
        """Wait until the worker with this *number* accepts from exactly these *sockets*."""
        await self._until(lambda: self.accepts_from(number) == sockets)

    async def restarted(self, count: int) -> None:
        """Wait until workers have begun to listen *count* times."""
        await self._until(lambda: len(self.started) >= count)

    async def all_ended(self) -> None:
        """Wait until no worker is left."""
        await self.ended_are(pid for _, pid in self.started)

    async def ended_are(self, pids: Iterable[int]) -> None:
        """Wait until these processes have ended."""
        left = list(pids)
        await self._until(lambda: not any(runs(pid) for pid in left))

    async def listening_on(self, address: str) -> None:
        """Wait until it listens on *address*."""
        await self._until(lambda: f"hub: listening on {address}\n" in self.out)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(self.patience):
            while not condition():  # noqa: ASYNC110 - what a process writes has no event to wait for
                await asyncio.sleep(0.005)

    async def aclose(self) -> None:
        await super().aclose()
        for _, pid in self.started:
            if runs(pid):
                os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Return whether the process with this *pid* has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
