"""The group `scaling`: how the costs of this hub grow with connections, topics, events and bursts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.load import Outcome
from tests.benchmarks.machine import most_connections
from tests.benchmarks.options import Options
from tests.benchmarks.section import Cell, Column, Plot, Points, Section, Table
from tests.benchmarks.systems.hub import Hub
from tests.benchmarks.trial import Trial, play

Value = Callable[[Outcome], float]


class Series(NamedTuple):
    """One thing that grows.

    Attributes:
        steps: how much of it there is, and the load with so much.
        figures: what is shown of each step.
        plots: per picture its y axis, and by name what it shows.
    """

    name: str
    title: str
    about: str
    what: str
    steps: list[tuple[int, dict[str, Any]]]
    figures: list[tuple[Column, Value]]
    plots: dict[str, dict[str, Value]]


CPU = (Column("CPU per delivery", "µs", 2), lambda each: each.cpu_per_delivery)
PER_EVENT = (Column("CPU per event", "µs", 1), lambda each: 1e6 * each.server_cpu / each.events)
RATE = (Column("Deliveries", "1/s"), lambda each: each.deliveries_per_second)
P50 = (Column("p50", "ms", 2), lambda each: each.latency.get("p50", 0.0))
P99 = (Column("p99", "ms", 2), lambda each: each.latency.get("p99", 0.0))
ANSWER = (Column("Answer to POST p50", "ms", 2), lambda each: each.answer.get("p50", 0.0))
MEMORY = (Column("Memory per connection", "kB", 2), lambda each: each.bytes_per_connection / 1000)
OPENED = (Column("Memory, all open", "MB", 1), lambda each: each.rss_open / 1e6)


def connections(options: Options) -> Series:
    """More connections on one topic."""
    wanted = options.size((1_000, 2_000, 5_000, 10_000, 19_000), (100, 400))
    numbers = sorted({min(number, most_connections()) for number in wanted})
    deliveries = options.size(400_000, 4_000)
    return Series(
        "connections",
        "Connections",
        f"All on one topic; the next event when every connection has the last, {deliveries:,} deliveries at each step.",
        "Connections",
        [(number, {"connections": number, "events": max(deliveries // number, 5), "sync": True}) for number in numbers],
        [CPU, RATE, P50, P99, ANSWER, MEMORY],
        {
            "CPU per delivery, µs": {"CPU per delivery": CPU[1]},
            "Memory per connection, kB": {"memory": MEMORY[1]},
            "Latency, ms": {"p50": P50[1], "p99": P99[1]},
        },
    )


def topics(options: Options) -> Series:
    """More topics, of which each event has one, which one connection listens to."""
    number = options.size(1_000, 100)
    events = options.size(20_000, 500)
    return Series(
        "topics",
        "Topics",
        f"{number:,} connections listen to so many topics between them, each topic has one of them; {events:,} events, "
        "each to one topic and so to one connection, in 20 pipelined POSTs at a time.",
        "Topics that somebody listens to",
        [
            (step, {"connections": number, "topics": step, "events": events, "burst": 20})
            for step in options.size((10, 1_000, 100_000), (10, 100, 10_000))
        ],
        [PER_EVENT, P50, P99, ANSWER, OPENED],
        {"CPU per event, µs": {"CPU per event": PER_EVENT[1]}},
    )


def events(options: Options) -> Series:
    """More events in one run; the log fills and begins to let go."""
    number = 100
    return Series(
        "events",
        "Events",
        f"{number} connections on one topic, so many events in 20 pipelined POSTs at a time. The log in memory keeps "
        "48 MiB, which is full at some 60,000 of these.",
        "Events published",
        [
            (step, {"connections": number, "events": step, "burst": 20})
            for step in options.size((1_000, 10_000, 100_000), (100, 1_000))
        ],
        [CPU, PER_EVENT, RATE, P50, P99],
        {"CPU per event, µs": {"CPU per event": PER_EVENT[1]}},
    )


def bursts(options: Options) -> Series:
    """More events that come together."""
    number = options.size(1_000, 100)
    total = options.size(1_000, 100)
    return Series(
        "bursts",
        "Bursts",
        f"{number:,} connections on one topic, {total:,} events, so many pipelined POSTs at a time.",
        "Events that come together",
        [
            (step, {"connections": number, "events": total, "burst": step})
            for step in options.size((1, 2, 5, 10, 20, 50, 100), (1, 10, 50))
        ],
        [CPU, RATE, P50, P99],
        {"CPU per delivery, µs": {"CPU per delivery": CPU[1]}},
    )


SERIES: Sequence[Callable[[Options], Series]] = (connections, topics, events, bursts)


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Go through all steps of all series, round after round."""
    section = Section("scaling", "Scaling: more of everything")
    if most_connections() < options.size(19_000, 0):
        section.note(f"The file limit of this machine allows {most_connections():,} connections: there are no more.")
    for each in (make(options) for make in SERIES):
        if options.wants("scaling", each.name):
            trials = _play(each, options, section, say)
            for step, trial in trials.items():
                trial.report(section, each.name, f"{step:,}")
            section.tables.append(_table(each, trials))
            section.plots.extend(_plots(each, trials))
    return section


def _play(series: Series, options: Options, section: Section, say: Callable[[str], None]) -> dict[int, Trial]:
    hub = Hub()
    trials = {step: Trial() for step, _ in series.steps}
    for number in range(options.rounds):
        for step, load in series.steps:
            try:
                outcome = play(hub, settle=options.size(0.7, 0.2), **load)
            except CannotMeasure as error:
                section.fail(f"{series.name}, {step:,}", error)
                continue
            trials[step].outcomes.append(outcome)
            say(f"  {series.name} {step:,} {number + 1}/{options.rounds}: {outcome.cpu_per_delivery:.2f} µs a delivery")
    return {step: trial for step, trial in trials.items() if trial}


def _table(series: Series, trials: dict[int, Trial]) -> Table:
    columns = [Column(series.what), *(column for column, _ in series.figures), Column("Lost"), Column("Busy core")]
    rows: list[list[Cell]] = [
        [
            float(step),
            *(trial.median(value) for _, value in series.figures),
            float(trial.lost),
            trial.busy(lambda each: each.bound),
        ]
        for step, trial in trials.items()
    ]
    return Table(series.title, series.about, columns, rows)


def _plots(series: Series, trials: dict[int, Trial]) -> list[Plot]:
    plots = []
    for axis, values in series.plots.items():
        points: dict[str, Points] = {
            name: [(step, trial.median(value)) for step, trial in trials.items()] for name, value in values.items()
        }
        what = axis.partition(",")[0]
        name = f"scaling-{series.name}-{what.lower().replace(' ', '-')}"
        plots.append(Plot(name, f"{what}, by {series.title.lower()}", series.what, axis, points, "x"))
    return plots
