"""The hub that a command talks to, and the errors where something else answers, or nothing."""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
from yarl import URL

from hub.access.bearer import OPTION, VARIABLE
from hub.errors import HubError

MAX_ANSWER_BYTES = 64 * 1024
MAX_RETRY_AFTER = 3_600
TOKEN_HINT = f"a token is taken from {VARIABLE}, or from the file that {OPTION} names"
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may be answered later."""


class Unreachable(HubError):
    """Nothing answers there."""


class NotAHub(HubError):
    """Something that is not a hub answers there; `lasting` as for `Refused`: a proxy says 502 while a hub restarts."""

    def __init__(self, url: str, answer: aiohttp.ClientResponse) -> None:
        super().__init__(url, answer.status)
        self.url, self.status = url, answer.status
        self.lasting = answer.status not in PASSING
        self.kind = f"{answer.status} {answer.reason or ''}".strip() + f" ({answer.content_type})"

    def __str__(self) -> str:
        return f"what answers at {self.url} is not a hub, or the hub is mounted under another path: {self.kind}"


class Refused(HubError):
    """The hub refused the request, or ended the stream; its reason is the text.

    Attributes:
        lasting: the same request would be refused again.
        retry_after: seconds after which the hub wants to be asked again; None: it did not say.
    """

    def __init__(self, why: str, code: str = "", *, lasting: bool = True, retry_after: float | None = None) -> None:
        super().__init__(why, code)
        self.why, self.code = why, code
        self.lasting, self.retry_after = lasting, retry_after

    def __str__(self) -> str:
        return f"{self.why} ({TOKEN_HINT})" if self.code == "unauthorized" else self.why


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
    after = answer.headers.get("Retry-After", "")
    raise Refused(
        problem["detail"],
        str(problem.get("code", "")),
        lasting=answer.status not in PASSING,
        retry_after=min(int(after), MAX_RETRY_AFTER) if re.fullmatch("[0-9]{1,9}", after) else None,
    )


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
