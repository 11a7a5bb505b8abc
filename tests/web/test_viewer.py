"""The client's end of a generation without a socket: what happens while the peer takes nothing."""

from __future__ import annotations

import time

from hub.connections.client_stream import CloseReason
from hub.connections.registry import StreamRegistry
from hub.generations.generation import Generation, Head
from hub.metrics import Metrics
from hub.web.dialects import DIALECTS
from hub.web.viewer import GenerationViewer
from tests.fakes import FakeTransport
from tests.spec_decoder import SpecDecoder

TIMEOUT = 30.0


class Watching:
    """A viewer of a generation, and the transport it writes to."""

    def __init__(self, capacity: int | None = None) -> None:
        self.stream = Generation(Head("session", None, None, 0.0), most=1 << 30)
        self.registry = StreamRegistry(Metrics(), peer_timeout=TIMEOUT)
        self.viewer = GenerationViewer(self.stream, DIALECTS["events"], 0, chunked=False, registry=self.registry)
        self.transport = FakeTransport(self.viewer, capacity)
        self.viewer.take_over(self.transport, b"")

    def tend(self, later: float, heartbeat: float = 15.0) -> None:
        """Let *later* seconds have passed."""
        now = time.monotonic() + later
        self.viewer.tend(now, now - heartbeat)

    @property
    def events(self) -> list[str]:
        return [event.type for event in SpecDecoder().feed(bytes(self.transport.received))]


def test_an_idle_viewer_hears_a_heartbeat_and_is_not_cut():
    watching = Watching()
    watching.tend(14)
    assert not watching.transport.received.endswith(b":\n\n")
    watching.tend(16)
    assert watching.transport.received.endswith(b"\n\n:\n\n")
    watching.tend(16 + TIMEOUT)
    assert not watching.transport.aborted


def test_one_who_takes_nothing_is_cut_without_an_end():
    watching = Watching(capacity=1_000)
    watching.stream.append("x" * 100_000)
    assert watching.transport.paused
    unsent = len(watching.transport.unsent)
    watching.stream.append("more")
    watching.tend(TIMEOUT - 1)
    assert len(watching.transport.unsent) == unsent  # no heartbeat, no news: it would only wait
    assert not watching.transport.aborted
    watching.tend(TIMEOUT + 1)
    assert watching.transport.aborted
    watching.stream.finish()
    assert watching.events == ["start"]
    assert watching.stream.viewers == 0


def test_one_who_takes_little_is_not_cut():
    watching = Watching(capacity=1_000)
    watching.stream.append("x" * 100_000)
    for turn in range(1, 4):
        watching.transport.read(100)
        watching.tend(turn * (TIMEOUT - 1))
    assert not watching.transport.aborted
    watching.tend(4 * TIMEOUT)
    assert watching.transport.aborted


def test_one_who_takes_nothing_of_the_end_is_cut_too_and_counts_until_then():
    watching = Watching(capacity=1_000)
    watching.stream.append("x" * 10_000)  # less than what makes it pause
    watching.stream.finish()
    assert watching.transport.closed
    assert len(watching.registry) == 1
    watching.tend(TIMEOUT + 1)
    assert watching.transport.aborted
    watching.transport.lose()
    assert len(watching.registry) == 0


async def test_one_who_is_sent_away_hears_of_no_end():
    watching = Watching()
    watching.stream.append("a")
    watching.viewer.end(CloseReason.SHUTDOWN, 1_000)
    watching.viewer.end(CloseReason.SHUTDOWN, 1_000)
    watching.stream.finish()
    assert watching.events == ["start", "message", "hub.close"]
    assert watching.transport.received.count(b"retry: ") == 2
    assert watching.transport.closed
    assert watching.stream.viewers == 0
