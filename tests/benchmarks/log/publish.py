"""`log.publish`: how many confirmed publishes a second, and how long each waits."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from tests.benchmarks.child import ask
from tests.benchmarks.log.homes import homes
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Section, Table

PUBLISHERS = 64


def measure(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Publish to each home of the log, from one publisher and from 64."""
    number = options.size(100_000, 2_000)
    rows: list[list[Cell]] = []
    for publishers in (PUBLISHERS, 1):
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            with scratch() as folder:
                for name, log in homes(folder).items():
                    task = {"log": log, "count": None, "file": "", "publishers": publishers}
                    share = number if publishers > 1 else number // 10
                    got = ask("log.publishing", {**task, "number": share})
                    section.lost += share - got["confirmed"]
                    section.rounds.setdefault("publish", []).append({"home": name, "publishers": publishers, **got})
                    runs.setdefault(name, []).append({"rate": got["confirmed"] / got["seconds"], **got["latency"]})
                    say(f"  publish, {name}, {publishers}: {runs[name][-1]['rate']:,.0f} a second")
        for name, found in runs.items():
            medians = [statistics.median(each[what] for each in found) for what in ("rate", "p50", "p99", "max")]
            rows.append([name, float(publishers), *medians])
    columns = [
        Column("Log"),
        Column("Publishers"),
        Column("Confirmed", "1/s"),
        Column("p50", "ms", 3),
        Column("p99", "ms", 3),
        Column("max", "ms", 3),
    ]
    about = (
        f"{number:,} times `await notifications.send_notification(…)` in one process, 64 coroutines at once, and a "
        "tenth of that by a single one. SQLite confirms after its commit with `synchronous=FULL`; what arrives during "
        "a commit shares the next one."
    )
    section.tables.append(Table("Confirmed publishes", about, columns, rows))
