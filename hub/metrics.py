"""The counters of the hub, each with the description that `/metrics` shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


def _counter(description: str) -> int:
    """Return the dataclass field of a counter that begins at 0."""
    counter: int = field(default=0, metadata={"description": description})
    return counter


@dataclass(slots=True)
class Metrics:
    """Counters since the start; they only grow.

    Attributes:
        started: the time of the start, in seconds of a monotonic clock.
    """

    published: int = _counter("Notifications that the log has confirmed.")
    repeated: int = _counter("Publishes answered from an idempotency key, without sending.")
    delivered: int = _counter("Live frames given to a transport, one per notification and receiver.")
    replayed: int = _counter("Frames from the log given to a transport.")
    dropped: int = _counter("Frames dropped by a slow-reader policy; each one was announced to its reader.")
    slow_disconnects: int = _counter("Streams closed because more bytes waited for their reader than may.")
    peer_timeouts: int = _counter("Streams closed because their peer took nothing for HUB_PEER_TIMEOUT.")
    connects: int = _counter("Client streams opened, of every kind.")
    disconnects: int = _counter("Client streams ended, by either side.")
    refused: int = _counter("Clients that wanted a stream and were told to come back later.")
    unauthorized: int = _counter("Requests refused with 401, also if an EventSource was told so in a stream.")
    forbidden: int = _counter("Requests refused with 403 because their sender lacks a right, likewise.")
    auth_unavailable: int = _counter("Requests refused because a hook failed or there were no keys, likewise.")
    limited: int = _counter(
        "Publishes, tickets, and requests that were not looked at, because there were too many a second."
    )
    slow_requests: int = _counter("Requests cut because their headers or their body came too slowly.")
    unobserved_failures: int = _counter("Failed publishes whose receipt nobody awaited.")
    observer_failures: int = _counter("Exceptions of in-process observers.")
    left_behind: int = _counter("Handlers and providers whose cleanup did not end, so that shutdown gave them up.")
    generations_begun: int = _counter("Answers of an AI that began.")
    generations_done: int = _counter("Answers that are complete.")
    generations_failed: int = _counter("Answers that failed.")
    generations_cancelled: int = _counter("Answers that were cancelled.")
    started: float = field(default_factory=time.monotonic)

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


COUNTERS: Mapping[str, str] = {
    each.name: each.metadata["description"] for each in fields(Metrics) if "description" in each.metadata
}
"""The names of the counters, with their descriptions."""
