"""`hub load`: open many subscribers on a running hub, publish at a rate, and count what arrives."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    from hub.demo.load import add_arguments  # noqa: PLC0415 - only this command pays for it

    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the load; 0 if all arrived and every assertion held."""
    from hub.demo.load import run  # noqa: PLC0415 - only this command pays for it

    return run(args)
