"""What every wire does alike: the seam, resume, gaps, slow readers, leaving, the drain, access and rooms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Any

import pytest
from aiohttp import web

from hub import Identity
from hub.connections.connection import Connection
from hub.errors import LogUnavailable
from hub.web.poll import Poll
from tests.chance import examples
from tests.web.client import StreamEnded, until
from tests.web.conftest import Serve
from tests.web.server import Server
from tests.wires.wire import HELD_OPEN, READERS, Message, PollReader, Reader, SocketReader

each_wire = pytest.mark.parametrize("wire", READERS, ids=lambda each: each.name)
each_that_stays = pytest.mark.parametrize("wire", HELD_OPEN, ids=lambda each: each.name)

ANN = Identity(user="ann", subscribe=("orders/**",), publish=("orders/*",))
ROOT = Identity(user="root", admin=True, subscribe=("**", "room/**"))
USERS = {each.user: each for each in (ANN, ROOT)}


async def by_header(request: web.Request) -> Identity | None:
    return USERS.get(request.headers.get("X-User", ""))


GUARDED: dict[str, Any] = {"authenticate": by_header, "routes": None}


async def opened(wire: type[Reader], server: Server, *topics: str, cursor: str = "", **options: Any) -> Reader:
    """Return a reader that is subscribed, at the hub's end too."""
    reader = wire(server, *(topics or ("a",)), cursor=cursor, **options)
    await reader.open()
    await subscribed(server, 1)
    return reader


async def subscribed(server: Server, number: int) -> None:
    """Wait until *number* subscriptions are live."""
    await until(lambda: sum(bool(each._straight and each.topics) for each in server.subscriptions) >= number)


async def news(
    reader: Reader, ops: Collection[str] = ("notification", "hub.gap", "hub.dropped", "hub.close")
) -> Message:
    """Return the next message that is one of *ops*."""
    while True:
        message = await reader.message()
        if message["op"] in ops:
            return message


async def numbers(reader: Reader, upto: int) -> list[int]:
    """Return the data of the notifications up to *upto*; nothing is missing before them."""
    found: list[int] = []
    while not found or found[-1] != upto:
        message = await news(reader)
        assert message["op"] == "notification", message
        found.append(message["data"])
    return found


@each_wire
async def test_what_is_published_is_heard_once_and_in_order(wire: type[Reader], server: Server) -> None:
    reader = wire(server, "a", "b/*")
    await reader.open()
    if wire is not PollReader:  # which knows its position, and misses nothing
        await subscribed(server, 1)
    ids = server.send(*range(5), topic="a")
    server.send("not asked for", topic="c")
    server.hub.notifications.send_notification({"deep": ["é", None]}, topics=["b/1", "x", "a"], type="t", retry=5)
    got = [await news(reader) for _ in range(6)]
    assert [(each["id"], each["data"], each["topics"]) for each in got[:5]] == [
        (id, number, ["a"]) for number, id in enumerate(ids)
    ]
    assert (got[5]["data"], got[5]["topics"], got[5]["type"]) == ({"deep": ["é", None]}, ["b/1", "a"], "t")
    assert reader.cursor == got[5]["id"]


@each_wire
async def test_one_that_comes_back_gets_what_follows_its_cursor(wire: type[Reader], server: Server) -> None:
    ids = server.send(*range(40), topic="a")
    reader = wire(server, "a", cursor=ids[9])
    await reader.open()
    assert await numbers(reader, 39) == list(range(10, 40))
    server.send(40, topic="a")
    assert await numbers(reader, 40) == [40]


@each_wire
async def test_one_that_asks_for_the_earliest_gets_all_that_is_kept(wire: type[Reader], server: Server) -> None:
    server.send(*range(10), topic="a")
    reader = wire(server, "a", cursor="earliest")
    await reader.open()
    assert await numbers(reader, 9) == list(range(10))


@each_wire
@pytest.mark.parametrize(
    ("cursor", "reason"), [("0123456789-7", "epoch"), ("nonsense", "unknown"), ("first", "trimmed")]
)
async def test_a_gap_is_told_before_what_is_kept_follows(
    wire: type[Reader], serve: Serve, cursor: str, reason: str
) -> None:
    server = await serve(retain_count=5)
    first, *_ = server.send(*range(20), topic="a")
    server.hub.log.trim()
    reader = wire(server, "a", cursor=first if cursor == "first" else cursor)
    await reader.open()
    gap = await news(reader)
    assert (gap["op"], gap["recovered"], gap["reason"]) == ("hub.gap", False, reason)
    assert gap["oldest"] == str(server.hub.log.bounds().oldest)
    assert await numbers(reader, 19) == list(range(15, 20))


@each_wire
async def test_a_quiet_topic_of_a_busy_hub_has_no_gap(wire: type[Reader], serve: Serve) -> None:
    server = await serve(retain_count=5)
    (cursor,) = server.send("last", topic="a")
    server.send(*range(100), topic="b")
    server.hub.log.trim()
    reader = wire(server, "a", cursor=cursor)
    await reader.open()
    if wire is not PollReader:
        await subscribed(server, 1)
    server.send(7, topic="a")
    assert await numbers(reader, 7) == [7]


LONG = examples(800, 2_000)
"""Notifications of a history."""


@each_wire
@pytest.mark.slow
async def test_the_seam_from_history_to_live_neither_loses_nor_repeats(
    wire: type[Reader], serve: Serve, tmp_path: Any
) -> None:
    """Readers begin at random places of a history, while it goes on."""
    server = await serve(log=f"sqlite:///{tmp_path}/hub.db")
    chance = random.Random(7)
    receipts = [server.hub.notifications.send_notification(number, topic="a") for number in range(LONG)]
    ids = [str(await receipt) for receipt in receipts]
    going = len(ids)
    last = going + (200 if wire is PollReader else 800)  # each is a poll of each reader

    async def publish() -> None:
        for number in range(going, last):
            await server.hub.notifications.send_notification(number, topic="a")

    async def read() -> None:
        place = chance.randrange(len(ids))
        reader = wire(server, "a", cursor=ids[place])
        if wire is PollReader:
            reader.query["limit"] = str(LONG // 2)
        await reader.open()
        assert await numbers(reader, last - 1) == list(range(place + 1, last))

    await asyncio.gather(publish(), *(read() for _ in range(6)))


@each_wire
async def test_one_that_asks_for_the_latest_gets_the_newest_of_each_topic(wire: type[Reader], server: Server) -> None:
    for number, topic in enumerate(["s/a", "s/b", "s/a", "other", "s/c", "s/b"]):
        server.send(number, topic=topic)
    reader = wire(server, "s/*", cursor="latest")
    await reader.open()
    assert await numbers(reader, 5) == [2, 4, 5]
    assert reader.cursor == str(server.hub.fanout.newest)
    if wire is not PollReader:
        await subscribed(server, 1)
    server.send(6, topic="s/a")
    assert await numbers(reader, 6) == [6]


@each_wire
async def test_while_the_log_can_not_be_read_it_is_sent_away(
    wire: type[Reader], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cursor,) = server.send(1, topic="a")

    def fail() -> None:
        raise LogUnavailable("it is broken here")

    monkeypatch.setattr(server.hub.log, "bounds", fail)
    reader = wire(server, "a", cursor=cursor)
    await reader.open()
    told = await news(reader)
    assert (told["op"], told["reason"], 2_000 <= told["retry"] <= 10_000) == ("hub.close", "log_unavailable", True)


# ---- slow readers, leaving, the drain ----


async def stall(wire: type[Reader], server: Server) -> tuple[Reader, Connection]:
    """Return a reader that has stopped to read, and its end at the hub."""
    reader = await opened(wire, server, receive_buffer=8_192)
    reader.client.stop_reading()
    return reader, server.subscriptions[0]


@each_that_stays
async def test_one_who_is_too_slow_is_cut_and_misses_nothing_when_it_comes_back(
    wire: type[Reader], serve: Serve
) -> None:
    server = await serve(buffer_bytes=64 * 1024)
    (cursor,) = server.send("first", topic="a")
    reader, stream = await stall(wire, server)
    sent = 0
    while stream.closed_because is None:
        server.send(f"{sent:06}" + "x" * 2_000, topic="a")
        sent += 1
        await asyncio.sleep(0)
    assert server.hub.metrics.slow_disconnects == 1
    reader.client.read_on()
    heard: list[str] = []
    try:
        while True:
            heard.append((await news(reader))["data"][:6])
    except StreamEnded:
        pass
    again = wire(server, "a", cursor=reader.cursor if heard else cursor)
    await again.open()
    while len(heard) < sent:
        heard.append((await news(again, ("notification",)))["data"][:6])
    assert heard == [f"{number:06}" for number in range(sent)]


@each_that_stays
@pytest.mark.parametrize("slow", ["drop_oldest", "conflate"])
async def test_what_a_slow_reader_loses_is_told_in_its_place(wire: type[Reader], serve: Serve, slow: str) -> None:
    server = await serve(buffer_bytes=64 * 1024, slow=slow)
    reader, stream = await stall(wire, server)
    sent = 0
    while not stream._dropped:
        server.send(f"{sent:06}" + "x" * 2_000, topic="a")
        sent += 1
        await asyncio.sleep(0)
    server.send("last", topic="a")
    reader.client.read_on()
    expected, dropped = 0, 0
    while True:
        message = await news(reader)
        if message["op"] == "hub.dropped":
            expected += message["dropped"]
            dropped += message["dropped"]
        elif message["data"] == "last":
            break
        else:
            assert int(message["data"][:6]) == expected
            expected += 1
    assert (expected, dropped) == (sent, stream._dropped)
    assert dropped


@each_wire
@pytest.mark.parametrize("slow", ["disconnect", "drop_oldest", "conflate"])
async def test_one_who_takes_nothing_is_cut_under_every_policy(wire: type[Reader], serve: Serve, slow: str) -> None:
    server = await serve(slow=slow, heartbeat=0.1, peer_timeout=0.3)
    first, *_ = server.send("first", *(["x" * 900_000] * 8), topic="a")
    reader = wire(server, "a", cursor=first, receive_buffer=8_192)
    await reader.open()
    reader.client.stop_reading()
    await until(lambda: server.subscriptions)
    (stream,) = server.subscriptions
    await until(lambda: stream.buffered)
    await server.deserted()
    assert server.hub.metrics.peer_timeouts == 1 or stream.closed_because in {"client", "complete"}  # by the kernel
    assert server.hub.metrics.slow_disconnects == 0


@each_wire
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_one_that_leaves_is_gone_at_once(wire: type[Reader], serve: Serve, how: str) -> None:
    server = await serve(heartbeat=3600)
    reader = await waiting(wire, server)
    getattr(reader.client, how)()
    await server.deserted()


async def waiting(wire: type[Reader], server: Server, *topics: str, **options: Any) -> Reader:
    """Return a reader that is subscribed, and has read all there is; a poll is being held."""
    topics = topics or ("a",)
    cursor = str(server.hub.fanout.newest) if wire is PollReader else ""
    reader = wire(server, *topics, cursor=cursor, **options)
    await reader.open()
    await subscribed(server, 1)
    if wire is PollReader:
        await until(lambda: all(getattr(each, "_held", True) for each in server.subscriptions))
    return reader


async def test_polls_that_wait_hold_the_headers_of_their_answers_together(server: Server) -> None:
    """But for the second in which they began."""
    for _ in range(5):
        await waiting(PollReader, server)

    def heads() -> list[bytes]:
        return [each._head for each in server.subscriptions if isinstance(each, Poll) and each._held]

    await until(lambda: len(heads()) == 5)
    assert len(set(map(id, heads()))) == len(set(heads())) < 5


@each_wire
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_one_that_leaves_in_the_middle_of_its_history_is_gone_at_once(
    wire: type[Reader], serve: Serve, how: str
) -> None:
    server = await serve(heartbeat=3600)
    first, *_ = server.send("first", *(["x" * 900_000] * 8), topic="a")
    reader = wire(server, "a", cursor=first, receive_buffer=8_192)
    await reader.open()
    reader.client.stop_reading()
    await until(lambda: any(each.buffered for each in server.subscriptions))
    getattr(reader.client, how)()
    await server.deserted()


@each_wire
async def test_the_drain_says_why_and_when_to_come_back(wire: type[Reader], server: Server) -> None:
    reader = await waiting(wire, server)
    drain = asyncio.create_task(server.hub.drain(1.0))
    told = await news(reader)
    assert told["op"] == "hub.close"
    assert (told["reason"], 1_000 <= told["retry"] <= 6_000) == ("shutdown", True)
    with pytest.raises(StreamEnded):
        await reader.message()
    await drain
    if isinstance(reader, SocketReader):
        assert reader.code == 1001
    await server.deserted()


@each_wire
async def test_whoever_comes_during_the_drain_is_sent_away(wire: type[Reader], server: Server) -> None:
    await server.hub.drain(0)
    reader = wire(server, "a")
    await reader.open()
    assert (await news(reader))["reason"] == "draining"


@each_wire
async def test_over_capacity_it_says_so(wire: type[Reader], serve: Serve) -> None:
    server = await serve(max_connections=1)
    await opened(HELD_OPEN[0], server)
    reader = wire(server, "a")
    await reader.open()
    assert (await news(reader))["reason"] == "capacity"
    assert server.hub.metrics.refused == 1


@each_wire
async def test_an_idle_stream_moves_the_cursor(wire: type[Reader], serve: Serve) -> None:
    """A poll does so when its time is over."""
    server = await serve(heartbeat=0.1)
    reader = wire(server, "a", cursor=str(server.hub.fanout.newest) if wire is PollReader else "")
    if wire is PollReader:
        reader.query["wait"] = "1"
    await reader.open()
    await subscribed(server, 1)
    (newest,) = server.send("another topic", topic="b")

    async def follow() -> None:
        while True:
            await reader.message()

    following = asyncio.create_task(follow())
    await until(lambda: reader.cursor == newest or following.done())
    following.cancel()
    await asyncio.wait([following])
    assert reader.cursor == newest


@each_that_stays
async def test_what_was_sent_just_before_the_end_arrives_before_it(wire: type[Reader], server: Server) -> None:
    """A poll ends with the first of it."""
    reader = await waiting(wire, server)
    server.send(1, 2, topic="a")
    drain = asyncio.create_task(server.hub.drain(0))
    heard = [message.get("data", message["op"]) for message in await reader.ended() if message["op"] != "hub.open"]
    await drain
    assert [each for each in heard if each not in {"hub.topics", "hub.close"}] == [1, 2]


# ---- access and rooms ----


@each_that_stays
async def test_who_is_there_is_told(wire: type[Reader], serve: Serve) -> None:
    server = await serve(setup=GUARDED)
    reader = wire(server, "orders/1", headers={"X-User": "ann"})
    reader.query["presence"] = "1"
    await reader.open()
    told = await news(reader, {"hub.presence"})
    assert (told["topic"], told["count"]) == ("orders/1", 1)


@each_wire
async def test_private_ones_and_other_topics_are_not_seen(wire: type[Reader], serve: Serve) -> None:
    server = await serve(setup=GUARDED, anonymous_subscribe=("news",))
    reader = await waiting(wire, server, "news", "orders/1", headers={"X-User": "ann"})
    service = server.hub.notifications
    service.send_notification("mine", topics=["orders/1", "news", "secret"], private=True)
    service.send_notification("not for ann", topics=["news", "secret"], private=True)
    service.send_notification("hers too", topics=["news", "secret"])
    got = [await news(reader) for _ in range(2)]
    assert [(each["data"], each["topics"]) for each in got] == [("mine", ["orders/1"]), ("hers too", ["news"])]


@each_wire
async def test_rights_that_are_taken_back_end_it(wire: type[Reader], serve: Serve) -> None:
    server = await serve(setup=GUARDED)
    reader = await waiting(wire, server, "orders/1", headers={"X-User": "ann"})
    await server.hub.revoke_user("ann")
    told = await news(reader)
    assert (told["op"], told["reason"]) == ("hub.close", "revoked")
    with pytest.raises(StreamEnded):
        await reader.message()
    if isinstance(reader, SocketReader):
        assert reader.code == 1008


@each_wire
async def test_the_room_is_heard_from_the_joining_to_the_leaving(wire: type[Reader], serve: Serve) -> None:
    server = await serve(setup=GUARDED)
    hub = server.hub
    await hub.notifications.send_notification("before", topic="room/lobby")
    reader = wire(server, "orders/1", headers={"X-User": "ann"}, cursor=str(hub.fanout.newest))
    reader.query["rooms"] = "1"
    await reader.open()
    await subscribed(server, 1)
    await hub.rooms.join("ann", "lobby")
    await hub.notifications.send_notification("inside", topic="room/lobby")
    assert (await news(reader))["data"] == "inside"
    await hub.rooms.leave("ann", "lobby")
    await hub.notifications.send_notification("after", topic="room/lobby")
    await hub.notifications.send_notification("end", topic="orders/1")
    assert (await news(reader))["data"] == "end"


@each_wire
async def test_what_waits_when_somebody_leaves_a_room_is_not_said(wire: type[Reader], serve: Serve) -> None:
    """The notification is in the log, and the fan-out has not flushed it yet or the poll is being held."""
    server = await serve(setup=GUARDED)
    hub = server.hub
    await hub.rooms.join("ann", "lobby")
    reader = wire(server, "orders/1", "room/lobby", headers={"X-User": "ann"}, cursor=str(hub.fanout.newest))
    await reader.open()
    await subscribed(server, 1)
    await hub.rooms.leave("ann", "lobby")
    hub.notifications.send_notification("not any more", topic="room/lobby")
    hub.notifications.send_notification("end", topic="orders/1")
    assert (await news(reader))["data"] == "end"


@each_wire
async def test_a_stream_of_each_wire_counts_as_one_of_its_user(wire: type[Reader], serve: Serve) -> None:
    server = await serve(setup=GUARDED, max_per_user=1)
    await opened(HELD_OPEN[0], server, "orders/1", headers={"X-User": "ann"})
    reader = wire(server, "orders/1", headers={"X-User": "ann"})
    await reader.open()
    assert (await news(reader))["reason"] == "capacity"


@pytest.mark.parametrize(
    ("accept", "lines"),
    [
        ("application/x-ndjson", True),
        ("*/*;q=0.1,\tAPPLICATION/x-ndjson; q=0.5", True),
        ("text/event-stream;q=0, application/x-ndjson", True),
        ("application/x-ndjson;q=0", False),
        ("application/x-ndjson; Q=0.000, */*", False),
        ("text/event-stream;q=0.1, application/x-ndjson", False),
        ("application/*", False),
    ],
)
async def test_lines_come_to_whoever_takes_them(server: Server, accept: str, lines: bool) -> None:
    client = await server.client()
    await client.request("GET", "/notifications/subscribe", headers={"Accept": accept})
    await client.head()
    assert client.headers["Content-Type"] == ("application/x-ndjson" if lines else "text/event-stream")
