import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from hub import Settings, setup_hub
from hub.errors import UnsupportedAiohttp
from hub.web import handover

connection_lost = RequestHandler.connection_lost


async def test_the_installed_aiohttp_lets_go():
    await handover.check()


def _closes(self: Any, exc: Any) -> None:
    self._manager._connections[self].close()
    connection_lost(self, exc)


def _keeps_counting(self: Any, exc: Any) -> None:
    """Do nothing of what aiohttp does."""


def _cancels(self: Any, exc: Any) -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    connection_lost(self, exc)


def _has_changed(self: Any, exc: Any) -> None:
    raise AttributeError("'RequestHandler' object has no attribute '_task_handler'")


@pytest.mark.parametrize(
    ("lost", "why"),
    [(_closes, "closes"), (_keeps_counting, "count"), (_cancels, "cancels"), (_has_changed, "_task_handler")],
)
async def test_a_hub_refuses_to_start_with_an_aiohttp_that_does_not(
    lost: Any, why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(RequestHandler, "connection_lost", lost)
    app = web.Application()
    setup_hub(app, Settings())
    runner = web.AppRunner(app)
    with pytest.raises(UnsupportedAiohttp, match=why) as caught:
        await runner.setup()
    monkeypatch.undo()
    await runner.cleanup()
    assert caught.value.version in str(caught.value)
