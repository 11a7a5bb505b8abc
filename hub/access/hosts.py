"""The host names to which a hub answers: a page can point a name of its own at 127.0.0.1 (DNS rebinding). Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from functools import lru_cache

from hub.errors import WrongHost

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::(?P<port>[0-9]{0,5}))?")
_LOOPBACK = re.compile(r"(?:[a-z0-9_\-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[(?:::1|0:0:0:0:0:0:0:1)\]")


def name_of(host: str) -> str | None:
    """Return the name in *host*, `name` or `name:port`, in lower case and without a final dot; None if not valid."""
    match = _HOST.fullmatch(host)
    return match["name"].lower().removesuffix(".") if match is not None else None


class Hosts:
    """The names in `Host` to which a hub on loopback answers: those of loopback, and those that are allowed.

    A browser sends the name that its page asked for. So a page of `evil.example`, which makes that name point at
    127.0.0.1 after it was loaded, sends `Host: evil.example`, and is refused. The port does not matter: a page can't
    reach another one under the same origin.

    Args:
        allowed: further names, with or without a port, which is ignored.
        addresses: it answers to every IP address too. A page can't make one of them its own name: whoever sends it has
            asked for this address, as programs in a cluster do.
    """

    def __init__(self, allowed: Collection[str] = (), *, addresses: bool = False) -> None:
        self._allowed = frozenset(name_of(each) for each in allowed)
        self._addresses = addresses
        self.answers = lru_cache(maxsize=256)(self._answers)

    def _answers(self, host: str) -> bool:
        name = name_of(host)
        if name is None:
            return False
        return name in self._allowed or _LOOPBACK.fullmatch(name) is not None or (self._addresses and _is_address(name))

    def check(self, host: str | None) -> None:
        """Raise if *host*, the header as it came, is not one to answer to; None: there was none, as in HTTP/1.0.

        Raises:
            WrongHost: it is another name.
        """
        if host is not None and not (len(host) <= 300 and self.answers(host)):
            raise WrongHost(host)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
