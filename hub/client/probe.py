"""A look at a hub from outside: single requests, one stream, and what TLS says; each takes a bounded time."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2 as httpx

from hub.client.errors import Unreachable
from hub.client.transport import checked_token, checked_url, lower, options, unreachable

MAX_BYTES = 1024 * 1024
NOTHING = 0
"""The status of a stream of which not even the head came."""
PLAIN_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as far as its first MiB.

    Attributes:
        status: its status.
        headers: with names in lower case.
        body: what it holds.
        seconds: how long it took.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    seconds: float = 0.0

    def json(self) -> Any:
        """Return what the body says; None if it is not JSON, or nested without end."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(slots=True)
class Piece:
    """Something that came on a stream.

    Attributes:
        seconds: how long after the request.
        data: what came.
    """

    seconds: float
    data: bytes


@dataclass(slots=True)
class Streamed:
    """What came of a stream, for as long as somebody looked.

    Attributes:
        reply: its head; the body is there if it was refused.
        pieces: what came after that.
        ended: whether it ended by itself.
    """

    reply: Reply
    pieces: list[Piece] = field(default_factory=list)
    ended: bool = False

    @property
    def text(self) -> bytes:
        """All of it."""
        return b"".join(piece.data for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Tls:
    """What a handshake says.

    Attributes:
        version: such as `TLSv1.3`.
        protocol: what was agreed on, `h2` where HTTP/2 is spoken; empty: nothing.
        expires: when the certificate does, in seconds since 1970; None: not known.
    """

    version: str
    protocol: str
    expires: float | None


class Probe:
    """Sends requests to the hub at *url*; use it as a context manager.

    Args:
        url: where the hub is mounted.
        token: sent with each request that does not leave it out; None: there is none.
        seconds: in which each answer has to be there.
    """

    def __init__(self, url: str, token: str | None = None, seconds: float = 10.0) -> None:
        self.url, self._token, self._seconds = checked_url(url), checked_token(token), seconds
        self._tls = ssl.create_default_context()
        self._http = httpx.AsyncClient(**options(httpx.Timeout(seconds), self._tls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        *,
        known: bool = True,
        seconds: float | None = None,
    ) -> Reply:
        """Send a request and return the answer.

        Args:
            path: below that of the hub.
            method: that of HTTP.
            body: JSON.
            known: send the token.
            seconds: in which the answer has to be there, instead of the usual ones.

        Raises:
            Unreachable: there is none, or not in time.
        """
        return (await self._asked(path, method, body, known=known, seconds=seconds or self._seconds)).reply

    async def stream(self, path: str, seconds: float, until: bytes) -> Streamed:
        """Read a stream for *seconds*, or until it ends or breaks, or *until* has come in it.

        Raises:
            Unreachable: as for `ask`; that nothing more comes is none.
        """
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, identity"}
        return await self._asked(path, "GET", None, known=True, seconds=seconds, until=until, headers=headers)

    async def _asked(
        self,
        path: str,
        method: str,
        body: bytes | None,
        *,
        known: bool,
        seconds: float,
        until: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Streamed:
        sent = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if known and self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        began, streamed = time.monotonic(), None
        try:
            async with (
                asyncio.timeout(seconds),
                self._http.stream(
                    method, self.url + path, headers=sent, content=body, timeout=httpx.Timeout(seconds)
                ) as answer,
            ):
                streamed = Streamed(Reply(answer.status_code, lower(answer.headers), b"", time.monotonic() - began))
                size = 0
                async for data in answer.aiter_raw():
                    streamed.pieces.append(Piece(time.monotonic() - began, data))
                    size += len(data)
                    if size >= MAX_BYTES or (until is not None and until in streamed.text):
                        break
                else:
                    streamed.ended = True
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            late = isinstance(error, TimeoutError | httpx.TimeoutException)
            if until is None or (streamed is None and not late):
                raise unreachable(self.url, error) from None
        if streamed is None:
            return Streamed(Reply(NOTHING, {}, b"", time.monotonic() - began))
        reply = streamed.reply
        streamed.reply = Reply(reply.status, reply.headers, streamed.text, time.monotonic() - began)
        return streamed

    async def tls(self) -> Tls | None:
        """Return what a handshake says to a client that speaks HTTP/2; None where there is no TLS.

        Raises:
            Unreachable: there was none.
        """
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            return None
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        writer = None
        try:
            async with asyncio.timeout(self._seconds):
                port = parts.port or PLAIN_PORTS[parts.scheme]
                _, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
            found: ssl.SSLObject = writer.get_extra_info("ssl_object")
            until = (found.getpeercert() or {}).get("notAfter")
            expires = float(ssl.cert_time_to_seconds(until)) if isinstance(until, str) else None
            return Tls(found.version() or "", found.selected_alpn_protocol() or "", expires)
        except (OSError, TimeoutError) as error:
            raise unreachable(self.url, error) from None
        finally:
            if writer is not None:
                writer.transport.abort()


__all__ = ["Piece", "Probe", "Reply", "Streamed", "Tls", "Unreachable"]
