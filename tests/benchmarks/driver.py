"""The process that puts a load on a server: `Load` in, `Outcome` out."""

from __future__ import annotations

import gc
import time
from dataclasses import asdict

from hub.load.latency import Latencies
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.crowd import Crowd
from tests.benchmarks.load import Load, Outcome
from tests.benchmarks.pollers import Pollers
from tests.benchmarks.publisher import Publisher
from tests.benchmarks.tree import usage

SPIN_NS = 1_500_000  # before an event is due the driver stops sleeping: epoll waits in whole milliseconds


def drive(task: Answer) -> Answer:
    """Open the connections, publish the events, count what arrives."""
    load = Load.of(task)
    gc.disable()  # what is noted lives as long as the run
    before = usage(load.pid)
    crowd = Pollers(load.port) if load.wire.polls else Crowd(load.port, load.wire)
    with crowd, Publisher(load.post_port or load.port, load.post) as publisher:
        began, own = time.monotonic(), time.process_time()
        crowd.open((load.request(number) for number in range(load.connections)), load.patience)
        opened = time.monotonic() - began, time.process_time() - own
        open_cpu = usage(load.pid).cpu_seconds - before.cpu_seconds
        settle(crowd, load.settle)
        idle = usage(load.pid)
        crowd.begin()
        crowd.watch(publisher.fileno())
        began_ns, own = time.monotonic_ns(), time.process_time()
        if load.events:
            run(load, crowd, publisher)
        own = time.process_time() - own
        spent = usage(load.pid).cpu_seconds - idle.cpu_seconds
        expected = load.expected()
        outcome = Outcome(
            connections=load.connections,
            events=len(publisher.due),
            expected=sum(expected),
            delivered=crowd.delivered,
            lost=crowd.lost(expected),
            disordered=crowd.disordered,
            closed=crowd.closed,
            open_seconds=opened[0],
            open_server_cpu=open_cpu,
            open_driver_cpu=opened[1],
            rss_before=before.rss,
            rss_open=idle.rss,
            seconds=max((crowd.last if load.connections else publisher.last) - began_ns, 0) / 1e9,
            server_cpu=spent,
            driver_cpu=own,
            latency=shown(crowd.latencies(publisher.due)),
            answer=shown(publisher.answers),
            lag=shown(publisher.lags),
        )
    return asdict(outcome)


def settle(crowd: Crowd | Pollers, seconds: float) -> None:
    """Let the server finish what opening the streams has left it to do."""
    until = time.monotonic() + seconds
    crowd.begin()
    while time.monotonic() < until:
        crowd.receive(0.05, lambda: None)


def run(load: Load, crowd: Crowd | Pollers, publisher: Publisher) -> None:
    """Publish all events; return when everything has arrived, or patience is at an end."""
    wanted = sum(load.expected())
    began = time.monotonic_ns()
    every = int(1e9 / load.rate) if load.rate else 0
    deadline = began + int((load.patience + load.events * every / 1e9) * 1e9)
    while len(publisher.due) < load.events or crowd.delivered < wanted or publisher.unanswered:
        now, published = time.monotonic_ns(), len(publisher.due)
        if now > deadline:
            break
        wait = 0.5
        if published < load.events:
            if every:
                left = began + published * every - now
                if left <= 0:
                    publisher.publish(1, due=began + published * every)
                    continue
                wait = max(left - SPIN_NS, 0) / 1e9
            elif not publisher.unanswered and (not load.sync or crowd.has(published * load.connections)):
                publisher.publish(min(load.burst, load.events - published))
        crowd.receive(wait, publisher.hear)


def shown(latencies: Latencies) -> dict[str, float]:
    """Return the spread in milliseconds; nothing if there is none."""
    spread = latencies.spread()
    return spread.as_ms() if spread else {}


if __name__ == "__main__":
    answer(drive)
