"""`hub publish`: send a notification to a running hub, or one per line of standard input."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from hub.access.bearer import OPTION, STDIN, Bearer, add_token
from hub.cli.target import add_target, in_one_line
from hub.errors import InvalidInput

TIMEOUT = 30.0
PATIENCE = 30.0  # seconds, for lines that come from another program; whoever types a command is told at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    parser.add_argument("data", nargs="?", help="what to send: JSON, or text; without it, each line of standard input")
    add_target(parser)
    add_token(parser)
    parser.add_argument("-t", "--topic", action="append", help="where to; repeatable; default notifications")
    parser.add_argument("--type", help="the SSE event type; default none, a plain message")
    parser.add_argument("--key", help="idempotency key, for one notification")
    parser.add_argument("--text", action="store_true", help="send the data as text even if it reads as JSON")


def run(args: argparse.Namespace) -> int:
    """Publish, and print the id of each notification that the hub accepted."""
    from hub.client import HubClient  # noqa: PLC0415 - other commands start faster without

    if args.data is None and args.token_file == STDIN:
        raise InvalidInput(OPTION, "standard input holds what is published; name a file")
    token, patience = Bearer(args.token_file).source(), PATIENCE if args.data is None else 0
    with in_one_line(), HubClient(args.url, token=token, timeout=TIMEOUT, patience=patience) as hub:
        for text in _texts(args):
            data = text if args.text else _value(text)
            print(hub.publish(data, topics=args.topic, type=args.type, key=args.key), flush=True)
    return 0


def _texts(args: argparse.Namespace) -> Iterator[str]:
    if args.data is not None:
        yield args.data
    else:
        yield from (line.rstrip("\r\n") for line in sys.stdin)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
