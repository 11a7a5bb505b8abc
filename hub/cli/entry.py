"""The command line: its commands and their exit statuses."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hub.cli.answers import printable
from hub.errors import HubError, InvalidInput, InvalidSettings

Run = Callable[[argparse.Namespace], int]

COMMANDS = ("serve", "publish", "listen", "history", "token", "health", "check", "top", "load")
"""Each is a module of `hub.cli`."""
_LONGEST = 100_000  # an error of the settings has a line for each of them


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in *arguments* (None: those of the process) and return its exit status.

    0: done; 1: it failed, and one line on stderr says why; 2: the arguments or settings are wrong. The process of the
    caller goes on.
    """
    return _run(arguments, whole_process=False)


def command() -> NoReturn:
    """Run `hub` as a whole process, and end it with the command's exit status, even if threads or tasks are left."""
    sys.exit(_run(None, whole_process=True))


def _run(arguments: Sequence[str] | None, *, whole_process: bool) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser(arguments).parse_args(arguments, argparse.Namespace(whole_process=whole_process))
    run: Run = args.run
    try:
        return run(args)
    except HubError as error:
        why = printable(error, most=_LONGEST, keep="\n")
        print(f"hub: {why}", file=sys.stderr)
        return 2 if isinstance(error, InvalidInput | InvalidSettings) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of standard output has left, as `head` does. At its end Python would write the rest, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """Takes no option by its beginning: `--token X` would be `--token-file`, whose error shows what it was given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the arguments. An error names unknown options without their values, which may be secrets."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [each.partition("=")[0] for each in unknown if each.startswith("--")]
            self.error(f"unrecognized arguments: {' '.join(options or unknown)}")
        return parsed


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return what parses *arguments*; if they begin with a command, the others are not even imported."""
    parser = _Parser(prog="hub", description="A reactive broadcast hub over Server-Sent Events.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of the hub and of what it needs"
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for name in (arguments[0],) if arguments and arguments[0] in COMMANDS else COMMANDS:
        command = importlib.import_module(f"hub.cli.{name}")
        summary = (command.__doc__ or "").partition("\n")[0].partition(": ")[2]
        sub = commands.add_parser(name, help=summary, description=summary)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


class _Version(argparse.Action):
    """Prints the versions, which are looked up only here: other commands start faster without."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        hub, aiohttp = (_version_of(name) for name in ("broadcast-hub", "aiohttp"))
        print(f"hub {hub} (Python {platform.python_version()}, aiohttp {aiohttp})")
        parser.exit()


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
