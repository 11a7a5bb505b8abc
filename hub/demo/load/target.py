"""The hub under load: where it is, and whether it may be loaded."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from hub.demo.load.errors import BadTarget

SOURCE_PORTS = 20_000
"""Connections from one source address: ports are finite (28,000 on Linux), and others need some too."""


class Target(NamedTuple):
    """A hub at an HTTP URL; `prefix` is where it is mounted, without a slash at the end."""

    url: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """Return the target that *url* names.

        Raises:
            BadTarget: it is no plain `http://host[:port][/prefix]`.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError:
            raise BadTarget(url, "is not a URL") from None
        if parts.scheme != "http" or not parts.hostname:
            raise BadTarget(url, "is not like http://127.0.0.1:8080")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise BadTarget(url, "has more than a host, a port and a path")
        if not (url.isascii() and url.isprintable()) or " " in url:
            raise BadTarget(url, "has characters that do not belong in a URL")
        return cls(url, parts.hostname, port, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def subscribe_path(self, topic: str) -> str:
        """Return the request target of a subscription to *topic*."""
        return f"{self.prefix}/notifications/subscribe?topic={quote(topic, safe='/')}"

    @property
    def publish_path(self) -> str:
        """The request target of a publish."""
        return f"{self.prefix}/notifications/publish"

    def resolve(self, *, remote: bool = False) -> tuple[str, ...]:
        """Return the addresses of the host. Blocks while the name is looked up.

        Raises:
            BadTarget: no such host, or one of its addresses is not loopback and *remote* is false.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise BadTarget(self.url, f"cannot be found: {error.strerror or error}") from None
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not remote and not all(is_loopback(address) for address in addresses):
            raise BadTarget(self.url, "is not on this machine: loading it needs --yes-remote and its owner's consent")
        return addresses


def is_loopback(address: str) -> bool:
    """Tell whether *address* never leaves this machine."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def source_address(number: int, address: str) -> tuple[str, int] | None:
    """Return where connection *number* to *address* comes from; None leaves it to the system.

    One source address has too few ports for the largest runs; 127.0.0.0/8 has plenty (Linux answers on all of it).
    """
    group = number // SOURCE_PORTS
    return (f"127.0.0.{group + 1}", 0) if group and address.startswith("127.") else None
