"""The WebSocket of the Python client for threads, against a real hub."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hub.client import HubClient
from hub.client.errors import ClientClosed, NotAuthenticated
from hub.client.received import Received
from tests.client.support import url_of
from tests.web.conftest import Serve

SECRET = "a secret of the tests, which has more than 32 bytes"


async def test_it_publishes_and_listens(serve: Serve) -> None:
    site = await serve()

    def talk() -> list[object]:
        with HubClient(url_of(site)) as hub, hub.websocket() as socket:
            with socket.listen("chat") as stream:
                positions = [str(socket.publish(number, topic="chat")) for number in range(3)]
                items = [next(stream) for _ in positions]
            assert (
                [item.id for item in items if isinstance(item, Received)]
                == positions
                == [*positions[:2], stream.cursor]
            )
            return [item.data for item in items if isinstance(item, Received)]

    assert await asyncio.to_thread(talk) == [0, 1, 2]


async def test_the_end_ends_what_another_thread_waits_for(serve: Serve) -> None:
    site = await serve()

    def talk() -> list[object]:
        found: list[object] = []
        with HubClient(url_of(site)) as hub, hub.websocket() as socket:
            stream = socket.listen("chat")
            thread = threading.Thread(target=lambda: found.extend(stream))
            thread.start()
            socket.publish("one", topic="chat")
            socket.close()
            thread.join()
            with pytest.raises(ClientClosed):
                socket.publish("two", topic="chat")
        return [item for item in found if not isinstance(item, Received)]

    before = threading.active_count()
    assert await asyncio.to_thread(talk) == []
    assert not [each for each in threading.enumerate() if each.name == "hub websocket"]
    assert threading.active_count() <= before + 1


async def test_its_token_comes_from_the_client(serve: Serve) -> None:
    site = await serve(jwt_secret=SECRET)

    def talk() -> None:
        with HubClient(url_of(site), token=lambda: "none") as hub, hub.websocket():
            pass

    with pytest.raises(NotAuthenticated):
        await asyncio.to_thread(talk)
