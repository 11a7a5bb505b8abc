"""The counters and histograms of the hub, each with the description that `/metrics` shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial

from hub.histogram import COUNTS, LONG_SECONDS, Histogram


def _counter(description: str) -> int:
    """Return the dataclass field of a counter that begins at 0."""
    counter: int = field(default=0, metadata={"description": description})
    return counter


def _of(description: str) -> Mapping[str, str]:
    """Return the metadata of a histogram."""
    return {"histogram": description}


@dataclass(slots=True)
class Metrics:
    """What is counted since the start; it only grows.

    Attributes:
        http_request_seconds: see `HTTP_REQUESTS`; by method, route and status, as in `GET /metrics 200`.
        streams_ended: see `STREAMS_ENDED`; by reason.
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
    publish_confirmed_seconds: Histogram = field(
        default_factory=Histogram, metadata=_of("Seconds from a publish until the log has confirmed it.")
    )
    publish_written_seconds: Histogram = field(
        default_factory=Histogram,
        metadata=_of("Seconds from a publish until it was written to all that keep up; the oldest one of each flush."),
    )
    connect_seconds: Histogram = field(
        default_factory=Histogram,
        metadata=_of("Seconds from the request for a subscription until hub.open was written."),
    )
    replay_notifications: Histogram = field(
        default_factory=partial(Histogram, COUNTS),
        metadata=_of("Notifications from the log that a subscription which asked for some got before it went live."),
    )
    stream_seconds: Histogram = field(
        default_factory=partial(Histogram, LONG_SECONDS),
        metadata=_of("Seconds that a client stream was open, counted at its end."),
    )
    loop_lag_seconds: Histogram = field(
        default_factory=Histogram,
        metadata=_of("Seconds by which the event loop ran a timer too late, measured once a second."),
    )
    http_request_seconds: dict[str, Histogram] = field(default_factory=dict)
    streams_ended: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def requested(self, what: str, seconds: float) -> None:
        """Count a request that was answered within so many *seconds*; *what* names method, route and status."""
        counted = self.http_request_seconds.get(what)
        if counted is None:
            counted = self.http_request_seconds[what] = Histogram()
        counted.observe(seconds)

    def ended(self, reason: str, seconds: float) -> None:
        """Count a stream that ended for *reason* after so many *seconds*."""
        self.streams_ended[reason] = self.streams_ended.get(reason, 0) + 1
        self.stream_seconds.observe(seconds)

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


COUNTERS: Mapping[str, str] = {
    each.name: each.metadata["description"] for each in fields(Metrics) if "description" in each.metadata
}
"""The names of the counters, with their descriptions."""
HISTOGRAMS: Mapping[str, str] = {
    each.name: each.metadata["histogram"] for each in fields(Metrics) if "histogram" in each.metadata
}
"""The names of the histograms, with their descriptions."""
OF_WORKERS = ("publish_confirmed_seconds", "publish_written_seconds", "loop_lag_seconds")
"""Those of them that are told of each process as well, not only of all."""
HTTP_REQUESTS = "Seconds until a request was answered that opened no stream, by method, route and status."
STREAMS_ENDED = "Client streams that ended, by reason."
