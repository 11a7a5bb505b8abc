"""The table of `hub top`: the figures of a hub, how fast they grow, and the key that ends it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hub.cli.answers import every, fits, histogram, maybe, number, printable, text, whole
from hub.histogram import HistogramFigures, difference, quantile

KEPT = 60  # looks, for the line of what was
BARS = "▁▂▃▄▅▆▇█"
KINDS = {
    "subscription": "subscriptions",
    "handler": "handler streams",
    "generation": "answers watched",
    "websocket": "WebSockets",
    "socketio": "Socket.IO",
    "poll": "polls",
}
BAD = ("dropped", "slow_disconnects", "peer_timeouts", "refused", "limited", "unauthorized", "forbidden")
"""Counters that stand out while they grow."""
TIMES = {
    "publish_confirmed_seconds": "publish → kept",
    "publish_written_seconds": "publish → written",
    "connect_seconds": "connect",
    "loop_lag_seconds": "loop lag",
}
LONG_AGO = 5.0  # seconds in which a log answers


_WORKER = dict.fromkeys(("streams", "delivered", "memory_bytes", "cpu_seconds", "uptime"), number)
_LOG = {"count": number, "bytes": number, "newest": text, "oldest": text}
_TOLD = dict.fromkeys(
    ("topics", "generations", "published", "delivered", "replayed", "connects", "disconnects", "uptime", *BAD), number
)


def readable(said: Any) -> bool:
    """Return whether *said* are the figures of a hub; what only newer ones tell may be left out."""
    return fits(said, {**_TOLD, "streams": every(number), "log": maybe(_LOG)}) and (
        _histograms(said)
        and fits(said.get("processes", 1), whole)
        and fits(said.get("log_answered_seconds_ago"), maybe(number))
        and fits(said.get("workers"), maybe(every(_WORKER)))
        and all(map(_histograms, (said.get("workers") or {}).values()))
    )


def _histograms(said: Mapping[str, Any]) -> bool:
    return all(histogram(said[name]) for name in TIMES if name in said)


class Look(NamedTuple):
    """The figures at one moment, in seconds of a monotonic clock."""

    at: float
    figures: Mapping[str, Any]


def rate(before: Look | None, now: Look, name: str) -> float | None:
    """Return by how much the counter *name* grows per second; None: that is not known.

    A counter that has fallen belongs to processes some of which are gone: what they counted went with them.
    """
    if before is None or now.at <= before.at:
        return None
    grown = now.figures.get(name, 0) - before.figures.get(name, 0)
    return grown / (now.at - before.at) if grown >= 0 else None


def between(before: Look | None, now: Look, name: str) -> HistogramFigures | None:
    """Return what was observed in the histogram *name* since the last look; None: there is no such histogram."""
    figures = now.figures.get(name)
    if figures is None or before is None:
        return figures
    return difference(figures, before.figures.get(name))


def spark(values: list[float], width: int) -> str:
    """Return the last *width* of *values* as bars, the largest one full."""
    shown = values[-width:]
    most = max(shown, default=0.0)
    if most <= 0:
        return BARS[0] * len(shown)
    return "".join(BARS[min(len(BARS) - 1, round(value / most * (len(BARS) - 1)))] for value in shown)


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def short(seconds: float | None) -> str:
    """Return a time that is usually short, as people say it; `-` if there is none."""
    if seconds is None:
        return "-"
    return f"{seconds:,.1f} s" if seconds >= 1 else f"{seconds * 1000:,.1f} ms"


def span(seconds: float) -> str:
    """Return a time as people say it, in its two largest units."""
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"


class Screen:
    """What is shown of a hub.

    Args:
        url: where it is.
        console: where to; None: standard output.
    """

    def __init__(self, url: str, console: Console | None = None) -> None:
        self._url, self._console = url, console or Console()
        self._before: Look | None = None
        self._now: Look | None = None
        self._past: dict[str, deque[float]] = {name: deque(maxlen=KEPT) for name in ("published", "delivered")}
        self._lost = ""

    def show(self, figures: Mapping[str, Any], at: float) -> None:
        """Take the *figures* of the moment *at*."""
        self._before, self._now, self._lost = self._now, Look(at, figures), ""
        for name, past in self._past.items():
            if (fast := self._rate(name)) is not None:
                past.append(fast)

    def lost(self, why: str) -> None:
        """Say that there are no new figures, and *why*; the old ones stay."""
        self._lost = why

    def print(self) -> None:
        """Print the table."""
        self._console.print(self.table())

    def live(self) -> Live:
        """Return what draws the table again and again, on a screen of its own."""
        return Live(self.drawn(), console=self._console, auto_refresh=False, screen=True)

    def drawn(self) -> RenderableType:
        """Return the table for a terminal in which keys are read."""
        return Group(self.table(), Text("q quits", style="dim"))

    def _rate(self, name: str) -> float | None:
        return None if self._now is None else rate(self._before, self._now, name)

    def table(self) -> RenderableType:
        """Return the table."""
        if self._now is None:
            return Text("…")
        figures = self._now.figures
        parts = (self._streams, self._flow, self._times, self._trouble, self._place)
        tables = Columns((part(figures) for part in parts), padding=(0, 3))
        return Group(self._head(figures), tables, *self._workers(figures))

    def _head(self, figures: Mapping[str, Any]) -> Text:
        many = figures.get("processes", 1)
        text = Text.assemble(
            ("hub ", "bold"),
            (self._url, "cyan"),
            f"  up {span(figures['uptime'])}",
            f"  {many} process{'es' if many != 1 else ''}",
        )
        if figures.get("draining"):
            text.append("  draining", "bold yellow")
        if self._lost:
            text.append(f"  {printable(self._lost)}", "bold red")
        return text

    def _streams(self, figures: Mapping[str, Any]) -> Table:
        table = _table("streams")
        for kind, count in figures["streams"].items():
            table.add_row(Text(printable(KINDS.get(kind, kind))), f"{count:,}")
        table.add_row("all", Text(f"{sum(figures['streams'].values()):,}", "bold"))
        table.add_row("topics", f"{figures['topics']:,}")
        table.add_row("answers of an AI", f"{figures['generations']:,}")
        for name in ("connects", "disconnects"):
            table.add_row(f"{name}/s", self._per_second(name))
        return table

    def _flow(self, figures: Mapping[str, Any]) -> Table:
        table = _table("notifications")
        for name, past in self._past.items():
            table.add_row(f"{name}/s", self._per_second(name))
            table.add_row("", Text(spark([*past], 24), "green"))
            table.add_row(f"{name} in all", f"{figures[name]:,}")
        table.add_row("replayed/s", self._per_second("replayed"))
        return table

    def _times(self, figures: Mapping[str, Any]) -> Table:
        assert self._now is not None
        table = _table("times, p50 and p99")
        for name, what in TIMES.items():
            observed = between(self._before, self._now, name)
            found = [None, None] if observed is None else [quantile(q, observed) for q in (0.5, 0.99)]
            table.add_row(what, "  ".join(f"{short(each):>9}" for each in found))
        if (ago := figures.get("log_answered_seconds_ago")) is not None:
            table.add_row("log answered", Text(f"{span(ago)} ago", "bold red" if ago >= LONG_AGO else ""))
        return table

    def _workers(self, figures: Mapping[str, Any]) -> Iterator[Table]:
        """Yield a table with a row for each process, if the hub tells of them."""
        if not figures.get("workers"):
            return
        table = Table(title="processes", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        table.add_column("name", no_wrap=True)
        for name in ("streams", "delivered/s", "memory", "CPU", "lag p99", "up"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, worker in sorted(figures["workers"].items()):
            assert self._now is not None
            now = Look(self._now.at, worker)
            old = {} if self._before is None else self._before.figures.get("workers", {})
            before = Look(self._before.at, old[name]) if self._before is not None and name in old else None
            delivered, cpu = rate(before, now, "delivered"), rate(before, now, "cpu_seconds")
            lag = between(before, now, "loop_lag_seconds")
            table.add_row(
                Text(printable(name)),
                f"{worker['streams']:,}",
                "-" if delivered is None else f"{delivered:,.0f}",
                size(worker["memory_bytes"]),
                "-" if cpu is None else f"{100 * cpu:,.0f} %",
                short(None if lag is None else quantile(0.99, lag)),
                span(worker["uptime"]),
            )
        yield table

    def _trouble(self, figures: Mapping[str, Any]) -> Table:
        table = _table("trouble")
        for name in BAD:
            grows = bool(self._rate(name))
            table.add_row(name.replace("_", " "), Text(f"{figures[name]:,}", "bold red" if grows else ""))
        return table

    def _place(self, figures: Mapping[str, Any]) -> Table:
        table, log = _table("log"), figures["log"]
        if log is None:
            table.add_row("it does not answer", Text("!", "bold red"))
            return table
        table.add_row("kept", f"{log['count']:,}")
        table.add_row("size", size(log["bytes"]))
        table.add_row("newest", Text(printable(log["newest"])))
        table.add_row("oldest", Text(printable(log["oldest"])))
        return table

    def _per_second(self, name: str) -> str:
        fast = self._rate(name)
        return "-" if fast is None else f"{fast:,.0f}"


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", min_width=10, no_wrap=True)
    return table


class Keys:
    """The keyboard, where there is one: `q` ends the command."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._pressed = asyncio.Event()

    def __enter__(self) -> Self:
        with suppress(ImportError, OSError, ValueError):  # Windows, or no terminal
            import termios  # noqa: PLC0415
            import tty  # noqa: PLC0415

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)  # Ctrl-C stays what it is
            asyncio.get_running_loop().add_reader(sys.stdin, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            import termios  # noqa: PLC0415

            asyncio.get_running_loop().remove_reader(sys.stdin)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        pressed = os.read(sys.stdin.fileno(), 64)
        if not pressed or b"q" in pressed.lower():  # the terminal has gone, or somebody wants to
            self._pressed.set()

    async def quits(self, seconds: float) -> bool:
        """Wait for *seconds*; return whether the key was pressed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._pressed.wait()
        return self._pressed.is_set()
