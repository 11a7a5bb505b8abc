"""The group `fanout`: from one publish to many connections, on every system that is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.load import Outcome
from tests.benchmarks.machine import most_connections
from tests.benchmarks.options import Options
from tests.benchmarks.section import Cell, Column, Plot, Points, Section, Table
from tests.benchmarks.systems import SYSTEMS, System
from tests.benchmarks.trial import Trial, play

Trials = dict[str, dict[str, Trial]]


class Scenario(NamedTuple):
    """A load that all systems get."""

    name: str
    about: str
    load: dict[str, Any]


def scenarios(options: Options) -> list[Scenario]:
    """Return what is played, with the connections that this machine allows."""
    few = options.size(1_000, 100)
    some = min(options.size(5_000, 200), most_connections())
    many = min(options.size(10_000, 500), most_connections())
    one, bursts, wide = options.size(400, 50), options.size(1_000, 200), options.size(40, 10)
    seconds = options.size(10, 1)
    return [
        Scenario(
            "single",
            f"{few:,} connections, {one:,} events, the next one when every connection has the last.",
            {"connections": few, "events": one, "sync": True},
        ),
        Scenario(
            "burst",
            f"{few:,} connections, {bursts:,} events in 50 pipelined POSTs at a time, the next 50 when those are "
            "answered.",
            {"connections": few, "events": bursts, "burst": 50},
        ),
        Scenario(
            "wide",
            f"{many:,} connections, {wide:,} events, the next one when every connection has the last.",
            {"connections": many, "events": wide, "sync": True},
        ),
        Scenario(
            "rated",
            f"{some:,} connections, 10 events a second for {seconds} s, each due at its moment however far behind the "
            "server is. Latency counts from that moment: nothing is left out because it waited.",
            {"connections": some, "events": 10 * seconds, "rate": 10.0},
        ),
        Scenario(
            "idle",
            f"{many:,} connections are opened, 256 at a time under way, and nothing is sent. Memory is what the "
            "processes of the server grew by.",
            {"connections": many},
        ),
    ]


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Play all scenarios, the systems taking turns within each round."""
    section = Section("fanout", "Fan-out, beside others")
    systems = _installed(options, section)
    trials: Trials = {}
    played = [each for each in scenarios(options) if options.wants("fanout", each.name)]
    if most_connections() < options.size(10_000, 500):
        section.note(f"The file limit of this machine allows {most_connections():,} connections: the runs are smaller.")
    for scenario in played:
        taken = trials[scenario.name] = {system.name: Trial() for system in systems}
        for number in range(options.rounds):
            for system in systems:
                try:
                    outcome = play(system, settle=options.size(0.7, 0.2), **scenario.load)
                except CannotMeasure as error:
                    section.fail(f"{scenario.name}, {system.name}", error)
                    continue
                taken[system.name].outcomes.append(outcome)
                say(f"  {scenario.name} {number + 1}/{options.rounds} {system.name}: {_line(outcome)}")
    section.tables.append(_versions(systems))
    for scenario in played:
        taken = trials[scenario.name]
        for name, trial in taken.items():
            if trial:
                trial.report(section, scenario.name, name)
        section.tables.append((_idle if scenario.name == "idle" else _sent)(scenario, systems, taken))
    section.plots.extend(_plots(systems, trials))
    return section


def _installed(options: Options, section: Section) -> list[System]:
    chosen = [system for system in SYSTEMS if not options.systems or system.name in options.systems]
    installed = []
    for system in chosen:
        lacks = system.missing()
        if lacks:
            section.note(f"{system.title} was left out: {lacks}.")
        else:
            installed.append(system)
    unknown = set(options.systems) - {system.name for system in SYSTEMS}
    if unknown:
        section.note(f"There is no system {', '.join(sorted(unknown))}.")
    return installed


def _line(outcome: Outcome) -> str:
    if not outcome.events:
        return f"{outcome.bytes_per_connection / 1000:.1f} kB a connection, {outcome.connects_per_second:,.0f} a second"
    return (
        f"{outcome.cpu_per_delivery:.2f} µs a delivery, {outcome.deliveries_per_second:,.0f} a second, "
        f"lost {outcome.lost:,}"
    )


def _versions(systems: list[System]) -> Table:
    rows: list[list[Cell]] = [[system.title, f"`{system.name}`", system.version()] for system in systems]
    columns = [Column("System"), Column("Name"), Column("Version")]
    return Table("Systems", "Each is one process on one core, as its documentation sets it up.", columns, rows)


def _sent(scenario: Scenario, systems: list[System], trials: dict[str, Trial]) -> Table:
    columns = [
        Column("System"),
        Column("CPU per delivery", "µs", 2),
        Column("Deliveries", "1/s"),
        Column("p50", "ms", 2),
        Column("p99", "ms", 2),
        Column("max", "ms", 2),
        Column("Answer to POST p50", "ms", 2),
        Column("Lost"),
        Column("Busy core"),
    ]
    if scenario.name == "rated":
        columns.append(Column("Driver late p99", "ms", 2))
    rows: list[list[Cell]] = []
    for system in systems:
        if trial := trials[system.name]:
            row: list[Cell] = [
                system.title,
                trial.median(lambda each: each.cpu_per_delivery),
                trial.median(lambda each: each.deliveries_per_second),
                *(trial.median(partial(_rank, rank)) for rank in ("p50", "p99", "max")),
                trial.median(lambda each: each.answer.get("p50", 0.0)),
                float(trial.lost),
                trial.busy(lambda each: each.bound),
            ]
            if scenario.name == "rated":
                row.append(trial.median(lambda each: each.lag.get("p99", 0.0)))
            rows.append(row)
    return Table(scenario.name.capitalize(), scenario.about, columns, rows)


def _idle(scenario: Scenario, systems: list[System], trials: dict[str, Trial]) -> Table:
    columns = [
        Column("System"),
        Column("Memory per connection", "kB", 2),
        Column("Memory before", "MB", 1),
        Column("Connects", "1/s"),
        Column("CPU per connect", "µs", 1),
        Column("Busy core"),
    ]
    rows: list[list[Cell]] = [
        [
            system.title,
            trial.median(lambda each: each.bytes_per_connection) / 1000,
            trial.median(lambda each: each.rss_before) / 1e6,
            trial.median(lambda each: each.connects_per_second),
            trial.median(lambda each: 1e6 * each.open_server_cpu / each.connections),
            trial.busy(lambda each: each.open_bound),
        ]
        for system in systems
        if (trial := trials[system.name])
    ]
    return Table("Idle", scenario.about, columns, rows)


def _plots(systems: list[System], trials: Trials) -> list[Plot]:
    plots = []
    sent = [scenario for scenario in trials if scenario != "idle"]
    titles = [system.title for system in systems]
    if sent:
        costs = {
            system.title: _bars(
                [trials[scenario][system.name] for scenario in sent], lambda each: each.cpu_per_delivery
            )
            for system in systems
        }
        title = "What one delivery costs the server"
        plots.append(Plot("fanout-cpu", title, "Scenario", "CPU per delivery, µs", costs, "", sent))
    if "rated" in trials:
        rated = list(trials["rated"].values())
        spread = {rank: _bars(rated, partial(_rank, rank)) for rank in ("p50", "p99")}
        title = "Rated: from when an event was due to its arrival"
        plots.append(Plot("fanout-latency", title, "System", "Latency, ms", spread, "y", titles))
    if "idle" in trials:
        memory = _bars(list(trials["idle"].values()), lambda each: each.bytes_per_connection / 1000)
        title = "What an idle connection costs the server"
        axis = "Memory per connection, kB"
        plots.append(Plot("fanout-memory", title, "System", axis, {"memory": memory}, "", titles))
    return plots


def _bars(trials: list[Trial], value: Callable[[Outcome], float]) -> Points:
    """Return the median of *value* for each of *trials* that took place, at its place."""
    return [(float(place), trial.median(value)) for place, trial in enumerate(trials) if trial]


def _rank(rank: str, outcome: Outcome) -> float:
    return outcome.latency.get(rank, 0.0)
