"""A slow reader meets its own limit; nobody else feels it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from hub.connections.connection import Connection
from tests.spec_decoder import Event, SpecDecoder
from tests.web.client import PATIENCE, Chunks, Client, until
from tests.web.conftest import TLS, Serve
from tests.web.server import Server

pytestmark = pytest.mark.both_loops

MIB = 1024 * 1024


def offset(id: str) -> int:
    return int(id.rpartition("-")[2])


async def stalled(server: Server, *topics: str) -> tuple[Client, Connection]:
    """Return a stream whose reader has stopped, and the hub's end of it."""
    before = set(server.subscriptions)
    client = await server.subscribe(*topics, receive_buffer=8_192)
    client.stop_reading()
    (connection,) = set(server.subscriptions) - before
    return client, connection


class Reading:
    """A reader that keeps up: it remembers how many notifications it has read, and a digest of what was in them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.count = 0
        self.digest = hashlib.sha256()

    async def read(self, count: int) -> None:
        while self.count < count:
            self.digest.update((await self.client.next()).data.encode())
            self.count += 1


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "megabytes"), [("disconnect", 100), ("drop_oldest", 50), ("conflate", 50)])
async def test_one_who_never_reads_costs_neither_memory_nor_the_others_anything(
    serve: Serve, policy: str, megabytes: int
) -> None:
    server = await serve(slow=policy, retain_bytes=8 * MIB)
    slow, connection = await stalled(server)
    readers = [Reading(await server.subscribe(keep=False)) for _ in range(2)]
    count = megabytes * 2
    reading = [asyncio.create_task(reader.read(count)) for reader in readers]
    process = psutil.Process()
    gc.collect()
    before = most = process.memory_info().rss
    sent = hashlib.sha256()
    for number in range(count):
        data = f"{number} ".ljust(500_000, "x")
        sent.update(data.encode())
        server.send(data)
        # No faster than those read who do, or they would be slow readers, too.
        await until(lambda number=number: all(reader.count > number for reader in readers))  # type: ignore[misc]
        most = max(most, process.memory_info().rss)
    await asyncio.gather(*reading)
    assert {reader.digest.digest() for reader in readers} == {sent.digest()}
    assert most - before < 40 * MIB
    if policy == "disconnect":
        assert connection.closed_because == "slow"
        assert server.hub.metrics.slow_disconnects == 1
        slow.read_on()
        await slow.gone()
    else:
        assert connection.closed_because is None
        assert server.hub.metrics.dropped > count / 2


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest", "conflate"])
@pytest.mark.parametrize("home", ["memory", "file"])
async def test_a_slow_reader_that_resumes_gets_everything_and_is_never_cut_for_its_history(
    serve: Serve, tmp_path: Path, policy: str, home: str
) -> None:
    log: dict[str, Any] = {"log": f"sqlite:///{tmp_path}/hub.db"} if home == "file" else {}
    server = await serve(slow=policy, buffer_bytes=64 * 1024, **log)
    notifications = server.hub.notifications
    history = [notifications.send_notification("x" * 2_000) for _ in range(100)]
    ids = [str(await receipt) for receipt in history]
    client = await server.client(receive_buffer=8_192)
    client.stop_reading()  # from here on it takes what the test says
    await client.request("GET", server.subscribe_path(), headers={"Last-Event-ID": ids[0]})
    (connection,) = await connected(server)
    most = 0
    raw = bytearray()
    while len(ids) < 300:  # history, the seam, and live
        async with asyncio.timeout(PATIENCE):
            while not (some := client.sip(4_096)) and connection.closed_because is None:  # noqa: ASYNC110 - a bare socket
                await asyncio.sleep(0)
        assert connection.closed_because is None
        raw += some
        most = max(most, connection._transport.get_write_buffer_size())
        # The reader sets the pace: twice as fast as what comes, and far slower than what the hub could send.
        ids.append(str(await notifications.send_notification("y" * 2_000)))
    ids.append(str(await notifications.send_notification("end")))
    async with asyncio.timeout(PATIENCE):
        while b"data: end" not in raw:
            raw += client.sip(65_536)
            await asyncio.sleep(0)
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    opened, *events = SpecDecoder().feed(Chunks().feed(body))
    assert opened.json()["recovered"] is True
    assert [event.id for event in events] == ids[1:]
    assert most < 48 * 1024
    assert server.hub.metrics.replayed < len(ids) - 50, "it went live on the way"
    assert (server.hub.metrics.dropped, server.hub.metrics.slow_disconnects) == (0, 0)


@pytest.mark.parametrize("secure", [False, True])
async def test_a_history_that_goes_out_in_slices_arrives_whole(serve: Serve, tls: TLS, *, secure: bool) -> None:
    server = await serve(tls=tls if secure else None, buffer_bytes=64 * 1024)
    ids = server.send("begin", *(f"{number} ".ljust(10_000, "x") for number in range(100)))
    ids += server.send("两" * 300_000, "short", "\U0001f600" * 250_000, "end")
    client = await server.subscribe(last_event_id=ids[0])
    events = await client.upto("end")
    assert [event.id for event in events] == ids[1:]
    assert [len(event.data) for event in events[-4:]] == [300_000, 5, 250_000, 3]


async def connected(server: Server) -> list[Connection]:
    """Return the open connections, as soon as there are any."""
    await until(lambda: len(server.hub.connections))
    return server.subscriptions


def check_dropped(opened: Event, events: list[Event], published: list[str]) -> int:
    """Check that what is missing from *events* is announced in its place; return how many notifications that were.

    *published* are the ids of what the stream wanted, in order, from its beginning to the last of *events*.
    """
    place = {id: number for number, id in enumerate([opened.id, *published])}
    last, missing, announced = 0, 0, 0
    for number, event in enumerate(events):
        if event.type == "hub.dropped":
            facts = event.json()
            following = next(each for each in events[number:] if each.type != "hub.dropped")
            assert (facts["after"], facts["before"]) == (published[last - 1] if last else opened.id, following.id)
            assert event.id == facts["after"], "it has no id of its own"
            assert facts["dropped"] > 0
            announced += facts["dropped"]
            continue
        assert place[event.id] > last, "ids only grow"
        missing += place[event.id] - last - 1
        last = place[event.id]
    assert last == len(published)
    return missing if missing == announced else -1


async def stall_and_publish(server: Server, *topics: str, drop: int) -> tuple[Client, list[str]]:
    """Return a stream of `a/**` that was not read until *drop* notifications were dropped, and all their ids."""
    client, _ = await stalled(server, "a/**")
    ids: list[str] = []
    while server.hub.metrics.dropped < drop:
        for topic in topics:
            ids += server.send(f"{len(ids)} ".ljust(20_000, "x"), topics=topic.split())
            server.send("not for it", topic="elsewhere")
        await asyncio.sleep(0)
    return client, ids


async def test_drop_oldest_says_in_place_how_many_are_missing(serve: Serve) -> None:
    server = await serve(slow="drop_oldest", buffer_bytes=128 * 1024)
    client, ids = await stall_and_publish(server, "a/1", "a/2", drop=50)
    client.read_on()
    await until(lambda: client.is_silent)
    ids += server.send("end", topic="a/1")
    events = await client.upto("end")
    missing = check_dropped(client.opened, events, ids)
    assert missing == server.hub.metrics.dropped >= 50
    # It is the oldest that went: behind the last gap nothing is missing.
    last_gap = max(number for number, event in enumerate(events) if event.type == "hub.dropped")
    rest = [event.id for event in events[last_gap + 1 :]]
    assert rest == ids[-len(rest) :]
    assert server.hub.metrics.delivered + missing == len(ids)


async def test_a_stream_that_caught_up_goes_on_as_if_nothing_had_been(serve: Serve) -> None:
    server = await serve(slow="drop_oldest", buffer_bytes=128 * 1024)
    client, _ = await stall_and_publish(server, "a/1", drop=5)
    client.read_on()
    server.send("end", topic="a/1")
    await client.upto("end")
    dropped = server.hub.metrics.dropped
    for _ in range(5):
        (id,) = server.send("more", topic="a/1")
        assert (await client.next()).id == id
    assert server.hub.metrics.dropped == dropped


async def test_conflate_keeps_the_newest_of_each_set_of_topics(serve: Serve) -> None:
    server = await serve(slow="conflate", buffer_bytes=256 * 1024)
    sets = ("a/1", "a/2", "a/1 a/2", "a/2 a/1", "a/3")
    client, ids = await stall_and_publish(server, *sets, drop=100)
    client.read_on()
    (end,) = server.send("end", topic="a/end")
    events = await client.upto("end")
    missing = check_dropped(client.opened, events, [*ids, end])
    assert missing == server.hub.metrics.dropped >= 100
    heard = {event.id for event in events}
    # `a/1 a/2` and `a/2 a/1` are one set.
    assert {ids[-5], ids[-4], ids[-2], ids[-1]} <= heard
    assert ids[-3] not in heard
    assert [event.data for event in events[-2:]] == [events[-2].data, "end"]


@pytest.mark.parametrize("policy", ["drop_oldest", "conflate"])
@pytest.mark.parametrize("more", [0, 1, 7])
async def test_a_resume_brings_everything_after_the_cursor_of_a_stream_with_drops(
    serve: Serve, policy: str, more: int
) -> None:
    server = await serve(slow=policy, buffer_bytes=512 * 1024)
    client, ids = await stall_and_publish(server, *(f"a/{number}" for number in range(40)), drop=60)
    client.read_on()
    while (await client.event()).type != "hub.dropped":
        pass
    for _ in range(more):
        await client.event()
    cursor = client.decoder.last_event_id
    client.reset()
    resumed = await server.subscribe("a/**", last_event_id=cursor)
    assert resumed.opened.json()["recovered"] is True
    ids += server.send("end", topic="a/0")
    assert [event.id for event in await resumed.upto("end")] == ids[ids.index(cursor) + 1 :]


async def test_what_was_dropped_before_a_reader_left_comes_with_its_resume(serve: Serve) -> None:
    server = await serve(slow="drop_oldest", buffer_bytes=128 * 1024)
    client, ids = await stall_and_publish(server, "a/1", drop=60)
    for _ in range(3):
        client.read_on()
        await client.event()
    cursor = client.decoder.last_event_id
    client.close()
    resumed = await server.subscribe("a/**", last_event_id=cursor)
    ids += server.send("end", topic="a/1")
    assert [event.id for event in await resumed.upto("end")] == ids[ids.index(cursor) + 1 :]


async def test_one_who_was_cut_for_slowness_resumes_and_misses_nothing(serve: Serve) -> None:
    server = await serve(buffer_bytes=128 * 1024)
    client, connection = await stalled(server)
    ids: list[str] = []
    while connection.closed_because is None:
        ids += server.send(f"{len(ids)} ".ljust(20_000, "x"))
        await asyncio.sleep(0)
    assert connection.closed_because == "slow"
    await server.deserted()
    client.read_on()
    heard = await client.rest()
    assert not client.complete, "a stream that is cut has no end"
    ids += server.send("end")
    resumed = await server.subscribe(last_event_id=client.decoder.last_event_id)
    heard += await resumed.upto("end")
    assert [event.id for event in heard] == ids


async def test_an_item_beyond_the_buffer_reaches_those_who_read(serve: Serve) -> None:
    server = await serve(buffer_bytes=64 * 1024)
    client = await server.subscribe()
    for number in range(20):
        server.send(f"{number} ".ljust(900_000, "x"))
        assert (await client.next()).data.startswith(f"{number} ")
    assert server.hub.metrics.slow_disconnects == 0


async def test_a_burst_larger_than_the_buffer_is_not_the_readers_fault(serve: Serve) -> None:
    server = await serve(buffer_bytes=64 * 1024)
    ids = server.send("before")
    client = await server.subscribe(last_event_id=ids[0])
    ids += server.send(*(f"{number} ".ljust(1_000, "x") for number in range(8_000)))
    ids += server.send("end")
    heard = await client.rest(upto="end")
    if heard[-1].data != "end":  # it was cut: its resume brings the rest
        resumed = await server.subscribe(last_event_id=client.decoder.last_event_id)
        heard += await resumed.upto("end")
    assert [event.id for event in heard] == ids[1:]
