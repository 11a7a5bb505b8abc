"""What a run was asked to do, read from the command line and checked."""

from __future__ import annotations

import argparse
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hub.demo.load.assertion import Assertion, InvalidAssertion
from hub.demo.load.errors import BadTarget, ReportNotWritable
from hub.demo.load.target import Target
from hub.errors import HubError
from hub.topics import check_topic

MAX_CONNECTIONS = 30_000
MAX_SECONDS = 3600
MAX_RATE = 10_000
MAX_SIZE = 64 * 1024
STORM_SHARE = 0.3
"""How many of the connections the storm scene drops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A run as it was asked for."""

    target: Target
    topic: str
    connections: int = 1000
    rate: float = 10.0
    seconds: float = 10.0
    size: int = 100
    grace: float = 10.0
    storm: bool = False
    pid: int | None = None
    report: str = ""
    assertions: tuple[Assertion, ...] = ()
    remote: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> Options:
        """Return what *args*, parsed with `add_arguments`, ask for."""
        return cls(
            target=args.url,
            topic=args.topic or f"load/{secrets.token_hex(4)}",
            connections=args.connections,
            rate=args.rate,
            seconds=args.seconds,
            size=args.size,
            grace=args.grace,
            storm=args.storm,
            pid=args.pid,
            report=args.report,
            assertions=tuple(args.assertions),
            remote=args.yes_remote,
        )

    @property
    def planned(self) -> int:
        """The number of events to publish."""
        return max(1, round(self.rate * self.seconds))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the options of a load run; a wrong value is a usage error (exit status 2)."""
    add = parser.add_argument
    add(
        "--url",
        type=_target,
        default=os.environ.get("HUB_URL") or "http://127.0.0.1:8080",
        help="the hub (HUB_URL; default: http://127.0.0.1:8080)",
    )
    add(
        "-c",
        "--connections",
        type=_whole(1, MAX_CONNECTIONS),
        default=1000,
        metavar="N",
        help="subscribers, at most 30,000 (default: 1,000)",
    )
    add("--rate", type=_number(0, MAX_RATE), default=10.0, metavar="PER_SECOND", help="events per second (default: 10)")
    add(
        "--seconds",
        type=_number(0, MAX_SECONDS),
        default=10.0,
        metavar="SECONDS",
        help="how long to publish, at most 3,600 (default: 10)",
    )
    add("--topic", type=_topic, help="the topic to publish to (default: a random load/…)")
    add("--size", type=_whole(0, MAX_SIZE), default=100, metavar="BYTES", help="padding per event (default: 100)")
    add("--storm", action="store_true", help="in mid run drop 30 %% of the connections and let them resume")
    add(
        "--grace",
        type=_number(0, 300),
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for stragglers while nothing arrives (default: 10)",
    )
    add("--pid", type=_whole(1, 2**31 - 1), help="the hub's process (default: who listens on the port)")
    add(
        "--report",
        default="load-report.json",
        metavar="PATH",
        help="where the JSON report goes; '' for none (default: %(default)s)",
    )
    add(
        "--assert",
        dest="assertions",
        action="append",
        type=_assertion,
        default=[],
        metavar="EXPR",
        help="fail unless it holds, like p99<250ms or reconnects==0; repeatable. Metrics: p50 p90 p99 max lag "
        "(ms, s, us), missing duplicates out_of_order reconnects deliveries_per_s",
    )
    add("--yes-remote", action="store_true", help="allow a target that is not on this machine")


def check_report(path: str) -> None:
    """Make sure, before the run, that its report can be written to *path*.

    Raises:
        ReportNotWritable: it cannot.
    """
    place = Path(path)
    if place.is_dir():
        raise ReportNotWritable(path, "is a directory")
    if not place.parent.is_dir():
        raise ReportNotWritable(path, "its directory does not exist")
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise ReportNotWritable(path, "no right to write there")


def _target(text: str) -> Target:
    try:
        return Target.parse(text)
    except BadTarget as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _topic(text: str) -> str:
    try:
        return check_topic(text)
    except HubError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _assertion(text: str) -> Assertion:
    try:
        return Assertion.parse(text)
    except InvalidAssertion as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        try:
            value = int(text.replace(",", ""))
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return value

    return whole


def _number(above: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not above < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above {above:g} and up to {most:,}")
        return value

    return number
