"""`log.lookup`: a position in a long log, and what a long log costs in memory."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.benchmarks.child import Answer, ask
from tests.benchmarks.cores import cores
from tests.benchmarks.log.publishing import size_of
from tests.benchmarks.log.replay import ROOM
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems.hub import serve_hub

TOPICS = [f"lookup/{number}" for number in range(1_000)]
ASKED = {"one topic of 1,000": ["lookup/500"], "a pattern": ["lookup/*"]}
FILL_SECONDS = 1_800.0


def measure(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Fill a short log and a long one, and find positions in both."""
    times = options.size(1_000, 100)
    found: list[list[Cell]] = []
    sizes: list[list[Cell]] = []
    for number in (1_000, options.size(5_000_000, 200_000)):
        with scratch() as folder:
            log = f"sqlite:///{folder}/hub.db"
            filled = ask("log.filling", {"log": log, "topics": TOPICS, "number": number}, patience=FILL_SECONDS)
            say(f"  lookup, {number:,}: filled in {filled['seconds']:.0f} s")
            task = {"log": log, "lookups": ASKED, "times": times}
            looked_up = ask("log.reading", task)["lookups"]
            size, resumed = _served(folder, log, times)
            section.rounds.setdefault("lookup", {})[str(number)] = {**looked_up, "resumed": resumed, "served": size}
            for name in ASKED:
                at_the_log, through = looked_up[name], resumed[name]
                found.append(
                    [float(number), name, at_the_log["p50"], at_the_log["p99"], through["p50"], through["p99"]]
                )
                say(f"  lookup, {number:,}, {name}: p99 {at_the_log['p99']:.2f} ms")
            sizes.append([float(number), *size, filled["seconds"]])
    columns = [
        Column("Notifications kept"),
        Column("Subscription"),
        Column("At the log p50", "ms", 2),
        Column("p99", "ms", 2),
        Column("Through `hub serve` p50", "ms", 2),
        Column("p99", "ms", 2),
    ]
    about = (
        f"The first page (1,000 notifications or 64 KiB) after {times:,} random positions of a SQLite log, and from "
        "the connect of a client that resumes there to its first notification. A page holds what there is: in the "
        "short log the one topic has a single notification."
    )
    section.tables.append(Table("Finding a position", about, columns, found))
    columns = [
        Column("Notifications kept"),
        Column("File", "MB", 1),
        Column("Start", "s", 1),
        Column("Hub", "MB", 1),
        Column("Writer and reader", "MB", 1),
        Column("Filled in", "s", 1),
    ]
    about = (
        "Resident memory of `hub serve` and of the two processes that keep its file, after the lookups; what shared "
        "libraries take counts in each of them."
    )
    section.tables.append(Table("A long log", about, columns, sizes))


def _served(folder: Path, log: str, times: int) -> tuple[list[float], dict[str, Answer]]:
    """Resume from random positions of a hub on *log*; return its sizes and the spreads."""
    with serve_hub(folder, *ROOM, log=log) as server:
        oldest, newest = _bounds(server.port)
        task = {"port": server.port, "lookups": times, "epoch": newest.partition("-")[0]}
        # Not from the very end: there the first notification to come would be one that is never published.
        task["newest"] = max(int(newest.partition("-")[2]) - len(TOPICS), int(oldest.partition("-")[2]) + 1)
        resumed = {
            name: ask("log.replaying", {**task, "topics": topics}, core=cores().driver)["latency"]
            for name, topics in ASKED.items()
        }
        own = psutil.Process(server.pid).memory_info().rss
        file = size_of(folder / "hub.db") / 1e6
        return [file, server.seconds, own / 1e6, (server.rss() - own) / 1e6], resumed


def _bounds(port: int) -> tuple[str, str]:
    """Return the ids of the oldest and the newest notification."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/notifications/stats")
    log = json.loads(connection.getresponse().read())["log"]
    connection.close()
    return log["oldest"], log["newest"]
