"""`log.live`: what those who are live feel of those who catch up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from tests.benchmarks.child import begun
from tests.benchmarks.cores import cores
from tests.benchmarks.log.history import SUBSCRIPTIONS, publish_histories
from tests.benchmarks.log.homes import homes
from tests.benchmarks.log.replay import ROOM
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems import SYSTEMS
from tests.benchmarks.systems.hub import serve_hub
from tests.benchmarks.trial import Trial, drive

PAST = (SUBSCRIPTIONS["one topic"], SUBSCRIPTIONS["eight topics"])
"""What each of the readers of the past reads: not the same, or one would get what the other has just had."""
READERS = len(PAST)
RATE = 20.0


def measure(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Send to live connections by the clock, with and without replays beside."""
    number = options.size(100_000, 5_000)
    connections, seconds = options.size(1_000, 100), options.size(10, 1)
    rows: list[list[Cell]] = []
    core = cores().driver
    with scratch() as folder:
        for home, log in homes(folder).items():
            trials = {readers: Trial() for readers in (0, READERS)}
            replayed: dict[int, float] = {0: 0.0}
            with serve_hub(folder, *ROOM, log=log) as server:
                publish_histories(server.port, number)
                task = {"port": server.port, "number": number, "times": 1, "seconds": seconds + options.size(3, 1)}
                for _ in range(options.rounds):
                    for readers, trial in trials.items():
                        with ExitStack() as stack:
                            reading = [
                                stack.enter_context(begun("log.replaying", {**task, "topics": topics}, core=core))
                                for topics in PAST[:readers]
                            ]
                            load = {"connections": connections, "events": int(RATE * seconds), "rate": RATE}
                            trial.outcomes.append(drive(server, SYSTEMS[0].paths, core=core, settle=0.2, **load))
                            replayed[readers] = sum(
                                number * len(runs) / sum(runs)
                                for runs in (finish(60 + seconds)["runs"] for finish in reading)
                            )
            for readers, trial in trials.items():
                name = f"{home}, {readers} readers"
                trial.report(section, "live", name)
                row = [trial.median(lambda each, rank=rank: each.latency[rank]) for rank in ("p50", "p99", "max")]  # type: ignore[misc]
                late = trial.median(lambda each: each.lag["p99"])
                rows.append([home, float(readers), *row, replayed[readers], late, float(trial.lost)])
                say(f"  live, {name}: p99 {row[1]:.2f} ms")
    columns = [
        Column("Log"),
        Column("Readers of the past"),
        Column("p50", "ms", 2),
        Column("p99", "ms", 2),
        Column("max", "ms", 2),
        Column("Replayed beside", "1/s"),
        Column("Driver late p99", "ms", 2),
        Column("Lost"),
    ]
    about = (
        f"{connections:,} live connections, {RATE:g} events a second for {seconds} s, each due at its moment. In every "
        f"second run {READERS} other clients read {number:,} older notifications each, again and again. They share "
        "the core of the driver, which makes it a little late: the last but one column says how much."
    )
    section.tables.append(Table("Live delivery beside replays", about, columns, rows))
