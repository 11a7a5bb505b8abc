"""The answer a stream begins with: aiohttp-sse's response, sent through aiohttp so that signals apply."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from hub.encoding import retry_between
from hub.hub import Hub
from hub.web.dialects import DIALECTS
from hub.web.handover import Successor, hand_over

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class Away(enum.StrEnum):
    """Why there is no stream now: the `reason` that the client is told."""

    CAPACITY = "capacity"
    DRAINING = "draining"
    LOG_UNAVAILABLE = "log_unavailable"


_SECONDS = {Away.CAPACITY: (10, 60), Away.DRAINING: (1, 6), Away.LOG_UNAVAILABLE: (2, 10)}


def is_chunked(request: web.BaseRequest) -> bool:
    """Tell whether the client of *request* understands chunks: HTTP/1.0 gets bare bytes and a closed connection."""
    return request.version >= (1, 1)


class EventStream(EventSourceResponse):
    """The headers of an event stream; what follows is written by the protocol that takes the socket over.

    Differs from its base: no ping task of its own, any method, and a middleware that compresses everything is
    ignored instead of breaking the stream.
    """

    _handed_over = False
    _send_headers_immediately = False  # but in one write with the first bytes of the stream

    def __init__(self, request: web.BaseRequest) -> None:
        super().__init__(headers=None)
        self.headers.update(HEADERS)
        if not is_chunked(request):
            self.headers["Connection"] = "close"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers, after the application's `on_response_prepare` signals."""
        return await web.StreamResponse.prepare(self, request)

    async def hand_over(self, request: web.BaseRequest, successor: Successor) -> bool:
        """Prepare the headers and give the socket to *successor*; return False if the client has left already."""
        # What an earlier answer on this connection left unsent must not count against the stream.
        await request.writer.drain()
        writer = await self.prepare(request)
        self._handed_over = hand_over(request, writer, successor)
        return self._handed_over

    async def write_eof(self, data: bytes = b"") -> None:
        """End the answer, unless its end is the new protocol's affair."""
        if not self._handed_over:
            await super().write_eof(data)

    def enable_compression(self, *args: Any, **options: Any) -> None:
        """Ignore it: a compressed stream would arrive in lumps."""


def sent_away(hub: Hub, tell: Callable[[str, int], bytes] = DIALECTS["events"].away) -> web.Response | None:
    """Return the answer to a client that can't have a stream now, as `come_back` does; None if it can have one."""
    if not (hub.draining or hub.connections.full):
        return None
    hub.metrics.refused += 1
    return come_back(Away.DRAINING if hub.draining else Away.CAPACITY, tell)


def come_back(why: Away, tell: Callable[[str, int], bytes] = DIALECTS["events"].away) -> web.Response:
    """Return an answer that sends an `EventSource` away, and tells it when to come back.

    Any status but 200 would make it give up for ever (WHATWG HTML, 9.2.3). The time travels with an event: clients
    that are no `EventSource` (htmx 4) drop a block that has none, and come back twice a second.

    Args:
        why: what the client is told; how long it stays away follows from it.
        tell: makes the block from the reason and the milliseconds to wait, for clients that read another dialect.
    """
    return web.Response(
        body=tell(why, retry_between(*_SECONDS[why])),
        headers=HEADERS | {"Content-Type": MEDIA_TYPE, "Connection": "close"},
    )
