"""Losses that only one process knows of, or only for a while: they are said all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from hub.errors import LogUnavailable
from hub.notification import Position
from tests.contracts.test_log import offsets, read_all, until
from tests.log.redis.conftest import Begin, Process
from tests.log.redis.test_fence import once_up, until_equal
from tests.redis_server import RedisServer

MakeServer = Callable[..., RedisServer]


@pytest.fixture
async def pair(make_server: MakeServer) -> tuple[RedisServer, RedisServer]:
    """Return a master, and a replica of it that has all."""
    master, replica = make_server("redis", port=True), make_server("redis", port=True)
    await master.start()
    await replica.start()
    await replica.replicate(master)
    await master.says(b"state=online", "INFO", "replication")
    return master, replica


async def go(process: Process, server: RedisServer) -> None:
    """Have *process* find *server* behind its address from now on, as behind a name or a proxy."""
    log = process.log
    log._link._url = log._link._url._replace(hosts=(("127.0.0.1", server.port),))
    for connection in (log._tail._connection, log._sender._connection, log._pages._connection):
        if connection is not None:
            await connection.aclose()


async def told(process: Process, position: Position, topic: str = "t") -> bool:
    """Return whether a client that comes back with *position* is told of a gap."""
    found = await process.log.locate(position)
    return found.after is None or bool(process.log.trimmed([topic], found.after))


async def test_what_was_lost_is_said_of_each_topic_although_others_were_trimmed_since(
    pair: tuple[RedisServer, RedisServer], begin: Begin
):
    master, replica = pair
    one = await begin(master.tcp, count=3)
    (*_, kept) = await one.publish(*"abc")
    await until_equal(master, replica)
    await replica.cut_off()
    await one.publish("lost", topic="quiet")
    master.kill()
    await replica.replicate(None)
    other = await begin(replica.tcp, count=3)
    await other.publish(*"defghi")
    assert not await told(other, kept, "quiet"), "it can't know of it"
    await go(one, replica)
    await until(lambda: bool(one.renewed) and bool(other.renewed))
    await once_up(one)
    await once_up(other)
    assert await told(one, kept, "quiet")
    assert await told(other, kept, "quiet")


async def test_a_master_that_is_back_without_having_been_demoted_has_missed_something(
    pair: tuple[RedisServer, RedisServer], begin: Begin
):
    old, new = pair
    one, other = await begin(old.tcp), await begin(old.tcp)
    (*_, kept) = await one.publish(*"abc")
    await until_equal(old, new)
    await new.replicate(None)
    for process in (one, other):
        await go(process, new)
    await until(lambda: bool(one.renewed) and bool(other.renewed))
    await once_up(one)
    assert not await told(one, kept)
    await one.publish(*"de")
    await until(lambda: len(other.heard) == 5)
    for process in (one, other):
        await go(process, old)
    await until(lambda: len(one.renewed) == len(other.renewed) == 2)
    await once_up(one)
    await once_up(other)
    (given,) = await one.publish("f")
    assert given.offset == 6
    assert await told(one, kept)
    assert await told(other, kept)
    await until(lambda: other.heard[-1] == given)
    assert len(one.renewed) == len(other.renewed) == 2, "it is said once, whoever knows of it"


async def test_what_was_confirmed_and_never_heard_of_is_missed_as_well(
    pair: tuple[RedisServer, RedisServer], begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    old, new = pair
    one = await begin(old.tcp)
    (*_, kept) = await one.publish(*"abc")
    await until(lambda: len(one.heard) == 3)
    await until_equal(old, new)
    await new.replicate(None)
    sender, changed = one.log._sender, one.log._sender._changed
    monkeypatch.setattr(sender, "_changed", lambda epoch: None)  # its tail stays where it is
    one.log._link._url = one.log._link._url._replace(hosts=(("127.0.0.1", new.port),))
    await sender._connection.aclose()
    (given,) = await one.publish("d")
    assert given.epoch != kept.epoch == one.log.epoch
    monkeypatch.setattr(sender, "_changed", changed)
    one.log._link._url = one.log._link._url._replace(hosts=(("127.0.0.1", old.port),))
    await sender._connection.aclose()
    assert (await one.publish("e"))[0].offset == 5
    await until(lambda: bool(one.renewed))
    await once_up(one)
    assert await told(one, kept)


async def test_pages_are_not_read_from_a_server_that_only_follows(
    pair: tuple[RedisServer, RedisServer], begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    old, new = pair
    one = await begin(old.tcp)
    monkeypatch.setattr(one.log._ring, "has", lambda *asked: False)
    await one.publish("a")
    assert offsets(await read_all(one.log, 0, ["t"])) == [1]
    await until_equal(old, new)
    one.log._link._url = one.log._link._url._replace(hosts=(("127.0.0.1", new.port),))
    await old.ask("FAILOVER", "TO", "127.0.0.1", new.port)
    await until(lambda: bool(one.renewed))
    await once_up(one)
    await one.publish("b")
    await old.caught_up()
    await until_equal(new, old)
    await old.cut_off()
    await one.publish("c")
    await until(lambda: len(one.heard) == 3)
    assert offsets(await read_all(one.log, 0, ["t"])) == [1, 2, 3]


async def test_a_publish_that_can_not_wait_for_replicas_is_not_called_not_kept(
    pair: tuple[RedisServer, RedisServer], begin: Begin
):
    master, _ = pair
    await master.ask("ACL", "SETUSER", "hub", "on", ">secret", "~*", "+@all", "-wait")
    one = await begin(master.tcp.replace("//", "//hub:secret@"), wait=1)
    with pytest.raises(LogUnavailable, match="wait") as failed:
        await one.publish("a")
    assert failed.value.outcome == "unknown"
    await until(lambda: one.texts == ["a"])


async def test_a_call_is_not_made_again_where_it_is_not_known_what_came_of_it(
    server: RedisServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    one, other = await begin(server.url), await begin(server.url)
    await one.publish("a")
    await other.publish("b")
    call = one.log._sender._call

    async def cut(*asked: Any) -> Any:
        answer = await call(*asked)
        if asked[1]:
            monkeypatch.setattr(one.log._sender, "_call", call)
            await server.ask("DEL", "{hub}:writers")
            await other.publish("d")
            raise OSError("cut")
        return answer

    monkeypatch.setattr(one.log._sender, "_call", cut)
    with pytest.raises(LogUnavailable) as failed:
        await one.publish("c")
    assert failed.value.outcome == "unknown"
    await one.publish("e")
    await until(lambda: one.texts[-1:] == ["e"])
    assert one.texts == ["a", "b", "c", "d", "e"]
    assert not one.renewed


async def test_a_process_that_missed_only_a_notice_says_so(
    server: RedisServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.redis.sender.SPARE_COUNT", 2)
    now = 1_000.0
    one, slow = [await begin(server.url, age=10.0, clock=lambda: now) for _ in range(2)]
    (given,) = await one.publish("a")
    await until(lambda: bool(slow.heard))
    held, connect = asyncio.Event(), slow.log._link.connect

    async def later() -> object:
        await held.wait()
        return await connect()

    monkeypatch.setattr(slow.log._link, "connect", later)
    await slow.log._tail._connection.aclose()
    now += 100
    one.log.trim()
    await until(lambda: bool(one.log.trimmed(["t"])))
    # What tells of it goes, and what is published next follows what the slow one has.
    await server.ask("XDEL", "{hub}:log", "1-1")
    await server.ask("HINCRBY", "{hub}:meta", "dead", -1)
    held.set()
    await one.publish("b", topic="other")
    await until(lambda: bool(slow.renewed))
    assert slow.log.trimmed(["t"]) == given.offset


FORKED = """
import asyncio, os, sys
from hub.log.redis.log import RedisLog
from hub.notification import Draft
from hub.redis_url import RedisURL
log = RedisLog(RedisURL.parse(sys.argv[1]), count=10, size=10**6, age=None)
child = os.fork()
async def publish():
    await log.open()
    os.write(1, b"%d " % (await log.append([Draft.of("x")])[0]).offset)
    await log.aclose()
asyncio.run(publish())
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.slow
async def test_processes_that_were_forked_from_one_do_not_answer_for_each_other(server: RedisServer):
    forked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FORKED, server.url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert sorted(forked.stdout.split()) == ["1", "2"]
