"""Which core a process runs on: servers on one, what loads them on another."""

from __future__ import annotations

import os
from typing import NamedTuple


class Cores(NamedTuple):
    """The core of servers and the core of drivers; the same one where there is no other."""

    server: int
    driver: int


def cores() -> Cores:
    """Return the first and the last core that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(allowed[0], allowed[-1])


def pin(core: int | None) -> None:
    """Let this process, and those it starts from now on, run on *core* only; None: anywhere."""
    if core is not None:
        os.sched_setaffinity(0, {core})
