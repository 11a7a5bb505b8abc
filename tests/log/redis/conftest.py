"""Real servers, and hubs' logs on them, all ended in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hub.log.redis.log import RedisLog
from hub.notification import Draft, Position
from hub.redis_url import RedisURL
from tests.redis_server import KINDS, RedisServer, servers


@pytest.fixture
def make_server() -> Iterator[Callable[..., RedisServer]]:
    """Return a maker of servers, which have to be started."""
    with servers() as make:
        yield make


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, make_server: Callable[..., RedisServer]) -> RedisServer:
    """Return a running server that keeps what it is told only in memory."""
    made = make_server(request.param, port=True)
    await made.start()
    return made


class Process:
    """What one process of a hub has heard of the log, in order: notifications, and new histories."""

    def __init__(self, log: RedisLog) -> None:
        self.log = log
        self.heard: list[Position] = []
        self.texts: list[str] = []
        self.renewed: list[Position] = []
        log.announce_to(self._announce, self.renewed.append)

    def _announce(self, notifications: Any) -> None:
        self.heard += [each.position for each in notifications]
        self.texts += [each.text for each in notifications]

    async def publish(self, *texts: str, topic: str = "t", key: str | None = None) -> list[Position]:
        """Publish, and wait until all of it is confirmed."""
        return [await each for each in self.log.append([Draft.of(text, topic=topic, key=key) for text in texts])]


Begin = Callable[..., Any]


@pytest.fixture
async def begin() -> AsyncIterator[Begin]:
    """Return what begins a process of the hub whose log is at an address."""
    begun: list[Process] = []

    async def one(url: str, **options: Any) -> Process:
        bounds = {"count": 10**6, "size": 10**9, "age": None, **options}
        process = Process(RedisLog(RedisURL.parse(url), **bounds))
        begun.append(process)
        await process.log.open()
        return process

    yield one
    for process in begun:
        await process.log.aclose()
