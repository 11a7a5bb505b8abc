"""What is counted is what is used: every bound in bytes holds for any shape of input."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hub.connections.connection import Connection, Subscription
from hub.connections.page_cache import PageCache, PageQuery
from hub.connections.send_queue import SendQueue
from hub.generations.generation import FACT_BYTES, Generation, Head
from hub.generations.registry import GenerationLimits, Generations
from hub.log.keys import KEY_BYTES, KEY_COUNT, Keys
from hub.log.memory import MemoryLog
from hub.notification import Draft, Notification, Position
from hub.patterns import compiled
from hub.settings import SlowPolicy
from tests.connections.test_connection import Desk
from tests.fakes import FakeTransport
from tests.generations.support import Clock

FACTOR = 1.5


class Used:
    """What was allocated inside and is still there: `with Used() as used: …`, then `used.bytes`."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> Used:
        gc.collect()
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect()
        self.bytes = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()


def check(counted: int, used: int) -> None:
    assert used / FACTOR < counted < used * FACTOR, f"{counted:,} counted, {used:,} used"


# ---- idempotency keys ----


@pytest.mark.parametrize("count", [1_500, 5_000])
@pytest.mark.parametrize(
    ("length", "topics"),
    [(1, 1), (36, 1), (256, 1), (256, 16)],
    ids=["short", "uuid", "long", "long, with many topics"],
)
@pytest.mark.parametrize("letter", ["k", "钥", "🔑"])
def test_keys_are_counted_as_they_are_used(count: int, length: int, topics: int, letter: str):
    with Used() as used:
        keys = Keys(Clock())
        for number in range(count):
            addressed = tuple(f"{number}/{place}".ljust(60, letter) for place in range(topics))
            keys.put(f"{number}".ljust(length, letter), addressed, number)
    check(keys.size, used.bytes)


def test_keys_stay_within_their_bytes_and_the_newest_count():
    keys = Keys(Clock())
    topics = tuple(f"{place}".ljust(250, "t") for place in range(16))
    for number in range(10_000):
        keys.put(str(number), topics, number)
        assert keys.size <= KEY_BYTES
    known = [number for number in range(10_000) if keys.get(str(number), "e") is not None]
    assert known == list(range(10_000 - len(known), 10_000))
    assert keys.size > 0.9 * KEY_BYTES
    first = keys.get("9999", "e")
    assert first is not None
    assert (first.result(), first.topics) == (Position("e", 9_999), topics)


def test_as_many_ordinary_keys_fit_as_count():
    keys = Keys(Clock())
    for number in range(KEY_COUNT + 10):
        keys.put(f"{number:036}", ("orders/created",), number)
    assert len(keys) == KEY_COUNT


def test_a_key_that_is_used_again_and_again_is_counted_once():
    clock = Clock()
    keys = Keys(clock)
    for number in range(1_000):
        keys.put("k", ("t",), number)
        clock.now += 400
    keys.put("k", ("t",), 1_000)
    assert len(keys) == 1
    assert keys.size < 1_000


# ---- answers of an AI ----

SHAPES: dict[str, dict[str, Any]] = {
    "nothing": {"parts": []},
    "a word": {"parts": ["word"]},
    "a page": {"parts": ["word "] * 800},
    "many small parts": {"parts": ["a"] * 4_000},
    "Chinese": {"parts": ["两个字"] * 1_000},
    "one character of four bytes": {"parts": ["a" * 50_000, "\N{GRINNING FACE}"]},
    "accents": {"parts": ["é" * 30_000]},
    "a long model": {"model": "m" * 50_000},
    "a long owner": {"owner": "o" * 50_000},
    "an ordinary usage": {"usage": {"prompt_tokens": 1_000, "completion_tokens": 2_000, "total_tokens": 3_000}},
    "a usage of nothing but lists": {"usage": {"x": [[]] * (FACT_BYTES // 3 - 10)}},
    "a usage of nothing but objects": {"usage": {"x": [{"a": 0}] * (FACT_BYTES // 8 - 10)}},
    "a usage of names": {"usage": {f"tokens of kind {number}": number * 1_000 for number in range(100)}},
    "a usage that is too large": {"usage": {"x": ["y" * 1_000] * 100}},
    "a key": {"key": "k" * 200},
}


@pytest.fixture
def _unheard(caplog: pytest.LogCaptureFixture) -> None:
    """Keep no log line: it would count as used."""
    caplog.set_level(logging.ERROR, "hub.generation")


@pytest.mark.usefixtures("_unheard")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
async def test_ended_answers_are_counted_as_they_are_used(shape: dict[str, Any]):
    count = 20
    generations = Generations(GenerationLimits(window=0))
    with Used() as used:
        for number in range(count):
            # Each from JSON of its own, as a request and a provider bring it: nothing is shared.
            await answer(generations, number, json.loads(json.dumps(shape)))
    streams = list(generations._streams.values())
    assert len(streams) == count
    check(sum(stream.cost for stream in streams), used.bytes)
    await generations.aclose()


async def answer(
    generations: Generations,
    number: int,
    shape: dict[str, Any],
) -> None:
    """Make an answer of *shape*, from its beginning to its end."""
    owner = f"{number}{shape.get('owner', '')}"
    if "key" in shape:

        async def source() -> AsyncIterator[str]:
            yield "a"

        stream, _ = await generations.start(source, owner=owner, key=f"{number}{shape['key']}", asked="0" * 64)
        await stream.ended()
        return
    stream = await generations.begin(owner=owner, model=f"{number}{shape.get('model', '')}")
    for part in shape.get("parts", ["a"]):
        stream.append(part)
    stream.finish(usage=shape.get("usage"))


async def test_what_was_made_for_viewers_of_an_ended_answer_counts():
    stream = await Generations(GenerationLimits(window=0)).begin()
    stream.append("x" * 1_000)
    stream.finish()
    before = stream.cost
    stream.shared("text", lambda: b"y" * 100_000)
    assert 100_000 <= stream.cost - before <= 101_000


@pytest.mark.usefixtures("_unheard")
@pytest.mark.parametrize("shape", ["a long model", "many small parts", "a usage of nothing but lists", "nothing"])
async def test_what_is_kept_of_answers_stays_within_its_bytes_whatever_they_are_made_of(shape: str):
    bound = 100_000
    generations = Generations(GenerationLimits(window=0, kept_size=bound))
    with Used() as used:
        for number in range(200 if shape == "nothing" else 10):
            await answer(generations, number, json.loads(json.dumps(SHAPES[shape])))
        generations.sweep()
    expired = 400 * len(generations._expired)
    assert len(generations._expired) > 1
    assert used.bytes < FACTOR * (bound + expired)
    await generations.aclose()


async def test_what_is_remembered_of_those_that_have_expired_has_one_size_whoever_owned_them():
    used: dict[int, Used] = {}
    for length in (1, 2_000):
        generations = Generations(GenerationLimits(window=0, keep=0))
        used[length] = Used()
        with used[length]:
            for number in range(500):
                stream = await generations.begin(owner=f"{number}".ljust(length, "x"))
                stream.cancel()
                del stream
            generations.sweep()
        assert len(generations._expired) == 500
        await generations.aclose()
    assert used[2_000].bytes < FACTOR * used[1].bytes
    assert used[2_000].bytes < 500 * 400


@pytest.mark.parametrize(
    "usage",
    [
        {"x": "y" * FACT_BYTES},
        {"x": json.loads("[" * 40 + "]" * 40)},
        {"x": json.loads("[" * 900 + "]" * 900)},
        {"x": object()},
        {"x": float("nan")},
    ],
    ids=["long", "deep", "very deep", "no JSON", "no number"],
)
def test_a_usage_beyond_its_bounds_is_left_out(usage: dict[str, Any], caplog: pytest.LogCaptureFixture):
    stream = Generation(Head("id", None, None, 0.0))
    stream.finish(usage=usage)
    assert stream.ending is not None
    assert stream.ending.facts == {"finishReason": "stop", "usage": None}
    assert "a fact is left out" in caplog.text


# ---- what waits for slow readers ----


@pytest.mark.parametrize("policy", SlowPolicy)
@pytest.mark.parametrize("size", [1, 200, 20_000])
@pytest.mark.parametrize(
    "topics", [lambda n: (f"t/{n}",), lambda n: tuple(f"{place}/{n}".ljust(200, "t") for place in range(16))]
)
def test_what_waits_is_counted_as_it_is_used(policy: SlowPolicy, size: int, topics: Callable[[int], tuple[str, ...]]):
    notifications = [
        Notification.accept(Draft.of("x", topics=topics(n)), Position("e", 1_000 + n), 0.0) for n in range(700)
    ]
    with Used() as used:
        outbox = SendQueue(policy, 0)
        for each in notifications:
            # The names of the topics are the notification's, which lives no longer than its place in the log.
            named = each._replace(topics=tuple("".join(list(topic)) for topic in each.topics))
            outbox.offer(named, b"x" * size + b"%d" % each.position.offset, 10**9)
            del named
    check(outbox.size, used.bytes)


# ---- pages that are shared ----


@pytest.mark.parametrize(("topics", "size"), [(1, 1), (1, 50_000), (128, 1)])
async def test_pages_are_counted_as_they_are_used(topics: int, size: int):
    log = MemoryLog(epoch="e")
    for number in range(20):
        log.append([Draft.of("x" * size, topic=f"t/{number}")])
    pages = PageCache(log)
    with Used() as used:
        for number in range(20 if size > 1 else 500):
            wanted = frozenset([f"t/{number % 20}", *(f"{number}/{n}".ljust(200, "t") for n in range(topics - 1))])
            await pages.read(PageQuery(0, wanted, until=20 + number), upto=20)
        compiled.cache_clear()  # patterns at hand are bounded by themselves
    check(pages._size, used.bytes)


# ---- what is remembered to be quick ----


async def test_connections_that_have_left_leave_nothing_of_their_long_lists_of_topics():
    desk = Desk()
    with Used() as used:
        for number in range(300):
            topics = tuple(f"{number}/{place}".ljust(200, "t") for place in range(128))
            connection = Connection(Subscription(topics), desk.wiring)
            transport = FakeTransport(connection)
            connection.connection_made(transport)
            transport.lose()
        del topics, connection, transport
    assert used.bytes < 200_000
