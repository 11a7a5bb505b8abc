"""The output during a run: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from hub.load.figures import Figures
from hub.load.latency import Spread

MAX_LINES = 60
"""Approximate maximum of plain lines in a run: one a second, fewer in a long run."""


def display_for(seconds: float) -> Display:
    """Return the display that suits standard output for a run of *seconds*."""
    return LiveTable() if sys.stdout.isatty() else Display(max(1.0, seconds / MAX_LINES))


class Display:
    """One plain line per `show`, for logs and pipes. Use with `closing`.

    Attributes:
        every: seconds from one `show` to the next.
    """

    def __init__(self, every: float) -> None:
        self.every = every

    def close(self) -> None:
        """Restore standard output; here there is nothing to do."""

    def say(self, text: str) -> None:
        """Print the line *text*."""
        print(text, flush=True)

    def show(self, figures: Figures) -> None:
        """Print *figures* as one line."""
        pairs = "  ".join(f"{name} {value}" for name, value in cells(figures) if value != "-")
        print(f"{figures.elapsed:6.1f} s  {figures.phase}  {pairs}", flush=True)


class LiveTable(Display):
    """Progress bars and a table that are redrawn in place."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(0.5)
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            auto_refresh=False,
        )
        self._tasks = [self._bars.add_task(name, total=None) for name in ("connected", "published", "delivered")]
        self._live = Live(console=console or Console(), auto_refresh=False)
        self._live.start()

    def close(self) -> None:
        """Restore the terminal."""
        self._live.stop()

    def say(self, text: str) -> None:
        """Print *text* above the table."""
        self._live.console.print(text, markup=False, highlight=False)

    def show(self, figures: Figures) -> None:
        """Redraw the bars and the table with *figures*."""
        connections, planned = figures.options.connections, figures.options.planned
        still = planned if figures.phase in {"connecting", "publishing"} else figures.published
        bars = (
            (figures.connected, connections),
            (figures.published, planned),
            (figures.delivered, still * connections),
        )
        for task, (completed, total) in zip(self._tasks, bars, strict=True):
            self._bars.update(task, completed=completed, total=total)
        self._live.update(Group(self._bars, _table(figures)), refresh=True)


def _table(figures: Figures) -> Table:
    table = Table(title=f"{figures.phase}, {figures.elapsed:.1f} s", title_justify="left", show_header=False)
    for _ in range(3):
        table.add_column(style="dim")
        table.add_column(justify="right", min_width=10)
    bad = {"missing", "duplicate", "out of order"}
    pairs = [(name, f"[bold red]{text}[/]" if name in bad and text != "0" else text) for name, text in cells(figures)]
    height = -(-len(pairs) // 3)
    for row in range(height):
        table.add_row(*(text for pair in pairs[row::height] for text in pair))
    return table


def cells(figures: Figures) -> list[tuple[str, str]]:
    """Return the names of the figures and their values as text; `-` where there is no value yet."""
    latency, lag, server = figures.latencies.spread(), figures.lags.spread(), figures.now
    names = ("connected", "published", "expected", "delivered", "missing", "duplicates", "out_of_order", "reconnects")
    return [
        *((name.replace("_", " ").replace("duplicates", "duplicate"), f"{getattr(figures, name):,}") for name in names),
        ("deliveries/s", f"{figures.deliveries_per_s:,.0f}"),
        *((name, _ms(latency, name)) for name in Spread._fields),
        ("driver lag p99", _ms(lag, "p99")),
        ("server memory", f"{server.rss / 1e6:,.1f} MB" if server else "unknown"),
        ("server CPU", f"{server.cpu_percent:.0f} %" if server else "unknown"),
    ]


def _ms(spread: Spread | None, name: str) -> str:
    return f"{getattr(spread, name) * 1000:,.1f} ms" if spread else "-"
