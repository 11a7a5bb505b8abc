from hub.connections.client_stream import CloseReason
from hub.connections.registry import StreamRegistry
from tests.connections.test_connection import Client, Desk, quiet
from tests.fakes import FakeTransport


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1e9  # long after every connection of the test was touched

    def __call__(self) -> float:
        return self.now


def registry(desk: Desk, clock: Clock) -> StreamRegistry:
    """Return the registry of *desk*, under a clock that is moved by hand."""
    desk.streams._now = clock
    return desk.streams


def heartbeats(client: Client) -> list[str]:
    return [block.id for block in client.blocks if block.data is None]


async def test_an_idle_stream_gets_a_heartbeat_with_its_cursor():
    desk, clock = Desk(), Clock()
    client = desk.connect()
    desk.send("elsewhere")
    desk.send("elsewhere")
    registry(desk, clock).sweep()
    assert client.transport.received.endswith(b":\nid: e-2\n\n\r\n")
    assert heartbeats(client) == ["e-2"]


async def test_a_stream_that_was_just_written_to_gets_none():
    desk, clock = Desk(), Clock()
    client = desk.connect()
    connections = registry(desk, clock)
    clock.now = client.connection._touched + 14
    connections.sweep()
    assert heartbeats(client) == []
    clock.now += 2
    desk.send()
    assert client.connection._audience is not None
    client.connection._audience.touched = clock.now - 3
    connections.sweep()
    assert heartbeats(client) == []
    clock.now += 15
    connections.sweep()
    assert heartbeats(client) == ["e-1"]


async def test_a_heartbeat_never_runs_ahead_of_what_was_gathered():
    desk, clock = Desk(), Clock()
    client = desk.connect()
    desk.send()
    desk.send()  # gathered, not flushed
    registry(desk, clock).sweep()
    assert client.offsets == [1, 2]
    assert heartbeats(client) in ([], ["e-2"])


async def test_a_stream_with_unsent_frames_gets_no_heartbeat():
    desk, clock = Desk(), Clock()
    client = desk.connect(capacity=0, high=10)
    desk.send()
    clock.now = client.connection._touched + 20
    registry(desk, clock).sweep()
    client.transport.read(10**6)
    await quiet()
    assert heartbeats(client) == []
    assert client.offsets == [1]


async def test_a_peer_that_takes_nothing_is_cut_and_one_that_takes_a_little_is_not():
    desk, clock = Desk(), Clock()
    stuck, slow = (desk.connect(capacity=0, high=100) for _ in range(2))
    desk.send(data="x" * 1_000)
    connections = registry(desk, clock)
    for client in (stuck, slow):
        client.connection._touched = clock.now
    for _ in range(4):
        clock.now += 10
        slow.transport.read(10)
        connections.sweep()
    assert stuck.connection.closed_because is CloseReason.PEER_TIMEOUT
    assert stuck.transport.aborted
    assert not slow.transport.aborted
    assert desk.metrics.peer_timeouts == 1


async def test_a_drain_ends_every_stream_and_cuts_what_does_not_take_its_end():
    desk = Desk()
    well = [desk.connect() for _ in range(3)]
    stuck = desk.connect(capacity=0, high=10)
    for client in well:
        _close_when_asked(client.transport)
    connections = desk.streams
    _lose_when_aborted(stuck.transport)
    await connections.drain(0.2)
    for client in well:
        assert client.facts["hub.close"] == {"reason": "shutdown"}
        assert client.transport.received.endswith(b"0\r\n\r\n")
    assert stuck.transport.aborted
    assert len(connections) == 0


async def test_draining_nothing_in_no_time_returns():
    connections = Desk().streams
    await connections.drain(0)
    assert len(connections) == 0


async def test_a_connection_is_found_by_its_id_until_it_is_gone():
    desk = Desk()
    connections = desk.streams
    client = desk.connect()
    assert connections.get(client.connection.id) is client.connection
    client.transport.lose()
    assert connections.get(client.connection.id) is None
    await quiet()


def _close_when_asked(transport: FakeTransport) -> None:
    transport.close = transport.lose  # type: ignore[method-assign]  # all was sent: the socket is gone at once


def _lose_when_aborted(transport: FakeTransport) -> None:
    def abort() -> None:
        transport.aborted = True
        transport.lose()

    transport.abort = abort  # type: ignore[method-assign]  # as a real one does, a turn later
