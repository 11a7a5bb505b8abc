"""Reading a JSON body, within bounds."""

from __future__ import annotations

import asyncio
import json
import re
from functools import lru_cache
from typing import Any, NoReturn

from aiohttp import web

from hub.errors import InvalidInput, TooLarge, UnsupportedEncoding, UnsupportedMediaType

MAX_BODY_BYTES = 1024 * 1024

_JSON = re.compile(r"application/(json|[a-z0-9.!#$&^_\-]+\+json)")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def check_encoding(request: web.Request) -> None:
    """Refuse a compressed body before any of it is read: 1 MiB of it can be a gigabyte, and seconds of CPU.

    Raises:
        UnsupportedEncoding: it is compressed. The connection takes no more of it, and closes after the answer.
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is None or encoding.strip().lower() == "identity" or not request.body_exists:
        return
    # aiohttp inflates what comes in, also what nobody reads, for ten seconds after the answer. Once it is to close, it
    # drops that; it still takes the bytes, so that the answer is not lost to a reset.
    request.protocol.close()
    raise UnsupportedEncoding(encoding)


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
    if length is not None:
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
