"""`hub publish`: send a notification to a running hub, or one per line of standard input."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp

from hub.access.bearer import OPTION, STDIN, Bearer, add_token
from hub.cli.target import add_target, facts_of, unreachable
from hub.errors import InvalidInput


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
    return asyncio.run(_publish(args))


async def _publish(args: argparse.Namespace) -> int:
    if args.data is None and args.token_file == STDIN:
        raise InvalidInput(OPTION, "standard input holds what is published; name a file")
    headers = Bearer(args.token_file).headers()
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        for text in _texts(args):
            draft = {
                "data": text if args.text else _value(text),
                "topics": args.topic,
                "type": args.type,
                "key": args.key,
            }
            body = {name: value for name, value in draft.items() if value is not None or name == "data"}
            with unreachable(args.url):
                async with session.post(f"{args.url}/notifications/publish", json=body) as answer:
                    accepted = await facts_of(args.url, answer, 200, 201, has="id")
            print(accepted["id"], flush=True)
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
