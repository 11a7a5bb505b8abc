"""Ports for what a test or a benchmark starts, and starts again on the same one."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

PORTS = range(20_000, 30_000)
"""Below what the kernel gives to connections."""

PORTS_WITH_A_BUS = range(20_000, 22_700)
"""A node of a Redis cluster also listens on the port that is 10,000 higher: that one is below them as well."""


def free_port(ports: range = PORTS) -> int:
    """Return one of *ports* that nobody listens on.

    Raises:
        OSError: none was found.
    """
    for port in random.SystemRandom().sample(ports, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")
