"""The report of a run: its figures and a verdict, as JSON and as lines."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from hub.load.figures import Figures
from hub.load.options import DURATIONS, NUMBERS, CannotRun

WORTH_SAYING = 0.005
"""Seconds: a lag below this comes from the resolution of timers and from single reads, and is never reported."""


class Report:
    """The report of a finished run.

    Attributes:
        driver_was_bottleneck: whether the lag of the driver is so large, compared with the latency, that the driver
            was measured and not the hub.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures, self._options = figures, figures.options
        self._latency, self._lag = latency, lag = figures.latencies.spread(), figures.lags.spread()
        self.driver_was_bottleneck = bool(latency and lag and lag.p99 >= max(WORTH_SAYING, latency.p99 / 2))
        metrics = dict.fromkeys(DURATIONS) | (latency._asdict() if latency else {}) | {"lag": lag and lag.p99}
        metrics |= {name: getattr(figures, name) for name in NUMBERS}
        self._outcomes = [(one, metrics[one.metric]) for one in self._options.assertions]

    @cached_property
    def faults(self) -> list[str]:
        """The faults of the run, as sentences; empty if all is well."""
        figures, planned = self._figures, self._options.planned
        counts = {
            "missing deliveries": figures.missing,
            "duplicate deliveries": figures.duplicates,
            "deliveries out of order": figures.out_of_order,
        }
        faults = [f"{what}: {count:,}" for what, count in counts.items() if count]
        if not figures.published:
            faults.append("nothing was published")
        elif figures.published < planned and not figures.interrupts:
            faults.append(f"only {figures.published:,} of {planned:,} events could be published")
        if faults and figures.trouble:
            faults.append(f"publishing met trouble: {figures.trouble}")
        return faults + [one.outcome(value) for one, value in self._outcomes if not one.holds(value)]

    @property
    def ok(self) -> bool:
        """Whether there are no faults."""
        return not self.faults

    def lines(self) -> Iterator[str]:
        """Yield the lines of the verdict, and whatever a reader must know to judge the figures."""
        figures = self._figures
        yield from (one.outcome(value) for one, value in self._outcomes if one.holds(value))
        if figures.dropped:
            oldest = figures.caught_up.spread()
            age = f"; the oldest they caught up with was {oldest.max:.1f} s old" if oldest else ""
            yield f"storm: dropped {figures.dropped:,}, resumed {figures.reconnects:,}{age}"
        if figures.gaps:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in figures.gaps.items())
            yield f"gaps: the hub could not resume some streams ({reasons})"
        if figures.refusals:
            statuses = ", ".join(f"{status} for {count:,}" for status, count in figures.refusals.items())
            yield f"turned away: the hub ended some subscriptions for good ({statuses})"
        if self.driver_was_bottleneck and self._lag and self._latency:
            yield (
                f"the driver itself was the bottleneck: its loop ran {self._lag.p99 * 1000:.1f} ms late (p99) "
                f"against a latency of {self._latency.p99 * 1000:.1f} ms; the hub is faster than this shows"
            )
        if figures.interrupts:
            yield "interrupted: the figures are of the shorter run"
        yield from (f"NOT WELL: {fault}" for fault in self.faults)
        if self.ok:
            yield (
                f"all is well: {figures.published:,} events x {self._options.connections:,} subscribers = "
                f"{figures.delivered:,} deliveries, none lost, none twice, all in order"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values; the name of a duration ends with its unit."""
        options, figures, caught_up = self._options, self._figures, self._figures.caught_up.spread()
        return {
            "schema": 1,
            "ok": self.ok,
            "faults": self.faults,
            "interrupted": figures.interrupts > 0,
            "began": figures.began,
            "url": str(options.url),
            "scene": "storm" if options.storm else "steady",
            **{name: getattr(options, name) for name in ("topic", "rate", "seconds", "size", "connections", "planned")},
            "tokens": len(options.tokens),
            "opening_s": round(figures.opening, 3),
            **{name: getattr(figures, name) for name in ("published", "posts", "expected", "delivered", *NUMBERS)},
            "publish_retries": figures.retries,
            "latency_ms": self._latency and self._latency.as_ms(),
            "caught_up_ms": caught_up and caught_up.as_ms(),
            "storm_dropped": figures.dropped,
            "failed_attempts": figures.failed_attempts,
            "refusals": {str(status): count for status, count in figures.refusals.items()},
            "gaps": figures.gaps,
            "notices": figures.notices,
            "lag_ms": self._lag and self._lag.as_ms(),
            "driver_was_bottleneck": self.driver_was_bottleneck,
            "driver": {"python": platform.python_version(), "loop": figures.loop},
            "server": self._server(),
            "assertions": [
                {"text": one.text, "value": value, "held": one.holds(value)} for one, value in self._outcomes
            ],
        }

    def _server(self) -> dict[str, float] | str:
        figures = self._figures
        if figures.idle is None or figures.open is None or figures.now is None:
            return "unknown"
        spent = figures.now.cpu_seconds - figures.open.cpu_seconds
        return {
            "rss_before": figures.idle.rss,
            "rss_connected": figures.open.rss,
            "rss_end": figures.now.rss,
            "rss_growth_per_connection": round((figures.open.rss - figures.idle.rss) / self._options.connections),
            "cpu_s": round(spent, 3),
            "cpu_us_per_delivery": round(1e6 * spent / figures.delivered, 2) if figures.delivered else 0.0,
        }

    def write(self, path: str) -> None:
        """Write the report to *path*; raise `CannotRun` if that is no longer possible."""
        try:
            Path(path).write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise CannotRun(f"--report {path}: {error.strerror or error}") from None
