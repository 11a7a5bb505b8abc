"""`log.replay`: a long history for one reader, at the log and through a socket."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.child import ask
from tests.benchmarks.cores import cores
from tests.benchmarks.log.history import SUBSCRIPTIONS, histories, publish_histories
from tests.benchmarks.log.homes import homes
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems.hub import serve_hub

ROOM = ("--retain-count", "1000000000", "--retain-bytes", "1000000000000")


def measure(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Replay one topic, eight topics and a pattern."""
    number = options.size(100_000, 5_000)
    rows: list[list[Cell]] = []
    with scratch() as folder:
        for home, log in homes(folder).items():
            through = _through_a_socket(folder, log, number, options.rounds)
            at_the_log = _at_the_log(log, number, options.rounds)
            for name in SUBSCRIPTIONS:
                row = [statistics.median(found[name]) for found in (at_the_log, through)]
                rows.append([home, name, *row])
                say(f"  replay, {home}, {name}: {row[0]:,.0f} a second at the log, {row[1]:,.0f} through a socket")
            section.rounds.setdefault("replay", {})[home] = {"log": at_the_log, "socket": through}
    columns = [
        Column("Log"),
        Column("Subscription"),
        Column("At the log", "notifications/s"),
        Column("Through `hub serve`", "notifications/s"),
    ]
    about = (
        f"{number:,} notifications of some 190 bytes from the oldest to the newest: `Log.frames`, page after page, and "
        "over HTTP to one socket that is read as fast as it brings them. A second history of the same length stands "
        "between those that match."
    )
    section.tables.append(Table("Replay", about, columns, rows))


def _through_a_socket(folder: Path, log: str, number: int, rounds: int) -> dict[str, list[float]]:
    """Return notifications a second, by subscription."""
    with serve_hub(folder, *ROOM, log=log) as server:
        publish_histories(server.port, number)
        found = {}
        for name, topics in SUBSCRIPTIONS.items():
            task = {"port": server.port, "topics": topics, "number": number, "times": rounds}
            runs = ask("log.replaying", task, core=cores().driver)["runs"]
            found[name] = [number / seconds for seconds in runs]
    return found


def _at_the_log(log: str, number: int, rounds: int) -> dict[str, list[float]]:
    """Return the same for the log itself; the one in memory has to be filled anew."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        task = {"log": log, "replays": SUBSCRIPTIONS, "fill": histories(number) if log == "memory://" else []}
        for name, run in ask("log.reading", task)["replays"].items():
            found.setdefault(name, []).append(run["number"] / run["seconds"])
    return found
