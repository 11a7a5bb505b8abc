"""What tests of the commands share: processes that end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import Run, Serving
from tests.web.conftest import complaints, serve
from tests.web.process import Process, ServeProcess

__all__ = ["complaints", "serve"]


@pytest.fixture
async def processes() -> AsyncIterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for process in processes:
        await process.aclose()


@pytest.fixture
def run(processes: list[Process], tmp_path: Path) -> Run:
    async def run(
        *arguments: str, environ: dict[str, str] | None = None, stdin: str | None = None, cwd: Path | None = None
    ) -> Process:
        process = await Process.start(*arguments, environ=environ, stdin=stdin, cwd=cwd or tmp_path)
        processes.append(process)
        return process

    return run


@pytest.fixture
def serving(processes: list[Process]) -> Serving:
    async def serving(*arguments: str, environ: dict[str, str] | None = None, port: int = 0) -> ServeProcess:
        process = await ServeProcess.start("serve", "--port", str(port), *arguments, environ=environ)
        processes.append(process)
        return await process.listening()

    return serving
