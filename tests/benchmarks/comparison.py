"""Several systems under the same loads, taking turns within each round; and what is shown of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.load import Outcome
from tests.benchmarks.options import Options
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems import SYSTEMS, WIRES, System
from tests.benchmarks.trial import Trial, play

Trials = dict[str, dict[str, Trial]]


class Scenario(NamedTuple):
    """A load that all systems get; *other* is what is different for some of them, by name."""

    name: str
    about: str
    load: dict[str, Any]
    other: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - it is never changed


def compare(
    section: Section,
    among: Sequence[System],
    scenarios: Sequence[Scenario],
    options: Options,
    say: Callable[[str], None],
) -> tuple[list[System], Trials]:
    """Play *scenarios* on those of *among* that are chosen and installed, and put tables of it into *section*."""
    systems = _installed(among, options, section)
    trials: Trials = {}
    played = [each for each in scenarios if options.wants(section.name, each.name)]
    for scenario in played:
        taken = trials[scenario.name] = {system.name: Trial() for system in systems}
        for number in range(options.rounds):
            for system in systems:
                load = {**scenario.load, **scenario.other.get(system.name, {})}
                try:
                    outcome = play(system, settle=options.size(0.7, 0.2), **load)
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
    return systems, trials


def _installed(among: Sequence[System], options: Options, section: Section) -> list[System]:
    chosen = [system for system in among if not options.systems or system.name in options.systems]
    installed = []
    for system in chosen:
        lacks = system.missing()
        if lacks:
            section.note(f"{system.title} was left out: {lacks}.")
        else:
            installed.append(system)
    unknown = set(options.systems) - {system.name for system in (*SYSTEMS, *WIRES)}
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
                *(trial.median(partial(rank_of, rank)) for rank in ("p50", "p99", "max")),
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


def rank_of(rank: str, outcome: Outcome) -> float:
    """Return a *rank* of the latency, such as p99, in ms."""
    return outcome.latency.get(rank, 0.0)
