"""The beginning of a hub that fails leaves nothing behind, nor does its end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hub.connections.registry import StreamRegistry
from hub.errors import InvalidListener, LogUnavailable
from hub.hub import Hub
from hub.log.sqlite import log as sqlite_log
from hub.settings import Settings
from hub.web.app import setup_hub
from tests.torture import children
from tests.web.client import until


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A file, and a listener that can't be made."""
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "broken.py").write_text(
        "from hub import on_event\n\n\nclass Broken:\n    def __init__(self, notifications):\n"
        "        raise LookupError\n\n"
        "    @on_event('a')\n    async def hear(self, event): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "house")
    yield Settings(log=f"sqlite:///{tmp_path / 'hub.db'}", listeners=("broken",))
    sys.modules.pop("broken", None)  # or another test that writes a module of this name would get this one


@pytest.mark.parametrize("attempt", ["first", "second"])
async def test_an_application_whose_listener_can_not_be_made_leaves_no_process_and_no_lock(
    settings: Settings, attempt: str
):
    before = children(os.getpid())
    for _ in range(1 + (attempt == "second")):
        app = web.Application()
        setup_hub(app, settings, routes="all")
        runner = web.AppRunner(app)
        with pytest.raises(InvalidListener):
            await runner.setup()
        assert set(children(os.getpid())) <= set(before)
        await runner.cleanup()


@pytest.mark.parametrize("part", ["fanout.begin", "bus.open", "generations.open", "connections.start"])
async def test_whatever_fails_in_the_start_the_file_is_free(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, part: str
):
    settings = settings.model_copy(update={"listeners": ()})
    hub = Hub(settings)
    name, call = part.split(".")

    def fails(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(getattr(hub, name), call, fails)
    with pytest.raises(ZeroDivisionError):
        await hub.open()
    monkeypatch.setattr(sqlite_log, "LOCK_SECONDS", 0.0)
    again = Hub(settings)
    await again.open()
    await again.aclose()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(settings: Settings):
    hub = Hub(settings.model_copy(update={"listeners": ()}))
    before = set(children(os.getpid()))
    opening = asyncio.create_task(hub.open())
    await until(lambda: bool(set(children(os.getpid())) - before))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert set(children(os.getpid())) <= before


async def test_a_hub_whose_file_was_taken_can_be_opened_when_it_is_free(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sqlite_log, "LOCK_SECONDS", 0.0)
    settings = settings.model_copy(update={"listeners": ()})
    first, second = Hub(settings), Hub(settings)
    await first.open()
    with pytest.raises(LogUnavailable):
        await second.open()
    await first.aclose()
    await second.open()
    await second.aclose()


_STEPS = [
    "generations.aclose",
    "provider.aclose",
    "bus.aclose",
    "_bound.close",
    "notifications.close",
    "connections.drain",
    "connections.stop",
    "log.aclose",
]


@pytest.mark.parametrize("part", _STEPS[:-1])
async def test_whatever_fails_at_the_end_all_else_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, part: str, caplog: pytest.LogCaptureFixture
):
    settings = settings.model_copy(update={"listeners": (), "ai_provider": "simulated"})
    hub = Hub(settings)
    await hub.open()
    ended: list[str] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def ends(*arguments: Any) -> Any:
            ended.append(name)
            if name == part:
                raise ZeroDivisionError
            return call(*arguments)

        return ends

    monkeypatch.setattr(StreamRegistry, "__len__", lambda connections: 1)
    for name in _STEPS:
        owner, call = name.split(".")
        found = getattr(hub, owner)
        where = type(found) if owner == "provider" else found  # which is frozen
        monkeypatch.setattr(where, call, noted(name, getattr(where, call)))
    if part == "provider.aclose":  # it is foreign: that is logged
        await hub.aclose()
        assert "the provider failed to close" in caplog.text
    else:
        with pytest.raises(ZeroDivisionError):
            await hub.aclose()
    assert ended == _STEPS
