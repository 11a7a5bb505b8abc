"""Reading a JSON body, within bounds."""

from __future__ import annotations

import asyncio
import json
import re
from functools import lru_cache
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
    content_type = request.headers.get("Content-Type", "")
    if not _is_json(content_type):
        raise UnsupportedMediaType(content_type)
    content = request.content
    # A small body is there before its handler is: then there is nothing to wait for.
    is_there = content.is_eof() and not content.at_eof()
    body = content.read_nowait() if is_there else await _read(request)
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge("body", MAX_BODY_BYTES)
    try:
        return _decode(body.decode())
    except RecursionError:
        raise InvalidInput("body", "is nested too deeply") from None
    except ValueError as error:
        raise InvalidInput("body", f"is not JSON in UTF-8: {str(error)[:200]}") from None


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    return _JSON.fullmatch(content_type.partition(";")[0].strip().lower()) is not None


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
