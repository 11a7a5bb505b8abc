"""The WebSocket of the Python client for threads, against a real hub."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

import pytest

from hub.client import HubClient, HubSocket
from hub.client.errors import ClientClosed, NotAuthenticated
from hub.client.listening import Pause
from hub.client.received import Received
from tests.client.support import cut, url_of
from tests.web.client import PATIENCE
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


async def test_it_is_used_in_a_block_while_its_client_is_open(serve: Serve) -> None:
    site = await serve()

    def talk() -> None:
        with HubClient(url_of(site)) as hub:
            socket = hub.websocket()
            with pytest.raises(ClientClosed, match="use it in a with block"):
                socket.publish("too early", topic="chat")
        with pytest.raises(ClientClosed, match="the client is closed"):
            socket.__enter__()

    await asyncio.to_thread(talk)
    assert not [each for each in threading.enumerate() if each.name == "hub websocket"]


async def test_its_token_comes_from_the_client(serve: Serve) -> None:
    site = await serve(jwt_secret=SECRET)

    def talk() -> None:
        with HubClient(url_of(site), token=lambda: "none") as hub, hub.websocket():
            pass

    with pytest.raises(NotAuthenticated):
        await asyncio.to_thread(talk)


async def test_threads_that_use_it_while_it_is_closed_all_end(serve: Serve) -> None:
    site = await serve()

    def talk() -> None:
        for _ in range(10):
            hub = HubClient(url_of(site))
            socket = hub.websocket()
            socket.__enter__()
            begun = threading.Barrier(5)

            def publish(socket: HubSocket = socket, begun: threading.Barrier = begun) -> None:
                begun.wait()
                with contextlib.suppress(ClientClosed):
                    while True:
                        socket.publish("x", topic="chat")

            threads = [threading.Thread(target=publish, daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            begun.wait()
            hub.close()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()

    await asyncio.to_thread(talk)
    await site.deserted()


async def test_it_can_not_be_used_where_it_calls_its_watch(serve: Serve) -> None:
    site = await serve()
    raised: list[BaseException] = []

    def talk() -> None:
        def watch(pause: Pause) -> None:
            try:
                socket.publish("x", topic="chat")
            except RuntimeError as error:
                raised.append(error)

        with HubClient(url_of(site)) as hub, hub.websocket(watch=watch) as socket:
            asyncio.run_coroutine_threadsafe(cut(site.hub), loop).result()
            socket.publish("y", topic="chat")

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(talk)
    assert [str(error) for error in raised] == [
        "the socket can't be used where it calls its watch: it would wait for itself"
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
async def test_a_child_process_leaves_it_to_its_parent(serve: Serve) -> None:
    site = await serve()

    def talk() -> int:
        with HubClient(url_of(site)) as hub, hub.websocket() as socket:
            child = os.fork()
            if not child:
                try:
                    socket.publish("from the child", topic="chat")
                except ClientClosed:
                    os._exit(7)
                finally:
                    os._exit(1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            socket.publish("from the parent", topic="chat")
            return status

    assert await asyncio.to_thread(talk) == 7
