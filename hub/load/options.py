"""The options and assertions of a run: the command line, parsed and checked."""

from __future__ import annotations

import argparse
import ipaddress
import operator
import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from yarl import URL

from hub.access.bearer import LIST_OPTION, Bearer, add_token, read_tokens
from hub.errors import HubError
from hub.topics import check_topic

T = TypeVar("T")

DURATIONS = ("p50", "p90", "p99", "max", "lag")
"""Metrics in seconds; an assertion on one needs a unit."""
NUMBERS = ("missing", "duplicates", "out_of_order", "reconnects", "deliveries_per_s")
"""Metrics without a unit."""

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
_ASSERTION = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|==|<|>)\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII)


class CannotRun(Exception):  # named without "Error", like every error of the hub
    """The run cannot take place. The text is shown to the user; the exit status is 2."""


class Assertion(NamedTuple):
    """A bound on one metric; a duration is in seconds."""

    text: str
    metric: str
    operator: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the assertion in *text*, which is `metric operator number[unit]`.

        Raises:
            ValueError: *text* is none; the message says why.
        """
        match = _ASSERTION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not like p99<250ms (operators {' '.join(_OPERATORS)})")
        metric, sign, number, unit = match.groups()
        if metric not in DURATIONS + NUMBERS:
            raise ValueError(f"{text!r} names no metric; there are {', '.join(DURATIONS + NUMBERS)}")
        if metric in DURATIONS and unit not in _SECONDS:
            raise ValueError(f"{text!r} needs a unit: ms, s or us")
        if metric in NUMBERS and unit:
            raise ValueError(f"{text!r} has the unit {unit!r}, but {metric} is a plain number")
        return cls(text, metric, sign, float(number) * _SECONDS.get(unit, 1.0))

    def holds(self, value: float | None) -> bool:
        """Return whether *value* satisfies the bound; None (nothing was delivered) never does."""
        return value is not None and bool(_OPERATORS[self.operator](value, self.bound))

    def outcome(self, value: float | None) -> str:
        """Return a sentence that says whether *value* satisfies the bound."""
        shown = f"{value or 0:,.10g}" if self.metric in NUMBERS else f"{(value or 0) * 1000:,.3f} ms"
        held = "held" if self.holds(value) else "FAILED"
        return f"{self.text}: {held}, it was {'without a value' if value is None else shown}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a run; `add_arguments` has the meaning and the default of each field."""

    url: URL
    topic: str
    connections: int
    rate: float
    seconds: float
    size: int
    grace: float
    storm: bool
    pid: int | None
    report: str
    assertions: list[Assertion]
    yes_remote: bool
    token: str | None = field(default=None, repr=False)  # that of the publisher
    tokens: tuple[str, ...] = field(default=(), repr=False)  # those of the subscribers, given out in turn

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """Return the options in *args*, which were parsed with `add_arguments`.

        Raises:
            InvalidInput: a token can't be used.
        """
        asked = {each.name: getattr(args, each.name) for each in fields(cls) if each.name not in {"token", "tokens"}}
        own = Bearer(args.token_file).token()
        tokens: tuple[str, ...] = () if own is None else (own,)
        if args.tokens is not None:
            tokens = tuple(read_tokens(args.tokens))
        topic = args.topic or f"load/{secrets.token_hex(4)}"
        return cls(**{**asked, "topic": topic, "token": own or next(iter(tokens), None), "tokens": tokens})

    @property
    def planned(self) -> int:
        """Number of events to publish."""
        return max(1, round(self.rate * self.seconds))

    def check(self) -> None:
        """Raise `CannotRun` unless the hub may be loaded and the report written. Blocks while it resolves the name."""
        try:
            found = socket.getaddrinfo(self.url.host, self.url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise CannotRun(f"{self.url} cannot be found: {getattr(error, 'strerror', None) or error}") from None
        if not (self.yes_remote or all(is_loopback(str(entry[4][0])) for entry in found)):
            raise CannotRun(f"{self.url} is not on this machine: loading it needs --yes-remote and its owner's consent")
        place = Path(self.report)
        faults = {
            "is a directory": place.is_dir(),
            "its directory does not exist": not place.parent.is_dir(),
            "no right to write there": not os.access(place if place.exists() else place.parent, os.W_OK),
        }
        why = next((why for why, holds in faults.items() if holds), "")
        if self.report and why:
            raise CannotRun(f"--report {place}: {why}")

    def find_hub(self) -> tuple[str, int]:
        """Return address and port at which the hub listens, or raise `CannotRun`. Blocks for a few seconds at most."""
        try:
            with socket.create_connection((self.url.host or "", self.url.port or 80), 5) as probe:
                address, port = probe.getpeername()[:2]
                return address, port
        except OSError as error:
            raise CannotRun(f"no hub reachable at {self.url}: {(error.strerror or str(error)).lower()}") from None


def is_loopback(address: str) -> bool:
    """Return whether *address* is a loopback address: packets to it never leave this machine."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a load run to *parser*; a wrong value is a usage error (exit status 2)."""
    add = parser.add_argument
    url = os.environ.get("HUB_URL", "http://127.0.0.1:8080")
    add("--url", type=_checked(_url), default=url, help="where the hub is mounted [HUB_URL; %(default)s]")
    whole = _checked(partial(_whole, least=1, most=30_000))
    add("-c", "--connections", type=whole, default=1000, metavar="N", help="subscribers, at most 30,000; default 1,000")
    number = _checked(partial(_number, most=10_000))
    add("--rate", type=number, default=10.0, metavar="PER_SECOND", help="events a second, at most 10,000; default 10")
    number = _checked(partial(_number, most=3_600))
    about = "how long to publish, at most 3,600; default 10"
    add("--seconds", type=number, default=10.0, metavar="SECONDS", help=about)
    add("--topic", type=_checked(check_topic), help="the topic to publish to; default a random load/…")
    whole = _checked(partial(_whole, least=0, most=64 * 1024))
    add("--size", type=whole, default=100, metavar="BYTES", help="padding per event, at most 65,536; default 100")
    add("--storm", action="store_true", help="in mid run drop 30 %% of the connections and let them resume")
    number = _checked(partial(_number, most=300))
    about = "how long to wait for stragglers while nothing arrives, at most 300; default 10"
    add("--grace", type=number, default=10.0, metavar="SECONDS", help=about)
    whole = _checked(partial(_whole, least=1, most=2**31 - 1))
    add("--pid", type=whole, help="the hub's process; default who listens on the port")
    about = "where the JSON report goes, '' for none; default %(default)s"
    add("--report", default="load-report.json", metavar="PATH", help=about)
    about = (
        "fail unless it holds, like p99<250ms or reconnects==0; repeatable. Metrics: p50 p90 p99 max lag (ms, s, us), "
        "missing duplicates out_of_order reconnects deliveries_per_s"
    )
    parse = _checked(Assertion.parse)
    add("--assert", dest="assertions", action="append", type=parse, default=[], metavar="EXPR", help=about)
    add_token(parser)
    about = "a file with a token per line, or -, for the subscribers in turn; the first publishes if there is no other"
    add(LIST_OPTION, metavar="FILE", help=about)
    add("--yes-remote", action="store_true", help="allow a target that is not on this machine")


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return a function that calls *read* and turns its errors into usage errors with the same text."""

    def checked(text: str) -> T:
        try:
            return read(text)
        except (HubError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _url(text: str) -> URL:
    url = URL(text)
    if url.scheme != "http" or not url.host:
        raise ValueError(f"{text} is not like http://127.0.0.1:8080")
    if "@" in url.raw_authority or url.raw_query_string or url.raw_fragment:
        raise ValueError(f"{text} has more than a host, a port and a path")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError(f"{text} has characters that do not belong in a URL")
    return url


def _whole(text: str, least: int, most: int) -> int:
    digits = text.replace(",", "")
    if not digits.isdecimal() or not least <= int(digits) <= most:
        raise ValueError(f"{text!r} is not a whole number from {least:,} to {most:,}")
    return int(digits)


def _number(text: str, most: float) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) <= most:
            return value
    raise ValueError(f"{text!r} is not a number above 0 and up to {most:,}")
