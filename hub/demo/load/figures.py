"""The numbers of a run at one moment: what the table shows, the assertions check and the report keeps."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hub.demo.load.latency import Spread
from hub.demo.load.server import Usage


class Phase(enum.Enum):
    """Where a run stands."""

    CONNECTING = "connecting"
    PUBLISHING = "publishing"
    SETTLING = "settling"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A moment of a run.

    Attributes:
        elapsed: seconds since the first event was due.
        expected: accepted events times subscribers.
        missing: while events are on their way those overtaken by later ones, at the end all that did not come.
        deliveries_per_s: over the last moments; at the end over the whole run.
        lag: how late the driver's own loop ran.
        server: None if the hub's process is unknown.
    """

    phase: Phase
    elapsed: float
    connections: int
    connected: int
    planned: int
    published: int
    expected: int
    delivered: int
    missing: int
    duplicates: int
    out_of_order: int
    reconnects: int
    deliveries_per_s: float
    latency: Spread | None
    lag: Spread | None
    server: Usage | None

    def metrics(self) -> dict[str, float | None]:
        """Return the values that assertions may name; durations in seconds."""
        latency = self.latency._asdict() if self.latency else dict.fromkeys(Spread._fields)
        return {
            **latency,
            "lag": self.lag and self.lag.p99,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "out_of_order": self.out_of_order,
            "reconnects": self.reconnects,
            "deliveries_per_s": self.deliveries_per_s,
        }
