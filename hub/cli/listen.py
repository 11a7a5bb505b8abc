"""`hub listen`: follow topics in the terminal; resumes by itself after a lost connection."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from hub.access.bearer import Bearer, add_token
from hub.cli.target import add_target, in_one_line
from hub.client.errors import Unreachable
from hub.eventstream import Message

if TYPE_CHECKING:
    from hub.client.listening import Pause
    from hub.client.received import Received

PATIENCE = 240.0  # seconds, for a hub that was there before; one that never was is told at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to *parser*."""
    parser.add_argument("topic", nargs="*", help="topics and patterns; default notifications")
    add_target(parser)
    add_token(parser)
    parser.add_argument("--last-event-id", metavar="ID", default="", help="resume after this id")
    parser.add_argument("-n", "--count", type=int, metavar="N", help="end after N notifications")
    parser.add_argument("--json", action="store_true", help="a JSON object per line: id, topic, type, data")


def run(args: argparse.Namespace) -> int:
    """Print what arrives until interrupted, or until `--count` is reached."""
    from hub.client import HubClient, Received  # noqa: PLC0415 - other commands start faster without

    left: int | None = args.count
    if left is not None and left <= 0:
        return 0
    token, after = Bearer(args.token_file).source(), args.last_event_id or None
    with (
        in_one_line(),
        HubClient(args.url, token=token, patience=PATIENCE if after else 0) as hub,
        hub.listen(*args.topic, last_event_id=after, watch=_Teller().tell) as stream,
    ):
        for item in stream:
            if isinstance(item, Received):
                _show(item, args)
                left = None if left is None else left - 1
                if left == 0:
                    break
    return 0


def _show(received: Received, args: argparse.Namespace) -> None:
    # As text, not as what JSON says, so that numbers keep every digit.
    if args.json:
        facts = {"id": received.id, "topic": received.topic or None, "type": received.type, "data": received.text}
        print(json.dumps(facts, ensure_ascii=False), flush=True)
        return
    several = len(args.topic) > 1 or any("*" in topic for topic in args.topic)
    place = f"{received.topic or None}  " if several else ""
    type = f"{received.type}: " if received.type != "message" else ""
    print(f"{place}{type}{received.text}", flush=True)


class _Teller:
    """Tells what becomes of the stream; of a hub that was never there, only the error in the end does."""

    def __init__(self) -> None:
        self._begun = False

    def tell(self, what: Message | Pause) -> None:
        if isinstance(what, Message):
            self._begun = True
            _note(f"{what.type} {what.data}")
            return
        if not self._begun and isinstance(what.error, Unreachable):
            return
        if what.error is not None:
            _note(str(what.error))
        _note(f"coming back in {what.seconds:.1f} s")


def _note(text: str) -> None:
    print(f"# {text}", file=sys.stderr, flush=True)
