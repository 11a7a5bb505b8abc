"""The servers that are measured: ours, and what others use for the same."""

from tests.benchmarks.systems.hub import Hub
from tests.benchmarks.systems.nchan import Nchan
from tests.benchmarks.systems.nest import Nest
from tests.benchmarks.systems.python import Queues, Starlette
from tests.benchmarks.systems.system import System

SYSTEMS: tuple[System, ...] = (Hub(), Hub(durable=True), Nchan(), Nest(), Starlette(), Queues())
"""All there are, in the order of the tables."""

__all__ = ["SYSTEMS", "System"]
