"""Single steps, each in a loop: `python -m tests.benchmarks.steps` is the program that pyperf runs again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from hub.connections.send_queue import SendQueue
from hub.encoding import SSE
from hub.fanout import Audience, Batch, Fanout
from hub.hub import Hub
from hub.log.memory import MemoryLog
from hub.metrics import Metrics
from hub.notification import Draft, Notification, Position
from hub.settings import Settings, SlowPolicy
from hub.topics import TopicIndex

Time = Callable[[int], float]
"""Does something so many times and returns the seconds that took."""

DATA = {"message": "x" * 80, "amount": 99.5}
RECEIVERS = 1_000
HISTORY = 10_000
IN_BATCH = 100


class Step(NamedTuple):
    """What is measured; `inner` is how often one turn of the loop does it."""

    name: str
    title: str
    time: Time
    inner: int = 1


def draft(topic: str = "bench") -> Draft:
    return Draft.of(DATA, topic=topic, type="order.created")


def notification(offset: int = 1) -> Notification:
    return Notification.accept(draft(), Position("k3f9x20000", offset), 0.0)


def encode(loops: int) -> float:
    """From a draft to its frame."""
    given, position = draft(), Position("k3f9x20000", 1_234_567)
    began = time.perf_counter()
    for _ in range(loops):
        Notification.accept(given, position, 0.0)
    return time.perf_counter() - began


def check(loops: int) -> float:
    """From a value to a draft."""
    began = time.perf_counter()
    for _ in range(loops):
        draft()
    return time.perf_counter() - began


def match(topics: int, pattern: bool, loops: int) -> float:
    """Find the one that wants a topic, among *topics* that others want, and with a pattern beside each hundredth."""
    index: TopicIndex[int] = TopicIndex()
    for number in range(topics):
        index.add([f"stock/{number}"], number)
        if pattern and number % 100 == 0:
            index.add([f"stock/*/{number}"], -number)
    asked = [f"stock/{topics // 2}"]
    began = time.perf_counter()
    for _ in range(loops):
        index.match(asked)
    return time.perf_counter() - began


class Ready:
    """A receiver that has nothing to do."""

    def on_next(self, batch: Batch) -> None:
        pass

    def abort(self) -> None:
        pass


def fan_out(loops: int) -> float:
    """Gather a notification and flush it to receivers that cost nothing."""
    audience = Audience(frozenset({"bench"}), SSE())
    audience.receivers = {Ready(): None for _ in range(RECEIVERS)}
    given = notification()
    began = time.perf_counter()
    for _ in range(loops):
        audience.gather(given, "bench")
        audience.flush(0.0)
    return time.perf_counter() - began


async def _join(loops: int) -> float:
    fanout = Fanout(Metrics())
    receivers = [Ready() for _ in range(RECEIVERS)]
    began = time.perf_counter()
    for _ in range(loops):
        joined = [(each, fanout.join(each, ["bench"], SSE())) for each in receivers]
        for each, audience in joined:
            fanout.leave(each, audience)
    return time.perf_counter() - began


def offer(policy: SlowPolicy, loops: int) -> float:
    """Let frames wait for a slow reader; there is room for all but the last of every hundred."""
    frames = [notification(offset) for offset in range(1, IN_BATCH + 1)]
    room = sum(len(each.chunk) + 160 for each in frames)
    began = time.perf_counter()
    for _ in range(loops):
        outbox = SendQueue(policy, 0)
        for each in frames:
            outbox.offer(each, each.chunk, room)
    return time.perf_counter() - began


async def _replay(loops: int) -> float:
    log = MemoryLog()
    log.append([draft() for _ in range(HISTORY)])
    began = time.perf_counter()
    for _ in range(loops):
        after = 0
        while after < HISTORY:
            after = (await log.frames(after, ["bench"], upto=HISTORY)).reached
    return time.perf_counter() - began


async def _send(observed: bool, loops: int) -> float:
    hub = Hub(Settings())
    await hub.open()
    topics = [f"bench/{number}" for number in range(IN_BATCH)]
    heard = 0

    def hear(_: Notification) -> None:
        nonlocal heard
        heard += 1

    taps = [hub.notifications.stream(topic).subscribe(hear) for topic in topics] if observed else []
    began = time.perf_counter()
    for _ in range(loops):
        for topic in topics:
            await hub.notifications.send_notification(DATA, topic=topic)
    seconds = time.perf_counter() - began
    assert heard == len(taps) * loops
    await hub.aclose()
    return seconds


STEPS = (
    Step("check", "Check a draft (118 bytes of JSON)", check),
    Step("encode", "Encode its frame", encode),
    *(
        Step(f"match-{topics}", f"Match a topic among {topics:,}", partial(match, topics, False))
        for topics in (10, 1_000, 100_000)
    ),
    Step("match-patterns", "Match a topic among 100,000 and 1,000 patterns", partial(match, 100_000, True)),
    Step("fan-out", f"Fan out, per observer ({RECEIVERS:,} of them)", fan_out, RECEIVERS),
    Step("join", "Join an audience and leave it", lambda loops: asyncio.run(_join(loops)), RECEIVERS),
    *(
        Step(f"offer-{policy}", f"Offer to a slow connection, `{policy}`", partial(offer, policy), IN_BATCH)
        for policy in SlowPolicy
    ),
    Step(
        "replay", f"Replay, per notification ({HISTORY:,} of them)", lambda loops: asyncio.run(_replay(loops)), HISTORY
    ),
    Step(
        "send",
        "`await send_notification`, nobody listens",
        lambda loops: asyncio.run(_send(False, loops)),
        IN_BATCH,
    ),
    Step(
        "send-observed",
        "`await send_notification`, an observer per topic",
        lambda loops: asyncio.run(_send(True, loops)),
        IN_BATCH,
    ),
)


def main() -> None:
    import pyperf

    runner = pyperf.Runner(program_args=("-m", "tests.benchmarks.steps"))
    for step in STEPS:
        runner.bench_time_func(step.name, step.time, inner_loops=step.inner)


if __name__ == "__main__":
    main()
