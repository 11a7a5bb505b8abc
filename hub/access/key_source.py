"""The rules of the settings that say where keys come from. Pure text: no key is read here."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 32
"""As many as SHA-256 has (RFC 7518, 3.2)."""
MIN_VARIETY = 8
"""Different characters in a secret; 32 random ones have more, even if they are hexadecimal digits."""

_NOT_A_SECRET = re.compile(r"-----BEGIN |ssh-|ecdsa-sha2-|\s*\{")


def check_secret(text: str) -> str:
    """Return *text* if it may be a secret for HS256; its bytes are those of its UTF-8.

    Raises:
        ValueError: the rule that it breaks, without any part of it.
    """
    if _NOT_A_SECRET.match(text):
        raise ValueError("is a key, not a secret: whoever knows a public key could sign; write it into HUB_JWT_KEYS")
    if text != text.strip():
        raise ValueError("begins or ends with white space, such as the line end of a file")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    if size < MIN_SECRET_BYTES:
        raise ValueError(
            f"has {size} bytes, and needs at least {MIN_SECRET_BYTES}: hub token --make-key HS256 makes one"
        )
    return text


def is_guessable(secret: str) -> bool:
    """Return whether *secret* has so few different characters that nobody made it at random."""
    return len(set(secret)) < MIN_VARIETY


def check_keys_url(text: str) -> str:
    """Return *text* if keys may be fetched from there: with TLS, or from this machine.

    Raises:
        ValueError: the rule that it breaks.
    """
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        raise ValueError("is not an address such as https://login.example.com/jwks.json") from None
    if not host or url.scheme not in {"http", "https"} or not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("is not an address such as https://login.example.com/jwks.json")
    if url.username is not None or url.password is not None:
        raise ValueError("has a user name or a password: published keys need none")
    if url.scheme == "http" and not _is_loopback(host):
        raise ValueError("is not https://; http:// is for this machine only: others could replace the keys on the way")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
