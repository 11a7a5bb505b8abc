"""What the benchmark is asked to do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from tests.benchmarks.place import ROOT

GROUPS = ("log", "fanout", "wires", "publish", "scaling", "cluster", "ai", "micro")
RESULTS = ROOT / "docs" / "performance"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The choices of one run.

    Attributes:
        only: groups, or single scenarios as `group.scenario`.
        systems: names of systems; empty: all that are installed.
        rounds: how often each scenario is repeated; the tables show the median.
        quick: everything small: it shows that all works, and nothing else.
        to: the folder for the results.
    """

    only: tuple[str, ...] = GROUPS
    systems: tuple[str, ...] = ()
    rounds: int = 3
    quick: bool = False
    to: Path = RESULTS

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None) -> Self:
        """Read the command line; ends the process if it makes no sense."""
        parser = argparse.ArgumentParser(
            prog="python -m tests.benchmarks", description="Measure the hub, and others beside it."
        )
        parser.add_argument(
            "--only",
            type=_names,
            default=GROUPS,
            help=f"groups ({', '.join(GROUPS)}), or scenarios such as fanout.single,log.publish",
        )
        parser.add_argument("--systems", type=_names, default=(), help="such as hub,nchan; default: all installed")
        parser.add_argument("--rounds", type=int, help="how often each is repeated; default: 3, with --quick 1")
        parser.add_argument("--quick", action="store_true", help="small sizes, in a few minutes; needs --to")
        parser.add_argument("--to", type=Path, help="folder for the results; default: docs/performance")
        args = parser.parse_args(arguments)
        unknown = {name.partition(".")[0] for name in args.only} - set(GROUPS)
        if unknown:
            parser.error(f"there is no group {', '.join(sorted(unknown))}")
        if args.quick and args.to is None:
            parser.error("--quick needs --to FOLDER: its figures are not for the documentation")
        if args.rounds is not None and args.rounds < 1:
            parser.error("--rounds is at least 1")
        rounds = args.rounds or (1 if args.quick else 3)
        return cls(only=args.only, systems=args.systems, rounds=rounds, quick=args.quick, to=args.to or RESULTS)

    def wants(self, group: str, scenario: str = "") -> bool:
        """Tell whether *scenario* of *group* is asked for; without one, whether any of them is."""
        return any(
            name == group or (name.startswith(f"{group}.") and (not scenario or name == f"{group}.{scenario}"))
            for name in self.only
        )

    def size(self, full: T, quick: T) -> T:
        """Return the one that applies."""
        return quick if self.quick else full


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
