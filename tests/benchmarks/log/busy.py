"""`log.busy`: the same over HTTP, while others keep the event loop busy."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.benchmarks.child import begun
from tests.benchmarks.cores import cores
from tests.benchmarks.log.homes import homes
from tests.benchmarks.log.inprocess import PAD
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems.hub import serve_hub

PUBLISHERS = 64
OTHERS = 64


def measure(options: Options, section: Section, say: Callable[[str], None]) -> None:
    """Publish with and without the others."""
    seconds = options.size(10.0, 0.5)
    rows: list[list[Cell]] = []
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for others in (0, OTHERS):
            with scratch() as folder:
                for name, log in homes(folder).items():
                    got = _published(folder, log, others, seconds)
                    section.rounds.setdefault("busy", []).append({"home": name, "others": others, **got})
                    runs.setdefault((name, others), []).append(_figures(got))
                    say(f"  busy, {name}, {others} others: p99 {got['publish']['latency']['p99']:.2f} ms")
    for (name, others), found in runs.items():
        medians = [statistics.median(each[what] for each in found) for what in ("rate", "p50", "p99", "others")]
        rows.append([name, float(others), *medians])
    columns = [
        Column("Log"),
        Column("Other connections"),
        Column("Confirmed", "1/s"),
        Column("p50", "ms", 2),
        Column("p99", "ms", 2),
        Column("Other answers", "1/s"),
    ]
    about = (
        f"For {seconds:g} s a process publishes to a `hub serve` over {PUBLISHERS} kept connections, the next POST on "
        f"each when the last is answered. In every second run another process keeps {OTHERS} more of them busy with "
        "`GET /healthz` in the same way, so that the event loop never rests."
    )
    section.tables.append(Table("Publishing to a busy hub", about, columns, rows))


def _published(folder: Path, log: str, others: int, seconds: float) -> dict[str, Any]:
    core = cores().driver
    with ExitStack() as stack:
        server = stack.enter_context(serve_hub(folder, log=log))
        body = f'{{"topic":"bench","data":{{"p":"{PAD}","n":0}}}}'
        host = f"Host: 127.0.0.1:{server.port}\r\n"
        post = (
            f"POST /notifications/publish HTTP/1.1\r\n{host}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        task = {"port": server.port, "seconds": seconds}
        get = {**task, "request": f"GET /healthz HTTP/1.1\r\n{host}\r\n", "connections": others}
        disturb = stack.enter_context(begun("log.hammer", get, core=core)) if others else None
        publish = stack.enter_context(
            begun("log.hammer", {**task, "request": post, "connections": PUBLISHERS}, core=core)
        )
        published = publish(60 + seconds)
        return {"publish": published, "others": disturb(60 + seconds) if disturb else None}


def _figures(got: dict[str, Any]) -> dict[str, float]:
    publish, others = got["publish"], got["others"]
    return {
        "rate": publish["answered"] / publish["seconds"],
        "others": others["answered"] / others["seconds"] if others else 0.0,
        **publish["latency"],
    }
