"""What the log costs in Redis: what is counted is what is used, and what is gone costs nothing."""

from __future__ import annotations

import pytest

from hub.notification import Draft
from tests.contracts.test_log import until
from tests.log.redis.conftest import Begin, Process
from tests.redis_server import RedisServer


async def used(server: RedisServer) -> int:
    """Return the bytes that all keys take."""
    return sum([await server.ask("MEMORY", "USAGE", key, "SAMPLES", 0) for key in await server.ask("KEYS", "*")])


async def fill(process: Process, topics: list[str], size: int) -> None:
    for first in range(0, len(topics), 200):
        receipts = process.log.append([Draft.of("x" * size, topic=topic) for topic in topics[first : first + 200]])
        await receipts[-1]
    newest = await process.log.given()
    await until(lambda: process.log.bounds().newest == newest)


@pytest.mark.parametrize(("number", "size"), [(10, 20), (10_000, 20), (10, 1_000)], ids=["few", "many", "large"])
async def test_what_is_counted_is_about_what_is_used(server: RedisServer, begin: Begin, number: int, size: int):
    one = await begin(server.url)
    await fill(one, [f"topic/{n % number}" for n in range(10_000)], size)
    counted = one.log.bounds().size
    really = await used(server)
    assert 0.7 * counted < really < 1.4 * counted


async def test_topics_that_came_and_went_cost_nothing(
    server: RedisServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.trimmed.REMEMBERED_TOPICS", 500)
    monkeypatch.setattr("hub.log.redis.sender.SPARE_COUNT", 500)
    one = await begin(server.url, count=1_000, topics={"state/**": 1})
    sizes = []
    for turn in range(3):
        await fill(one, [f"{'state' if n % 2 else 'once'}/{turn}/{n}" for n in range(8_000)], 20)
        sizes.append(await used(server))
    assert one.log.bounds().kept == 1_000
    assert max(sizes) < 1.15 * min(sizes)
    assert len(await server.ask("KEYS", "*")) <= 10
    # What one process has seen of the topics goes as well.
    assert len(one.log._tail.trimmed.state().topics) <= 500
    assert len(one.log._ring._by_topic) <= 1_001
