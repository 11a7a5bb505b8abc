"""`hub listen`: follow topics in the terminal; resumes by itself after a lost connection."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys

import aiohttp

from hub.access.bearer import Bearer, add_token
from hub.cli.target import NotAHub, Refused, Unreachable, add_target, check, unreachable
from hub.eventstream import Decoder, Message

FIRST_RETRY = 3_000

# Split as text, not as JSON, so that numbers keep every digit.
_ENVELOPE = re.compile(r'\{"topic":("(?:[^"\\]|\\.)*"),"data":(.*)\}', re.DOTALL)


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
    return asyncio.run(_Listening(args).follow())


_ENDINGS = {
    "unauthorized": "the hub does not know who you are",
    "token_invalid": "the token is not valid",
    "token_expired": "the token has expired",
    "revoked": "your rights, or this stream, were revoked",
    "forbidden": "you may not read it",
    "replaced": "a newer stream of the same user has taken the place of this one",
}
"""Reasons of `hub.close` after which coming back would change nothing."""


class _Listening:
    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._bearer = Bearer(args.token_file)
        self._cursor: str = args.last_event_id
        self._retry = FIRST_RETRY
        self._left: int | None = args.count
        self._name_topics = len(args.topic) > 1 or any("*" in topic for topic in args.topic)

    async def follow(self) -> int:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            reached = False
            while self._left is None or self._left > 0:
                pause: float | None = None
                try:
                    with unreachable(self._args.url):
                        await self._stream(session)
                    reached = True
                except (Unreachable, NotAHub) as error:
                    if not (reached or self._cursor) or (isinstance(error, NotAHub) and error.lasting):
                        raise
                    self._note(str(error))
                except Refused as error:
                    if error.lasting:
                        raise
                    self._note(str(error))
                    pause = error.retry_after
                if self._left is None or self._left > 0:
                    pause = self._retry / 1000 if pause is None else pause
                    self._note(f"coming back in {pause:.1f} s")
                    await asyncio.sleep(pause)
        return 0

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        """Read one stream to its end, or until `--count` is reached.

        Raises:
            Refused: the hub ended it, or does not begin it.
        """
        close: Message | None = None
        headers = {"Accept": "text/event-stream", **self._bearer.headers()}
        if self._cursor:
            headers["Last-Event-ID"] = self._cursor
        params = [*(("topic", topic) for topic in self._args.topic), ("envelope", "1")]
        async with session.get(f"{self._args.url}/notifications/subscribe", params=params, headers=headers) as answer:
            await check(self._args.url, answer, 200, media_type="text/event-stream")
            decoder = Decoder(self._cursor)
            try:
                async for part in answer.content.iter_any():
                    for message in decoder.feed(part):
                        self._show(message)
                        close = message if message.type == "hub.close" else None
                        if self._left == 0:
                            return
            finally:
                self._cursor = decoder.last_event_id
                self._retry = decoder.retry if decoder.retry is not None else self._retry
        if close is not None:
            self._end(close)

    def _end(self, close: Message) -> None:
        """Raise `Refused` if the stream that ended with *close* is not worth opening again."""
        try:
            facts = close.json()
            reason, topic = str(facts["reason"]), facts.get("topic")
        except (ValueError, LookupError, TypeError, AttributeError):
            return
        if reason == "token_expired" and self._bearer.renewed:
            return  # the file may hold a new token by now; if not, the hub refuses the old one
        if reason in _ENDINGS:
            raise Refused(f"{topic}: {_ENDINGS[reason]}" if topic else _ENDINGS[reason], reason)

    def _show(self, message: Message) -> None:
        if message.type.startswith("hub."):
            self._note(f"{message.type} {message.data}")
            return
        topic, data = _opened(message.data)
        if self._args.json:
            facts = {"id": message.id, "topic": topic, "type": message.type, "data": data}
            print(json.dumps(facts, ensure_ascii=False), flush=True)
        else:
            place = f"{topic}  " if self._name_topics else ""
            type = f"{message.type}: " if message.type != "message" else ""
            print(f"{place}{type}{data}", flush=True)
        if self._left is not None:
            self._left -= 1

    def _note(self, text: str) -> None:
        print(f"# {text}", file=sys.stderr, flush=True)


def _opened(envelope: str) -> tuple[str | None, str]:
    """Return the topic in *envelope*, and its data as text."""
    found = _ENVELOPE.fullmatch(envelope)
    if not found:
        return None, envelope
    topic, data = found.groups()
    return json.loads(topic), json.loads(data) if data.startswith('"') else data
