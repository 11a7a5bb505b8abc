"""`/notifications/poll`: the next notifications, in one answer that waits until there are some.

A poll is a subscription that ends with the first thing it has to say. What it would write goes into a `Basket`, a
transport that gathers lines until there is an answer. If that is there at once, aiohttp sends it, and the connection
goes on. If not, the poll takes the socket over as a stream does, and costs what an idle stream costs. So does one with
a long answer: it counts as a stream until its client has taken that, or takes nothing for too long.
"""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from typing import Any, ClassVar

from aiohttp import web

from hub.access.identity import Identity
from hub.connections.client_stream import CloseReason, StreamKind
from hub.connections.connection import Connection, Subscription, Wiring
from hub.connections.holders import Holder
from hub.encoding import retry_between
from hub.errors import Forbidden, InvalidInput, Unauthorized
from hub.eventstream import LAST_CHUNK, chunk
from hub.hub import Hub
from hub.topics import check_wanted
from hub.web.access import Access, Reading
from hub.web.denials import SUBSCRIBE, note_denial
from hub.web.endpoint import cors
from hub.web.limits import check_room, holder_of
from hub.web.query import Parameters, page_limit
from hub.web.stream import HandedOver, is_chunked
from hub.web.subscribe import flag
from hub.wires import Lines

WAIT_SECONDS, LONGEST_WAIT = 25.0, 60.0
AT_ONCE_SECONDS = 10.0
"""Seconds within which the log has to say whether there is something at once."""

LONG_ANSWER = 64 * 1024
"""Bytes beyond which an answer is not left to aiohttp, which would hold it for a client that does not read."""

LINES = Lines(chunked=False, nulls=True)
_OP = b'{"op":"'
_NOTIFICATION = b'{"op":"notification",'
_WITH_ID = b'{"op":"notification","id":"'
_GAP = b'{"op":"hub.gap",'
_ID = b',"id":"'  # no text in front of it can have quotation marks without escapes
_PARAMETERS = Parameters(
    "topic", "lastEventId", "wait", "limit", "rooms",
    elsewhere={
        "presence": "is for /notifications/subscribe",
        "ticket": "is for /notifications/subscribe",
        "envelope": "is for /notifications/subscribe: each notification of a poll has its topics",
        "cursor": "is no parameter here; send the cursor of an answer as lastEventId",  # else all are empty
        "after": "is no parameter here; did you mean lastEventId?",
    },
)  # fmt: skip
_NOTHING: dict[str, Any] = {}
_HEADERS = {"Cache-Control": "no-store", "Content-Type": "application/json"}


class Basket(asyncio.Transport):
    """The transport of a poll: gathers lines, and knows the real one.

    Attributes:
        real: the transport of the client.
    """

    __slots__ = ("_poll", "closing", "lines", "real")

    def __init__(self, poll: Poll, real: asyncio.Transport | None) -> None:
        super().__init__(_NOTHING)
        self._poll, self.real = poll, real
        self.lines = b""
        self.closing = False

    def write(self, data: Any) -> None:
        """Gather *data*, whole lines or the rest of one."""
        if data and not self.closing:
            self.lines += bytes(data)
            self._poll.gathered()

    def close(self) -> None:
        """Close: what was gathered is the answer."""
        if not self.closing:
            self.closing = True
            self._poll.finish()

    def abort(self) -> None:
        """Close the connection at once, whatever of the answer is unsent."""
        self.closing = True
        self._poll.cut()

    def is_closing(self) -> bool:
        """Return whether nothing more is gathered."""
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: there is one write."""

    def get_write_buffer_size(self) -> int:
        """Return the unsent bytes of the real transport, once there is an answer."""
        return self.real.get_write_buffer_size() if self.real is not None and self.closing else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the real transport says."""
        return default if self.real is None else self.real.get_extra_info(name, default)


class Poll(Connection):
    """One poll: from its request to its answer.

    Args:
        limit: notifications that it may have at most.
        wait: seconds after which it is answered with none.
        chunked: its answer has chunk framing, if it is handed over.

    Attributes:
        body: the answer, until it is given to the transport; None: it waits.
    """

    kind: ClassVar[StreamKind] = StreamKind.POLL

    __slots__ = (
        "_basket",
        "_chunked",
        "_complete_soon",
        "_counted",
        "_decided",
        "_head",
        "_held",
        "_limit",
        "_until",
        "body",
    )

    def __init__(
        self, subscription: Subscription, wiring: Wiring, *, holder: Holder, limit: int, wait: float, chunked: bool
    ) -> None:
        super().__init__(subscription, wiring, holder=holder)
        self.body: bytes | None = None
        self._limit, self._chunked = limit, chunked
        self._until = time.monotonic() + wait
        self._basket: Basket | None = None
        self._decided: asyncio.Future[None] | None = None  # there is an answer, or it is live without one
        self._held = False  # it has the socket
        self._head = b""
        self._counted = self._complete_soon = False

    @property
    def is_short(self) -> bool:
        """Whether there is an answer, and it is short."""
        return self.body is not None and len(self.body) <= LONG_ANSWER

    # ---- before it has the socket ----

    def start(self, transport: asyncio.Transport | None) -> None:
        """Begin to gather; *transport* is that of the request."""
        self._basket = Basket(self, transport)
        self._counted = True
        self.connection_made(self._basket)

    async def decide(self, transport: asyncio.Transport | None) -> None:
        """Return when there is an answer, or none yet; *transport* is that of the request."""
        self._decided = asyncio.get_running_loop().create_future()
        self.start(transport)
        try:
            async with asyncio.timeout(AT_ONCE_SECONDS):
                await self._decided
        except TimeoutError:
            self.end(CloseReason.LOG_UNAVAILABLE, retry_between(2, 10))
        except BaseException:
            self.abort()
            raise
        finally:
            self._decided = None

    def _straighten(self) -> None:
        super()._straighten()
        if not self._complete_soon:
            self._decide()

    def _decide(self) -> None:
        if self._decided is not None and not self._decided.done():
            self._decided.set_result(None)

    # ---- what it is given ----

    def gathered(self) -> None:
        """Look at what was gathered: with a notification or a gap, the answer is there."""
        assert self._basket is not None
        lines = self._basket.lines
        if self._complete_soon or self.closed_because is not None:
            return
        if _NOTIFICATION in lines or _GAP in lines:
            # After this step, for the page that is being written may have more.
            self._complete_soon = True
            asyncio.get_running_loop().call_soon(self._complete)

    def _complete(self) -> None:
        if self.closed_because is None:
            self._close(CloseReason.COMPLETE)

    def finish(self) -> None:
        """Make the answer of what was gathered, and send it if the socket is here."""
        assert self._basket is not None
        self.body, self._basket.lines = answer(self._basket.lines, self._limit), b""
        self._decide()
        if self._held:
            self._send()
        elif self.is_short:
            asyncio.get_running_loop().call_soon(self._uncount)

    def cut(self) -> None:
        """Close the connection, if the socket is here; else there is no answer."""
        assert self._basket is not None
        self._decide()
        if not self._held:
            self.body = None
            asyncio.get_running_loop().call_soon(self._uncount)
        elif self._basket.real is not None:
            self._basket.real.abort()

    def _send(self) -> None:
        assert self.body is not None
        assert self._basket is not None
        assert self._basket.real is not None
        body, self.body = self.body, None  # the transport has it
        self._basket.real.write(self._head + (chunk(body) + LAST_CHUNK if self._chunked else body))
        self._head = b""
        self._unsent, self._touched = self._basket.real.get_write_buffer_size(), time.monotonic()
        self._basket.real.close()

    def _uncount(self) -> None:
        if not self._held:
            self.connection_lost(None)

    # ---- while it waits ----

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Wait on *transport*; *unsent*, the headers, goes out with the answer."""
        assert self._basket is not None
        self._basket.real, self._head, self._held = transport, _shared(unsent), True
        if self.body is not None:
            self._send()
        elif self.closed_because is not None:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the registry."""
        if self._counted:
            self._counted = False
            super().connection_lost(exc)

    def _heartbeat(self) -> bytes:
        super()._heartbeat()  # moves the cursor
        return b""

    def tend(self, now: float, idle_since: float) -> None:
        """As every stream; and answer with nothing once the time is over."""
        if now >= self._until and self._straight and self.closed_because is None:
            self.answer_with_nothing()
        else:
            super().tend(now, idle_since)

    def answer_with_nothing(self) -> None:
        """Answer that nothing has come, and up to where."""
        if self.closed_because is None:
            newest = self._wiring.fanout.newest if self._straight else self._position(self._cursor)
            self._transport.write(self._encoding.heartbeat(newest))
            self._close(CloseReason.COMPLETE)


@lru_cache(maxsize=64)
def _shared(head: bytes) -> bytes:
    """Return *head*: the same object for all polls that begin in the same second, which differ in nothing else."""
    return head


def answer(lines: bytes, limit: int) -> bytes:
    """Return the answer that says *lines* of NDJSON, with at most *limit* notifications.

    It ends before a gap behind the first notification: the next poll begins with that.
    """
    found: list[bytes] = []
    cursor, more = b"null", b""
    for line in lines.split(b"\n")[:-1]:
        op = line[len(_OP) : line.index(b'"', len(_OP))]
        if op == b"notification":
            if len(found) == limit:
                break
            found.append(b"{" + line[len(_NOTIFICATION) :])
            if line.startswith(_WITH_ID):
                cursor = _string_after(line, len(_WITH_ID) - 1)
        elif op == b"hub.gap":
            if found:
                break
            more += b',"gap":' + _facts(line, op)
        elif op == b"hub.close":
            more += b',"close":' + _facts(line, op)
        elif op in {b"hub.open", b"hub.heartbeat"}:
            cursor = _string_after(line, line.index(_ID) + len(_ID) - 1)
    return b'{"notifications":[%b],"cursor":%b%b}' % (b",".join(found), cursor, more)


def _string_after(line: bytes, place: int) -> bytes:
    """Return the string, which has no escapes, that begins at *place* in *line*."""
    return line[place : line.index(b'"', place + 1) + 1]


def _facts(line: bytes, op: bytes) -> bytes:
    """Return the object in *line* without its *op*."""
    return b"{" + line[len(_OP) + len(op) + 2 :]


async def poll(hub: Hub, request: web.Request) -> web.StreamResponse:
    """Return what follows the position of the client, at once or as soon as there is something."""
    query = _PARAMETERS.read(request)
    rooms = flag(query, "rooms")
    topics = query.getall("topic", [])
    wanted = check_wanted(topics) if topics or not rooms else ()
    limit, wait = page_limit(query), _wait(query.get("wait"))
    access = Access.of(request)
    try:
        reading = await access.read(request, wanted, rooms=rooms, opens=True)
    except (Unauthorized, Forbidden) as error:
        note_denial(hub, request, SUBSCRIBE, error, wanted)
        raise
    holder = holder_of(hub, request, reading.identity)
    check_room(hub, request, holder)
    cursor = request.headers.get("Last-Event-ID") or query.get("lastEventId")
    subscription = Subscription(reading.topics, cursor, LINES, reading.visibility, rooms=rooms)
    held = Poll(subscription, hub.wiring, holder=holder, limit=limit, wait=wait, chunked=is_chunked(request))
    held.name(wanted)
    access.check(reading.identity)
    access.settle(held, reading)
    await held.decide(request.transport)
    if held.body is None and (wait <= 0 or not cursor):
        hub.fanout.flush()
        held.answer_with_nothing()
    if held.is_short:
        return web.Response(body=held.body, headers=_HEADERS)
    return await _hold(hub, request, held, reading)


async def _hold(hub: Hub, request: web.Request, held: Poll, reading: Reading) -> web.StreamResponse:
    """Have *held* wait on the socket of *request*."""
    response = HandedOver(headers={**_HEADERS, "Connection": "close"})
    response.headers.update(cors(request, hub.settings.cors_origins))
    begun = False
    try:
        begun = await response.hand_over(request, held)
    finally:
        if not begun:
            held.abort(CloseReason.CLIENT)
    if begun and reading.held is not None and held.closed_because is None:
        hub.rooms.catch_up(held, reading.held, reading.listed)
    _check_again(Access.of(request), held, reading.identity)
    return response


def _check_again(access: Access, held: Poll, identity: Identity | None) -> None:
    """End *held* if its rights were revoked before it was counted."""
    try:
        access.check(identity)
    except Unauthorized:
        held.end(CloseReason.REVOKED, retry_between(10, 60))


def _wait(text: str | None) -> float:
    """Return the seconds that a poll waits.

    Raises:
        InvalidInput: *text* is no whole number from 0 to 60.
    """
    if text is None:
        return WAIT_SECONDS
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= LONGEST_WAIT):
        raise InvalidInput("wait", f"is not a whole number of seconds from 0 to {LONGEST_WAIT:g}")
    return float(text)
