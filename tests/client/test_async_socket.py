"""The WebSocket of the Python client, against a real hub."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.exceptions import ConnectionClosedError

from hub.client import async_socket
from hub.client.async_socket import MAX_SENT_BYTES, MAX_WAITING_ITEMS
from hub.client.errors import ClientClosed, NotAHub, NotAllowed, NotAuthenticated, NotValid, Unreachable
from hub.client.listening import Pause
from hub.client.received import Gap
from hub.errors import InvalidInput
from tests.client.conftest import Connect
from tests.client.support import cut, take, url_of
from tests.web.conftest import Serve

PROTOCOL = Subprotocol(async_socket.PROTOCOL)
SECRET = "a secret of the tests, which has more than 32 bytes"


async def test_one_connection_publishes_and_listens(serve: Serve, connect: Connect) -> None:
    site = await serve()
    async with connect(site).websocket() as socket, socket.listen("chat") as stream:
        position = await socket.publish({"price": 1.10}, topic="chat", type="said")
        (item,) = await take(stream, 1)
        assert (item.id, item.type, item.topics, item.text) == (str(position), "said", ("chat",), '{"price":1.1}')
        await socket.publish("a\nb", topic="chat")
        (item,) = await take(stream, 1)
        assert (item.type, item.data, item.is_json) == ("message", "a\nb", False)
        assert len(site.hub.connections) == 1
        assert stream.cursor == item.id


async def test_what_is_published_while_it_is_lost_comes_once(serve: Serve, connect: Connect) -> None:
    site = await serve()
    pauses: list[Pause] = []
    async with connect(site).websocket(watch=pauses.append) as socket, socket.listen("chat") as stream:
        for number in range(1, 3):
            await socket.publish(number, topic="chat")
            await cut(site.hub)
            site.hub.notifications.send_notification(-number, topic="chat")
        assert [item.data for item in await take(stream, 4)] == [1, -1, 2, -2]
    assert len(pauses) == 2
    assert all(isinstance(pause.error, Unreachable) for pause in pauses)


async def test_it_goes_on_after_an_id_of_another_wire(serve: Serve, connect: Connect) -> None:
    site = await serve()
    client = connect(site)
    first = await client.publish(1, topic="chat")
    async with client.listen("chat", last_event_id="earliest") as stream:
        assert [item.data for item in await take(stream, 1)] == [1]
    await client.publish(2, topic="chat")
    async with client.websocket() as socket, socket.listen("chat", last_event_id=str(first)) as following:
        assert [item.data for item in await take(following, 1)] == [2]


async def test_it_begins_with_the_newest_of_each_topic(serve: Serve, connect: Connect) -> None:
    site = await serve()
    client = connect(site)
    for number, topic in enumerate(["chat/a", "chat/b", "chat/a"]):
        await client.publish(number, topic=topic)
    async with client.websocket() as socket, socket.listen("chat/*", last_event_id="latest") as stream:
        await socket.publish(3, topic="chat/b")
        assert [item.data for item in await take(stream, 3)] == [1, 2, 3]


async def test_a_gap_is_told_once(serve: Serve, connect: Connect) -> None:
    site = await serve()
    client = connect(site)
    await client.publish(1, topic="chat")
    async with client.websocket() as socket, socket.listen("chat", last_event_id="other-7") as stream:
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert gap.reason == "epoch"
        assert [item.data for item in await take(stream, 1)] == [1]
        await socket.publish(2, topic="chat")
        assert [item.data for item in await take(stream, 1)] == [2]


async def test_who_takes_nothing_can_still_publish_and_gets_everything_later(serve: Serve, connect: Connect) -> None:
    site = await serve()
    number = 3 * MAX_WAITING_ITEMS
    async with connect(site).websocket() as socket, socket.listen("chat") as stream:
        for _ in range(number // 100):
            for n in range(100):
                site.hub.notifications.send_notification(n, topic="chat")
            await asyncio.sleep(0)
        last = await socket.publish("last", topic="chat")
        items = await take(stream, number + 1)
        assert items[-1].id == str(last)
        assert [item.data for item in items[:-1]] == [*range(100)] * (number // 100)


async def test_refusals_are_the_errors_of_the_client(serve: Serve, connect: Connect) -> None:
    site = await serve(jwt_secret=SECRET, anonymous_subscribe=("news",))
    client = connect(site)
    async with client.websocket() as socket:
        with pytest.raises(NotAuthenticated):
            await socket.publish(1, topic="news")
        with pytest.raises((NotAllowed, NotAuthenticated)):
            await anext(socket.listen("secret"))
    with pytest.raises(NotAuthenticated):
        await connect(site, token="none").websocket().__aenter__()


async def test_what_breaks_a_rule_is_refused(serve: Serve, connect: Connect) -> None:
    site = await serve()
    async with connect(site).websocket() as socket:
        with pytest.raises(NotValid, match="pattern"):
            await socket.publish(1, topic="news/*")
        await socket.publish(1, topic="news")


async def test_without_a_hub_it_gives_up(connect: Connect, unused_tcp_port: int) -> None:
    client = connect(f"http://127.0.0.1:{unused_tcp_port}", patience=0.0)
    with pytest.raises(Unreachable):
        await client.websocket().__aenter__()


async def test_what_waits_ends_when_it_is_closed(serve: Serve, connect: Connect) -> None:
    site = await serve()
    socket = connect(site).websocket()
    await socket.__aenter__()
    stream = socket.listen("chat")

    async def listen() -> list[Any]:
        return [item async for item in stream]

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await socket.aclose()
    assert await listening == []
    with pytest.raises(ClientClosed):
        await socket.publish(1)


async def test_a_second_iterator_waits_for_the_end_of_the_first(serve: Serve, connect: Connect) -> None:
    site = await serve()
    async with connect(site).websocket() as socket:
        async with socket.listen("a"):
            with pytest.raises(InvalidInput, match="one iterator"):
                socket.listen("b")
        async with socket.listen("b") as stream:
            await socket.publish(1, topic="a")
            await socket.publish(2, topic="b")
            assert [item.data for item in await take(stream, 1)] == [2]


@contextlib.asynccontextmanager
async def saying(*said: str, ends: bool = False) -> AsyncIterator[str]:
    """The address of something that takes WebSockets, and says *said* over each; with *ends* it closes it then."""

    async def say(socket: ServerConnection) -> None:
        for each in said:
            await socket.send(each)
        if not ends:
            await socket.wait_closed()

    async with serve_sockets(say, "127.0.0.1", 0, subprotocols=[PROTOCOL]) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@pytest.mark.parametrize("ends", [False, True])
async def test_what_opens_sockets_but_is_no_hub_is_given_up(connect: Connect, *, ends: bool) -> None:
    async with saying(ends=ends) as url:
        with pytest.raises(Unreachable):
            await connect(url, patience=0.0, timeout=0.3).websocket().__aenter__()


async def test_a_hub_that_is_full_says_when_to_come_back(connect: Connect) -> None:
    full = '{"op":"hub.close","reason":"capacity","retry":40000}'
    pauses: list[Pause] = []
    known = asyncio.Event()

    def watch(pause: Pause) -> None:
        pauses.append(pause)
        known.set()

    async with saying(full, ends=True) as url:
        socket = connect(url, patience=0.0).websocket(watch=watch)
        opening = asyncio.create_task(socket.__aenter__())
        await known.wait()
        await socket.aclose()
        with pytest.raises(ClientClosed):
            await opening
    assert pauses == [Pause(40.0, None)]


async def test_a_message_that_is_too_long_ends_it(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_socket, "MAX_MESSAGE_BYTES", 1_000)
    opened = '{"op":"hub.open","connection":"c","topics":[],"retry":50}'
    async with saying(opened, f'{{"op":"notification","data":"{"x" * 1_000}"}}') as url:
        with pytest.raises(NotAHub, match="more than 1,000 bytes"):
            async with connect(url).websocket() as socket, socket.listen("chat"):
                pass


async def test_what_no_hub_takes_is_refused_before_it_is_sent(serve: Serve, connect: Connect) -> None:
    site = await serve()
    pauses: list[Pause] = []
    async with connect(site).websocket(watch=pauses.append) as socket:
        with pytest.raises(NotValid) as refused:
            await socket.publish("x" * MAX_SENT_BYTES, topic="chat")
        assert refused.value.status == 413
        await socket.publish("x" * (MAX_SENT_BYTES - 200), topic="chat")
    assert pauses == []


async def test_what_the_token_function_raises_reaches_whoever_asks(serve: Serve, connect: Connect) -> None:
    site = await serve()

    def token() -> str:
        raise KeyError("no login")

    with pytest.raises(KeyError, match="no login"):
        await connect(site, token=token).websocket().__aenter__()


async def test_it_is_used_in_a_block(serve: Serve, connect: Connect) -> None:
    socket = connect(await serve()).websocket()
    with pytest.raises(ClientClosed, match="use it in a with block"):
        await socket.publish("too early", topic="chat")
    with pytest.raises(ClientClosed, match="use it in a with block"):
        socket.listen("chat")


async def test_a_connection_that_breaks_while_a_request_is_sent_leaves_no_error_behind(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    socket = connect("http://127.0.0.1:9").websocket()

    class Broken:
        async def send(self, message: str) -> None:
            (answer,) = socket._asked.values()
            answer.set_exception(Unreachable("", "the connection broke"))
            raise ConnectionClosedError(None, None)

    with pytest.raises(Unreachable):
        await socket.asked(cast("ClientConnection", Broken()), "ping", "{}")
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records


async def test_an_address_with_a_path_too_many_is_named(serve: Serve, connect: Connect) -> None:
    url = f"{url_of(await serve(demo=True))}/notifications"
    for lost in (connect(url).websocket().__aenter__(), connect(url).publish("lost", topic="chat")):
        with pytest.raises(NotAHub, match=re.escape(url) + ".*mounted under another path"):
            await lost


async def test_it_ends_with_its_client(serve: Serve, connect: Connect) -> None:
    site = await serve()
    client = connect(site)
    async with client.websocket() as socket:
        listening = asyncio.create_task(take(socket.listen("chat"), 1))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(StopAsyncIteration):
            await listening
    await site.deserted()


async def test_a_publish_or_a_wait_that_is_cancelled_leaves_the_socket_as_it_was(
    serve: Serve, connect: Connect
) -> None:
    site = await serve()
    async with connect(site).websocket() as socket, socket.listen("chat") as stream:
        for number in range(20):
            waiting = asyncio.create_task(anext(stream))
            publishing = asyncio.create_task(socket.publish(number, topic="chat", key=str(number)))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            publishing.cancel()
            waiting.cancel()
            await asyncio.wait([publishing, waiting])
            assert waiting.cancelled()
            await socket.publish(number, topic="chat", key=str(number))
            assert [item.data for item in await take(stream, 1)] == [number]
