"""A network of its own for a process, in a namespace of Linux; it can be cut, and nobody is told."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from itertools import count
from typing import Self

_numbers = count(1)

# The socket that it accepts connections from was made outside, and stays there.
_PROGRAM = """
import ctypes
import os

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
with open({file!r}) as namespace:
    if libc.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
os.environ["LISTEN_PID"] = str(os.getpid())
from hub.cli.entry import command
command()
"""


class Network:
    """A namespace with one way out of it, while this is open.

    Attributes:
        here: the address outside that is reached from inside.
        program: for Python: runs `hub` inside.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self._name, self._link = f"hub-{os.getpid()}-{number}", f"h{os.getpid() % 100_000}o{number}"
        inside = f"h{os.getpid() % 100_000}i{number}"
        begin, first = f"198.18.{os.getpid() % 250}", 4 * (number % 60)
        self.here, self._inside = f"{begin}.{first + 1}", (inside, f"{begin}.{first + 2}")
        self.program = _PROGRAM.format(file=f"/run/netns/{self._name}")

    def __enter__(self) -> Self:
        inside, address = self._inside
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._link, "type", "veth", "peer", "name", inside, "netns", self._name)
            _ip("address", "add", f"{self.here}/30", "dev", self._link)
            _ip("link", "set", self._link, "up")
            _ip("-n", self._name, "address", "add", f"{address}/30", "dev", inside)
            _ip("-n", self._name, "link", "set", "lo", "up")
            _ip("-n", self._name, "link", "set", inside, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "delete", self._name)  # the link goes with it

    def cut(self) -> None:
        """Pass nothing on."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """Pass on what comes."""
        _ip("link", "set", self._link, "up")


@cache
def possible() -> bool:
    """Return whether this user may make such networks here."""
    try:
        with Network():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
