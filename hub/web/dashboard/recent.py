"""What the histograms of the last seconds say: how long publishes took, and how late the event loops were."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from hub.histogram import HistogramFigures, difference, quantile

SAMPLES = 10
WRITTEN, LAG = "publish_written_seconds", "loop_lag_seconds"

Figures = Mapping[str, HistogramFigures]


class Latest(NamedTuple):
    """Two samples: what was observed between them counts.

    Attributes:
        now: the newest, by process and histogram; those of all processes have no name.
        before: one of some seconds ago; None: there is none.
    """

    now: Mapping[str, Figures]
    before: Mapping[str, Figures] | None

    @property
    def written(self) -> dict[str, float | None] | None:
        """Within how many seconds half of the publishes, and 99 of 100, were written to all; None: there were none."""
        observed = self._between("", WRITTEN)
        if observed is None or not observed["count"]:
            return None
        return {"p50": quantile(0.5, observed), "p99": quantile(0.99, observed)}

    def lag(self, name: str) -> float | None:
        """Return by how many seconds the event loop of a process was late at most; None: that is not known."""
        observed = self._between(name, LAG)
        return None if observed is None else quantile(1.0, observed)

    def _between(self, name: str, histogram: str) -> HistogramFigures | None:
        now = self.now.get(name, {}).get(histogram)
        if now is None or self.before is None:
            return None
        return difference(now, self.before.get(name, {}).get(histogram))


class Recent:
    """The histograms of the last ten samples."""

    def __init__(self) -> None:
        self._kept: deque[Mapping[str, Figures]] = deque(maxlen=SAMPLES)

    def add(self, figures: Mapping[str, Mapping[str, Any]]) -> Latest:
        """Keep the histograms among *figures*, which are by process; return them beside the oldest that are kept."""
        now = {name: {each: own[each] for each in (WRITTEN, LAG) if each in own} for name, own in figures.items()}
        before = self._kept[0] if self._kept else None
        self._kept.append(now)
        return Latest(now, before)

    def clear(self) -> None:
        """Keep nothing: nobody looks."""
        self._kept.clear()
