"""What the user sees: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from hub.demo.load.figures import Figures, Phase
from hub.demo.load.latency import Spread
from hub.demo.load.server import Usage

MAX_LINES = 60
"""Plain lines in a run, about: one a second, fewer in a long one."""


class Display(Protocol):
    """Where a run shows itself. Used as a context manager."""

    every: float
    """Seconds from one `show` to the next."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, leaving the terminal as it was."""

    def say(self, text: str) -> None:
        """Put a line above everything that moves."""

    def show(self, figures: Figures) -> None:
        """Show *figures* in place of those before."""


def display_for(seconds: float) -> Display:
    """Return the display that suits standard output for a run of *seconds*."""
    return LiveTable() if sys.stdout.isatty() else PlainLines(max(1.0, seconds / MAX_LINES))


class PlainLines:
    """One line per look, for logs and pipes."""

    def __init__(self, every: float = 1.0) -> None:
        self.every = every

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Print *text*."""
        print(text, flush=True)

    def show(self, figures: Figures) -> None:
        """Print *figures* as one line."""
        pairs = "  ".join(f"{name} {value}" for name, value in cells(figures) if value != "-")
        print(f"{figures.elapsed:6.1f} s  {figures.phase.value}  {pairs}", flush=True)


class LiveTable:
    """Progress bars and a table that stay in place."""

    every = 0.5

    def __init__(self, console: Console | None = None) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            auto_refresh=False,
        )
        self._tasks = [self._bars.add_task(name, total=None) for name in ("connected", "published", "delivered")]
        self._live = Live(console=console or Console(), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print *text* above the table."""
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, figures: Figures) -> None:
        """Draw *figures*."""
        planned = figures.planned if figures.phase in {Phase.CONNECTING, Phase.PUBLISHING} else figures.published
        bars = (
            (figures.connected, figures.connections),
            (figures.published, figures.planned),
            (figures.delivered, planned * figures.connections),
        )
        for task, (completed, total) in zip(self._tasks, bars, strict=True):
            self._bars.update(task, completed=completed, total=total)
        self._live.update(Group(self._bars, _table(figures)), refresh=True)


def _table(figures: Figures) -> Table:
    table = Table(title=f"{figures.phase.value}, {figures.elapsed:.1f} s", title_justify="left", show_header=False)
    for _ in range(3):
        table.add_column(style="dim")
        table.add_column(justify="right", min_width=10)
    pairs = cells(figures)
    height = -(-len(pairs) // 3)
    for row in range(height):
        table.add_row(*(text for pair in pairs[row::height] for text in (pair[0], _coloured(*pair))))
    return table


def _coloured(name: str, value: str) -> str:
    bad = name in {"missing", "duplicate", "out of order"} and value != "0"
    return f"[bold red]{value}[/]" if bad else value


def cells(figures: Figures) -> list[tuple[str, str]]:
    """Return the figures by name, as text; `-` where there is nothing to tell yet."""
    latency = figures.latency
    return [
        ("connected", f"{figures.connected:,}"),
        ("published", f"{figures.published:,}"),
        ("expected", f"{figures.expected:,}"),
        ("delivered", f"{figures.delivered:,}"),
        ("missing", f"{figures.missing:,}"),
        ("duplicate", f"{figures.duplicates:,}"),
        ("out of order", f"{figures.out_of_order:,}"),
        ("reconnects", f"{figures.reconnects:,}"),
        ("deliveries/s", f"{figures.deliveries_per_s:,.0f}"),
        *((name, _ms(latency, name)) for name in Spread._fields),
        ("driver lag p99", _ms(figures.lag, "p99")),
        ("server memory", _memory(figures.server)),
        ("server CPU", f"{figures.server.cpu_percent:.0f} %" if figures.server else "unknown"),
    ]


def _ms(spread: Spread | None, name: str) -> str:
    return f"{getattr(spread, name) * 1000:,.1f} ms" if spread else "-"


def _memory(server: Usage | None) -> str:
    return f"{server.rss / 1e6:,.1f} MB" if server else "unknown"
