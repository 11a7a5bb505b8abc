"""`hub history`: list what a hub keeps, export all of it as an archive, import an archive into a new log."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from hub.access.bearer import Bearer, add_token
from hub.cli.target import add_target, in_one_line
from hub.errors import HubError, InvalidArchive, LogNotEmpty, LogUnavailable
from hub.log.archive.format import Contents, is_last_line
from hub.log.archive.spool import Spool
from hub.log.choice import make_log
from hub.log.log import Movable
from hub.log_url import SQLITE, LogURL
from hub.notification import Position

if TYPE_CHECKING:
    from hub.client.client import HubClient

PART_BYTES = 256 * 1024
TIMEOUT = 60.0


class HistoryRefused(HubError):
    """The archive is incomplete or breaks a rule."""


class ArchiveUnusable(HubError):
    """The file to read or to write is missing, or can't be used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its arguments."""
    actions = parser.add_subparsers(required=True, metavar="action")
    listing = _action(actions, "list", _list, "print what a hub keeps, a notification per line")
    add_target(listing)
    add_token(listing)
    listing.add_argument("-t", "--topic", action="append", help="topic or pattern; repeatable; default notifications")
    listing.add_argument("--after", metavar="ID", help="begin after this id; default: with the oldest")
    listing.add_argument("-n", "--limit", type=_positive, metavar="N", help="end after N notifications")
    listing.add_argument("--json", action="store_true", help="a JSON object per line")
    exporting = _action(actions, "export", _export, "write everything a log keeps as an archive")
    _add_source(exporting, "a file instead of a hub; one that a hub has open, too")
    add_token(exporting)
    exporting.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    importing = _action(actions, "import", _import, "write an archive into a new log, which no hub has open")
    importing.add_argument("--url", action=_NoHub, help=argparse.SUPPRESS)
    importing.add_argument(
        "--log", type=_file, required=True, metavar="sqlite:///PATH", help="the file: a new one, or an empty log"
    )
    importing.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the archive; default: standard input")


def _action(actions: Any, name: str, act: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    parser.set_defaults(act=act)
    return parser


def _add_source(parser: argparse.ArgumentParser, what: str) -> None:
    source = parser.add_mutually_exclusive_group()
    add_target(source)
    source.add_argument("--log", type=_file, metavar="sqlite:///PATH", help=what)


class _NoHub(argparse.Action):
    """Refuses `--url`, and says what to do instead."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(
            "argument --url: a running hub takes no archive: import it into a new file (--log sqlite:///PATH), then "
            "start a hub on that file (HUB_LOG=sqlite:///PATH)"
        )


def _file(text: str) -> LogURL:
    try:
        url = LogURL.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from None
    if url.scheme != SQLITE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a file; write sqlite:/// and a path")
    return url


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the action, and return the exit status."""
    try:
        status: int = asyncio.run(args.act(args))
    except BrokenPipeError:
        # The reader has closed the pipe. Python would try to write the rest of the buffer at its end, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0 if args.act is _list else 1
    return status


def _note(text: str) -> None:
    print(f"# {text}", file=sys.stderr, flush=True)


def _client(args: argparse.Namespace) -> HubClient:
    from hub.client import HubClient  # noqa: PLC0415 - other commands start faster without

    return HubClient(args.url, token=Bearer(args.token_file).source(), timeout=TIMEOUT, patience=0)


# ---- list ----


async def _list(args: argparse.Namespace) -> int:
    with in_one_line(), _client(args) as hub:
        for page in hub.history(*args.topic or (), after=args.after, limit=args.limit):
            if not page["recovered"]:
                _note(f"something is missing here ({page['reason']}); the oldest that is kept is {page['oldest']}")
            for each in page["notifications"]:
                print(json.dumps(each, ensure_ascii=False) if args.json else _shown(each))
            sys.stdout.flush()
    return 0


def _shown(each: dict[str, Any]) -> str:
    data = each["data"]
    text = data if isinstance(data, str) and data.isprintable() else json.dumps(data, ensure_ascii=False)
    type = f"{each['type']}: " if each["type"] else ""
    return f"{each['at']}  {each['id']}  {','.join(each['topics'])}  {type}{text}"


# ---- export ----


async def _export(args: argparse.Namespace) -> int:
    last = bytearray()
    with _output(args.output) as output:
        async for part in _archive_of_file(args.log) if args.log else _archive_of_hub(args):
            output.write(part)
            last += part
            del last[: last.rfind(b"\n", 0, -1) + 1]
        if not is_last_line(bytes(last)):
            raise HistoryRefused("the export was cut short: it has no last line")
        output.flush()
    _note(f"{json.loads(last)['notifications']:,} notifications")
    return 0


async def _archive_of_hub(args: argparse.Namespace) -> AsyncIterator[bytes]:
    from hub.client import Unreachable  # noqa: PLC0415 - other commands start faster without

    begun = False
    with in_one_line(), _client(args) as hub:
        try:
            for part in hub.export():
                begun = True
                yield part
        except Unreachable:
            if not begun:
                raise
            raise HistoryRefused("the hub broke the export off; its own log says why") from None


async def _archive_of_file(url: LogURL) -> AsyncIterator[bytes]:
    from hub.log.sqlite.snapshot import snapshot  # noqa: PLC0415 - not on Windows

    for line in snapshot(url.path):
        yield line


@contextmanager
def _output(path: Path | None) -> Iterator[BinaryIO]:
    """Yield the stream to write to. A file is written under another name, and renamed when it is complete."""
    if path is None:
        yield sys.stdout.buffer
        return
    special = path.exists() and not path.is_file()  # such as a named pipe
    aside = path if special else path.with_name(path.name + ".part")
    try:
        with aside.open("wb") as file:
            yield file
        if not special:
            aside.replace(path)
    except OSError as error:
        raise ArchiveUnusable(f"{path}: {error.strerror or error}") from None
    finally:
        if not special:
            aside.unlink(missing_ok=True)


# ---- import ----


async def _import(args: argparse.Namespace) -> int:
    with _input(args.file) as file, ExitStack() as opened:
        _check_new(args.log)  # first, so that no long archive is read in vain
        spool = Spool(file if file.seekable() else None)
        if not file.seekable():
            opened.callback(spool.close)
            async for part in _parts(file):
                await spool.write(part)
        try:
            # Read it to its end before the log is opened: an archive that is broken anywhere changes nothing.
            contents = await spool.verify()
            await _adopt(args.log, contents, spool)
        except InvalidArchive as error:
            raise HistoryRefused(str(error)) from None
    print(f"{contents.number:,} notifications, the newest is {Position(contents.epoch, contents.newest)}")
    return 0


def _check_new(url: LogURL) -> None:
    """Check that the file is new, or an empty log; change nothing.

    To open a file as a hub does may change it: an old version is migrated, a copy gets a new epoch, a damaged file is
    moved aside.

    Raises:
        LogNotEmpty: it has, or once had, a notification.
        LogUnavailable: it is not the log of a hub, or can't be read.
    """
    from hub.log.sqlite.snapshot import is_new  # noqa: PLC0415 - not on Windows

    if not is_new(url.path):
        raise LogNotEmpty


async def _adopt(url: LogURL, contents: Contents, spool: Spool) -> None:
    # Nothing is trimmed here: the hub that opens the file next applies its own retention.
    log = make_log(url, count=None, size=None, age=None, topics={}, clock=time.time, unobserved=lambda error: None)
    try:
        await log.open()
        if not isinstance(log, Movable):
            raise LogUnavailable(f"{url} can't take over a history")
        await log.adopt(contents.epoch, contents.newest, contents.trimmed, spool.history())
    finally:
        await log.aclose()


async def _parts(file: BinaryIO) -> AsyncIterator[bytes]:
    while part := await asyncio.to_thread(file.read, PART_BYTES):
        yield part


@contextmanager
def _input(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ArchiveUnusable(f"{path}: {error.strerror or error}") from None
