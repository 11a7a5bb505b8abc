"""Both clients, beside a hub: what they send and what they get."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from hub.client import AsyncHubClient, ClientClosed, Gap, HubClient, NotValid, Position, Received
from hub.client.steps import Chance
from hub.errors import InvalidInput, InvalidTopic
from tests.client.conftest import Connect
from tests.client.support import take, url_of
from tests.ports import free_port
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.server import Server


@pytest.fixture
async def server(serve: Serve) -> Server:
    return await serve(prefix="/live")


async def test_what_is_published_arrives_as_it_was_sent(server: Server, connect: Connect) -> None:
    client = connect(server)
    sent: list[Any] = [{"amount": 99.5, "text": "三\n"}, "a line\nand another", "7", 7, None, [], {"topic": "x"}, ""]
    async with client.listen("orders", "user/*") as stream:
        positions = [await client.publish(data, topic="orders", type="order.created") for data in sent]
        received = await take(stream, len(sent))
    assert [each.data for each in received] == sent
    assert [each.id for each in received] == list(map(str, positions))
    assert {(each.type, each.topics, each.topic) for each in received} == {("order.created", ("orders",), "orders")}


async def test_all_topics_that_were_asked_for_are_named(server: Server, connect: Connect) -> None:
    client = connect(server)
    async with client.listen("b", "c/*") as stream:
        await client.publish(1, topics=["a", "c/x", "b", "d"])
        (received,) = await take(stream, 1)
    assert (received.topics, received.topic) == (("c/x", "b"), "c/x")


async def test_numbers_keep_their_digits_in_the_text(server: Server, connect: Connect) -> None:
    client = connect(server)
    async with client.listen("a") as stream:
        await server.publish({"topic": "a", "data": [1e400**0, 10**30, 0.1]})
        (received,) = await take(stream, 1)
    assert (received.text, received.is_json) == ("[1.0,1000000000000000000000000000000,0.1]", True)


async def test_a_position_is_the_id_that_a_stream_can_begin_after(server: Server, connect: Connect) -> None:
    client = connect(server)
    first = await client.publish(1, topic="a")
    assert isinstance(first, Position)
    second, third = await client.publish_many([{"topic": "a", "data": 2}, {"topic": "a", "data": 3, "type": "t"}])
    async with client.listen("a", last_event_id=str(first)) as stream:
        received = await take(stream, 2)
        assert stream.cursor == str(third)
    assert [(each.id, each.data, each.type) for each in received] == [(str(second), 2, "message"), (str(third), 3, "t")]


async def test_all_fields_of_a_draft_reach_the_hub(server: Server, connect: Connect) -> None:
    client = connect(server)
    await client.publish(
        {"n": 1}, topic="a", topics=("b",), type="t", retry=5, private=True, tags={"k": True}, key="mine"
    )
    again = await client.publish("other", topic="a", key="mine")
    (kept,) = (await server.ask("GET", "/live/notifications/history?topic=a")).json()["notifications"]
    assert kept["id"] == str(again)
    fields = {name: kept[name] for name in ("topics", "type", "retry", "private", "tags")}
    assert fields == {"topics": ["a", "b"], "type": "t", "retry": 5, "private": True, "tags": {"k": True}}


async def test_users_and_rooms_are_addressed_by_their_ids(server: Server, connect: Connect) -> None:
    client = connect(server)
    async with client.listen("user/*", "room/*") as stream:
        await client.send_to_user("a/b*", 1)
        await client.send_to_user(42, 2, type="t")
        await client.send_to_room(UUID(int=7), 3)
        received = await take(stream, 3)
    assert [each.topic for each in received] == ["user/a%2Fb%2A", "user/42", f"room/{UUID(int=7)}"]
    with pytest.raises(InvalidTopic):
        await client.send_to_user(None, 1)  # type: ignore[arg-type]


async def test_a_gap_is_an_item_of_its_own(serve: Serve, connect: Connect) -> None:
    server = await serve(retain_count=2)
    client = connect(server)
    ids = list(map(str, await client.publish_many({"topic": "a", "data": n} for n in range(5))))
    async with client.listen("a", last_event_id=ids[0]) as stream:
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.oldest) == ("trimmed", ids[3])
        assert [each.id for each in await take(stream, 2)] == ids[3:]


async def test_what_the_hub_refuses_names_the_problem(server: Server, connect: Connect) -> None:
    client = connect(server)
    with pytest.raises(NotValid, match=r"topic: 'a//b' has an empty segment") as refused:
        await client.publish(1, topic="a//b")
    assert (refused.value.status, refused.value.field) == (400, "topic")
    assert refused.value.type == "urn:broadcast-hub:invalid-topic"
    with pytest.raises(NotValid, match="more than 16 topics"):
        await client.publish(1, topics=[f"t{n}" for n in range(17)])
    with pytest.raises(NotValid) as refused:
        await client.publish_many([{"data": 1}, {"data": 2, "tpoic": "a"}])
    assert refused.value.field == "[1].tpoic"
    with pytest.raises(NotValid):
        async with client.listen("a//b"):
            pass
    with pytest.raises(InvalidInput, match="data: is not JSON"):
        await client.publish({"n": float("nan")})


async def test_many_drafts_go_in_batches_in_their_order(server: Server, connect: Connect) -> None:
    client = connect(server)
    drafts = ({"topic": "a", "data": "x" * (n % 7 * 2_000)} for n in range(2_500))
    positions = await client.publish_many(drafts)
    assert [each.offset for each in positions] == list(range(1, 2_501))
    assert await client.publish_many([]) == []


async def test_a_list_of_topics_that_is_too_long_for_a_url_is_posted(server: Server, connect: Connect) -> None:
    client = connect(server)
    topics = [f"t{n}/{'x' * 200}" for n in range(100)]
    async with client.listen(*topics) as stream:
        await client.publish(1, topic=topics[99])
        assert (await take(stream, 1))[0].topic == topics[99]


async def test_a_closed_client_says_so(server: Server, connect: Connect) -> None:
    client = connect(server)
    waiting = client.listen("a")
    async with waiting:
        reading = asyncio.create_task(anext(waiting, None))
        await asyncio.sleep(0)
        await client.aclose()
        assert await reading is None
    with pytest.raises(ClientClosed):
        await client.publish(1)
    with pytest.raises(ClientClosed):
        client.listen("a")


async def test_a_stream_that_is_left_is_closed(server: Server, connect: Connect) -> None:
    client = connect(server)
    async with client.listen("a"):
        assert len(server.hub.connections) == 1
    await server.deserted()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), None, "10"])
@pytest.mark.parametrize("kind", [HubClient, AsyncHubClient])
def test_a_timeout_is_a_time(kind: Callable[..., object], timeout: object) -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        kind("http://127.0.0.1", timeout=timeout)


# ---- in threads ----


async def test_the_client_for_threads_does_the_same(server: Server) -> None:
    def work() -> tuple[list[Position], list[Any]]:
        with HubClient(url_of(server)) as client, client.listen("a", "room/*") as stream:
            sent = [client.publish({"n": 1}, topic="a"), client.send_to_room("x", "two")]
            sent += client.publish_many([{"topic": "a", "data": 3}])
            items = [next(stream) for _ in range(3)]
            assert stream.cursor == str(sent[-1])
            return sent, [(item.id, item.data) for item in items if isinstance(item, Received)]

    sent, received = await asyncio.to_thread(work)
    assert received == [(str(sent[0]), {"n": 1}), (str(sent[1]), "two"), (str(sent[2]), 3)]


async def test_a_stream_ends_when_another_thread_closes_it(server: Server) -> None:
    with HubClient(url_of(server)) as client:
        stream = client.listen("a")
        reading = asyncio.create_task(asyncio.to_thread(list, stream))
        await until(lambda: server.subscriptions)
        client.close()
        assert await reading == []
        with pytest.raises(ClientClosed):
            client.publish(1)
    await server.deserted()


async def test_threads_that_wait_for_a_hub_that_says_nothing_end_with_the_client() -> None:
    asked: list[bytes] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b" "))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        client = HubClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=3_600)
        publishing = asyncio.create_task(asyncio.to_thread(client.publish, 1))
        listening = asyncio.create_task(asyncio.to_thread(list, client.listen("a", silence=3_600)))
        await until(lambda: len(asked) == 2)
        client.close()
        async with asyncio.timeout(30):
            with pytest.raises(ClientClosed):
                await publishing
            assert await listening == []


async def test_a_thread_that_waits_for_its_next_try_ends_with_the_client() -> None:
    failed: list[float] = []

    def pause(least: float, most: float) -> float:
        failed.append(most)
        return 200.0

    client = HubClient(f"http://127.0.0.1:{free_port()}", patience=240)
    client._chance = Chance(uniform=pause)
    publishing = asyncio.create_task(asyncio.to_thread(client.publish, 1))
    await until(lambda: failed)
    client.close()
    async with asyncio.timeout(30):
        with pytest.raises(ClientClosed):
            await publishing


FORK = """
import os, sys
from hub.client import HubClient, Received

told = []
with HubClient(sys.argv[1]) as client, client.listen("a", watch=told.append) as stream:
    child = os.fork()
    if not child:
        assert list(stream) == []
        client.publish("child", topic="a")
        stream.close()
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    client.publish("parent", topic="a")
    print([next(stream).data for _ in range(2)], [each.type for each in told])
"""


async def test_a_child_process_leaves_the_stream_of_its_parent_alone(server: Server) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORK, url_of(server), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (0, "['child', 'parent'] ['hub.open']\n")


async def test_one_client_serves_many_threads(server: Server) -> None:
    with HubClient(url_of(server)) as client:

        def work(number: int) -> list[Position]:
            return [client.publish(number, topic=f"t{number}") for _ in range(5)]

        each = await asyncio.gather(*(asyncio.to_thread(work, number) for number in range(8)))
    positions = [position for some in each for position in some]
    assert sorted(each.offset for each in positions) == list(range(1, 41))
