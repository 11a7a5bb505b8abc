"""The hub that a command talks to, and the errors where something else answers, or nothing."""

from __future__ import annotations

import argparse
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from yarl import URL

from hub.errors import HubError

MAX_ANSWER_BYTES = 64 * 1024


class Unreachable(HubError):
    """Nothing answers there."""


class NotAHub(HubError):
    """Something that is not a hub answers there."""

    def __init__(self, url: str, answer: aiohttp.ClientResponse) -> None:
        super().__init__(url, answer.status)
        self.url, self.status = url, answer.status
        self.kind = f"{answer.status} {answer.reason or ''}".strip() + f" ({answer.content_type})"

    def __str__(self) -> str:
        return f"what answers at {self.url} is not a hub, or the hub is mounted under another path: {self.kind}"


class Refused(HubError):
    """The hub refused the request; its reason is the text."""


def add_target(parser: argparse.ArgumentParser | argparse._MutuallyExclusiveGroup) -> None:
    """Add `--url`."""
    default = default_url()
    parser.add_argument("--url", type=_url, default=default, help=f"where the hub is mounted [HUB_URL; {default}]")


def default_url() -> str:
    """Return the address that is used without `--url`: `HUB_URL`, or the hub's default port on this machine."""
    return os.environ.get("HUB_URL") or "http://127.0.0.1:8080"


def _url(text: str) -> str:
    url = URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// address")
    return text.rstrip("/")


@contextmanager
def unreachable(url: str) -> Iterator[None]:
    """Turn an error of the connection to *url* into `Unreachable`, whose text is one line."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"no hub answers at {url}: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Return only the reason: aiohttp's text repeats the address, and says `ssl:default` even without TLS."""
    cause: BaseException = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {(cause.reason or str(cause)).replace('_', ' ').lower()}"
    if isinstance(cause, OSError) and cause.errno is not None:
        return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror or str(cause)
    return str(cause) or ("it did not answer in time" if isinstance(cause, TimeoutError) else type(cause).__name__)


async def check(url: str, answer: aiohttp.ClientResponse, *expected: int, media_type: str) -> None:
    """Check that the response *answer* has one of the *expected* statuses and is of *media_type*.

    Raises:
        Refused: the hub said why not.
        NotAHub: no hub sends such a response.
    """
    if answer.status in expected:
        if answer.content_type != media_type:
            raise NotAHub(url, answer)
        return
    problem = await _read(answer) if answer.content_type == "application/problem+json" else None
    if not isinstance(problem, dict) or not isinstance(problem.get("detail"), str):
        raise NotAHub(url, answer)
    raise Refused(problem["detail"])


async def facts_of(url: str, answer: aiohttp.ClientResponse, *expected: int, has: str) -> dict[str, Any]:
    """Return the JSON object in the response *answer*; it must have the field *has*.

    Raises:
        Refused, NotAHub: as for `check`.
    """
    await check(url, answer, *expected, media_type="application/json")
    try:
        facts = await answer.json()
    except (ValueError, RecursionError):
        raise NotAHub(url, answer) from None
    if not isinstance(facts, dict) or has not in facts:
        raise NotAHub(url, answer)
    return facts


async def _read(answer: aiohttp.ClientResponse) -> Any:
    """Return the JSON in the response *answer*; None if it is not JSON, or longer than 64 KiB."""
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
