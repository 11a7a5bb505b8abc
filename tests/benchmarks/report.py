"""The files of a run: `results.json`, `results.md`, and a picture for each plot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.plots import draw
from tests.benchmarks.section import Section, Table

SCHEMA = 1
ORDER = ("fanout", "wires", "publish", "scaling", "cluster", "log", "ai", "micro")

Results = dict[str, Any]


def write(folder: Path, measured: Results) -> None:
    """Write the groups in *measured* to *folder*, beside those that are there from earlier runs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    groups = {**_earlier(path), **measured}
    groups = {name: groups[name] for name in ORDER if name in groups}
    path.write_text(json.dumps({"schema": SCHEMA, "groups": groups}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "results.md").write_text("\n".join(page(groups)), "utf-8")
    for group in groups.values():
        for plot in Section.of(group["section"]).plots:
            draw(plot, folder / f"{plot.name}.png")


def _earlier(path: Path) -> Results:
    """Return the groups of an earlier run that can still be read."""
    try:
        written = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    groups: Results = written.get("groups", {}) if written.get("schema") == SCHEMA else {}
    return groups


def page(groups: Results) -> Iterator[str]:
    """Yield the lines of `results.md`."""
    yield "# Results"
    yield ""
    yield "Written by `make bench`; [how it is measured](index.md) says how to read it, and what it can't show."
    if any(group["quick"] for group in groups.values()):
        yield ""
        yield "**A quick run: the sizes are too small to mean anything. It shows that the benchmark works.**"
    for name, group in groups.items():
        section = Section.of(group["section"])
        rounds = f"medians of {group['rounds']} rounds" if group["rounds"] > 1 else "one round"
        yield ""
        yield f"## {section.title}"
        yield ""
        yield f'Measured {group["date"]}, {rounds}. `make bench ARGS="--only {name}"` measures it again.'
        for table in section.tables:
            yield from _table(table)
        for plot in section.plots:
            yield ""
            yield f"![{plot.title}]({plot.name}.png)"
        if section.notes:
            yield ""
            yield from (f"- {note}" for note in section.notes)
    yield from _machines(groups)
    yield ""


def _table(table: Table) -> Iterator[str]:
    yield ""
    yield f"### {table.title}"
    yield ""
    yield table.about
    yield ""
    yield f"| {' | '.join(column.title for column in table.columns)} |"
    yield "|---|" + "---:|" * (len(table.columns) - 1)
    for row in table.rows:
        cells = (column.shown(cell) for column, cell in zip(table.columns, row, strict=True))
        yield f"| {' | '.join(cells)} |"


def _machines(groups: Results) -> Iterator[str]:
    """Yield what the groups were measured on, each machine once."""
    yield ""
    yield "## Measured on"
    seen: dict[str, list[str]] = {}
    for name, group in groups.items():
        seen.setdefault(json.dumps(group["machine"]), []).append(name)
    for machine, names in seen.items():
        yield ""
        if len(seen) > 1:
            yield f"For {', '.join(f'`{name}`' for name in names)}:"
            yield ""
        yield "| | |"
        yield "|---|---|"
        yield from (f"| {what} | {value} |" for what, value in json.loads(machine).items())
