"""Whatever a client holds open, at the hub's end: the asyncio protocol of its socket.

A subscription, a handler's stream and a viewer of a generation are kinds of client streams. Here is what all kinds
share: pause and resume, what the transport holds unsent, the peer timeout, the heartbeat, the end. A kind says what
the stream begins with (`_begin`), goes on when the transport has room again (`_go_on`), gives a sign of life
(`_heartbeat`) and has a last word (`_farewell`). The registry counts, sweeps and drains them.
"""

from __future__ import annotations

import abc
import asyncio
import enum
import logging
import math
import random
import secrets
import time
from collections import deque
from collections.abc import Collection
from typing import ClassVar, NamedTuple, Protocol, cast

from hub.access.visibility import EVERYTHING, Visibility
from hub.connections.holders import NOBODY, Holder
from hub.connections.peer import watch_peer
from hub.encoding import Limit, retry_between
from hub.metrics import Metrics

logger = logging.getLogger("hub.connection")

UNREAD_BYTES = 64 * 1024


class StreamKind(enum.StrEnum):
    """What a client holds open."""

    SUBSCRIPTION = "subscription"  # notifications of the topics it asked for
    HANDLER = "handler"  # what a handler with `@sse` makes for it
    GENERATION = "generation"  # an answer of an AI as it grows
    WEBSOCKET = "websocket"  # notifications of the topics that it asks for, and a way to send some
    SOCKETIO = "socketio"  # the same as a WebSocket, for clients of Socket.IO
    POLL = "poll"  # the next notifications of its topics, in one answer


SUBSCRIPTIONS = (StreamKind.SUBSCRIPTION, StreamKind.WEBSOCKET, StreamKind.SOCKETIO)
"""Those that stay open, and bring notifications; a poll ends with the first ones."""


class CloseReason(enum.StrEnum):
    """Why a stream ended. After any of these but `REPLACED` and `REVOKED` an `EventSource` may come back and resume."""

    CLIENT = "client"  # the client left, or its network did
    SLOW = "slow"  # its reader was too slow
    PEER_TIMEOUT = "peer_timeout"  # its peer took nothing for too long, or did not answer a ping
    UNAUTHORIZED = "unauthorized"  # its client did not say who it is, and may do nothing without
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a word: what its client has shown is no token
    FORBIDDEN = "forbidden"  # its client may not have it
    PROTOCOL = "protocol"  # what its client sent breaks the rules of the protocol
    FLOOD = "flood"  # the client sent much where it should only listen
    COMPLETE = "complete"  # everything was sent
    SHUTDOWN = "shutdown"  # this process ends
    CAPACITY = "capacity"  # there are as many streams as may be
    REPLACED = "replaced"  # its user has opened another one, and may hold no more
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a word: the rights of its holder end
    REVOKED = "revoked"  # the rights of its holder were taken back
    AUTH_UNAVAILABLE = "auth_unavailable"  # what its holder may read can't be told now
    LOG_UNAVAILABLE = "log_unavailable"  # its history can't be read now
    FAILED = "failed"  # a defect in the hub


class StreamFacts(NamedTuple):
    """What can be told of a stream, open or ended.

    Attributes:
        id: names this stream and nothing else.
        kind: what the client holds open.
        user: who holds it; None: nobody knows.
        address: the IP address of the client, behind trusted proxies too; empty: there is none (a Unix socket).
        topics: what a subscription asked for; empty for the other kinds.
        opened: when it began, in seconds since 1970.
        reason: why it ended; None while it is open.
        delivered: notifications, events or parts given to the transport.
        dropped: notifications that a slow-reader policy left out.
        buffered: bytes that wait for the client, in the hub and in the transport.
        lag: how many positions of the log a subscription is behind the newest, whatever their topics; 0: nothing waits
            for it.
    """

    id: str
    kind: StreamKind
    user: str | None
    address: str
    topics: tuple[str, ...]
    opened: float
    reason: CloseReason | None
    delivered: int
    dropped: int
    buffered: int
    lag: int = 0


class Ending(NamedTuple):
    """How the hub ends a stream: why, the milliseconds after which the client may come back, and the limit if one did.

    Without a limit, `CAPACITY` means that of all streams.
    """

    reason: CloseReason
    retry: int
    limit: Limit | None = None


class Registry(Protocol):
    """What a stream needs of the registry that it belongs to.

    Attributes:
        metrics: counts the streams that are aborted.
        peer_timeout: seconds a peer may take nothing while something waits for it.
        write_bytes: the high-water mark of the transports.
        peers_watched: the listening socket has seen to what `watch_peer` does.
    """

    metrics: Metrics
    peer_timeout: float
    write_bytes: int
    peers_watched: bool

    def add(self, stream: ClientStream) -> Ending | None:
        """Count *stream*, which has taken its socket over; return how it has to end if it may not begin."""
        ...

    def remove(self, stream: ClientStream) -> None:
        """Count *stream* no more: its socket is closed."""
        ...


# 64 random bits in hex each; the kernel is asked for many at a time. Hubs on several threads share them: every step on
# a deque is one that no other thread can divide.
_tokens: deque[str] = deque()


def _token() -> str:
    """Return a token that nobody else gets."""
    try:
        return _tokens.pop()
    except IndexError:
        many = secrets.token_hex(8 * 128)
        _tokens.extend([many[place : place + 16] for place in range(16, len(many), 16)])
        return many[:16]


def _end_of_rights(expires: float | None) -> float:
    """Return when a stream ends whose rights end at *expires* (seconds since 1970), in seconds of `time.monotonic`.

    That is 1.5 to 5 seconds before, so that clients whose tokens were made together do not come back together.
    """
    if expires is None:
        return math.inf
    return time.monotonic() + max(expires - random.uniform(1.5, 5.0) - time.time(), 0.0)


class ClientStream(asyncio.Protocol, abc.ABC):
    """One open client stream. It begins when it takes a transport over.

    Only the hub writes to its socket. What the client sends into it is ignored up to 64 KiB, and a FIN means that the
    client has left: nobody half-closes a stream to go on reading it.

    Attributes:
        id: names this stream and nothing else.
        holder: the client that holds it.
        closed_because: why it ended; None while it is open. Its socket may still have unsent bytes after that.
    """

    kind: ClassVar[StreamKind]
    finishes = False
    """Whether shutdown lets it go on for a while, to end by itself."""
    known: bool = True
    """Whether it is known who holds it, as far as that will be known."""

    __slots__ = (
        "_expires",
        "_going_on",
        "_opened",
        "_paused",
        "_registry",
        "_touched",
        "_transport",
        "_unread",
        "_unsent",
        "_unsent_head",
        "closed_because",
        "holder",
        "id",
    )

    def __init__(self, registry: Registry, holder: Holder = NOBODY) -> None:
        self.id = "c_" + _token()
        self.holder = holder
        self._expires = _end_of_rights(holder.expires)
        self.closed_because: CloseReason | None = None
        self._registry = registry
        self._opened = 0.0  # seconds of the registry's clock
        self._going_on = False  # `_go_on` is due in the next turn of the loop
        self._paused = False
        self._touched = 0.0  # when it was last written to on its own, or was last seen to take something
        self._unread = 0  # bytes that the client sent
        self._unsent = 0  # bytes that the transport held when it was last looked at, while paused or ended
        self._unsent_head = b""

    # ---- what a kind of stream adds ----

    @abc.abstractmethod
    def _begin(self) -> None:
        """Write what the stream begins with."""

    @abc.abstractmethod
    def _go_on(self) -> None:
        """Write what waits: the transport has room again."""

    @abc.abstractmethod
    def _heartbeat(self) -> bytes:
        """Return the bytes that show an idle client that the stream is alive."""

    @abc.abstractmethod
    def _farewell(self, ending: Ending) -> bytes:
        """Return all that is still to be written before the stream ends like this, its last bytes included."""

    def _left(self) -> None:
        """Release everything but the transport: the stream has ended."""

    def _last_sent(self) -> float:
        """Return when something was last written, in seconds of `time.monotonic`."""
        return self._touched

    @property
    def topics(self) -> Collection[str]:
        """The topics and patterns that it asked for."""
        return ()

    @property
    def visibility(self) -> Visibility:
        """Which notifications its reader may see."""
        return EVERYTHING

    @property
    def _delivered(self) -> int:
        return 0

    @property
    def _dropped(self) -> int:
        return 0

    @property
    def _waiting(self) -> int:
        """Bytes that wait in the hub."""
        return 0

    @property
    def dropped(self) -> int:
        """Notifications that a slow-reader policy left out."""
        return self._dropped

    @property
    def lag(self) -> int:
        """How many positions of the log it is behind the newest; 0: nothing waits for it."""
        return 0

    @property
    def buffered(self) -> int:
        """Bytes that wait for the client, in the hub and in the transport."""
        return self._waiting + self._transport.get_write_buffer_size()

    def identify(self, holder: Holder) -> None:
        """Note that *holder* holds it, which was not known before; only the registry calls this."""
        self.holder = holder
        self._expires = _end_of_rights(holder.expires)

    # ---- the socket's side: asyncio.Protocol ----

    def take_over(self, transport: asyncio.Transport, unsent: bytes) -> None:
        """Start the stream on *transport*.

        *unsent*, the headers of the response, goes out in one write with the first bytes of the stream.
        """
        self._unsent_head = unsent
        self.connection_made(transport)
        if self._unsent_head and self.closed_because is None:
            self._write(b"")  # the beginning takes time: the client gets its headers now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the stream, or end it at once if too many are open or the hub shuts down."""
        self._transport = cast(asyncio.Transport, transport)
        registry = self._registry
        self._opened = self._touched = time.monotonic()
        # Little waits in the transport, where no policy can drop it.
        self._transport.set_write_buffer_limits(registry.write_bytes)
        if not registry.peers_watched:
            watch_peer(self._transport.get_extra_info("socket"), registry.peer_timeout)
        refused = registry.add(self)
        if refused is not None:
            self.end(*refused)
        if self.closed_because is not None:  # a watcher of the registry may have ended it, too
            return
        try:
            self._begin()
        except Exception:
            logger.exception("%s could not begin", self.id)
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Ignore what the client sends, up to 64 KiB; abort the stream of one that sends more."""
        self._unread += len(data)
        if self._unread > UNREAD_BYTES:
            self.abort(CloseReason.FLOOD)

    def eof_received(self) -> bool:
        """Abort: the client has left."""
        self.abort(CloseReason.CLIENT)
        return False

    def pause_writing(self) -> None:
        """Pause: the transport's buffer is above its high-water mark."""
        self._paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._touched = time.monotonic()

    def resume_writing(self) -> None:
        """Resume in the next turn of the loop: asyncio closes a transport twice if a write fails in this call."""
        self._paused = False
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if not self._going_on:
            self._going_on = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._going_on = False
        if self.closed_because is None:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the registry: the socket is closed."""
        self._leave(CloseReason.CLIENT)
        self._registry.remove(self)

    @property
    def _can_write(self) -> bool:
        """Whether a write goes anywhere: after one that failed the transport is closing, and says nothing more."""
        return not (self._paused or self._transport.is_closing())

    def _write(self, framed: bytes | memoryview) -> None:
        self._touched = time.monotonic()
        if self._unsent_head:
            framed, self._unsent_head = self._unsent_head + bytes(framed), b""
        self._transport.write(framed)

    # ---- the sweep ----

    def tend(self, now: float, idle_since: float) -> None:
        """Send a heartbeat if nothing was written since *idle_since*; abort if the peer takes nothing for too long.

        And end the stream if the rights of its holder end now. The arguments are seconds of `time.monotonic`.
        """
        if self._expires <= now and self.closed_because is None:
            self.end(CloseReason.TOKEN_EXPIRED, retry_between(1, 6))
        if self._paused or self.closed_because is not None:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent, self._touched = unsent, now
            elif now - self._touched >= self._registry.peer_timeout:
                self.abort(CloseReason.PEER_TIMEOUT)
        elif self._last_sent() <= idle_since:
            self._write(self._heartbeat())

    # ---- the end ----

    def end(self, reason: CloseReason, retry: int, limit: Limit | None = None) -> None:
        """Write what waits, then why the stream ends and when to come back; the socket closes when that is sent.

        Args:
            reason: what the client is told.
            retry: milliseconds after which it comes back.
            limit: what leaves no room for it.
        """
        if self.closed_because is None:
            self._write(self._farewell(Ending(reason, retry, limit)))
            self._close(reason)

    def _close(self, reason: CloseReason) -> None:
        """Write nothing more; the socket closes when the client has everything, or takes nothing for too long."""
        self._leave(reason)
        self._unsent, self._touched = self._transport.get_write_buffer_size(), time.monotonic()
        self._transport.close()

    def abort(self, reason: CloseReason = CloseReason.FAILED) -> None:
        """Close the connection at once; what is unsent is lost, and the client resumes from its id."""
        if reason is CloseReason.SLOW:
            self._registry.metrics.slow_disconnects += 1
        elif reason is CloseReason.PEER_TIMEOUT:
            self._registry.metrics.peer_timeouts += 1
        self._leave(reason)
        self._touched = float("inf")  # no sweep looks at it again
        self._transport.abort()

    def _leave(self, reason: CloseReason) -> None:
        if self.closed_because is None:
            self.closed_because = reason
            self._left()

    # ---- what can be told of it ----

    @property
    def address(self) -> str:
        """The IP address of the client; empty where there is none (a Unix socket)."""
        if self.holder.address:
            return self.holder.address
        peer = self._transport.get_extra_info("peername")
        return peer[0] if isinstance(peer, tuple) else ""

    @property
    def begun(self) -> float:
        """When it began, in seconds of `time.monotonic`."""
        return self._opened

    def facts(self) -> StreamFacts:
        """Return what can be told of it now."""
        return StreamFacts(
            self.id,
            self.kind,
            self.holder.user,
            self.address,
            tuple(self.topics),
            time.time() - (time.monotonic() - self._opened),
            self.closed_because,
            self._delivered,
            self._dropped,
            self.buffered,
            self.lag,
        )
