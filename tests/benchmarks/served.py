"""A server, started for one measurement and ended after it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from tests.benchmarks import child
from tests.benchmarks.cores import pin
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.place import ROOT
from tests.benchmarks.tree import usage

START_SECONDS = 120.0  # a log of many gigabytes is checked before its hub listens
END_SECONDS = 15.0
SETTLE_SECONDS = 0.3  # until those that listen before they are ready are


class Served:
    """A server process that listens on `port`. Use as a context.

    Args:
        command: what to start; the server listens on *port* of 127.0.0.1.
        core: where it runs, with all its children; None: anywhere.
        folder: where its standard error is kept.
        environ: variables beside those of this process.
        says: what it prints when it is ready, as a port that is open may be that of a process which still starts.

        post_port: where it takes what is published, if that is another port.

    Attributes:
        pid: of the process that was started.
        seconds: how long it took until it listened.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        *,
        core: int | None,
        folder: Path,
        environ: Mapping[str, str],
        says: str = "",
        post_port: int = 0,
    ) -> None:
        self.port = port
        self.post_port = post_port or port
        self._says = says
        self.seconds = 0.0
        self._said = folder / f"server-{port}.txt"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**child.environ(), **environ},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                preexec_fn=partial(pin, core),  # noqa: PLW1509 - this process has one thread
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        time.sleep(SETTLE_SECONDS)
        return self

    def _wait(self) -> None:
        """Return when it listens.

        Raises:
            CannotMeasure: it ended before, or takes too long.
        """
        began = time.monotonic()
        while not (self._says in self._said.read_text("utf-8", "replace") and self._listens()):
            if self._process.poll() is not None or time.monotonic() > began + START_SECONDS:
                raise CannotMeasure(f"the server did not start: {self._last_line}")
            time.sleep(0.02)
        self.seconds = time.monotonic() - began

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
            return True
        return False

    @property
    def _last_line(self) -> str:
        lines = self._said.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def rss(self) -> int:
        """Return the resident bytes of the server and its children."""
        return usage(self.pid).rss

    def close(self) -> None:
        """End it and what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
