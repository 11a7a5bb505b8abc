"""Which hub a command talks to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from hub.errors import HubError


class Unreachable(HubError):
    """Nothing answers there."""


def add_target(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Add `--url`."""
    default = os.environ.get("HUB_URL", "http://127.0.0.1:8080")
    parser.add_argument("--url", type=_url, default=default, help=f"where the hub is mounted [HUB_URL; {default}]")


def _url(text: str) -> str:
    url = URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// address")
    return text.rstrip("/")


@contextmanager
def unreachable(url: str) -> Iterator[None]:
    """Turn a failure to talk to *url* into one line."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"no hub answers at {url}: {error or type(error).__name__}") from None
