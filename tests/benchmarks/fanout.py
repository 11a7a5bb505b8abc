"""The group `fanout`: from one publish to many connections, on every system that is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.benchmarks.comparison import Scenario, Trials, compare, rank_of
from tests.benchmarks.load import Outcome
from tests.benchmarks.machine import most_connections
from tests.benchmarks.options import Options
from tests.benchmarks.section import Plot, Points, Section
from tests.benchmarks.systems import SYSTEMS, System
from tests.benchmarks.trial import Trial


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
    if most_connections() < options.size(10_000, 500):
        section.note(f"The file limit of this machine allows {most_connections():,} connections: the runs are smaller.")
    systems, trials = compare(section, SYSTEMS, scenarios(options), options, say)
    section.plots.extend(_plots(systems, trials))
    return section


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
        spread = {rank: _bars(rated, partial(rank_of, rank)) for rank in ("p50", "p99")}
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
