"""What all kinds of client streams share, shown with each kind over a transport without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wsproto.frame_protocol import Opcode

from hub.connections.client_stream import (
    SUBSCRIPTIONS,
    UNREAD_BYTES,
    ClientStream,
    CloseReason,
    StreamFacts,
    StreamKind,
)
from hub.connections.connection import Connection, Subscription, Wiring
from hub.connections.holders import NOBODY, Holder
from hub.connections.page_cache import PageCache
from hub.connections.registry import StreamRegistry
from hub.fanout import Fanout
from hub.generations.generation import Generation, Head
from hub.log.memory import MemoryLog
from hub.metrics import Metrics
from hub.web.dialects import DIALECTS
from hub.web.handler_streams import HandlerStream
from hub.web.poll import LINES, Poll
from hub.web.viewer import GenerationViewer
from hub.web.websocket.socket import WebSocket
from hub.wires import Messages
from tests.fakes import FakeTransport
from tests.spec_decoder import SpecDecoder
from tests.wire import dechunk
from tests.wires.frames import close, frames

PEER_TIMEOUT = 30.0


class NoAnswers:
    """What answers nothing: no client here asks for anything."""

    message_seconds = 30.0

    async def answer(self, socket: WebSocket, message: bytes) -> None:
        raise AssertionError(message)

    def start(self, socket: WebSocket) -> None:
        raise AssertionError(socket)


class Desk:
    """A registry, and streams of any kind over fake transports. Its clock is moved by hand."""

    def __init__(self, **options: Any) -> None:
        self.metrics = Metrics()
        self.now = 1e9  # long after every stream was touched
        self.streams = StreamRegistry(self.metrics, peer_timeout=PEER_TIMEOUT, now=lambda: self.now, **options)
        self.log = MemoryLog(epoch="e")
        self.fanout = Fanout(self.metrics)
        self.fanout.begin(self.log.bounds().newest)

    def open(
        self, kind: StreamKind, *, finishes: bool = False, holder: Holder = NOBODY, **transport: Any
    ) -> tuple[ClientStream, FakeTransport]:
        """Open a stream of *kind*."""
        stream: ClientStream
        if kind is StreamKind.SUBSCRIPTION:
            wiring = Wiring(self.log, PageCache(self.log), self.fanout, self.metrics, self.streams)
            stream = Connection(Subscription(("a",)), wiring, holder=holder)
        elif kind is StreamKind.WEBSOCKET:
            wiring = Wiring(self.log, PageCache(self.log), self.fanout, self.metrics, self.streams)
            stream = WebSocket(Subscription(("a",), encoding=Messages()), wiring, NoAnswers(), holder=holder)
        elif kind is StreamKind.POLL:
            wiring = Wiring(self.log, PageCache(self.log), self.fanout, self.metrics, self.streams)
            stream = Poll(Subscription(("a",), encoding=LINES), wiring, holder=holder, limit=1, wait=60, chunked=True)
        elif kind is StreamKind.HANDLER:
            stream = HandlerStream(self.streams, chunked=True, finishes=finishes, on_end=lambda: None, holder=holder)
        else:
            generation = Generation(Head("session", None, None, 0.0), most=1 << 30)
            stream = GenerationViewer(
                generation, DIALECTS["events"], 0, chunked=True, registry=self.streams, holder=holder
            )
        connection = FakeTransport(stream, **transport)
        connection.abort = lambda: _lose(connection)  # type: ignore[method-assign]  # as a real one does, a turn later
        if isinstance(stream, Poll):
            stream.start(connection)
        stream.take_over(connection, b"headers;")
        return stream, connection


def _lose(transport: FakeTransport) -> None:
    transport.aborted = True
    transport.lose()


def end_told(kind: StreamKind, received: bytes) -> Any:
    """Return what `hub.close` says, the last or the only one of a stream of *kind*."""
    if kind is StreamKind.WEBSOCKET:
        told, code = frames(received)[-2:]
        assert (told.json().pop("op"), code.opcode) == ("hub.close", Opcode.CLOSE)
        return {name: each for name, each in told.json().items() if name not in {"op", "retry"}}
    if kind is StreamKind.POLL:
        told = json.loads(dechunk(received))["close"]
        return {name: each for name, each in told.items() if name != "retry"}
    *_, last = SpecDecoder().feed(dechunk(received))
    assert last.type == "hub.close" or "error" in last.data
    return json.loads(last.data)


def answer_close(stream: ClientStream) -> None:
    """Answer as the client of a WebSocket does when the hub closes; other streams need no answer."""
    if isinstance(stream, WebSocket):
        stream.data_received(close())


KINDS = [kind for kind in StreamKind if kind is not StreamKind.SOCKETIO]  # its transport is its own: tests/socketio
each_kind = pytest.mark.parametrize("kind", KINDS)
each_that_writes = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not StreamKind.POLL])
"""A poll writes nothing before its answer, which is complete."""


@each_kind
async def test_a_stream_is_counted_from_its_beginning_to_the_end_of_its_socket(kind: StreamKind):
    desk = Desk()
    stream, transport = desk.open(kind)
    assert (len(desk.streams), desk.streams.count(kind), desk.metrics.connects) == (1, 1, 1)
    assert desk.streams.get(stream.id) is stream
    stream.end(CloseReason.SHUTDOWN, 1_000)
    assert len(desk.streams) == 1  # its socket may still have something to send
    transport.lose()
    assert (len(desk.streams), desk.streams.count(kind), desk.metrics.disconnects) == (0, 0, 1)
    assert desk.streams.get(stream.id) is None


@each_kind
async def test_every_kind_counts_against_the_limit(kind: StreamKind):
    desk = Desk(limit=2)
    for opened in (kind, StreamKind.HANDLER):
        assert not desk.streams.full
        desk.open(opened)
    assert desk.streams.full


@each_kind
async def test_what_opens_beyond_the_limit_is_told_so_and_ends(kind: StreamKind):
    """It was not full when the request came, but others were faster."""
    desk = Desk(limit=1)
    desk.open(StreamKind.HANDLER)
    stream, transport = desk.open(kind)
    assert stream.closed_because is CloseReason.CAPACITY
    assert end_told(kind, bytes(transport.received).removeprefix(b"headers;")) == {"reason": "capacity"}
    answer_close(stream)
    assert transport.closed
    assert desk.metrics.refused == 1


@each_kind
async def test_what_opens_after_shutdown_has_begun_is_told_so_and_ends(kind: StreamKind):
    desk = Desk()
    await desk.streams.drain(0)
    stream, transport = desk.open(kind)
    assert stream.closed_because is CloseReason.SHUTDOWN
    assert end_told(kind, bytes(transport.received).removeprefix(b"headers;")) == {"reason": "shutdown"}


@each_that_writes
async def test_the_headers_go_out_first_whatever_the_beginning_takes(kind: StreamKind):
    _, transport = Desk().open(kind)
    assert transport.received.startswith(b"headers;")


@each_that_writes
async def test_an_idle_stream_gets_a_heartbeat_and_a_busy_one_none(kind: StreamKind):
    desk = Desk(heartbeat=15.0)
    stream, transport = desk.open(kind)
    before = len(transport.received)
    desk.now = stream._touched + 14
    desk.streams.sweep()
    assert len(transport.received) == before
    stream._touched = -1e9
    if isinstance(stream, Connection) and stream._audience is not None:
        stream._audience.touched = -1e9
    desk.streams.sweep()
    received = bytes(transport.received[before:])
    if kind is StreamKind.WEBSOCKET:
        told, ping = frames(received)
        assert (told.json()["op"], ping.opcode) == ("hub.heartbeat", Opcode.PING)
    else:
        assert received.partition(b"\r\n")[2].startswith(b":\n")


@each_that_writes
async def test_a_peer_that_takes_nothing_is_cut_and_counted_once(kind: StreamKind):
    desk = Desk()
    stream, transport = desk.open(kind, capacity=0, high=0)
    stream._write(b"x")
    for _ in range(3):
        desk.now += PEER_TIMEOUT
        desk.streams.sweep()
    assert stream.closed_because is CloseReason.PEER_TIMEOUT
    assert transport.aborted
    assert desk.metrics.peer_timeouts == 1
    assert len(desk.streams) == 0


@each_kind
async def test_a_stream_that_has_ended_with_unsent_bytes_is_cut_if_its_peer_takes_nothing(kind: StreamKind):
    desk = Desk()
    stream, transport = desk.open(kind, capacity=0, high=1 << 20)  # never paused
    stream.end(CloseReason.SHUTDOWN, 1_000)
    answer_close(stream)
    assert transport.closed
    assert transport.unsent
    desk.now = stream._touched + PEER_TIMEOUT - 1
    desk.streams.sweep()
    assert not transport.aborted
    transport.read(5)  # it takes a little: that is a sign of life
    desk.streams.sweep()
    desk.now += PEER_TIMEOUT - 1
    desk.streams.sweep()
    assert not transport.aborted
    desk.now += 1
    desk.streams.sweep()
    assert transport.aborted
    assert (stream.closed_because, desk.metrics.peer_timeouts) == (CloseReason.SHUTDOWN, 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not StreamKind.WEBSOCKET])
async def test_a_client_that_sends_much_where_it_should_listen_is_cut(kind: StreamKind):
    stream, transport = Desk().open(kind)
    stream.data_received(b"x" * UNREAD_BYTES)
    assert not transport.aborted
    stream.data_received(b"x")
    assert (transport.aborted, stream.closed_because) == (True, CloseReason.FLOOD)


@each_kind
async def test_a_fin_is_the_clients_leave(kind: StreamKind):
    stream, transport = Desk().open(kind)
    assert not stream.eof_received()
    assert (transport.aborted, stream.closed_because) == (True, CloseReason.CLIENT)


@each_kind
async def test_shutdown_spreads_the_ends_of_every_kind(kind: StreamKind, monkeypatch: pytest.MonkeyPatch):
    desk = Desk()
    opened = [desk.open(kind)[0] for _ in range(40)]
    open_at_each_pause: list[int] = []

    async def pause(seconds: float) -> None:
        desk.now += seconds
        open_at_each_pause.append(sum(stream.closed_because is None for stream in opened))

    monkeypatch.setattr("hub.connections.registry.asyncio.sleep", pause)
    await desk.streams.drain(1.0)
    assert open_at_each_pause[:20] == list(range(38, -1, -2))
    assert len(desk.streams) == 0


async def test_shutdown_lets_those_finish_that_may_but_not_for_ever(monkeypatch: pytest.MonkeyPatch):
    desk = Desk()
    quick, slow = (desk.open(StreamKind.HANDLER, finishes=True)[0] for _ in range(2))
    other, _ = desk.open(StreamKind.SUBSCRIPTION)
    assert isinstance(quick, HandlerStream)
    began = desk.now

    async def pause(seconds: float) -> None:
        desk.now += seconds
        if desk.now > began + 2 and quick.closed_because is None:
            assert other.closed_because is CloseReason.SHUTDOWN
            quick.complete()
            quick.connection_lost(None)

    monkeypatch.setattr("hub.connections.registry.asyncio.sleep", pause)
    await desk.streams.drain(1.0, finish=5.0)
    assert (quick.closed_because, slow.closed_because) == (CloseReason.COMPLETE, CloseReason.SHUTDOWN)
    assert 5 <= desk.now - began < 7  # both parts of the drain move the one clock


@each_kind
async def test_watchers_are_told_who_came_and_who_has_left(kind: StreamKind):
    desk = Desk()
    opened: list[StreamFacts] = []
    closed: list[StreamFacts] = []

    def broken(facts: StreamFacts) -> None:
        raise RuntimeError("mine")

    desk.streams.watch(opened=broken, closed=broken)
    desk.streams.watch(opened=opened.append, closed=closed.append)
    stream, transport = desk.open(kind)
    transport.lose()
    ((first,), (last,)) = opened, closed
    assert (first.id, first.kind, first.reason) == (stream.id, kind, None)
    assert (last.id, last.kind, last.reason) == (stream.id, kind, CloseReason.CLIENT)
    assert first.topics == last.topics == (("a",) if kind in {*SUBSCRIPTIONS, StreamKind.POLL} else ())
    assert first.opened == pytest.approx(last.opened, abs=1)


async def test_a_watcher_can_be_told_of_one_side_only():
    desk = Desk()
    told: list[str] = []
    desk.streams.watch(opened=lambda facts: told.append(f"opened {facts.kind}"))
    desk.streams.watch(closed=lambda facts: told.append(f"closed {facts.kind}"))
    desk.open(StreamKind.HANDLER)[1].lose()
    assert told == ["opened handler", "closed handler"]


async def test_a_stream_that_fails_in_the_sweep_is_cut_and_the_others_are_tended(monkeypatch: pytest.MonkeyPatch):
    desk = Desk(heartbeat=1.0)
    broken, _ = desk.open(StreamKind.HANDLER)
    _, transport = desk.open(StreamKind.GENERATION)
    before = len(transport.received)

    def fail(stream: HandlerStream) -> bytes:
        raise RuntimeError("mine")

    monkeypatch.setattr(HandlerStream, "_heartbeat", fail)
    desk.streams.sweep()
    assert broken.closed_because is CloseReason.FAILED
    assert len(transport.received) > before


async def test_facts_count_what_was_written_what_waits_and_what_was_left_out():
    desk = Desk()
    stream, transport = desk.open(StreamKind.HANDLER, capacity=20, high=1 << 20)
    assert isinstance(stream, HandlerStream)
    await stream.send(b"data: 1\n\n")
    await stream.send(b"data: 2\n\n")
    facts = stream.facts()
    assert (facts.delivered, facts.dropped) == (2, 0)
    assert facts.buffered == len(transport.unsent) > 0


@each_kind
@pytest.mark.parametrize("how", ["end", "abort"])
async def test_a_stream_that_a_watcher_ends_at_its_beginning_leaves_nothing_behind(kind: StreamKind, how: str):
    desk = Desk()

    def end(facts: StreamFacts) -> None:
        stream = desk.streams.get(facts.id)
        assert stream is not None
        if how == "end":
            stream.end(CloseReason.CAPACITY, 1_000)
        else:
            stream.abort()

    desk.streams.watch(opened=end)
    stream, transport = desk.open(kind)
    if how == "end":
        transport.lose()
    assert len(desk.streams) == 0
    assert not desk.fanout._audiences
    if isinstance(stream, GenerationViewer):
        assert stream._generation.viewers == 0


async def test_a_stream_that_fails_at_its_end_keeps_no_other_from_its_own(monkeypatch: pytest.MonkeyPatch):
    desk = Desk()
    broken, _ = desk.open(StreamKind.HANDLER)
    others = [desk.open(kind)[0] for kind in StreamKind if kind is not StreamKind.HANDLER]

    def fail(*_: object) -> bytes:
        raise RuntimeError("mine")

    monkeypatch.setattr(HandlerStream, "_farewell", fail)
    await desk.streams.drain(0)
    assert broken.closed_because is CloseReason.FAILED
    assert {each.closed_because for each in others} == {CloseReason.SHUTDOWN}
    assert len(desk.streams) == 0


async def test_a_stream_that_may_finish_and_begins_during_the_drain_has_what_is_left_of_its_time():
    desk = Desk()
    draining = desk.streams.drain(0, finish=5.0)
    await draining
    late, _ = desk.open(StreamKind.HANDLER, finishes=True)
    assert late.closed_because is None
    desk.now += 6
    later, _ = desk.open(StreamKind.HANDLER, finishes=True)
    assert later.closed_because is CloseReason.SHUTDOWN


async def test_a_stream_that_was_refused_takes_no_place_from_others():
    desk = Desk(limit=1)
    _, first = desk.open(StreamKind.HANDLER)
    desk.open(StreamKind.SUBSCRIPTION)
    assert desk.streams.count(StreamKind.SUBSCRIPTION) == 0
    first.lose()
    assert not desk.streams.full
