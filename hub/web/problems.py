"""The error answers of the hub, in `application/problem+json` (RFC 9457); all of them are made here."""

from __future__ import annotations

import re
from http import HTTPStatus

from aiohttp import web

from hub.errors import (
    AuthUnavailable,
    Forbidden,
    HubError,
    InvalidInput,
    LogUnavailable,
    NotAWebSocket,
    ShuttingDown,
    TooLarge,
    TooManyGenerations,
    TooManyStreams,
    TooOften,
    TooSlow,
    TryLater,
    Unauthorized,
    UnsupportedEncoding,
)
from hub.eventstream import compact_json

_BROKEN = "the request breaks the rules of HTTP/1.1, or its line or one of its headers is too long"
_FAILED = "the hub failed to answer; its log says why"

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def type_of(error: type[HubError]) -> str:
    """Return the `type` of the problem of *error*."""
    return f"urn:broadcast-hub:{_WORD.sub('-', error.__name__).lower()}"


def problem(status: int, detail: str, *, type: str = "about:blank", **facts: object) -> web.Response:
    """Return the answer for an error: *detail* is a sentence, *facts* are additional members."""
    phrase = HTTPStatus(status).phrase
    body = {
        "type": type,
        "title": phrase,
        "status": status,
        "detail": detail,
        **facts,
    }
    return web.Response(
        body=compact_json(body).encode(),
        status=status,
        headers={"Content-Type": "application/problem+json", "Cache-Control": "no-store"},
    )


def from_error(error: HubError) -> web.Response:
    """Return the answer for *error*."""
    kind = Unauthorized if isinstance(error, Unauthorized) else error.__class__
    answer = problem(error.status, str(error), type=type_of(kind), **facts_of(error))
    if isinstance(error, Unauthorized):
        answer.headers["WWW-Authenticate"] = "Bearer"  # RFC 6750, 3
    elif isinstance(error, TryLater):
        answer.headers["Retry-After"] = str(error.retry_after)
        if isinstance(error, ShuttingDown):
            answer.force_close()  # another connection may lead to another process
    elif isinstance(error, UnsupportedEncoding):
        answer.headers["Accept-Encoding"] = "identity"  # RFC 9110, 15.5.16
        answer.force_close()
    elif isinstance(error, NotAWebSocket):
        answer.headers.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    elif isinstance(error, TooSlow):
        answer.force_close()
    return answer


def facts_of(error: HubError) -> dict[str, str]:
    """Return the additional members of the problem of *error*."""
    if isinstance(error, InvalidInput | TooLarge):
        return {"field": error.field}
    if isinstance(error, TooOften | TooManyStreams | TooManyGenerations):
        return {"limit": error.limit}
    if isinstance(error, LogUnavailable):
        return {"outcome": error.outcome} if error.outcome else {}
    facts = {"code": error.code} if isinstance(error, Unauthorized | Forbidden | AuthUnavailable) else {}
    if isinstance(error, Forbidden) and error.topic:
        facts["topic"] = error.topic
    return facts


def from_status(status: int) -> web.Response:
    """Return the answer with *status* to a request that aiohttp refused before it called a handler."""
    return problem(status, _BROKEN if status < 500 else _FAILED)


def from_http(error: web.HTTPException) -> web.Response:
    """Return the answer for an exception of aiohttp, with its headers `Allow`, `Location` and `WWW-Authenticate`."""
    details = {404: "there is nothing at this path", 413: "the body is too large"}
    answer = problem(error.status, details.get(error.status, error.reason))
    for header in ("Allow", "Location", "WWW-Authenticate"):
        if header in error.headers:
            answer.headers[header] = error.headers[header]
    return answer
