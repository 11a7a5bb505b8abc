"""Request bodies: reads JSON within bounds, and refuses compressed bodies."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from aiohttp import web

from hub.errors import InvalidInput, TooLarge, UnsupportedEncoding, UnsupportedMediaType
from hub.names import hint

MAX_BODY_BYTES = 1024 * 1024

_JSON = re.compile(r"application/(json|[a-z0-9.!#$&^_\-]+\+json)")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def check_encoding(request: web.Request) -> None:
    """Raise if *request* has a compressed body, before any of it is read: 1 MiB of it can expand to a gigabyte.

    Raises:
        UnsupportedEncoding: it is compressed. The rest of the body is dropped, and the connection closes after the
            answer.
    """
    encoding = request.headers.get("Content-Encoding")
    if encoding is None or encoding.strip().lower() == "identity" or not request.body_exists:
        return
    # aiohttp decompresses even a body that nobody reads, for ten seconds after the answer. After `close()` it still
    # receives the bytes, so that a reset does not destroy the answer, but drops them.
    request.protocol.close()
    raise UnsupportedEncoding(encoding)


async def read_json(request: web.Request) -> Any:
    """Return the body of *request*, decoded as JSON (RFC 8259).

    Raises:
        UnsupportedMediaType: its Content-Type is not JSON.
        TooLarge: it has more than 1 MiB.
        InvalidInput: it is not valid JSON in UTF-8, is nested too deeply, or is shorter than its Content-Length.
    """
    content_type = request.headers.get("Content-Type", "")
    if not _is_json(content_type):
        raise UnsupportedMediaType(content_type)
    content = request.content
    # A small body has often been received completely when the handler starts: then there is no need to wait.
    received = content.is_eof() and not content.at_eof()
    body = content.read_nowait() if received else await read_body(request)
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge("body", MAX_BODY_BYTES)
    return decoded(body)


def decoded(body: bytes, field: str = "body") -> Any:
    """Return *body*, decoded as JSON (RFC 8259); errors name it *field*.

    Raises:
        InvalidInput: it is not valid JSON in UTF-8, or is nested too deeply.
    """
    try:
        return _decode(body.decode())
    except RecursionError:
        raise InvalidInput(field, "is nested too deeply") from None
    except ValueError as error:
        raise InvalidInput(field, f"is not JSON in UTF-8: {str(error)[:200]}") from None


def check_fields(body: Mapping[str, Any], known: Sequence[str]) -> None:
    """Check that *body*, a JSON object, has *known* fields only.

    Raises:
        InvalidInput: names the first field that is unknown, and those that there are.
    """
    if unknown := sorted(body.keys() - set(known)):
        there = " and ".join(filter(None, (", ".join(known[:-1]), *known[-1:]))) or "none"
        why = f"unknown field; {hint(unknown[0], known)}there {'is' if len(known) == 1 else 'are'} {there}"
        raise InvalidInput(ascii(unknown[0])[1:-1][:80], why)


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    return _JSON.fullmatch(content_type.partition(";")[0].strip().lower()) is not None


async def read_body(request: web.Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of up to *limit* bytes, even if the application sets another limit for its own handlers.

    Raises:
        TooLarge: it has more.
        InvalidInput: it is shorter than its Content-Length.
        TooSlow: it was not complete in time.
    """
    if not request.can_read_body:
        return await request.read()  # there is none, or a middleware has read it already
    length = request.content_length
    if length is not None and length > limit:
        raise TooLarge("body", limit)
    if length is not None:
        try:
            return await request.content.readexactly(length)
        except asyncio.IncompleteReadError:
            raise InvalidInput("body", "is shorter than it says") from None
    body = b""
    async for part in request.content.iter_any():
        body += part
        if len(body) > limit:
            raise TooLarge("body", limit)
    # Woken by the end of a chunk, aiohttp's reader takes the end of the time that follows at once for that of the body.
    if (error := request.content.exception()) is not None:
        raise error
    return body
