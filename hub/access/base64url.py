"""The base64url of tokens and keys: without padding, and with one spelling for each value (RFC 7515, 2)."""

from __future__ import annotations

import base64
import binascii


def decoded(text: object) -> bytes:
    """Return the bytes that *text* spells.

    Raises:
        ValueError: it has another character, padding, or bits that mean nothing. Python's own decoder ignores those.
    """
    if not isinstance(text, str) or not text.isascii():
        raise ValueError("is not base64url")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error:
        raise ValueError("is not base64url") from None
    if encoded(data) != text:
        raise ValueError("is not base64url")
    return data


def encoded(data: bytes) -> str:
    """Return *data* in base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
