"""What a run must satisfy: `p99<250ms`, read once and checked against the metrics of the run. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

DURATIONS = ("p50", "p90", "p99", "max", "lag")
"""Metrics in seconds; an assertion gives them with a unit."""
NUMBERS = ("missing", "duplicates", "out_of_order", "reconnects", "deliveries_per_s")
"""Metrics without a unit."""

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_FORM = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|==|<|>)\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII)


class InvalidAssertion(ValueError):
    """The caller wrote an assertion that cannot be checked."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text, why)
        self.text, self.why = text, why

    def __str__(self) -> str:
        return f"{self.text!r} {self.why}"


@dataclass(frozen=True, slots=True)
class Assertion:
    """A bound on one metric; a duration is in seconds."""

    text: str
    metric: str
    operator: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Assertion:
        """Return the assertion that *text* writes as `metric operator number[unit]`.

        Raises:
            InvalidAssertion: says what is wrong and what would be right.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InvalidAssertion(text, "is not like p99<250ms (operators < <= > >= ==)")
        metric, sign, number, unit = match.groups()
        if metric in DURATIONS:
            if unit not in _SECONDS:
                raise InvalidAssertion(text, "needs a unit: ms, s or us")
            return cls(text, metric, sign, float(number) * _SECONDS[unit])
        if metric in NUMBERS:
            if unit:
                raise InvalidAssertion(text, f"has the unit {unit!r}, but {metric} is a plain number")
            return cls(text, metric, sign, float(number))
        raise InvalidAssertion(text, f"names no metric; there are {', '.join(DURATIONS + NUMBERS)}")

    def check(self, metrics: Mapping[str, float | None]) -> Outcome:
        """Compare the metric with the bound; one without a value (nothing was delivered) holds nothing."""
        value = metrics[self.metric]
        return Outcome(self, value, value is not None and _OPERATORS[self.operator](value, self.bound))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an assertion."""

    assertion: Assertion
    value: float | None
    held: bool

    def __str__(self) -> str:
        return f"{self.assertion.text}: {'held' if self.held else 'FAILED'}, it was {self._shown()}"

    def _shown(self) -> str:
        if self.value is None:
            return "without a value"
        return f"{self.value * 1000:,.3f} ms" if self.assertion.metric in DURATIONS else f"{self.value:,.10g}"
