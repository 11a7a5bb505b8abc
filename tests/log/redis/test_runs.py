"""Runs, by which Redis trims what was kept together: one may have to lose some of what is in it."""

from __future__ import annotations

import pytest

from hub.notification import Draft
from tests.contracts.test_log import offsets, read_all, until
from tests.log.redis.conftest import Begin, Process
from tests.redis_server import RedisServer


async def publish(process: Process, *topics: str) -> None:
    receipts = process.log.append([Draft.of("x", topics=each.split(",")) for each in topics])
    await receipts[-1]


async def counted(server: RedisServer) -> list[int]:
    """Return the oldest offset, how many runs there are, how many in them are no longer kept, and the runs again."""
    found = await server.ask("HMGET", "{hub}:meta", "oldest", "runs", "holes")
    return [*map(int, found), await server.ask("XLEN", "{hub}:dir")]


async def kept(process: Process, *topics: str) -> list[int]:
    await process.log.given()
    return offsets(await read_all(process.log, 0, topics))


@pytest.mark.parametrize("paged", [False, True], ids=["ring", "paged"])
async def test_what_leaves_the_middle_of_a_run_is_shown_and_counted_no_more(
    server: RedisServer, begin: Begin, paged: bool
):
    plain = await begin(server.url)
    await publish(plain, "a", "b", "a", "c", "a,d")
    assert await counted(server) == [1, 1, 0, 1]
    # Two of the five give way to another process's bound, the third one keeps a topic.
    bounded = await begin(server.url, topics={"a": 1})
    if paged:
        bounded.log._ring.has = lambda *asked: False
    await publish(bounded, "a")
    assert await counted(server) == [2, 2, 1, 2]
    assert await kept(bounded, "a", "b", "c", "d") == await kept(bounded, "*") == [2, 4, 5, 6]
    assert await kept(bounded, "a") == [6]
    assert await kept(bounded, "**") == [2, 4, 5, 6]
    assert bounded.log.bounds()[:3] == plain.log.bounds()[:3]
    assert bounded.log.bounds().kept == 4

    small = await begin(server.url, count=3)
    await publish(small, "e")
    assert await counted(server) == [5, 3, 0, 3]
    assert await kept(bounded, "*") == [5, 6, 7]
    await publish(small, "e")
    assert await counted(server) == [6, 3, 0, 3]
    assert await kept(bounded, "*") == [6, 7, 8]


async def test_a_run_ends_where_a_bound_of_a_topic_may_remove_one(server: RedisServer, begin: Begin):
    one = await begin(server.url, topics={"state": 1})
    await publish(one, "a", "a", "state", "a", "state", "a")
    # a a | state, which is gone | a | state | a
    assert await counted(server) == [1, 4, 0, 4]
    assert await kept(one, "**") == [1, 2, 4, 5, 6]


async def test_a_process_that_begins_reads_on_in_the_middle_of_a_run(server: RedisServer, begin: Begin):
    one = await begin(server.url, count=70)
    await publish(one, *["a"] * 100)
    assert await counted(server) == [31, 4, 0, 4]
    other = await begin(server.url, count=70)
    assert await kept(other, "a") == await kept(other, "**") == [*range(31, 101)]
    for after in (30, 31, 32, 33, 63, 64, 65, 96, 97, 99, 100):
        for wanted in ("a", "**", "*"):
            assert offsets(await read_all(other.log, after, [wanted])) == [*range(after + 1, 101)]
    await publish(one, *["b"] * 100)
    await until(lambda: other.log.bounds().oldest.offset == 131)
    assert await kept(other, "**") == [*range(131, 201)]
    assert (await counted(server))[:3] == [131, 4, 0]
