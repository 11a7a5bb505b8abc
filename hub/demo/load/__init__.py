"""The load demo, `hub load`: thousands of subscribers on a running hub, every delivery counted and timed.

    options ──> scene ──> audience ──> subscriber (× N) ──> stream ──> reading ──> tally, latency
                  │                                          bytes      words       what came, and how fast
                  ├─────> publisher                          open-loop: an event is due when it is due
                  ├─────> lag, server                        the driver's own lateness, the hub's process
                  └─────> figures ──> display, report        while it runs, and in the end

It finds lost, repeated and disordered deliveries by sequence number, per subscriber, through lost connections too.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import sys

from hub.demo.load.errors import CannotRun
from hub.demo.load.limit import check_file_limit, raise_file_limit
from hub.demo.load.options import Options, add_arguments, check_report

__all__ = ["add_arguments", "run"]

NEEDED = {"hdrh": "hdrhistogram", "psutil": "psutil", "rich": "rich"}
"""What the extra `load` brings: how it is imported, and how it is installed."""


def run(args: argparse.Namespace) -> int:
    """Run the load that *args* ask for and return the exit status.

    Returns:
        0 if all is well, 1 if deliveries were lost, repeated or out of order or an assertion failed, 2 if the run
        could not take place.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        return _refuse(f"the load demo needs more packages: pip install {' '.join(NEEDED.values())}")
    try:
        return _run(Options.of(args))
    except CannotRun as error:
        return _refuse(str(error))


def _run(options: Options) -> int:
    # These need the packages that `run` has just looked for.
    from hub.demo.load.display import display_for  # noqa: PLC0415
    from hub.demo.load.scene import play  # noqa: PLC0415

    addresses = options.target.resolve(remote=options.remote)
    if options.report:
        check_report(options.report)
    with display_for(options.seconds) as display:
        limit = raise_file_limit()
        if limit is not None:
            before, now = limit
            display.say(f"file limit: {now:,}" + (f", raised from {before:,}" if now != before else ""))
            check_file_limit(now, options.connections)
        with _runner() as runner:
            report = runner.run(play(options, addresses, display))
    for line in report.lines():
        print(line)
    if options.report:
        report.write(options.report)
        print(f"report: {options.report}")
    return 0 if report.ok else 1


def _runner() -> asyncio.Runner:
    """Return a runner on uvloop if it is installed, on the plain loop otherwise."""
    try:
        import uvloop  # noqa: PLC0415  # optional
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _refuse(why: str) -> int:
    print(f"hub load: {why}", file=sys.stderr)
    return 2
