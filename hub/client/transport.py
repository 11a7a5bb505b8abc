"""What both clients give to the HTTP library, and what its errors mean."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx

from hub.client.errors import Unreachable
from hub.client.steps import Ask
from hub.errors import InvalidInput

USER_AGENT = "broadcast-hub"

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, 2.1: nothing else can stand in the header


def checked_url(url: str) -> str:
    """Return *url* without a slash at its end, if it is the address of a hub.

    Raises:
        InvalidInput: it is not; only a text without a user's name in it is repeated.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
        parts.port  # noqa: B018 - raises for a port that is none
    except (ValueError, AttributeError, TypeError):
        raise InvalidInput("url", "is not an http:// or https:// address") from None
    if "@" in parts.netloc:
        raise InvalidInput("url", "has a user's name or password, which the hub does not take: use a token")
    if not valid or parts.query or parts.fragment:
        raise InvalidInput("url", f"{url!r} is not an http:// or https:// address without a query")
    return url.rstrip("/")


def checked_token(token: object) -> str | None:
    """Return *token* if it can be one. Nothing of it is in the error.

    Raises:
        InvalidInput: it can't.
    """
    if token is None:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InvalidInput("token", "is not one word of letters, digits and -._~+/=")
    return token


def headers_of(ask: Ask) -> dict[str, str]:
    """Return the headers of the request *ask*."""
    token = {} if ask.token is None else {"Authorization": f"Bearer {ask.token}"}
    return {"Accept": "application/json", **ask.headers, **token}


def options(timeout: httpx.Timeout, tls: ssl.SSLContext) -> dict[str, Any]:
    """Return the arguments that both of the library's clients get.

    Nothing comes from the environment: a proxy or a password in `.netrc` meant for others would get the token, or take
    its place. No redirect is followed: it could turn a publish into something else, or lead anywhere.
    """
    return {
        # An answer in another encoding could grow beyond any bound while it is decoded.
        "headers": {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        "timeout": timeout,
        "verify": tls,
        "trust_env": False,
        "follow_redirects": False,
    }


def lower(headers: httpx.Headers) -> Mapping[str, str]:
    """Return *headers* as a mapping with names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def unreachable(url: str, error: Exception) -> Unreachable:
    """Return what *error* of a request to *url* means, in one line."""
    lasting = isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL)
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(url, f"its certificate is not accepted: {cause.verify_message}", lasting=True)
        if isinstance(cause, ssl.SSLError):
            return Unreachable(url, f"TLS failed: {(cause.reason or str(cause)).replace('_', ' ').lower()}")
        if isinstance(cause, OSError) and cause.errno is not None:
            return Unreachable(url, os.strerror(cause.errno) if cause.errno > 0 else cause.strerror or str(cause))
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Unreachable(url, "it did not answer in time")
    return Unreachable(url, str(error) or type(error).__name__, lasting=lasting)


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error* and what caused it, with all members of groups, as far as ten levels."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting and len(found) < 20:
        each = waiting.pop(0)
        if each is None or each in found:
            continue
        found.append(each)
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return found
