"""Two hubs on one Redis: one order over every wire, also for clients that change hub and wire as they go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.web.conftest import Serve
from tests.web.server import Server
from tests.web.test_processes import both, redis, settings
from tests.wires.test_wires import news, subscribed
from tests.wires.wire import READERS, Reader, SocketReader

__all__ = ["redis", "settings"]

EACH = 30
"""What one publisher publishes."""
CHANGE_AFTER = 7
"""Notifications after which a client changes its wire and its hub."""

ANN = {"X-User": "ann"}
Publish = Callable[[int], Awaitable[str]]


async def by_socket(server: Server) -> Publish:
    socket = SocketReader(server, headers=ANN)
    await socket.open()

    async def publish(number: int) -> str:
        answer = await socket.answer({"op": "publish", "topic": "x/1", "data": number})
        assert answer["op"] == "ok", answer
        return str(answer["id"])

    return publish


async def by_post(server: Server) -> Publish:
    async def publish(number: int) -> str:
        answer = await server.post("/notifications/publish", {"topic": "x/1", "data": number}, X_User="ann")
        assert answer.status == 201, answer
        return str(answer.json()["id"])

    return publish


async def heard(hubs: list[Server], place: int, cursor: str, total: int) -> list[str]:
    """Return the ids of what a client hears that begins with the wire and the hub at *place*, and changes both."""
    ids: list[str] = []
    while len(ids) < total:
        reader = READERS[place % len(READERS)](hubs[place % 2], "x/*", cursor=cursor, headers=ANN)
        await reader.open()
        for _ in range(min(CHANGE_AFTER, total - len(ids))):
            message = await news(reader)
            assert message["op"] == "notification", message
            ids.append(message["id"])
        cursor, place = reader.cursor, place + 3
        await reader.aclose()
    return ids


@pytest.mark.slow
async def test_what_is_published_in_both_has_one_order(serve: Serve, settings: dict[str, str]) -> None:
    hubs = await both(serve, settings)
    # A WebSocket on one and a poll on the other stay where they are; the others change.
    staying = [READERS[place](hubs[place % 2], "x/*", headers=ANN) for place in (2, 3)]
    for reader in staying:
        await reader.open()
    await subscribed(hubs[0], 1)
    begin = str(await hubs[0].hub.notifications.send_notification("begin", topic="x/1"))
    publishers = [await how(each) for how in (by_socket, by_post) for each in hubs]
    total = len(publishers) * EACH

    async def publish(one: Publish) -> list[str]:
        return [await one(number) for number in range(EACH)]

    async def read(reader: Reader) -> list[str]:
        return [(await news(reader))["id"] for _ in range(total + 1)]

    published = asyncio.gather(*map(publish, publishers))
    changing = [heard(hubs, place, begin, total) for place in range(len(READERS))]
    found = await asyncio.gather(*map(read, staying), *changing)
    ids = sorted((each for one in await published for each in one), key=lambda each: int(each.rpartition("-")[2]))
    assert [each[-total:] for each in found] == [ids] * len(found)
    assert all(one == sorted(one, key=ids.index) for one in await published)
