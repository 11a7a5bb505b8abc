"""A Redis that is away, slow, or cut off: nothing is lost, nothing doubled, and what is not known is said."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from hub.errors import LogUnavailable
from hub.notification import Draft, Position
from tests.contracts.test_log import read_all, until
from tests.log.redis.conftest import Begin, Process
from tests.log.redis.proxy import proxy
from tests.log.redis.test_fence import once_up
from tests.redis_server import KINDS, RedisServer

MakeServer = Callable[..., RedisServer]


async def failure(process: Process, text: str = "x") -> LogUnavailable:
    with pytest.raises(LogUnavailable) as failed:
        async with asyncio.timeout(10):
            await process.publish(text)
    return failed.value


async def surely(process: Process, text: str) -> None:
    """Publish *text* under a key, again and again until it is confirmed."""
    async with asyncio.timeout(30):
        while True:
            try:
                await process.publish(text, key=text)
                return
            except LogUnavailable:
                await once_up(process)


async def test_a_redis_that_stands_still_fails_publishes_soon_and_is_back_by_itself(server: RedisServer, begin: Begin):
    one = await begin(server.url)
    await one.publish("a")
    await until(lambda: bool(one.heard))
    server.pause()
    try:
        begun = asyncio.get_running_loop().time()
        failed = await failure(one, "b")
        assert asyncio.get_running_loop().time() - begun < 5, "a bound, however slow the machine is"
        assert failed.outcome == "unknown"
        with pytest.raises(LogUnavailable, match="does not answer"):
            one.log.bounds()
        page = await one.log.read(0, ["t"], upto=1)
        assert [each.text for each in page.notifications] == ["a"], "what this process holds can be read"
        assert not one.renewed
    finally:
        server.resume()
    await once_up(one)
    await one.publish("c")
    texts = [each.text for each in await read_all(one.log, 0, ["t"])]
    assert texts in (["a", "b", "c"], ["a", "c"]), "the one that is unknown was kept once, or not at all"
    await until(lambda: one.texts == texts)
    assert not one.renewed


async def test_a_redis_that_is_not_there_keeps_nothing_and_says_so(make_server: MakeServer, begin: Begin):
    server = make_server("redis", "--appendonly", "yes")
    await server.start()
    one = await begin(server.url)
    await one.publish("a")
    server.kill()
    await until(lambda: one.log._tail.away is not None)
    await failure(one)  # this one may have been sent on the connection that broke
    assert (await failure(one)).outcome == "not_kept"
    asked = one.log.locate(Position(one.log.epoch, 1))
    with pytest.raises(LogUnavailable):
        await asked
    await server.start()
    await once_up(one)
    await one.publish("b")
    await until(lambda: one.texts[-1:] == ["b"])


async def test_a_log_is_not_opened_where_there_is_no_redis(make_server: MakeServer, begin: Begin):
    with pytest.raises(LogUnavailable):
        await begin(make_server("redis").url)


async def test_a_call_whose_answer_was_lost_is_made_again_and_kept_once(server: RedisServer, begin: Begin):
    async with proxy(server.socket, server.folder / "p") as between:
        one = await begin(f"redis+unix://{server.folder}/p")
        given = []
        for number in range(12):
            between.mute, between.deaf = number % 3, (number // 3) % 2
            given += await one.publish(f"{number}a", f"{number}b")
        assert [position.offset for position in given] == list(range(1, 25))
        assert between.connections > 12
        await until(lambda: len(one.heard) == 24)
        assert one.heard == given
        assert not one.renewed
        assert one.texts == [f"{number}{part}" for number in range(12) for part in "ab"]


async def test_keys_hold_across_processes(server: RedisServer, begin: Begin):
    one, other = await begin(server.url), await begin(server.url)
    (first,) = await one.publish("a", key="k")
    (receipt,) = other.log.append([Draft.of("b", topics=["u", "v"], key="k")])
    assert await receipt == first
    assert (receipt.repeated, receipt.topics) == (True, ("t",))
    await until(lambda: other.texts == ["a"])


async def test_all_processes_hear_the_same_in_the_same_order(server: RedisServer, begin: Begin):
    processes = [await begin(server.url) for _ in range(3)]
    receipts = [
        receipt
        for number in range(200)
        for process in processes
        for receipt in process.log.append([Draft.of(str(number), topic=f"t/{number % 7}")] * (number % 3 + 1))
    ]
    given = [await receipt for receipt in receipts]
    await until(lambda: all(len(process.heard) == len(given) for process in processes))
    assert sorted(given) == processes[0].heard == processes[1].heard == processes[2].heard
    assert [position.offset for position in processes[0].heard] == list(range(1, len(given) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_a_hundred_resets_lose_nothing_and_double_nothing(make_server: MakeServer, begin: Begin, kind: str):
    server = make_server(kind)
    await server.start()
    chance = random.Random(7)
    async with proxy(server.socket, server.folder / "p") as between:
        one = await begin(f"redis+unix://{server.folder}/p")
        other = await begin(f"redis+unix://{server.folder}/p")
        receipts = {}
        for number in range(400):
            process = (one, other)[number % 2]
            (receipts[str(number)],) = process.log.append([Draft.of(str(number), topic="t")])
            if number % 4 == 0:
                between.reset()
            if chance.random() < 0.3:
                await asyncio.sleep(0.01)
        kept, unknown = {}, set()
        for text, receipt in receipts.items():
            try:
                kept[text] = await receipt
            except LogUnavailable as error:
                if error.outcome == "unknown":
                    unknown.add(text)
        await once_up(one)
        await once_up(other)
        (last,) = await one.publish("last")
        await until(lambda: one.heard[-1:] == other.heard[-1:] == [last])
        for process in (one, other):
            assert process.texts == one.texts
            assert len(set(process.texts)) == len(process.texts), "nothing twice"
            assert set(kept) <= set(process.texts) <= {*kept, *unknown, "last"}
            assert not process.renewed
        assert [each.text for each in await read_all(one.log, 0, ["t"])] == one.texts
        assert len(kept) > 200


async def test_a_publish_is_confirmed_when_so_many_replicas_have_it(make_server: MakeServer, begin: Begin):
    master, replica = make_server("redis", port=True), make_server("redis", port=True)
    await master.start()
    await replica.start()
    await replica.replicate(master)
    await master.says(b"state=online", "INFO", "replication")
    one = await begin(master.tcp, wait=1)
    await surely(one, "a")
    assert await replica.ask("HGET", "{hub}:meta", "newest") == b"1"
    replica.pause()
    failed = await failure(one, "b")
    assert failed.outcome == "unknown"
    replica.resume()
    await surely(one, "c")
    texts = [each.text for each in await read_all(one.log, 0, ["t"])]
    assert texts == ["a", "b", "c"], "what was not confirmed was kept, once"


async def test_a_redis_without_room_keeps_nothing_and_goes_on_when_it_has_some(server: RedisServer, begin: Begin):
    one = await begin(server.url)
    await one.publish("a")
    await server.ask("CONFIG", "SET", "maxmemory", "1")
    failed = await failure(one, "b")
    assert failed.outcome == "not_kept"
    await server.ask("CONFIG", "SET", "maxmemory", "0")
    await one.publish("c")
    await until(lambda: one.texts == ["a", "c"])
    assert not one.renewed


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redis_that_begins_without_room_can_be_read(make_server: MakeServer, begin: Begin, kind: str):
    server = make_server(kind, "--appendonly", "yes", "--appendfsync", "always")
    await server.start()
    one = await begin(server.url)
    (given,) = await one.publish("a")
    server.kill()
    await server.start("--maxmemory", "1")
    await until(lambda: bool(one.renewed))
    await once_up(one)
    assert (await one.log.locate(given)).after == 1
    assert [each.text for each in await read_all(one.log, 0, ["t"])] == ["a"]
    assert (await failure(one, "b")).outcome == "not_kept"


async def test_a_list_of_very_many_is_kept_as_one(server: RedisServer, begin: Begin):
    one = await begin(server.url)
    given = await one.publish(*map(str, range(5_000)))
    assert [position.offset for position in given] == list(range(1, 5_001))


async def test_what_waits_when_the_log_is_closed_is_sent_first(server: RedisServer, begin: Begin):
    one, other = await begin(server.url), await begin(server.url)
    receipts = one.log.append([Draft.of("a", topic="t")])
    await one.log.aclose()
    assert (await receipts[0]).offset == 1
    await until(lambda: other.texts == ["a"])
    with pytest.raises(LogUnavailable, match="closed"):
        one.log.append([Draft.of("b")])
