"""The group `log`: what it costs to keep a notification, and to find it again.

The SQLite file is in a folder next to the project. Nothing is pinned here but the clients: the processes that write and
read the file use the core that is free, as they would in use.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.log import busy, live, lookup, publish, replay, retention
from tests.benchmarks.options import Options
from tests.benchmarks.section import Section

SCENARIOS: dict[str, ModuleType] = {
    "publish": publish,
    "busy": busy,
    "replay": replay,
    "live": live,
    "lookup": lookup,
    "retention": retention,
}


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Measure one after the other; what can't be measured is remarked."""
    section = Section("log", "The log: to keep, to replay, to let go")
    for name, scenario in SCENARIOS.items():
        if options.wants("log", name):
            try:
                scenario.measure(options, section, say)
            except CannotMeasure as error:
                section.fail(name, error)
    return section
