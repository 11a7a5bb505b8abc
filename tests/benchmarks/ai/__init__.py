"""The group `ai`: many answers that grow at once, each watched by several.

The provider speaks by the clock, and its tokens say when they were due. So latency counts from that moment, however
far behind the server is, and a token that is missing is noticed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict

from tests.benchmarks import child
from tests.benchmarks.ai.audience import PATIENCE, PER_SECOND, Outcome
from tests.benchmarks.cores import cores
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.machine import most_connections
from tests.benchmarks.options import Options
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Cell, Column, Plot, Section, Table
from tests.benchmarks.systems.hub import serve_hub

RATE = 50.0
VIEWERS = 3
GRACE = 60.0  # seconds an audience may take beyond what its load needs
PROVIDER = "tests.benchmarks.ai.provider:Metronome"


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Let more and more answers be generated at once, on each log."""
    section = Section("ai", "Answers of an AI, token by token")
    tokens = options.size(500, 50)
    sizes = [each for each in options.size((100, 300, 1_000), (20,)) if each * VIEWERS <= most_connections()]
    if sizes[-1:] != options.size([1_000], [20]):
        section.note(f"The file limit of this machine allows {most_connections():,} viewers: the runs are smaller.")
    rows: list[list[Cell]] = []
    late: dict[str, list[tuple[float, float]]] = {}
    for log in ("memory", "SQLite"):
        for answers in sizes:
            outcomes = []
            for number in range(options.rounds):
                try:
                    outcomes.append(_play(log, answers, tokens))
                except CannotMeasure as error:
                    section.fail(f"{log}, {answers:,} answers", error)
                    continue
                say(f"  {log} {number + 1}/{options.rounds}, {answers:,} answers: {_line(outcomes[-1])}")
            if outcomes:
                section.rounds.setdefault(log, {})[str(answers)] = [asdict(each) for each in outcomes]
                section.lost += sum(each.lost + each.unfinished for each in outcomes)
                rows.append([log, float(answers), *_row(outcomes)])
                late.setdefault(log, []).append((answers, _median(outcomes, lambda each: each.late["p99"])))
    section.tables.append(Table("Watching answers grow", _about(tokens), _COLUMNS, rows))
    section.plots.append(
        Plot("ai-late", "From when a token is due to its arrival, p99", "answers at once", "ms", late, "xy")
    )
    return section


def _play(log: str, answers: int, tokens: int) -> Outcome:
    core = cores()
    with scratch() as folder:
        home = "memory://" if log == "memory" else f"sqlite:///{folder}/hub.db"
        with serve_hub(folder, "--ai-provider", PROVIDER, log=home, core=core.server) as server:
            load = {"answers": answers, "viewers": VIEWERS, "tokens": tokens, "rate": RATE}
            task = {"port": server.port, "pid": server.pid, **load}
            needed = PATIENCE + tokens / RATE + answers * (1 + VIEWERS) / PER_SECOND
            return Outcome(**child.ask("ai.audience", task, core=core.driver, patience=needed + GRACE))


_COLUMNS = [
    Column("Log"),
    Column("Answers at once"),
    Column("Late p50", "ms", 1),
    Column("p99", "ms", 1),
    Column("max", "ms", 1),
    Column("Between messages p50", "ms", 1),
    Column("p99", "ms", 1),
    Column("Tokens per message", "", 2),
    Column("Messages", "1/s"),
    Column("CPU per message", "µs", 1),
    Column("Memory per answer", "kB", 1),
    Column("per viewer", "kB", 1),
    Column("Lost"),
    Column("Without an end"),
    Column("Busy core"),
]


def _row(outcomes: list[Outcome]) -> list[Cell]:
    def median(value: Callable[[Outcome], float]) -> float:
        return _median(outcomes, value)

    return [
        *(median(lambda each, rank=rank: each.late[rank]) for rank in ("p50", "p99", "max")),  # type: ignore[misc]
        *(median(lambda each, rank=rank: each.gap[rank]) for rank in ("p50", "p99")),  # type: ignore[misc]
        median(lambda each: each.expected / each.messages),
        median(lambda each: each.messages / each.seconds),
        median(lambda each: 1e6 * each.server_cpu / each.messages),
        median(lambda each: each.bytes_per_answer / 1e3),
        median(lambda each: each.bytes_per_viewer / 1e3),
        float(sum(each.lost for each in outcomes)),
        float(sum(each.unfinished for each in outcomes)),
        statistics.mode(each.busy for each in outcomes),
    ]


def _median(outcomes: list[Outcome], value: Callable[[Outcome], float]) -> float:
    return statistics.median(map(value, outcomes))


def _line(outcome: Outcome) -> str:
    return (
        f"late p99 {outcome.late['p99']:.1f} ms, {outcome.bytes_per_viewer / 1e3:.1f} kB a viewer, "
        f"lost {outcome.lost:,}, busy {outcome.busy}"
    )


def _about(tokens: int) -> str:
    return (
        f"Each answer has {tokens:,} tokens, {RATE:g} a second, and {VIEWERS} viewers. The provider lives in the hub's "
        "process, as providers do, and its clock costs CPU, too. The hub gathers tokens for 30 ms before it sends "
        "them, longer while it is behind. A token is late from the moment it was due to its arrival at a viewer."
    )
