"""The response that begins a stream: that of aiohttp-sse, sent through aiohttp so that its signals apply."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from hub.connections.holders import Holder
from hub.encoding import End, Limit, retry_between
from hub.eventstream import block, compact_json
from hub.hub import Hub
from hub.web.dialects import CLOSE, DIALECTS
from hub.web.handover import Successor, hand_over
from hub.web.limits import refused

Tell = Callable[[End], bytes]
"""Returns the only block of a stream that may not begin."""

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class Away(enum.StrEnum):
    """The reason why there is no stream now, as the client is told."""

    CAPACITY = "capacity"
    DRAINING = "draining"
    LOG_UNAVAILABLE = "log_unavailable"


LINES = "application/x-ndjson"
_NOTHING = re.compile(r"q=0(\.0{0,3})?")  # RFC 9110, 12.4.2

_SECONDS = {Away.CAPACITY: (10, 60), Away.DRAINING: (1, 6), Away.LOG_UNAVAILABLE: (2, 10)}
_REFUSED_SECONDS = (10, 60)
_DOUBLED = (0.5, 1.5)


def is_chunked(request: web.BaseRequest) -> bool:
    """Return whether the client of *request* understands chunks; HTTP/1.0 gets bare bytes, ended by the connection."""
    return request.version >= (1, 1)


class HandedOver(web.StreamResponse):
    """A response with headers only: a protocol of the hub takes the socket over and writes the rest."""

    _handed_over = False
    _send_headers_immediately = False  # they are sent in one write with the first bytes of the stream

    async def hand_over(
        self, request: web.BaseRequest, successor: Successor, settle: Callable[[], object] = lambda: None
    ) -> bool:
        """Prepare the headers and give the socket to *successor*; return False if the client has disconnected.

        *settle* is called in the same step, just before *successor* has the socket: what it finds is still so then.
        """
        # Unsent bytes of an earlier answer on this connection must not count as unsent bytes of the stream.
        await request.writer.drain()
        writer = await self.prepare(request)
        settle()
        self._handed_over = hand_over(request, writer, successor)
        return self._handed_over

    async def write_eof(self, data: bytes = b"") -> None:
        """End the response, unless the socket was handed over: then the new protocol ends it."""
        if not self._handed_over:
            await super().write_eof(data)

    def enable_compression(self, *args: Any, **options: Any) -> None:
        """Do nothing: compression would hold back what is written to a stream."""


class EventStream(HandedOver, EventSourceResponse):
    """The response with the headers of an event stream, or of a stream of another *media_type*.

    Unlike its base class, it has no ping task, allows any method, and ignores a middleware that enables compression,
    which would break the stream.
    """

    def __init__(self, request: web.BaseRequest, media_type: str = MEDIA_TYPE) -> None:
        super().__init__(headers=None)
        self.headers.update(HEADERS)
        self.headers["Content-Type"] = media_type
        if not is_chunked(request):
            self.headers["Connection"] = "close"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Prepare the headers, after the application's `on_response_prepare` signals."""
        return await web.StreamResponse.prepare(self, request)


def sent_away(
    hub: Hub,
    request: web.BaseRequest,
    holder: Holder,
    tell: Tell = DIALECTS["events"].away,
    media_type: str = MEDIA_TYPE,
) -> web.Response | None:
    """Return the answer to *holder*, who can't have a stream now, as `come_back` does; None if it can have one."""
    end = no_room(hub, request, holder)
    return None if end is None else _refusal(tell(end), media_type)


def no_room(hub: Hub, request: web.BaseRequest, holder: Holder) -> End | None:
    """Return how the stream that *holder* asks for ends before it begins; None: there is room for it."""
    if hub.draining:
        hub.metrics.refused += 1
        return End(Away.DRAINING, retry_between(*_SECONDS[Away.DRAINING]))
    ending = refused(hub, request, holder)
    if ending is None:
        return None
    hub.metrics.refused += 1
    return End(*ending)


def accepts_lines(request: web.BaseRequest) -> bool:
    """Return whether the client of *request* wants a stream as NDJSON."""
    asked = ",".join(request.headers.getall("Accept", ())).lower()
    if LINES not in asked:
        return False
    accepted = {}
    for each in "".join(asked.split()).split(","):
        type, *parameters = each.split(";")
        accepted[type] = not any(_NOTHING.fullmatch(parameter) for parameter in parameters)
    return accepted.get(LINES, False) and not accepted.get(MEDIA_TYPE, False)


def is_event_source(request: web.BaseRequest) -> bool:
    """Return whether *request* may come from a native `EventSource`, which can't read a status or a problem.

    It names its media type, and can't send `Authorization`.
    """
    accept = request.headers.get("Accept", "")
    return request.method == "GET" and MEDIA_TYPE in accept and "Authorization" not in request.headers


def first_retry(request: web.BaseRequest, least: float, most: float) -> tuple[float, float]:
    """Return the bounds of the seconds after which the client of *request* is told to come back if it loses its stream.

    htmx and Datastar take this time as the first of several, and double it with each failure. htmx 4 also waits for so
    long when a tab is shown again, whose stream it ended when the tab was hidden. So theirs is shorter. All others get
    *least* and *most*: an `EventSource` comes back after the same time again and again.
    """
    doubles = request.headers.get("HX-Request") == "true" or request.headers.get("Datastar-Request") == "true"
    return _DOUBLED if doubles else (least, most)


def refusal(reason: str, **facts: str) -> web.Response:
    """Return an answer that refuses a stream in a way that a native `EventSource` can read.

    After a status, an `EventSource` would give up for ever, also if only a cookie has expired (WHATWG HTML, 9.2.3).

    Args:
        reason: the `reason` of `hub.close`: the same word as the `code` of the problem.
        facts: what else the problem would say.
    """
    said = block(compact_json({"reason": reason, **facts}), type=CLOSE, retry=retry_between(*_REFUSED_SECONDS))
    return web.Response(body=said, headers=HEADERS | {"Content-Type": MEDIA_TYPE, "Connection": "close"})


def come_back(why: Away, tell: Tell = DIALECTS["events"].away, limit: Limit | None = None) -> web.Response:
    """Return an answer that refuses a stream for now, and tells an `EventSource` when to reconnect.

    The status is 200, because after any other an `EventSource` never reconnects (WHATWG HTML, 9.2.3). The block with
    the time has an event too: other clients (htmx 4) ignore a block without one, and reconnect twice a second.

    Args:
        why: the reason that the client is told; it determines the time.
        tell: returns the block with the reason and the time to wait; clients of other dialects need another one.
        limit: the limit that leaves no room, if it is not that of all streams.
    """
    return _refusal(tell(End(why, retry_between(*_SECONDS[why]), limit)))


def _refusal(block: bytes, media_type: str = MEDIA_TYPE) -> web.Response:
    return web.Response(
        body=block,
        headers=HEADERS | {"Content-Type": media_type, "Connection": "close"},
    )
