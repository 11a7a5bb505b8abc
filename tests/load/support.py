"""Figures of a run that went well, to be changed."""

from __future__ import annotations

from hub.load.figures import Figures, Usage
from hub.load.latency import Latencies
from tests.load.test_options import options


def recorded(*milliseconds: float) -> Latencies:
    latencies = Latencies()
    for each in milliseconds:
        latencies.record(int(each * 1e6))
    return latencies


def figures(*arguments: str, **changes: object) -> Figures:
    """Return the figures of 5 events for 10 subscribers, with *changes*."""
    made = Figures(options("-c", "10", "--rate", "5", "--seconds", "1", *arguments))
    values = {
        "phase": "done",
        "connected": 10,
        "published": 5,
        "delivered": 50,
        "deliveries_per_s": 50.0,
        "latencies": recorded(1, 2, 3),
        "lags": recorded(0.1, 0.2, 0.3),
        "now": Usage(50_000_000, 12.0, 1.5),
    }
    for name, value in {**values, **changes}.items():
        setattr(made, name, value)
    return made
