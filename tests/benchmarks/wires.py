"""The group `wires`: the same load over each wire of the hub, and over the WebSockets of others."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from tests.benchmarks.comparison import Scenario, Trials, compare
from tests.benchmarks.load import Outcome
from tests.benchmarks.machine import most_connections
from tests.benchmarks.options import Options
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.systems import WIRES, System
from tests.benchmarks.trial import Trial

FIRST = WIRES[0]
"""What all are compared with."""
SHOWN: tuple[tuple[str, str, Callable[[Outcome], float]], ...] = (
    ("single", "Deliveries for the same CPU, single", lambda each: 1 / max(each.cpu_per_delivery, 1e-9)),
    ("burst", "Deliveries for the same CPU, burst", lambda each: 1 / max(each.cpu_per_delivery, 1e-9)),
    ("single", "Deliveries a second, single", lambda each: each.deliveries_per_second),
    ("idle", "Memory per connection", lambda each: each.bytes_per_connection),
    ("idle", "Connects for the same CPU", lambda each: each.connections / max(each.open_server_cpu, 1e-9)),
)
"""The scenario, the name and the value of each ratio."""


def scenarios(options: Options) -> list[Scenario]:
    """Return what is played. Fewer events where each costs as much as a request, for the same time."""
    few = options.size(1_000, 50)
    many = min(options.size(5_000, 100), most_connections())
    one, polled = options.size(200, 20), options.size(8, 4)
    bursts, apart, polled_bursts = options.size(2_000, 100), options.size(200, 50), options.size(100, 50)
    return [
        Scenario(
            "single",
            f"{few:,} connections, {one:,} events, the next one when every connection has the last. Long-poll: "
            f"{polled:,} events, the next one when every client waits again; a delivery is an answer and "
            "the next poll.",
            {"connections": few, "events": one, "sync": True},
            {"poll": {"events": polled}},
        ),
        Scenario(
            "burst",
            f"{few:,} connections, {bursts:,} events in 50 pipelined POSTs at a time, the next 50 when those are "
            f"answered. Those that write each event by itself: {apart:,} events; long-poll: {polled_bursts:,}.",
            {"connections": few, "events": bursts, "burst": 50},
            {
                "poll": {"events": polled_bursts},
                "websockets": {"events": apart},
                "socketio": {"events": apart},
            },
        ),
        Scenario(
            "idle",
            f"{many:,} connections are opened, and nothing is sent. Memory is what the processes of the server grew "
            "by. A connection of the hub's WebSocket is open when its subscription is answered, one of Socket.IO when "
            "it has joined the namespace, and a poll when it waits.",
            {"connections": many},
        ),
    ]


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Play all scenarios, the systems taking turns within each round."""
    section = Section("wires", "Other wires, beside SSE and beside others")
    systems, trials = compare(section, WIRES, scenarios(options), options, say)
    if FIRST in systems:
        section.tables.insert(1, ratios(systems, trials))
    return section


def ratios(systems: list[System], trials: Trials) -> Table:
    """Return how each of *systems* does in relation to SSE."""
    shown = [each for each in SHOWN if each[0] in trials]
    rows: list[list[Cell]] = [
        [system.title, *(_ratio(trials[scenario], system, value) for scenario, _, value in shown)] for system in systems
    ]
    about = "1.00 is the hub's SSE in the same round; the median of the rounds. More is better, except for memory."
    columns = [Column("System"), *(Column(name, "× SSE", 2) for _, name, _ in shown)]
    return Table("Beside SSE", about, columns, rows)


def _ratio(taken: dict[str, Trial], system: System, value: Callable[[Outcome], float]) -> float | None:
    """Return how *system* does in relation to SSE, round by round; None if a round is missing."""
    first, own = taken[FIRST.name].outcomes, taken[system.name].outcomes
    if not own or len(first) != len(own):
        return None
    return median(value(one) / max(value(other), 1e-9) for one, other in zip(own, first, strict=True))
