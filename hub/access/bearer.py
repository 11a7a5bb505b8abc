"""The token that a command sends to a hub: from the environment or from a file. It is never printed."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub.errors import InvalidInput

VARIABLE = "HUB_TOKEN"
OPTION = "--token-file"
LIST_OPTION = "--tokens"
STDIN = "-"
MAX_BYTES = 64 * 1024
MAX_LIST_BYTES = 64 * 1024 * 1024

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, 2.1: nothing else can stand in the header


def add_token(parser: argparse.ArgumentParser) -> None:
    """Add `--token-file`. There is no option for the token itself: every user of a machine sees command lines."""
    parser.add_argument(
        OPTION, metavar="FILE", help=f"the file with the token to send, or - for standard input; else [{VARIABLE}]"
    )
    parser.add_argument("--token", nargs="?", action=_NoToken, help=argparse.SUPPRESS)


class _NoToken(argparse.Action):
    """Refuses a token on the command line, without its value, and says where to put it instead."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        parser.error(
            "argument --token: there is no such option, for every user of the machine sees command lines: "
            f"put the token into {VARIABLE}, or into a file that {OPTION} names"
        )


class Bearer:
    """The source of the token of one command.

    Args:
        file: the file that holds the token, or `-` for standard input; None: the environment variable `HUB_TOKEN`.
    """

    def __init__(self, file: str | None = None) -> None:
        self.file = file
        self._piped: str | None = None

    @property
    def renewed(self) -> bool:
        """Whether the token may be another one later: a regular file is read again each time, a pipe only once."""
        return self.file not in {None, STDIN} and self._piped is None

    def token(self) -> str | None:
        """Return the token; None: there is none.

        Raises:
            InvalidInput: the file can't be read, or what is there can't be a token; nothing of it is in the text.
        """
        if self.file is None:
            said = os.environ.get(VARIABLE, "")
            return _token(said, VARIABLE) if said.strip() else None
        if self._piped is not None:
            return self._piped
        token = _token(_read(self.file, OPTION, MAX_BYTES), OPTION)
        if self.file == STDIN or not Path(self.file).is_file():
            self._piped = token
        return token

    def source(self) -> str | Callable[[], str | None] | None:
        """Return the token, or what reads it again each time if it may be another one later. Raises as `token`."""
        token = self.token()
        return self.token if self.renewed else token

    def headers(self) -> dict[str, str]:
        """Return the header with the token, or none. Raises as `token`."""
        token = self.token()
        return {} if token is None else {"Authorization": f"Bearer {token}"}


def read_tokens(file: str) -> list[str]:
    """Return the tokens in *file* (`-`: standard input), one in a line.

    Raises:
        InvalidInput: it can't be read, has no token, or a line that can't be one; names the line, and shows nothing.
    """
    lines = enumerate(_read(file, LIST_OPTION, MAX_LIST_BYTES).splitlines(), 1)
    tokens = [_token(line, f"{LIST_OPTION}, line {number}") for number, line in lines if line.strip()]
    if not tokens:
        raise InvalidInput(LIST_OPTION, "there is no token in it")
    return tokens


def _token(text: str, source: str) -> str:
    token = text.strip().removeprefix("Bearer ")
    if not _TOKEN.fullmatch(token):
        raise InvalidInput(source, "does not hold a token, which is one word of letters, digits and -._~+/=")
    return token


def _read(file: str, option: str, most: int) -> str:
    try:
        if file == STDIN:
            text = sys.stdin.read(most + 1)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(most + 1)
    except OSError as error:
        raise InvalidInput(option, f"{_shown(file)}{error.strerror or type(error).__name__}") from None
    except ValueError:  # not UTF-8, or a NUL in the name of the file
        raise InvalidInput(option, f"{_shown(file)}is not a file with text") from None
    if len(text) > most:
        raise InvalidInput(option, f"{_shown(file)}is larger than {most // 1024:,} KiB")
    return text


def _shown(file: str) -> str:
    """Return how an error about *file* begins: with its name, but only if it is there; it may be the token itself."""
    if file == STDIN or os.path.exists(file):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return f"{file}: "
    return f"takes the name of a file, which is not repeated here, for it could be a token ({VARIABLE} takes that): "
