"""Proxies before the hub: where they show it, whose word about that counts, and who is behind them. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, unquote

UNIX = "unix"
"""Stands for whoever connects through a Unix socket: such a peer has no address."""

MAX_PREFIX = 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Nothing that ends a quoted string, a header or a path, and no second slash, which would begin a host.
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&()*+=:@\-]|%[0-9A-Fa-f]{2})+)*")
_NOT_A_PATH = re.compile(r"[?#\\\x00-\x1f\x7f]")


class Proxies:
    """What stands before one hub.

    Args:
        root_path: where a proxy shows the hub, such as `/live`; empty for `/`.
        trusted: addresses and networks of proxies whose `X-Forwarded-…` count, and `unix`.

    Attributes:
        any: whether somebody is trusted.
    """

    def __init__(self, root_path: str = "", trusted: Sequence[str] = ()) -> None:
        self.root_path = root_path
        self._networks = [network_of(each) for each in trusted if each != UNIX]
        self._unix = UNIX in trusted
        self.trusts = lru_cache(maxsize=1024)(self._trusts)
        self.any = bool(trusted)

    def _trusts(self, peer: str) -> bool:
        """Tell whether what *peer* forwards counts; *peer* is an address, empty for a Unix socket."""
        if not peer:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def prefix(self, peer: str, forwarded: Sequence[str] = ()) -> str:
        """Return what the path of a request began with before proxies took it away, percent-encoded.

        Args:
            peer: who has sent the request.
            forwarded: its headers `X-Forwarded-Prefix`. Several are one behind the other, the outermost first.
        """
        if not (forwarded and self.any and self.trusts(peer)):
            return self.root_path
        prefixes = [prefix_of(each.strip()) for each in ",".join(forwarded).split(",")]
        if None in prefixes:
            return self.root_path
        joined = "".join(each or "" for each in prefixes)
        return joined if len(joined) <= MAX_PREFIX else self.root_path

    def client(self, peer: str, forwarded: Sequence[str] = ()) -> str:
        """Return the address of whoever is behind the trusted proxies: the last hop that is none of them.

        Args:
            peer: who has sent the request.
            forwarded: its headers `X-Forwarded-For`.
        """
        client = peer
        for hop in reversed(",".join(forwarded).split(",") if self.any else ()):
            address = _hop(hop.strip()) if self.trusts(client) else None
            if address is None:
                break
            client = str(address)
        return client


def prefix_of(text: str) -> str | None:
    """Return *text* as the beginning of paths, without a slash at its end; None if it can't be one."""
    prefix = text.removesuffix("/")
    if not text or not _PREFIX.fullmatch(prefix) or {".", ".."} & set(unquote(prefix).split("/")):
        return None
    return prefix


def encoded_prefix(text: str) -> str | None:
    """Return what people write as a prefix (`/live`, `/实`) the way it stands in a link; None if it can't be one."""
    return None if _NOT_A_PATH.search(text) else prefix_of(quote(text, safe="/%~!$&()*+=:@"))


def network_of(text: str) -> Network:
    """Return the network that *text* names in CIDR, or that one address.

    Raises:
        ValueError: it is neither, or an address within a network.
    """
    return ipaddress.ip_network(text)


@lru_cache(maxsize=1024)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # What listens on IPv6 and IPv4 sees the latter so.
    return getattr(address, "ipv4_mapped", None) or address


def _hop(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of one entry of `X-Forwarded-For`; some proxies add a port to it."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return _address(text) if len(text) <= 64 else None
