"""What the hub counts about itself."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Metrics:
    """Counters since the start; they only grow.

    Attributes:
        published: notifications the log confirmed.
        repeated: publishes answered from an idempotency key.
        delivered: frames of live notifications given to a transport.
        replayed: frames given to a transport from the log.
        dropped: frames a slow-reader policy left out, each one announced to its reader.
        slow_disconnects: connections cut because their reader was too slow.
        peer_timeouts: connections cut because their peer took nothing for too long.
        connects: subscribe streams opened.
        disconnects: subscribe streams ended, by whomever.
        refused: subscribes told to come back later.
        unobserved_failures: failed publishes that nobody awaited.
        observer_failures: exceptions raised by in-process observers.
        left_behind: what shutdown no longer waited for, because its cleanup did not end.
        generations_begun: answers of an AI that began.
        generations_done, generations_failed, generations_cancelled: those that ended, by how.
        started: when this began, in seconds of a monotonic clock.
    """

    published: int = 0
    repeated: int = 0
    delivered: int = 0
    replayed: int = 0
    dropped: int = 0
    slow_disconnects: int = 0
    peer_timeouts: int = 0
    connects: int = 0
    disconnects: int = 0
    refused: int = 0
    unobserved_failures: int = 0
    observer_failures: int = 0
    left_behind: int = 0
    generations_begun: int = 0
    generations_done: int = 0
    generations_failed: int = 0
    generations_cancelled: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started
