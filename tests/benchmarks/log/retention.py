"""`log.retention`: far more is published than is kept; the file must not grow for it."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.child import ask
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Column, Plot, Section, Table

PUBLISHERS = 64
PATIENCE = 1_200.0


def measure(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Publish a hundred times what is kept, and watch the file."""
    number, kept = options.size(1_000_000, 20_000), options.size(10_000, 1_000)
    with scratch() as folder:
        path = folder / "hub.db"
        task = {
            "log": f"sqlite:///{path}",
            "count": kept,
            "file": str(path),
            "publishers": PUBLISHERS,
            "number": number,
        }
        got = ask("log.publishing", task, patience=PATIENCE)
    section.lost += number - got["confirmed"]
    section.rounds["retention"] = got
    sizes = [(published, size / 1e6) for published, size in got["sizes"]]
    later = [size for published, size in sizes if published >= number // 10] or [size for _, size in sizes]
    latency = got["latency"]
    say(f"  retention: p99 {latency['p99']:.2f} ms, at most {max(later):.1f} MB")
    columns = [
        Column("Published"),
        Column("Kept"),
        Column("Confirmed", "1/s"),
        Column("p50", "ms", 2),
        Column("p99", "ms", 2),
        Column("max", "ms", 2),
        Column("File, smallest", "MB", 1),
        Column("File, largest", "MB", 1),
    ]
    about = (
        f"{number:,} publishes by {PUBLISHERS} coroutines against a retention of {kept:,}. The sizes are those of the "
        "file with its write-ahead log, once a tenth has been published."
    )
    rate = got["confirmed"] / got["seconds"]
    row = [f"{number:,}", f"{kept:,}", rate, latency["p50"], latency["p99"], latency["max"], min(later), max(later)]
    section.tables.append(Table("Retention", about, columns, [row]))
    title = f"The file while {number:,} are published and {kept:,} are kept"
    section.plots.append(
        Plot("log-retention", title, "Notifications published", "File with write-ahead log, MB", {"file": sizes})
    )
