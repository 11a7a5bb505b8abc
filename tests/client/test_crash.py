"""The Python client, a hub that is killed again and again, and a network that cuts connections at random bytes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.client import AsyncHubClient, AsyncHubSocket, HubClient, Received
from tests.client.proxy import CuttingProxy
from tests.ports import free_port
from tests.web.client import until
from tests.web.process import ServeProcess

pytestmark = pytest.mark.slow

CALLS = 60
DRAFTS = 15
KILLED = (10, 25, 40, 55)  # the calls during which the hub is killed
PATIENCE = 90.0  # a loaded machine takes long to start a hub
RETRY = 20  # ms; sent with what is published, so that nobody waits for the seconds of the default


class Lives:
    """A hub on a SQLite file, which can be killed and started again on its port."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.port = free_port()
        self._process: ServeProcess | None = None

    async def start(self) -> None:
        arguments = ("serve", "--port", str(self.port), "--log", f"sqlite:///{self._path}")
        self._process = await ServeProcess.start(*arguments)
        await self._process.listening()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.signal(signal.SIGKILL)
        await self._process.aclose()

    async def aclose(self) -> None:
        if self._process is not None:
            await self._process.aclose()


@pytest.fixture
async def lives(tmp_path: Path) -> AsyncIterator[Lives]:
    lives = Lives(tmp_path / "hub.db")
    await lives.start()
    yield lives
    await lives.aclose()


@pytest.fixture
async def proxy(lives: Lives) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(lives.port, seed=7, most=30_000)
    await proxy.start()
    yield proxy
    await proxy.aclose()


def drafts(call: int) -> list[dict[str, object]]:
    return [{"topic": "a", "data": call * DRAFTS + number, "retry": RETRY} for number in range(DRAFTS)]


async def publish_and_kill(lives: Lives, publish: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Publish what there is, and kill the hub in the middle of some calls."""
    for call in range(CALLS):
        if call not in KILLED:
            await publish(call)
            continue
        publishing = asyncio.create_task(publish(call))
        await asyncio.sleep(0.001 * call)  # any moment will do: before, in the middle or after
        await lives.kill()
        await lives.start()
        await publishing


async def check(lives: Lives, received: list[Received], ids: list[str]) -> None:
    """Check that all was heard once, in order, and is kept once."""
    everything = list(range(CALLS * DRAFTS))
    assert [each.data for each in received] == everything
    assert [each.id for each in received] == ids
    async with AsyncHubClient(f"http://127.0.0.1:{lives.port}") as direct:
        kept = [each["data"] async for page in direct.history("a") for each in page["notifications"]]
    assert kept == everything


async def test_coroutines_lose_nothing_and_double_nothing(lives: Lives, proxy: CuttingProxy) -> None:
    ids: list[str] = []
    received: list[Received] = []
    async with AsyncHubClient(proxy.url, patience=PATIENCE) as client:

        async def publish(call: int) -> None:
            ids.extend(map(str, await client.publish_many(drafts(call))))

        async def listen() -> None:
            async with client.listen("a", last_event_id="earliest") as stream:
                async for item in stream:
                    assert isinstance(item, Received), item
                    received.append(item)
                    if len(received) == CALLS * DRAFTS:
                        return

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            tasks.create_task(publish_and_kill(lives, publish))
    assert proxy.cuts > 5
    await check(lives, received, ids)


async def test_threads_lose_nothing_and_double_nothing(lives: Lives, proxy: CuttingProxy) -> None:
    ids: list[str] = []
    received: list[Received] = []
    with contextlib.ExitStack() as opened:
        client = opened.enter_context(HubClient(proxy.url, patience=PATIENCE))

        async def publish(call: int) -> None:
            ids.extend(map(str, await asyncio.to_thread(client.publish_many, drafts(call))))

        def listen() -> None:
            for item in client.listen("a", last_event_id="earliest"):
                assert isinstance(item, Received), item
                received.append(item)
                if len(received) == CALLS * DRAFTS:
                    return

        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(listen))
                tasks.create_task(publish_and_kill(lives, publish))
        finally:
            client.close()  # so that no thread is left that waits
    assert proxy.cuts > 5
    await check(lives, received, ids)


async def test_sockets_lose_nothing_and_double_nothing(lives: Lives, proxy: CuttingProxy) -> None:
    """Two tasks publish and two listen, over two sockets."""
    number = 100
    published: dict[str, object] = {}
    received: list[list[Received]] = [[], []]
    async with AsyncHubClient(proxy.url, patience=PATIENCE) as client:

        async def publish(socket: AsyncHubSocket, who: int) -> None:
            for each in range(number):
                data = [who, each]
                published[str(await socket.publish(data, topic="a", retry=RETRY))] = data

        async def listen(socket: AsyncHubSocket, heard: list[Received]) -> None:
            async with socket.listen("a", last_event_id="earliest") as stream:
                async for item in stream:
                    assert isinstance(item, Received), item
                    heard.append(item)
                    if len(heard) == 2 * number:
                        return

        def has_published(part: int) -> bool:
            return len(published) >= part

        async def kill() -> None:
            for part in (number // 2, number):
                await until(partial(has_published, part))
                await lives.kill()
                await lives.start()

        async with (
            asyncio.timeout(PATIENCE), client.websocket() as one, client.websocket() as other,
            asyncio.TaskGroup() as tasks,
        ):  # fmt: skip
            tasks.create_task(kill())
            for who, socket in enumerate((one, other)):
                tasks.create_task(publish(socket, who))
                tasks.create_task(listen(socket, received[who]))
    assert proxy.cuts > 2
    async with AsyncHubClient(f"http://127.0.0.1:{lives.port}") as direct:
        kept = {each["id"]: each["data"] async for page in direct.history("a") for each in page["notifications"]}
    assert kept == published
    assert len(published) == 2 * number
    for heard in received:
        assert [(each.id, each.data) for each in heard] == list(kept.items())


async def test_both_wait_for_a_hub_that_is_only_starting(lives: Lives) -> None:
    await lives.kill()
    async with AsyncHubClient(f"http://127.0.0.1:{lives.port}", patience=PATIENCE) as client:
        pauses: list[object] = []
        stream = client.listen("a", last_event_id="earliest", watch=pauses.append)
        heard = asyncio.create_task(anext(stream))
        publishing = asyncio.create_task(client.publish("x", topic="a"))
        await until(lambda: pauses)
        await lives.start()
        async with asyncio.timeout(PATIENCE):
            item = await heard
            assert isinstance(item, Received)
            assert item.id == str(await publishing)
