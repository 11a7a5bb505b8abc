"""The end of an application with a hub: each stream gets its last block, and nothing holds the end up."""

from __future__ import annotations

import asyncio
import gc
import re

import pytest
from aiohttp import web

from hub.errors import ShuttingDown
from tests.chance import examples
from tests.web.client import Client, until
from tests.web.conftest import TLS, Complaints, Serve
from tests.web.server import Server

pytestmark = [pytest.mark.both_loops, pytest.mark.usefixtures("nothing_goes_wrong_behind_the_scenes")]

MANY = examples(300, 2_000)


# ---- the end ----


async def open_streams(server: Server, count: int) -> list[Client]:
    streams: list[Client] = []
    while len(streams) < count:
        streams += await asyncio.gather(*(server.subscribe(f"t/{number % 7}") for number in range(100)))
    return streams


@pytest.mark.slow
@pytest.mark.parametrize("handler_cancellation", [False, True])
async def test_many_idle_streams_end_with_the_application(
    serve: Serve, handler_cancellation: bool, complaints: Complaints
) -> None:
    server = await serve(handler_cancellation=handler_cancellation, drain=0)
    streams = await open_streams(server, MANY)
    assert len(server.hub.connections) == MANY
    async with asyncio.timeout(60):
        await server.aclose_server()
    retries = set()
    for stream in streams:
        assert (await stream.next("hub.close")).json() == {"reason": "shutdown"}
        await stream.body()
        assert stream.complete
        retries.add(stream.decoder.retry)
        await stream.gone()
    assert len(retries) > MANY / 2
    assert not any(server.registered.values())
    gc.collect()
    assert complaints.take() == []


async def test_the_drain_window_spreads_the_ends(serve: Serve) -> None:
    server = await serve(drain=0.5)
    streams = await open_streams(server, 100)
    ending = asyncio.create_task(server.aclose_server())
    await until(lambda: len(server.hub.connections) < 100)
    assert len(server.hub.connections) > 50
    await ending
    for stream in streams:
        await stream.next("hub.close")
        await stream.body()
        assert stream.complete


async def test_streams_that_can_not_be_written_to_do_not_hold_the_end_up(serve: Serve) -> None:
    server = await serve(slow="drop_oldest")
    first, *_ = server.send(*(["x" * 60_000] * 300), topic="a")
    replaying = [await server.subscribe("a", last_event_id=first, receive_buffer=8_192) for _ in range(3)]
    live = [await server.subscribe("a", receive_buffer=8_192) for _ in range(3)]
    for client in replaying + live:
        client.stop_reading()
    while not server.hub.metrics.dropped:
        server.send("x" * 60_000, topic="a")
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await server.aclose_server()
    assert not any(server.registered.values())
    for client in replaying + live:
        client.read_on()
        await client.gone()
        assert not client.complete


async def test_publishing_goes_on_until_the_end_and_nothing_is_lost(serve: Serve) -> None:
    server = await serve(drain=0.3)
    streams = [await server.subscribe("a") for _ in range(20)]
    sent: list[str] = []

    async def publish() -> None:
        while True:
            try:
                sent.extend(server.send(len(sent), topic="a"))
            except ShuttingDown:
                return
            await asyncio.sleep(0.001)

    publishing = asyncio.create_task(publish())
    await asyncio.gather(*(stream.next() for stream in streams))
    await server.aclose_server()
    await publishing
    for stream in streams:
        events = await stream.rest()
        assert events[-1].type == "hub.close"
        # Everything before its end, in order: the rest would come with a resume.
        assert [event.id for event in events[:-1]] == sent[1 : len(events)]


async def test_a_request_that_is_being_answered_is_answered(serve: Serve) -> None:
    app = web.Application()
    go_on = asyncio.Event()
    reached = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        reached.set()
        await go_on.wait()
        return web.Response(text="done")

    app.router.add_get("/slow", slow)
    server = await serve(app=app)
    stream = await server.subscribe()
    asking = asyncio.create_task(server.ask("GET", "/slow"))
    await reached.wait()
    ending = asyncio.create_task(server.aclose_server())
    await stream.next("hub.close")
    go_on.set()
    assert (await asking).body == b"done"
    await ending


# ---- the end, with aiohttp as patient as it is by default ----


LAST_BLOCK = re.compile(rb'retry: [1-6][0-9]{3}\nevent: hub\.close\ndata: \{"reason":"shutdown"\}\n\n')
GENEROUS = 30.0
"""Seconds for an end that is immediate when it works, and takes minutes when something is waited for in vain."""


async def subscribed(server: Server, count: int) -> list[Client]:
    """Return *count* clients with open, idle streams."""
    clients: list[Client] = []
    for _ in range(0, count, 100):
        clients += await asyncio.gather(*(server.subscribe() for _ in range(min(100, count))))
    for client in clients:
        client.received.clear()
    await until(lambda: len(server.hub.connections) == count)
    return clients


async def cleanup(server: Server) -> None:
    """End the application, with aiohttp as patient as it is by default."""
    server.runner._shutdown_timeout = 60.0
    async with asyncio.timeout(GENEROUS):
        await server.runner.cleanup()


async def say_goodbye(client: Client) -> None:
    """Read what is left: one block, and the end."""
    assert LAST_BLOCK.fullmatch(await client.body())
    assert client.complete
    await client.gone()


@pytest.mark.slow
@pytest.mark.parametrize("maybe_tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("handler_cancellation", [False, True], ids=["handler runs on", "handler cancelled"])
async def test_the_last_thing_each_stream_gets_is_one_block_and_the_end_of_the_answer(
    serve: Serve, tls: TLS, maybe_tls: bool, handler_cancellation: bool
) -> None:
    server = await serve(tls=tls if maybe_tls else None, handler_cancellation=handler_cancellation)
    clients = await subscribed(server, 100)
    await cleanup(server)
    assert not any(server.registered.values())
    await asyncio.gather(*(say_goodbye(client) for client in clients))


async def test_what_was_sent_just_before_the_end_arrives_before_it(serve: Serve) -> None:
    server = await serve()
    clients = await subscribed(server, 10)
    server.send("last words")
    await cleanup(server)
    for client in clients:
        assert [event.type for event in await client.rest()] == ["message", "hub.close"]
        assert client.complete


@pytest.mark.slow
@pytest.mark.parametrize("maybe_tls", [False, True], ids=["tcp", "tls"])
async def test_with_a_drain_window_the_ends_are_spread_over_it(serve: Serve, tls: TLS, maybe_tls: bool) -> None:
    server = await serve(drain=0.5, tls=tls if maybe_tls else None)
    clients = await subscribed(server, 40)
    still_open: list[int] = []

    async def follow(client: Client) -> None:
        await client.next("hub.close")
        still_open.append(len(server.hub.connections))
        await client.gone()
        assert client.complete

    await asyncio.gather(cleanup(server), *map(follow, clients))
    assert len(set(still_open)) > 5
    assert still_open[0] > 20


@pytest.mark.slow
@pytest.mark.parametrize("maybe_tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("drain", [0, 0.3])
async def test_who_has_not_read_what_was_sent_is_cut_when_the_window_ends(
    serve: Serve, tls: TLS, maybe_tls: bool, drain: float
) -> None:
    server = await serve(drain=drain, tls=tls if maybe_tls else None, slow="drop_oldest")
    stuck = await server.subscribe("big", receive_buffer=8_192)
    stuck.stop_reading()
    others = await subscribed_beside(server, 10)
    (connection,) = [each for each in server.subscriptions if "big" in each.topics]
    while not (server.hub.metrics.dropped and connection._paused):
        server.send("x" * 60_000, topic="big")
        await asyncio.sleep(0)
    await cleanup(server)
    assert not any(server.registered.values())
    await asyncio.gather(*(say_goodbye(client) for client in others))
    stuck.read_on()
    await stuck.gone()
    assert not stuck.complete


async def subscribed_beside(server: Server, count: int) -> list[Client]:
    clients = [await server.subscribe() for _ in range(count)]
    for client in clients:
        client.received.clear()
    return clients


async def test_clients_that_leave_during_the_window_do_not_disturb_it(serve: Serve) -> None:
    server = await serve(drain=0.5)
    clients = await subscribed(server, 40)
    ending = asyncio.create_task(cleanup(server))
    await until(lambda: server.hub.draining)
    for client in clients[::2]:
        client.reset()
    await asyncio.gather(*(say_goodbye(client) for client in clients[1::2]))
    await ending


async def test_a_hub_that_never_served_anybody_ends_twice_without_a_word(serve: Serve) -> None:
    server = await serve()
    await cleanup(server)
    await cleanup(server)
