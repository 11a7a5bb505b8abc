"""Reverse proxies in front of the hub: the path prefix, the proxies that are trusted, and the client's address."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, unquote

UNIX = "unix"
"""The name of a peer that connects through a Unix socket, which has no address."""

MAX_PREFIX = 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# No characters that would end a quoted string, a header or a path, and no `//`, which would begin a host name.
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&()*+=:@\-]|%[0-9A-Fa-f]{2})+)*")
_NOT_A_PATH = re.compile(r"[?#\\\x00-\x1f\x7f]")


class Proxies:
    """The proxies in front of one hub.

    Args:
        root_path: the path under which a proxy shows the hub, such as `/live`; empty for `/`.
        trusted: addresses and networks of proxies whose `X-Forwarded-…` headers are used, and `unix`.

    Attributes:
        any: whether there is a trusted proxy.
    """

    def __init__(self, root_path: str = "", trusted: Sequence[str] = ()) -> None:
        self.root_path = root_path
        self._networks = [network_of(each) for each in trusted if each != UNIX]
        self._unix = UNIX in trusted
        self.trusts = lru_cache(maxsize=1024)(self._trusts)
        self.any = bool(trusted)

    def _trusts(self, peer: str) -> bool:
        """Return whether *peer* is a trusted proxy; *peer* is an address, empty for a Unix socket."""
        if not peer:
            return self._unix
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def prefix(self, peer: str, forwarded: Sequence[str] = ()) -> str:
        """Return the prefix that proxies have removed from the path of a request, percent-encoded.

        Args:
            peer: the address of the peer that sent the request.
            forwarded: its headers `X-Forwarded-Prefix`. Several prefixes are joined, the outermost first.
        """
        if not (forwarded and self.any and self.trusts(peer)):
            return self.root_path
        prefixes = [prefix_of(each.strip()) for each in ",".join(forwarded).split(",")]
        if None in prefixes:
            return self.root_path
        joined = "".join(each or "" for each in prefixes)
        return joined if len(joined) <= MAX_PREFIX else self.root_path

    def client(self, peer: str, forwarded: Sequence[str] = ()) -> str:
        """Return the address of the client behind the trusted proxies: the last hop that is not trusted.

        Args:
            peer: the address of the peer that sent the request.
            forwarded: its headers `X-Forwarded-For`.
        """
        client = peer
        for hop in reversed(",".join(forwarded).split(",") if self.any else ()):
            address = _hop(hop.strip()) if self.trusts(client) else None
            if address is None:
                break
            client = str(address)
        return client

    def secure(self, peer: str, forwarded: Sequence[str] = ()) -> bool:
        """Return whether a trusted proxy says that the client came to it over TLS.

        Args:
            peer: the address of the peer that sent the request.
            forwarded: its headers `X-Forwarded-Proto`; the first value is that of the outermost proxy.
        """
        first = ",".join(forwarded).partition(",")[0]
        return first.strip().lower() == "https" and self.any and self.trusts(peer)

    def hosts(self, peer: str, forwarded: Sequence[str] = ()) -> frozenset[str]:
        """Return the host names, with their ports, under which trusted proxies say that they show the hub.

        Args:
            peer: the address of the peer that sent the request.
            forwarded: its headers `X-Forwarded-Host`.
        """
        if not (forwarded and self.any and self.trusts(peer)):
            return frozenset()
        return frozenset(each.strip().lower() for each in ",".join(forwarded).split(","))


def prefix_of(text: str) -> str | None:
    """Return *text* as a prefix of paths, without a final slash; None if it is not valid as one."""
    prefix = text.removesuffix("/")
    if not text or not _PREFIX.fullmatch(prefix) or {".", ".."} & set(unquote(prefix).split("/")):
        return None
    return prefix


def encoded_prefix(text: str) -> str | None:
    """Return the prefix *text*, as people write it (`/live`, `/实`), percent-encoded for links; None if not valid."""
    return None if _NOT_A_PATH.search(text) else prefix_of(quote(text, safe="/%~!$&()*+=:@"))


def network_of(text: str) -> Network:
    """Return the network in *text*, which is in CIDR notation or one address.

    Raises:
        ValueError: *text* is neither, or has host bits set.
    """
    return ipaddress.ip_network(text)


@lru_cache(maxsize=1024)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket for both IPv6 and IPv4 shows IPv4 peers as mapped addresses.
    return getattr(address, "ipv4_mapped", None) or address


def _hop(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in one entry of `X-Forwarded-For`, to which some proxies add a port; None if there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return _address(text) if len(text) <= 64 else None
