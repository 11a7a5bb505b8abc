"""Reading a JSON body, within bounds."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NoReturn

from aiohttp import web

from hub.errors import InvalidInput, TooLarge, UnsupportedMediaType

MAX_BODY_BYTES = 1024 * 1024

_JSON = re.compile(r"application/(json|[a-z0-9.!#$&^_\-]+\+json)")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


async def read_json(request: web.Request) -> Any:
    """Return the body of *request* read as JSON (RFC 8259).

    Raises:
        UnsupportedMediaType: it is not said to be JSON.
        TooLarge: it has more than 1 MiB.
        InvalidInput: it is not JSON.
    """
    media_type = request.content_type
    if media_type != "application/json" and not _JSON.fullmatch(media_type):
        raise UnsupportedMediaType(request.headers.get("Content-Type", ""))
    body = await _read(request)
    try:
        return _decode(body.decode())
    except RecursionError:
        raise InvalidInput("body", "is nested too deeply") from None
    except ValueError as error:
        raise InvalidInput("body", f"is not JSON in UTF-8: {str(error)[:200]}") from None


async def _read(request: web.Request) -> bytes:
    """Return the body, whatever size the application allows in its own handlers."""
    if not request.can_read_body:
        return await request.read()  # there is none, or a middleware has read it already
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise TooLarge("body", MAX_BODY_BYTES)
    if length is not None and "Content-Encoding" not in request.headers:
        try:
            return await request.content.readexactly(length)
        except asyncio.IncompleteReadError:
            raise InvalidInput("body", "is shorter than it says") from None
    body = b""
    async for part in request.content.iter_any():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge("body", MAX_BODY_BYTES)
    return body
