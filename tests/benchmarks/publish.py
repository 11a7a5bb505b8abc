"""The group `publish`: what a publish costs over HTTP, beside a handler that does nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.load import Outcome
from tests.benchmarks.machine import most_connections
from tests.benchmarks.options import Options
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems.hub import Hub
from tests.benchmarks.systems.python import Nothing
from tests.benchmarks.systems.system import System
from tests.benchmarks.trial import Trial, play


class Case(NamedTuple):
    """A system, and who listens to it."""

    title: str
    system: System
    load: dict[str, Any]


def cases(options: Options) -> list[Case]:
    """Return what is compared; the first is what the others are compared with."""
    load = {"events": options.size(20_000, 500), "burst": 20}
    numbers = [each for each in options.size((100, 2_000, 10_000), (10,)) if each <= most_connections()]
    return [
        Case("aiohttp, a handler that does nothing", Nothing(), {**load, "connections": 0}),
        Case("hub, nobody listens", Hub(), {**load, "connections": 0}),
        *(
            Case(f"hub, {number:,} connections, one receiver", Hub(), {**load, "connections": number, "topics": number})
            for number in numbers
        ),
    ]


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Publish to each in turn, round after round."""
    section = Section("publish", "Publishing over HTTP")
    compared = cases(options)
    trials = {case.title: Trial() for case in compared}
    for number in range(options.rounds):
        for case in compared:
            try:
                outcome = play(case.system, settle=options.size(0.7, 0.2), **case.load)
            except CannotMeasure as error:
                section.fail(case.title, error)
                continue
            trials[case.title].outcomes.append(outcome)
            say(f"  {case.title} {number + 1}/{options.rounds}: {_rate(outcome):,.0f} a second")
    for title, trial in trials.items():
        if trial:
            trial.report(section, "publish", title)
    section.tables.append(_table(compared, trials))
    return section


def _rate(outcome: Outcome) -> float:
    return outcome.events / outcome.seconds


def _table(compared: list[Case], trials: dict[str, Trial]) -> Table:
    about = (
        f"{compared[0].load['events']:,} POSTs on one connection, {compared[0].load['burst']} pipelined at a time, the "
        "next ones when those are answered. Where there are connections, each listens to a topic of its own, and each "
        "event has one receiver. The share is the median of the rounds, each beside the empty handler of the same one."
    )
    columns = [
        Column("What"),
        Column("POSTs", "1/s"),
        Column("share of the empty handler", "", 2),
        Column("CPU per POST", "µs", 1),
        Column("Answer p50", "ms", 2),
        Column("Delivery p50", "ms", 2),
        Column("Lost"),
        Column("Busy core"),
    ]
    empty = trials[compared[0].title]
    rows: list[list[Cell]] = []
    for case in compared:
        if trial := trials[case.title]:
            beside = zip(trial.outcomes, empty.outcomes, strict=False)
            shares = [_rate(each) / _rate(least) for each, least in beside]
            rows.append(
                [
                    case.title,
                    trial.median(_rate),
                    statistics.median(shares) if shares else None,
                    trial.median(lambda each: 1e6 * each.server_cpu / each.events),
                    trial.median(lambda each: each.answer.get("p50", 0.0)),
                    trial.median(lambda each: each.latency.get("p50", 0.0)) if case.load["connections"] else None,
                    float(trial.lost),
                    trial.busy(lambda each: each.bound),
                ]
            )
    return Table("What a POST costs", about, columns, rows)
