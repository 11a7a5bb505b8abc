"""Deadlines for requests: whoever sends one slower than allowed is cut, however many bytes a second it sends.

One sweep looks at all connections; none has a timer of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from hub.errors import TooSlow
from hub.metrics import Metrics

logger = logging.getLogger("hub.web")

LONGEST_SWEEP = 1.0
SWEEPS_PER_TIMEOUT = 5


class Peer(Protocol):
    """A connection, as far as deadlines are concerned."""

    @property
    def answers(self) -> bool:
        """Whether the answer to its present request is still to come, or on its way."""
        ...

    def cut(self) -> None:
        """Close the connection at once."""
        ...

    def close(self) -> None:
        """Close the connection after the answer to the present request; receive nothing more."""
        ...


class Body(Protocol):
    """The body of a request while it is received."""

    def is_eof(self) -> bool:
        """Return whether all of it has come."""
        ...

    def set_exception(self, error: BaseException) -> None:
        """Raise *error* in whoever reads it."""
        ...

    def feed_eof(self) -> None:
        """End it."""
        ...


class Deadlines:
    """When each connection must have sent the headers, or the body, of the request that it has begun.

    A new connection has begun one: it is not kept without a request.

    Args:
        metrics: counts those that are cut.
        header: seconds in which the headers of a request must come.
        body: seconds in which its body must come after that.
        now: seconds of `time.monotonic`, or a clock that is moved by hand.
    """

    def __init__(
        self, metrics: Metrics, *, header: float, body: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._header, self._body = header, body
        self._now = now
        # Both in the order of their deadlines, for each has the same time.
        self._headers: dict[Peer, float] = {}
        self._bodies: dict[Peer, tuple[float, Body]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._headers) + len(self._bodies)

    # ---- what happens on a connection ----

    def begun(self, peer: Peer) -> None:
        """Expect the headers of a request from *peer*, if nothing is expected of it already."""
        if peer not in self._headers and peer not in self._bodies:
            self._headers[peer] = self._now() + self._header

    def headers_came(self, peer: Peer, body: Body) -> None:
        """Expect *body*, if not all of it has come with the headers."""
        self.forget(peer)
        if not body.is_eof():
            self._bodies[peer] = self._now() + self._body, body

    def forget(self, peer: Peer) -> None:
        """Expect nothing more of *peer*: it has gone, or has become a stream."""
        self._headers.pop(peer, None)
        self._bodies.pop(peer, None)

    # ---- the sweep ----

    def start(self) -> None:
        """Sweep from now on, on the running loop."""
        pause = min(LONGEST_SWEEP, self._header / SWEEPS_PER_TIMEOUT, self._body / SWEEPS_PER_TIMEOUT)
        self._timer = asyncio.get_running_loop().call_later(pause, self._again)

    def _again(self) -> None:
        self.start()  # first: a defect in a sweep is logged, and the next one comes
        self.sweep()

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """Cut those whose headers are late; tell whoever reads a body that is late."""
        now = self._now()
        for peer, (deadline, body) in list(self._bodies.items()):
            if body.is_eof():
                del self._bodies[peer]
            elif deadline <= now:
                del self._bodies[peer]
                self._late("the body")
                self._end(peer, body)
        late = [peer for peer, deadline in self._headers.items() if deadline <= now]
        for peer in late:
            del self._headers[peer]
            self._late("the headers")
            peer.cut()

    def _end(self, peer: Peer, body: Body) -> None:
        if not peer.answers:
            peer.cut()  # the rest of a body that nobody wanted
            return
        # In this order: nothing more may reach a body that has ended.
        peer.close()
        body.set_exception(TooSlow(self._body))
        body.feed_eof()

    def _late(self, what: str) -> None:
        self._metrics.slow_requests += 1
        logger.debug("a connection was closed: %s of its request came too slowly", what)
