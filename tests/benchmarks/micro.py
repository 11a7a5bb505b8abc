"""The group `micro`: single steps of the way of a notification, measured by pyperf in processes of their own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

from tests.benchmarks import child
from tests.benchmarks.cores import cores, pin
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.options import Options
from tests.benchmarks.place import ROOT, scratch
from tests.benchmarks.section import Cell, Column, Section, Table
from tests.benchmarks.steps import STEPS

PATIENCE = 1_800.0
QUICK = ("--processes", "1", "--values", "3", "--warmups", "1", "--min-time", "0.01")


def measure(options: Options, say: Callable[[str], None]) -> Section:
    """Measure all steps; the table shows means and deviations over the values of all processes."""
    section = Section("micro", "Single steps")
    try:
        found = run(QUICK if options.quick else ())
    except CannotMeasure as error:
        section.fail("micro", error)
        return section
    rows: list[list[Cell]] = []
    for step in STEPS:
        values = found[step.name]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        rows.append([step.title, 1e6 * mean, 100 * deviation / mean, float(len(values))])
        say(f"  {step.title}: {1e6 * mean:.3f} µs")
    section.rounds["micro"] = found
    columns = [Column("Step"), Column("Mean", "µs", 3), Column("Deviation", "%", 1), Column("Values")]
    about = (
        "Each value is the mean of a loop of at least a tenth of a second, after a warm-up; the values come from "
        "twenty processes, one after the other."
    )
    section.tables.append(Table("Steps", about, columns, rows))
    return section


def run(arguments: Sequence[str]) -> dict[str, list[float]]:
    """Let pyperf run all steps; return the values of each, in seconds.

    Raises:
        CannotMeasure: it failed.
    """
    with scratch() as folder:
        path = folder / "steps.json"
        command = [sys.executable, "-m", "tests.benchmarks.steps", "--quiet", "--copy-env", "-o", str(path), *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=child.environ(),
                preexec_fn=partial(pin, cores().driver),
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"pyperf was not done after {PATIENCE:g} s") from None
        if done.returncode:
            raise CannotMeasure((done.stderr.strip().splitlines() or ["pyperf failed without a word"])[-1])
        written = json.loads(path.read_text("utf-8"))
    return {
        each["metadata"]["name"]: [value for run in each["runs"] for value in run.get("values", ())]
        for each in written["benchmarks"]
    }
