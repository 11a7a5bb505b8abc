"""The command `hub load`: its arguments and its exit status."""

from __future__ import annotations

import argparse
import importlib.util
import sys

from hub.errors import InvalidInput
from hub.load.options import CannotRun, Options, add_arguments

__all__ = ["add_arguments", "run"]

NEEDED = {"hdrh": "hdrhistogram", "psutil": "psutil", "rich": "rich"}
"""The packages of the extra `load`: name for the import, name for pip."""


def run(args: argparse.Namespace) -> int:
    """Run the load that *args* ask for and return the exit status.

    Returns:
        0 if all is well; 1 if deliveries were lost, repeated or out of order, or if an assertion failed; 2 if the run
        could not take place.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        return _refuse(f"this needs more packages: pip install {' '.join(NEEDED.values())}")
    try:
        from hub.load.run import show_load  # noqa: PLC0415 - needs those packages, which take a while to import

        return 0 if show_load(Options.of(args)) else 1
    except (CannotRun, InvalidInput) as error:
        return _refuse(str(error))


def _refuse(why: str) -> int:
    print(f"hub load: {why}", file=sys.stderr)
    return 2
