"""How many connections this machine lets one process have."""

from __future__ import annotations

import resource

SPARE = 200
"""Open files that are no connections, of a server or of a driver."""


def raise_limit() -> None:
    """Allow this process, and those it starts, as many open files as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """Return how many connections fit into the file limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard - SPARE
