"""The servers that are measured: ours, and what others use for the same."""

from tests.benchmarks.systems import hub
from tests.benchmarks.systems.hub import Hub
from tests.benchmarks.systems.nchan import Nchan
from tests.benchmarks.systems.node import Nest, SocketIO
from tests.benchmarks.systems.python import Queues, Starlette, Websockets
from tests.benchmarks.systems.system import System

SYSTEMS: tuple[System, ...] = (Hub(), Hub(durable=True), Nchan(), Nest(), Starlette(), Queues())
"""All that send Server-Sent Events, in the order of the tables."""

WIRES: tuple[System, ...] = (*hub.WIRES, Websockets(), SocketIO())
"""The wires of the hub, and what others send over a WebSocket."""

__all__ = ["SYSTEMS", "WIRES", "System"]
