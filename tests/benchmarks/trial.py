"""The outcomes of one load, round after round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tests.benchmarks import child
from tests.benchmarks.cores import cores
from tests.benchmarks.load import Load, Outcome
from tests.benchmarks.place import scratch
from tests.benchmarks.section import Section
from tests.benchmarks.served import Served
from tests.benchmarks.systems import System
from tests.benchmarks.systems.system import Paths

GRACE = 60.0  # seconds a driver may take beyond what its load needs


def play(system: System, **what: Any) -> Outcome:
    """Start *system*, put the load *what* on it, end it, and return what came of it.

    Raises:
        CannotMeasure: the server or the driver failed.
    """
    core = cores()
    with scratch() as folder, system.serve(folder, core=core.server) as server:
        return drive(server, system.paths, core=core.driver, **what)


def drive(server: Served, paths: Paths, *, core: int | None, **what: Any) -> Outcome:
    """Put the load *what* on a *server* that runs; the driver is on *core*."""
    load = Load.on(server, paths, **what)
    needed = 2 * load.patience + (load.events / load.rate if load.rate else 0) + GRACE
    return Outcome(**child.ask("driver", load.as_task(), core=core, patience=needed))


class Trial:
    """What came of the same load in several rounds."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def __bool__(self) -> bool:
        return bool(self.outcomes)

    def median(self, value: Callable[[Outcome], float]) -> float:
        """Return the middle one of what *value* is in each round."""
        return statistics.median(map(value, self.outcomes))

    @property
    def lost(self) -> int:
        """Deliveries that did not arrive, in all rounds."""
        return sum(each.lost for each in self.outcomes)

    def busy(self, bound: Callable[[Outcome], str]) -> str:
        """Return whose core was busy all the time, in the round that says it most often."""
        return statistics.mode(map(bound, self.outcomes)) or "–"

    def report(self, section: Section, scenario: str, name: str) -> None:
        """Put the single outcomes into *section*, with a remark on what can't be believed."""
        section.rounds.setdefault(scenario, {})[name] = [asdict(each) for each in self.outcomes]
        section.lost += self.lost
        disordered = sum(each.disordered for each in self.outcomes)
        closed = sum(each.closed for each in self.outcomes)
        expected = sum(each.expected for each in self.outcomes)
        if self.lost or disordered or closed:
            section.note(
                f"**{scenario}, {name}:** of {expected:,} deliveries {self.lost:,} were lost, {disordered:,} came "
                f"twice or late; {closed:,} streams were closed."
            )
        if self.outcomes[0].events and self.busy(lambda each: each.bound) == "driver":
            section.note(
                f"{scenario}, {name}: the driver was busy all the time and the server was not. Its rate is at least "
                "what the table says, its latency at most."
            )
