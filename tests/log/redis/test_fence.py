"""A history that was rewound: a failover, a restart or an accident that lost writes is recognized, and said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hub.errors import LogUnavailable
from hub.log.log import Located
from hub.notification import Position
from tests.contracts.test_log import offsets, read_all, until
from tests.log.redis.conftest import Begin, Process
from tests.redis_server import KINDS, RedisServer

MakeServer = Callable[..., RedisServer]


async def places(process: Process, epoch: str, *numbers: int) -> list[int | str | None]:
    found = [await process.log.locate(Position(epoch, number)) for number in numbers]
    return [each.after if each.why is None else each.why for each in found]


async def once_up(process: Process) -> None:
    """Wait until the log can be used."""

    def up() -> bool:
        try:
            process.log.bounds()
        except LogUnavailable:
            return False
        return True

    await until(up)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replica_promoted_without_the_newest_begins_a_new_epoch(
    make_server: MakeServer, begin: Begin, kind: str
):
    master, replica = make_server(kind, port=True), make_server(kind, port=True)
    await master.start()
    await replica.start()
    await replica.replicate(master)
    one = await begin(master.tcp)
    before = one.log.epoch
    await one.publish(*"abcdefghij")
    await until_equal(master, replica)
    # What follows never reaches the replica.
    await replica.cut_off()
    await one.publish(*"klmno")
    await until(lambda: len(one.heard) == 15)
    assert await places(one, before, 10, 15) == [10, 15]
    master.kill()
    await replica.replicate(None)
    # The address is now that of the other server, as behind a name or a proxy.
    one.log._link._url = one.log._link._url._replace(hosts=(("127.0.0.1", replica.port),))
    await until(lambda: bool(one.renewed))
    assert await places(one, before, 0, 10, 11, 15) == [0, 10, "epoch", "epoch"]
    (given,) = await one.publish("new")
    assert given.epoch != before
    assert given.offset == 16, "what was given out is not given out again, for somebody knows of it"
    other = await begin(replica.tcp)
    assert await places(other, before, 10, 11) == [10, "epoch"]
    texts = [each.text for each in await read_all(other.log, 0, ["t"])]
    assert texts == [*"abcdefghij", "new"]
    assert one.texts == [*"abcdefghijklmno", "new"]


@pytest.mark.parametrize("first", ["it knows", "it does not know"])
async def test_who_missed_what_is_lost_is_told_so_even_without_having_seen_anything_of_it(
    make_server: MakeServer, begin: Begin, first: str
):
    master, replica = make_server("redis", port=True), make_server("redis", port=True)
    await master.start()
    await replica.start()
    await replica.replicate(master)
    one = await begin(master.tcp)
    before = one.log.epoch
    await one.publish(*"abc")
    await until_equal(master, replica)
    await replica.cut_off()
    await one.publish(*"de")
    master.kill()
    await replica.replicate(None)
    if first == "it does not know":
        # A process that has seen nothing of it finds the rewound history, and others go on in it.
        other = await begin(replica.tcp)
        assert not other.log.trimmed(["t"], 3)
        await other.publish("other")
    one.log._link._url = one.log._link._url._replace(hosts=(("127.0.0.1", replica.port),))
    await until(lambda: bool(one.renewed))
    await once_up(one)
    logs = [one.log]
    if first == "it does not know":
        await until(lambda: bool(other.renewed))
        logs.append(other.log)
    await one.publish("new")
    for log in logs:
        assert (await log.locate(Position(before, 3))).after == 3
        assert log.trimmed(["t"], 3), "two of this topic were lost behind it"
        assert log.trimmed(["*"], 3)
        assert not log.trimmed(["t"], one.heard[-1].offset)
    texts = [each.text for each in await read_all(one.log, 0, ["t"])]
    assert texts == [*"abc", *(["other"] if first == "it does not know" else []), "new"]
    renewals = len(one.renewed)
    (given,) = await one.publish("again")
    await until(lambda: one.heard[-1] == given)
    assert len(one.renewed) == renewals, "it is said once"


async def until_equal(master: RedisServer, replica: RedisServer) -> None:
    """Wait until the replica has all that the master has."""

    async def offset(server: RedisServer, name: bytes) -> bytes:
        info: bytes = await server.ask("INFO", "replication")
        return next(line for line in info.split(b"\r\n") if line.startswith(name)).partition(b":")[2]

    async with asyncio.timeout(60):
        while await offset(master, b"master_repl_offset") != await offset(replica, b"slave_repl_offset"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_that_lost_nothing_is_a_new_epoch_in_which_everybody_goes_on(
    make_server: MakeServer, begin: Begin, kind: str
):
    server = make_server(kind, "--appendonly", "yes", "--appendfsync", "always")
    await server.start()
    one = await begin(server.url)
    before = one.log.epoch
    await one.publish("a", "b", "c")
    server.kill()
    await server.start()
    await until(lambda: bool(one.renewed))
    await once_up(one)
    assert one.log.epoch != before
    assert await places(one, before, 0, 2, 3, 4) == [0, 2, 3, "epoch"]
    assert [position.offset for position in await one.publish("d")] == [4]
    assert [each.text for each in await read_all(one.log, 0, ["t"])] == [*"abcd"]


async def test_a_restart_that_lost_the_newest_is_recognized(make_server: MakeServer, begin: Begin):
    server = make_server("redis", "--appendonly", "no")
    await server.start()
    one = await begin(server.url)
    before = one.log.epoch
    await one.publish("a", "b")
    assert await server.ask("SAVE") == b"OK"
    await one.publish("c", "d", "e")
    await until(lambda: len(one.heard) == 5)
    server.kill()
    await server.start()
    await until(lambda: bool(one.renewed))
    await once_up(one)
    assert await places(one, before, 2, 3, 5) == [2, "epoch", "epoch"]
    assert one.renewed[-1] == Position(one.log.epoch, 5), "positions go on behind all that is known"
    assert [position.offset for position in await one.publish("f")] == [6]
    assert [each.text for each in await read_all(one.log, 0, ["t"])] == ["a", "b", "f"]
    # A second one, as no client may have seen this: what the first epoch had lost stays lost.
    server.kill()
    await server.start()
    await until(lambda: len(one.renewed) == 2)
    await once_up(one)
    assert await places(one, before, 2, 3) == [2, "epoch"]


@pytest.mark.parametrize(
    "accident", ["FLUSHALL", "DEL {hub}:dir", "DEL {hub}:meta", "DEL {hub}:log", "DEL {hub}:places", "DEL {hub}:gone"]
)
async def test_what_is_lost_by_accident_is_a_gap_for_everybody(server: RedisServer, begin: Begin, accident: str):
    one, other = await begin(server.url, count=2), await begin(server.url, count=2)
    before = one.log.epoch
    await one.publish("a", "b", "c")
    await until(lambda: len(other.heard) == 3)
    await server.ask(*accident.split())
    (given,) = await one.publish("d")
    assert given.epoch != before
    assert given.offset == 4
    await until(lambda: bool(one.renewed) and bool(other.renewed))
    await once_up(other)
    for process in (one, other):
        assert await places(process, before, 0, 3) == ["epoch", "epoch"]
        assert process.log.trimmed(["t"]) == 3
        assert [each.text for each in await read_all(process.log, 0, ["t"])] == ["d"]
    assert await one.publish("e") == [given._replace(offset=5)]
    await until(lambda: other.texts[-1:] == ["e"])


async def test_without_the_fence_a_loss_is_recognized_by_what_a_process_knows(server: RedisServer, begin: Begin):
    one = await begin(server.url, fence=False)
    before = one.log.epoch
    await one.publish("a", "b")
    old = {key: await server.ask("DUMP", key) for key in await server.ask("KEYS", "{hub}*")}
    await one.publish("c")
    await until(lambda: len(one.heard) == 3)
    await server.ask("FLUSHALL")
    for key, value in old.items():
        await server.ask("RESTORE", key, 0, value)
    (given,) = await one.publish("d")
    assert (given.epoch != before, given.offset) == (True, 4)
    assert await places(one, before, 2, 3) == [2, "epoch"]


async def test_where_the_server_hides_what_it_is_the_hub_does_not_start_unless_told_so(
    server: RedisServer, begin: Begin
):
    await server.ask("ACL", "SETUSER", "hub", "on", ">secret", "~*", "+@all", "-info")
    url = server.tcp.replace("//", "//hub:secret@")
    with pytest.raises(LogUnavailable, match="HUB_REDIS_FENCE=off") as refused:
        await begin(url)
    assert "secret" not in str(refused.value)
    one = await begin(url, fence=False)
    assert [position.offset for position in await one.publish("a")] == [1]


async def test_a_replica_is_not_written_to(make_server: MakeServer, begin: Begin):
    master, replica = make_server("redis", port=True), make_server("redis", port=True)
    await master.start()
    await replica.start()
    await replica.replicate(master)
    with pytest.raises(LogUnavailable, match="replica"):
        await begin(replica.tcp)


async def test_hubs_with_other_prefixes_share_nothing(server: RedisServer, begin: Begin):
    one, other = await begin(server.url, prefix="one"), await begin(server.url, prefix="other")
    await one.publish("a")
    await other.publish("b")
    await until(lambda: one.texts == ["a"] and other.texts == ["b"])
    assert await other.log.locate(Position(one.log.epoch, 1)) == Located(None, "epoch")
    assert {key.split(b":")[0] for key in await server.ask("KEYS", "*")} == {b"{one}", b"{other}"}


async def test_a_server_that_throws_keys_away_is_refused_or_warned_about(
    server: RedisServer, begin: Begin, caplog: pytest.LogCaptureFixture
):
    await server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(LogUnavailable, match="allkeys-lru"):
        await begin(server.url)
    await server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    await begin(server.url)
    assert "volatile-ttl" in caplog.text


async def test_a_position_of_this_process_is_not_believed_after_a_loss(server: RedisServer, begin: Begin):
    """A client that comes back is told of the gap, although its process still holds what it has seen."""
    one = await begin(server.url)
    position = (await one.publish("a"))[0]
    await until(lambda: bool(one.heard))
    await server.ask("FLUSHALL")
    assert await one.log.locate(position) == Located(None, "epoch")


async def test_a_process_that_was_too_slow_says_so(server: RedisServer, begin: Begin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.redis.sender.SPARE_COUNT", 5)
    one = await begin(server.url, count=3)
    slow = await begin(server.url, count=3)
    await until(lambda: slow.log._tail._connection is not None)
    await slow.log._tail._connection.aclose()
    connect = slow.log._link.connect
    held = asyncio.Event()

    async def later() -> object:
        await held.wait()
        return await connect()

    slow.log._link.connect = later
    for number in range(40):
        await one.publish(str(number))
    held.set()
    await until(lambda: bool(slow.renewed))
    assert slow.heard == sorted(set(slow.heard))
    assert slow.log.epoch == one.log.epoch
    await one.publish("last")
    await until(lambda: slow.texts[-1:] == ["last"])
    assert offsets(await read_all(slow.log, 0, ["t"])) == [39, 40, 41]
