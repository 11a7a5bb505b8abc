"""How a test runs commands."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tests.web.process import Process, ServeProcess


class Run(Protocol):
    """Starts `hub …`; it ends with the test."""

    async def __call__(
        self, *arguments: str, environ: dict[str, str] | None = None, stdin: str | None = None, cwd: Path | None = None
    ) -> Process: ...


class Serving(Protocol):
    """Starts `hub serve …` on a free port and returns when it listens."""

    async def __call__(self, *arguments: str, environ: dict[str, str] | None = None, port: int = 0) -> ServeProcess: ...
