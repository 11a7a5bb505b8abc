"""What a group of measurements has to show: tables, plots and remarks. Plain data, the same in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

Cell = str | float | None
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name, its unit, and how many digits stand after the point."""

    name: str
    unit: str = ""
    digits: int = 0

    @property
    def title(self) -> str:
        """The name with the unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def shown(self, cell: Cell) -> str:
        """Return *cell* as it stands in the table."""
        if cell is None:
            return "–"
        return cell if isinstance(cell, str) else f"{cell:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns, and a sentence on what was done."""

    title: str
    about: str
    columns: list[Column]
    rows: list[list[Cell]]


@dataclass(frozen=True, slots=True)
class Plot:
    """Points over an axis with a unit, a line for each series; or bars, where the places have names.

    Attributes:
        name: of the file, without its end.
        logarithmic: the axes that are, of `x` and `y`.
        places: the names under the bars; the x of each point is the place's number.
    """

    name: str
    title: str
    x: str
    y: str
    series: dict[str, Points]
    logarithmic: str = ""
    places: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Section:
    """What one group has measured.

    Attributes:
        lost: deliveries that did not arrive, over everything.
        failed: something could not be measured; a note says what.
        rounds: every single outcome, by scenario and what was measured; the tables show medians of them.
    """

    name: str
    title: str
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rounds: dict[str, Any] = field(default_factory=dict)
    lost: int = 0
    failed: bool = False

    def note(self, text: str) -> None:
        """Remark something, once."""
        if text not in self.notes:
            self.notes.append(text)

    def fail(self, what: str, why: object) -> None:
        """Remark that *what* could not be measured."""
        self.failed = True
        self.note(f"**{what}:** {why}.")

    def as_json(self) -> dict[str, Any]:
        """Return it in a form that JSON can carry."""
        return asdict(self)

    @classmethod
    def of(cls, written: dict[str, Any]) -> Self:
        """Return the section that `as_json` wrote."""
        tables = [
            Table(each["title"], each["about"], [Column(**column) for column in each["columns"]], each["rows"])
            for each in written["tables"]
        ]
        return cls(**{**written, "tables": tables, "plots": [Plot(**each) for each in written["plots"]]})
