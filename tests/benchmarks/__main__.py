"""`python -m tests.benchmarks`: measure what is asked for and write it down."""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from hub.file_limit import raise_file_limit
from tests.benchmarks.machine import machine, today
from tests.benchmarks.options import GROUPS, Options
from tests.benchmarks.section import Section

NEEDED = ("hdrh", "matplotlib", "pyperf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0 if all was measured and nothing lost, 1 otherwise, 2 if it needs more packages."""
    options = Options.parse(arguments)
    needed = [name for name in NEEDED if name != "pyperf" or options.wants("micro")]
    if any(importlib.util.find_spec(name) is None for name in needed):
        say("the benchmark needs more packages: make bench, or pip install '.[speed,load,bench]'")
        return 2
    from tests.benchmarks.report import write

    raise_file_limit()  # of those that this process starts, too
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    whole = True
    for name in GROUPS:
        if options.wants(name):
            began = time.monotonic()
            say(f"{name} …")
            section = measurement(name)(options, say)
            whole = whole and not section.lost and not section.failed
            write(options.to, {name: measured(section, options)})
            say(f"{name}: {time.monotonic() - began:.0f} s")
            for note in section.notes:
                say(f"  {note}")
    say(f"written to {options.to}")
    return 0 if whole else 1


def measurement(group: str) -> Callable[[Options, Callable[[str], None]], Section]:
    """Return what measures *group*."""
    found: Callable[[Options, Callable[[str], None]], Section] = importlib.import_module(
        f"tests.benchmarks.{group}"
    ).measure
    return found


def measured(section: Section, options: Options) -> dict[str, Any]:
    """Return *section* with when, where and how it was measured."""
    return {
        "date": today(),
        "quick": options.quick,
        "rounds": options.rounds,
        "machine": machine(),
        "section": section.as_json(),
    }


def say(line: str) -> None:
    """Print *line* at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
