"""What all tests of the log in a file share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hub.log.sqlite import log as sqlite_log
from tests.log.sqlite.home import Home

LOCK_SECONDS = 0.3  # instead of the 5 s that a predecessor gets, where a test waits for them to pass


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A file in a folder of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    home = Home(folder / "hub.db")
    yield home
    await home.aclose()


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever dies, the event loop has nothing to complain about."""
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers wait for a predecessor no longer than a test likes to."""
    monkeypatch.setattr(sqlite_log, "LOCK_SECONDS", LOCK_SECONDS)
