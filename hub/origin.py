"""Origins, as browsers write them in the header `Origin` (WHATWG HTML, "serialization of an origin")."""

from __future__ import annotations

import ipaddress
import re

_DEFAULT_PORTS = {"http": 80, "https": 443}

_PARTS = re.compile(
    r"(?P<scheme>https?)://(?P<host>[^\s/?#@:\[\]\\%]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?/?", re.IGNORECASE
)
_NAME = re.compile(r"[a-z0-9_\-]+(\.[a-z0-9_\-]+)*\.?")
_LOOKS_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\.?")
# Characters that Python's codec (IDNA 2003) maps to others, but browsers do not.
_MAPPED_ELSEWHERE = frozenset("ß\u03c2\u200c\u200d")


def origin_of(text: str) -> str:
    """Return the origin in *text* as a browser spells it; empty if *text* is no origin with http or https.

    The result is in lower case, without a default port, with names in Punycode and addresses in their shortest form.
    """
    match = _PARTS.fullmatch(text)
    if match is None:
        return ""
    scheme = match["scheme"].lower()
    host = _host(match["host"].lower())
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    if not host or port > 65_535:
        return ""
    return f"{scheme}://{host}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"


def _host(host: str) -> str:
    try:
        if host.startswith("["):
            return f"[{_ipv6(ipaddress.IPv6Address(host[1:-1]))}]"
        if not host.isascii():
            host = "" if _MAPPED_ELSEWHERE & set(host) else host.encode("idna").decode()
        if _LOOKS_NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host.removesuffix(".")))  # to browsers, such a last label is an address
    except ValueError:
        return ""
    return host if _NAME.fullmatch(host) else ""


def _ipv6(address: ipaddress.IPv6Address) -> str:
    """Return *address* as text without dotted decimals, which browsers never write in IPv6 addresses."""
    return (
        str(address)
        if address.ipv4_mapped is None
        else f"::ffff:{int(address) >> 16 & 0xFFFF:x}:{int(address) & 0xFFFF:x}"
    )
