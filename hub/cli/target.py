"""The hub that a command talks to, and the errors where something else answers, or nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from yarl import URL

from hub.access.bearer import OPTION, VARIABLE
from hub.client.errors import ClientError, NotAuthenticated
from hub.errors import HubError

TOKEN_HINT = f"a token is taken from {VARIABLE}, or from the file that {OPTION} names"


class Failed(HubError):
    """What a command asked a hub for has failed; the text says why, in one line."""


def add_target(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup, default: str | None = None) -> None:
    """Add `--url`; *default* is used without it (None: that of `default_url`)."""
    default = default or default_url()
    parser.add_argument("--url", type=_url, default=default, help=f"where the hub is mounted [HUB_URL; {default}]")


def default_url() -> str:
    """Return the address that is used without `--url`: `HUB_URL`, or the hub's default port on this machine."""
    return os.environ.get("HUB_URL") or "http://127.0.0.1:8080"


def _url(text: str) -> str:
    url = URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// address")
    return text.rstrip("/")


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn an error of the client into `Failed`, which tells whoever has no token where to put one."""
    try:
        yield
    except ClientError as error:
        unknown = isinstance(error, NotAuthenticated) and error.code == "unauthorized"
        raise Failed(f"{error} ({TOKEN_HINT})" if unknown else str(error)) from None
