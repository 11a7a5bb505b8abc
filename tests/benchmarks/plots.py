"""From the points of a plot to a picture."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from tests.benchmarks.section import Plot

mpl.use("Agg")

SIZE = (7.2, 4.0)  # inches
COLOURS = ("#0b6e99", "#e07b39", "#4c956c", "#8d5a97", "#b23a48", "#7a7a7a", "#c9a227")
INK = "#333333"


def draw(plot: Plot, path: Path) -> None:
    """Write *plot* to *path* as PNG."""
    figure = Figure(figsize=SIZE, dpi=120, layout="constrained")
    axes = figure.add_subplot()
    if plot.places:
        _bars(axes, plot)
    else:
        _lines(axes, plot)
    axes.set_title(plot.title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(plot.x, color=INK)
    axes.set_ylabel(plot.y, color=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _scale(axes, plot)
    if len(plot.series) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(plot.series), 6), frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})


def _lines(axes: Axes, plot: Plot) -> None:
    for (name, points), colour in zip(plot.series.items(), COLOURS, strict=False):
        if points:
            x, y = zip(*points, strict=True)
            marker = "o" if len(points) <= 20 else None
            axes.plot(x, y, marker=marker, markersize=4, linewidth=1.6, color=colour, label=name)


def _bars(axes: Axes, plot: Plot) -> None:
    width = 0.8 / max(len(plot.series), 1)
    for turn, (name, points) in enumerate(plot.series.items()):
        shift = (turn - (len(plot.series) - 1) / 2) * width
        bars = axes.bar(
            [x + shift for x, _ in points],
            [y for _, y in points],
            width * 0.92,
            label=name.replace("`", ""),
            color=COLOURS[turn % len(COLOURS)],
        )
        axes.bar_label(bars, fmt=_shown, fontsize=7, color=INK, padding=1)
    names = [textwrap.fill(place.replace("`", ""), 12) for place in plot.places]
    axes.set_xticks(range(len(names)), names)


def _scale(axes: Axes, plot: Plot) -> None:
    plain = FuncFormatter(lambda value, _: _shown(value))
    if "x" in plot.logarithmic:
        axes.set_xscale("log")
    if "y" in plot.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(plain)
    if not plot.places:
        axes.xaxis.set_major_formatter(plain)
        steps = sorted({x for points in plot.series.values() for x, _ in points})
        if "x" in plot.logarithmic and steps:  # what was measured, not powers of ten
            axes.xaxis.set_major_locator(FixedLocator(steps))
            axes.xaxis.set_minor_locator(NullLocator())


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
