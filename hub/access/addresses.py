"""The addresses of clients, behind proxies too, and how limits count them. Pure."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Sequence
from functools import lru_cache

from hub.proxies import Proxies

logger = logging.getLogger("hub.access")

IPV6_PREFIX = 64
"""The network that one IPv6 client has: within it, it can take another address for every connection (RFC 6177)."""


class Addresses:
    """The addresses of the clients of one hub.

    Args:
        proxies: those that are trusted: what they say of their clients counts, and they are not limited themselves.
    """

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._warned = False
        self.counted = lru_cache(maxsize=4096)(self._counted)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of a client: the last hop that is no trusted proxy.

        The first time somebody who is not trusted speaks for others, a warning is logged: it may be a proxy that the
        settings do not name, and then all its clients count as one.

        Args:
            peer: the address of the peer that sent the request; empty for a Unix socket.
            forwarded: its headers `X-Forwarded-For`.
        """
        if forwarded and not self._warned and not self._proxies.trusts(peer):
            self._warned = True
            logger.warning(
                "X-Forwarded-For from %s is ignored: if that is a proxy of yours, name it in trusted_proxies "
                "(HUB_TRUSTED_PROXIES)",
                peer or "a Unix socket",
            )
        return self._proxies.client(peer, forwarded)

    def _counted(self, address: str) -> str:
        """Return under what *address* is counted: an IPv4 address, or the network of an IPv6 address.

        Empty: it is not limited. That is so for loopback and Unix sockets (empty), where whole teams share one address,
        for trusted proxies, and for what is no address.
        """
        if not address or self._proxies.trusts(address):
            return ""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])  # what follows is the link that it is valid on
        except ValueError:
            return ""
        # A socket for both IPv6 and IPv4 shows IPv4 peers as mapped addresses.
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        if parsed.is_loopback:
            return ""
        if parsed.version == 4:
            return str(parsed)
        return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
