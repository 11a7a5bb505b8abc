"""The group `cluster`: several processes on one Redis.

Redis runs on the core of the servers, and keeps what it is told only in memory. There is one core for all processes of
the hub: what more of them carry is arithmetic, and marked so.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hub.log.redis.log import RedisLog
from hub.notification import Draft, Notification
from hub.redis_url import RedisURL
from tests.benchmarks.cores import cores, pin
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.load import Outcome
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems.hub import Hub, serve_hub
from tests.benchmarks.trial import Trial, drive
from tests.redis_server import KINDS, RedisServer, servers

BATCH = 100
TEXT = "x" * 100
KEPT = 100_000
HUB = Hub()


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Measure one after the other; what can't be measured is remarked."""
    section = Section("cluster", "Cluster: several processes on one Redis")
    for name, scenario in {"append": append, "across": across, "workers": workers}.items():
        if options.wants("cluster", name):
            try:
                scenario(options, section, say)
            except (AssertionError, CannotMeasure) as error:
                section.fail(name, error)
    return section


@contextmanager
def redis(kind: str) -> Iterator[RedisServer]:
    """Run a server of *kind* on the core of the servers."""
    with servers() as make:
        server = make(kind)
        server.start_now()
        assert server.process is not None
        pin_process(server.process.pid, cores().server)
        yield server


def pin_process(pid: int, core: int) -> None:
    """Let the process *pid*, with all its threads, run on *core* only."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on *core* only, for a while."""
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def cpu(server: RedisServer) -> float:
    """Return how many seconds of CPU *server* has used."""
    lines = (await server.ask("INFO", "cpu")).decode().splitlines()
    used = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


async def opened(server: RedisServer, kept: int) -> RedisLog:
    """Return a log on *server* that keeps so many."""
    log = RedisLog(RedisURL.parse(server.url), count=kept, size=10**10, age=None)
    await log.open()
    return log


# ---- appends ----


def append(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Append batch after batch: into a log that fills, and into one that is full."""
    number, kept = options.size(200_000, 2_000), options.size(KEPT, 1_000)
    runs: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(options.rounds):
        for kind in KINDS:
            with redis(kind) as server, on_core(cores().driver):
                for state, got in asyncio.run(_appended(server, number, kept)).items():
                    runs.setdefault((kind, state), []).append(got)
                    section.rounds.setdefault("append", []).append({"server": kind, "state": state, "got": got})
                    say(f"  append, {kind}, {state}: {got[0]:,.0f}/s, {got[1]:.1f} µs of the server")
    rows: list[list[Cell]] = [
        [kind, state, *(statistics.median(each[place] for each in found) for place in range(3))]
        for (kind, state), found in runs.items()
    ]
    columns = [
        Column("Server"),
        Column("Log"),
        Column("Appends", "1/s"),
        Column("CPU of the server per append", "µs", 1),
        Column("CPU of the process per append", "µs", 1),
    ]
    about = (
        f"One process appends {number:,} notifications of {len(TEXT)} bytes with one topic each, {BATCH} in a call; "
        f"the log keeps {kept:,}. The process follows the log, as each does."
    )
    section.tables.append(Table("Appends", about, columns, rows))


async def _appended(server: RedisServer, number: int, kept: int) -> dict[str, tuple[float, float, float]]:
    log = await opened(server, kept)
    try:
        filling = await _measured(server, log, kept)
        return {"filling": filling, "full": await _measured(server, log, number)}
    finally:
        await log.aclose()


async def _measured(server: RedisServer, log: RedisLog, number: int) -> tuple[float, float, float]:
    before, own, began = await cpu(server), time.process_time(), time.perf_counter()
    await _append(log, number)
    seconds, own = time.perf_counter() - began, time.process_time() - own
    return number / seconds, 1e6 * (await cpu(server) - before) / number, 1e6 * own / number


async def _append(log: RedisLog, number: int) -> None:
    draft = Draft.of(TEXT, topic="bench")
    waiting: list[Any] = []
    for _ in range(0, number, BATCH):
        waiting.append(log.append([draft] * BATCH)[-1])
        if len(waiting) == 5:  # that many calls fit into one of the script
            await waiting.pop(0)
    for each in waiting:
        await each


# ---- from one process to another ----


def across(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Publish in one process, one after the other at a steady rate, and hear of it in another one's log."""
    number, rate = options.size(5_000, 100), 500.0
    rows: list[list[Cell]] = []
    for kind in KINDS:
        found: list[tuple[list[float], float]] = []
        for _ in range(options.rounds):
            with redis(kind) as server, on_core(cores().driver):
                found.append(asyncio.run(_heard(server, number, rate)))
        times = sorted(each for one, _ in found for each in one)
        used = statistics.median(each for _, each in found)
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
        section.rounds.setdefault("across", []).append({"server": kind, "p50": p50, "p99": p99, "cpu": used})
        section.lost += number * options.rounds - len(times)
        rows.append([kind, p50, p99, used])
        say(f"  across, {kind}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {used:.0f} µs of the server")
    columns = [
        Column("Server"),
        Column("p50", "ms", 2),
        Column("p99", "ms", 2),
        Column("CPU of the server per notification", "µs", 0),
    ]
    about = (
        f"{rate:,.0f} publishes a second, each in a call of its own, with two logs that follow; from the call to the "
        "moment at which the other log announces it to its fan-out. Both are in one process: nothing is in between."
    )
    section.tables.append(Table("From one process to another", about, columns, rows))


async def _heard(server: RedisServer, number: int, rate: float) -> tuple[list[float], float]:
    one, other = await opened(server, KEPT), await opened(server, KEPT)
    times: list[float] = []
    whole = asyncio.Event()

    def announced(notifications: Sequence[Notification]) -> None:
        now = time.perf_counter()
        times.extend(1000 * (now - float(each.text)) for each in notifications)
        if len(times) == number:
            whole.set()

    other.announce_to(announced)
    before, began = await cpu(server), time.perf_counter()
    try:
        for turn in range(number):
            await asyncio.sleep(max(0.0, began + turn / rate - time.perf_counter()))
            one.append([Draft.of(repr(time.perf_counter()), topic="bench")])
        async with asyncio.timeout(30):
            await whole.wait()
    finally:
        await one.aclose()
        await other.aclose()
    return times, 1e6 * (await cpu(server) - before) / number


# ---- workers ----


def workers(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Connect to one and to two workers, and publish to all."""
    connections, events = options.size(2_000, 50), options.size(200, 10)
    trials = {count: Trial() for count in (1, 2)}
    for _ in range(options.rounds):
        for count, trial in trials.items():
            with redis(KINDS[0]) as server, scratch() as folder:
                arguments = ("--workers", str(count))
                with serve_hub(folder, *arguments, log=server.url, core=cores().server) as hub:
                    load = {"connections": connections, "events": events, "sync": True}
                    outcome = drive(hub, HUB.paths, core=cores().driver, settle=options.size(0.7, 0.2), **load)
            trial.outcomes.append(outcome)
            say(
                f"  workers, {count}: {outcome.cpu_per_delivery:.2f} µs a delivery, {connects(outcome):,.0f} connects/s"
            )
    rows: list[list[Cell]] = []
    for count, trial in trials.items():
        trial.report(section, "workers", str(count))
        delivery, connect = trial.median(lambda each: each.cpu_per_delivery), trial.median(cpu_per_connect)
        rows.append(
            [float(count), delivery, trial.median(connects), connect, count * 1e6 / delivery if delivery else None]
        )
    columns = [
        Column("Workers"),
        Column("CPU per delivery", "µs", 2),
        Column("Connects", "1/s"),
        Column("CPU per connect", "µs"),
        Column("Deliveries, on a core each (arithmetic)", "1/s"),
    ]
    about = (
        f"{connections:,} connections on one topic; the next of {events:,} events when every connection has the last. "
        "The supervisor and all workers are on one core, so the rates are those of one core; the last column is what "
        "their CPU time would allow with a core for each."
    )
    section.tables.append(Table("Workers", about, columns, rows))


def connects(outcome: Outcome) -> float:
    """How many streams were opened in a second."""
    return outcome.connections / outcome.open_seconds


def cpu_per_connect(outcome: Outcome) -> float:
    """Microseconds of the server for each stream that was opened."""
    return 1e6 * outcome.open_server_cpu / outcome.connections
