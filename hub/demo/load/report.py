"""What a run came to: facts, a verdict, and both as JSON and as lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hub.demo.load.assertion import Outcome
from hub.demo.load.errors import ReportNotWritable
from hub.demo.load.figures import Figures
from hub.demo.load.lag import is_bottleneck
from hub.demo.load.latency import Spread
from hub.demo.load.options import Options


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished run.

    Attributes:
        began: when, in ISO 8601.
        opening: seconds until all subscribers had their stream.
        posts: publish requests that were answered; fewer than events if the publisher fell behind.
        retries: publish requests that had to be sent again.
        dropped: connections the storm cut.
        caught_up: age at delivery of what fell due while the storm kept its receiver away; not part of the latency.
        failures: attempts to connect that brought no stream.
        refusals: subscribers turned away for good, by HTTP status.
        gaps: resumes that the hub could not fulfil, by its reason.
        notices: what the hub announced about streams, by type.
        server: what is known of the hub's process.
        driver: what is known of this one.
        interrupted: the user ended the run early.
        trouble: what kept events from being published.
    """

    options: Options
    figures: Figures
    began: str
    opening: float
    posts: int
    retries: int
    dropped: int
    caught_up: Spread | None
    failures: int
    server: Mapping[str, float] | None
    driver: Mapping[str, object]
    interrupted: bool = False
    trouble: str = ""
    refusals: Mapping[int, int] = field(default_factory=dict)
    gaps: Mapping[str, int] = field(default_factory=dict)
    notices: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of the assertions, in their order."""
        metrics = self.figures.metrics()
        return tuple(assertion.check(metrics) for assertion in self.options.assertions)

    @property
    def bottleneck(self) -> bool:
        """Whether the driver measured itself rather than the hub."""
        return is_bottleneck(self.figures.lag, self.figures.latency)

    @property
    def faults(self) -> list[str]:
        """Everything that keeps this run from being well, in words."""
        figures = self.figures
        faults = [
            f"{what}: {count:,}"
            for what, count in (
                ("missing deliveries", figures.missing),
                ("duplicate deliveries", figures.duplicates),
                ("deliveries out of order", figures.out_of_order),
            )
            if count
        ]
        if not figures.published:
            faults.append("nothing was published")
        elif figures.published < figures.planned and not self.interrupted:
            faults.append(f"only {figures.published:,} of {figures.planned:,} events could be published")
        if faults and self.trouble:
            faults.append(f"publishing met trouble: {self.trouble}")
        return faults + [str(outcome) for outcome in self.outcomes if not outcome.held]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.faults

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values; durations carry their unit in their name."""
        options, figures = self.options, self.figures
        return {
            "schema": 1,
            "ok": self.ok,
            "faults": self.faults,
            "interrupted": self.interrupted,
            "began": self.began,
            "url": options.target.url,
            "topic": options.topic,
            "scene": "storm" if options.storm else "steady",
            "rate": options.rate,
            "seconds": options.seconds,
            "size": options.size,
            "connections": options.connections,
            "opening_s": round(self.opening, 3),
            "planned": figures.planned,
            "published": figures.published,
            "posts": self.posts,
            "publish_retries": self.retries,
            "expected": figures.expected,
            "delivered": figures.delivered,
            "missing": figures.missing,
            "duplicates": figures.duplicates,
            "out_of_order": figures.out_of_order,
            "deliveries_per_s": round(figures.deliveries_per_s, 1),
            "latency_ms": figures.latency and figures.latency.as_ms(),
            "caught_up_ms": self.caught_up and self.caught_up.as_ms(),
            "storm_dropped": self.dropped,
            "reconnects": figures.reconnects,
            "failed_attempts": self.failures,
            "refusals": {str(status): count for status, count in self.refusals.items()},
            "gaps": dict(self.gaps),
            "notices": dict(self.notices),
            "lag_ms": figures.lag and figures.lag.as_ms(),
            "driver_was_bottleneck": self.bottleneck,
            "driver": dict(self.driver),
            "server": "unknown" if self.server is None else dict(self.server),
            "assertions": [{"text": one.assertion.text, "value": one.value, "held": one.held} for one in self.outcomes],
        }

    def write(self, path: str) -> None:
        """Write the report to *path*.

        Raises:
            ReportNotWritable: it cannot be written any more.
        """
        try:
            Path(path).write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ReportNotWritable(path, error.strerror or str(error)) from None

    def lines(self) -> list[str]:
        """Return the verdict in words, with everything a reader should know beside the figures."""
        lines = [str(outcome) for outcome in self.outcomes if outcome.held]
        if self.dropped:
            age = f"; the oldest they caught up with was {self.caught_up.max:.1f} s old" if self.caught_up else ""
            lines.append(f"storm: dropped {self.dropped:,}, resumed {self.figures.reconnects:,}{age}")
        if self.gaps:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.gaps.items())
            lines.append(f"gaps: the hub could not resume some streams ({reasons})")
        if self.refusals:
            statuses = ", ".join(f"{status} for {count:,}" for status, count in self.refusals.items())
            lines.append(f"turned away: the hub ended some subscriptions for good ({statuses})")
        if self.bottleneck and self.figures.lag and self.figures.latency:
            lines.append(
                f"the driver itself was the bottleneck: its loop ran {self.figures.lag.p99 * 1000:.1f} ms late (p99) "
                f"against a latency of {self.figures.latency.p99 * 1000:.1f} ms; the hub is faster than this shows"
            )
        if self.interrupted:
            lines.append("interrupted: the figures are of the shorter run")
        return [*lines, *(f"NOT WELL: {fault}" for fault in self.faults)] if self.faults else [*lines, self._well()]

    def _well(self) -> str:
        figures = self.figures
        return (
            f"all is well: {figures.published:,} events x {figures.connections:,} subscribers = "
            f"{figures.delivered:,} deliveries, none lost, none twice, all in order"
        )
