"""What a driver does to a server, and what it saw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from tests.benchmarks.served import Served
from tests.benchmarks.systems.system import Paths
from tests.benchmarks.wire import EVERYBODY, WIRES, Wire

BUSY = 0.9
"""Share of its core from which on a process counts as busy all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many connections and so many events.

    Attributes:
        pid: the process whose CPU and memory are looked at, with its children.
        rate: events per second, each due at its moment whatever the server does; 0: as fast as *burst* and *sync* say.
        burst: POSTs that are sent together, pipelined; the next ones when those are answered.
        sync: the next ones only when every connection has received the last.
        topics: 0: everybody listens to the same one. Else there are so many, each with one listener.
        size: bytes of padding in each event.
        settle: seconds from the last stream that is opened to the look at the server's memory.
        patience: seconds until what has not arrived counts as lost.
        post_port: where events are published, if that is another port.
    """

    port: int
    pid: int
    paths: Paths
    connections: int
    events: int = 0
    rate: float = 0.0
    burst: int = 1
    sync: bool = False
    topics: int = 0
    size: int = 100
    settle: float = 0.7
    patience: float = 60.0
    post_port: int = 0

    @classmethod
    def on(cls, server: Served, paths: Paths, **what: Any) -> Self:
        """Return the load *what* on *server*."""
        return cls(port=server.port, post_port=server.post_port, pid=server.pid, paths=paths, **what)

    @classmethod
    def of(cls, task: dict[str, Any]) -> Self:
        """Return the load that `as_task` wrote."""
        return cls(**{**task, "paths": Paths(*task["paths"])})

    def as_task(self) -> dict[str, Any]:
        """Return it in a form that JSON can carry."""
        return asdict(self)

    @property
    def wire(self) -> Wire:
        """How the driver speaks to the server."""
        return WIRES[self.paths.wire]

    def request(self, connection: int) -> bytes:
        """Return what opens the stream of *connection*."""
        asked = "&".join(f"topic={topic}" for topic in self._topics(connection))
        path = self.paths.subscribe.replace("topic={topic}", asked)
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{self.wire.headers}\r\n".encode()

    def _topics(self, connection: int) -> list[str]:
        if not self.topics:
            return [EVERYBODY]
        own = range(connection, self.topics, self.connections)
        return [f"t/{number}" for number in own] or [f"idle/{connection}"]

    def post(self, event: int) -> bytes:
        """Return the request that publishes *event*."""
        topic = f"t/{self._topic(event)}" if self.topics else EVERYBODY
        data = f'{{"p":"{"x" * self.size}","n":{event}}}'
        body = self.paths.before.replace("{topic}", topic) + data + self.paths.after
        return (
            f"POST {self.paths.publish} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def _topic(self, event: int) -> int:
        return event * 7_919 % self.topics  # a prime: all topics in turn, neighbours far apart

    def expected(self) -> list[int]:
        """Return how many events each connection has to receive."""
        if not self.topics:
            return [self.events] * self.connections
        expected = [0] * self.connections
        for event in range(self.events):
            expected[self._topic(event) % self.connections] += 1
        return expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a load.

    Attributes:
        lost: deliveries that had not arrived when patience ended.
        disordered: events that came twice, or after a later one.
        closed: streams that the server ended.
        open_seconds, open_server_cpu, open_driver_cpu: until all streams were open, and what that took.
        rss_before, rss_open: of the server, before the first and with all streams open and idle, in bytes.
        seconds: from the first event to the last delivery; to the last answer where nobody listens.
        server_cpu, driver_cpu: seconds of CPU in that time.
        latency: from when an event was due to its arrival, in ms: p50, p90, p99, max.
        answer: from a POST to its answer, in ms, likewise.
        lag: how late the driver sent what was due, in ms, likewise.
    """

    connections: int
    events: int
    expected: int
    delivered: int
    lost: int
    disordered: int
    closed: int
    open_seconds: float
    open_server_cpu: float
    open_driver_cpu: float
    rss_before: int
    rss_open: int
    seconds: float
    server_cpu: float
    driver_cpu: float
    latency: dict[str, float]
    answer: dict[str, float]
    lag: dict[str, float]

    @property
    def cpu_per_delivery(self) -> float:
        """Microseconds of the server's CPU for each delivery."""
        return 1e6 * self.server_cpu / max(self.delivered, 1)

    @property
    def deliveries_per_second(self) -> float:
        """How many arrived a second."""
        return self.delivered / max(self.seconds, 1e-9)

    @property
    def connects_per_second(self) -> float:
        """How many streams were opened a second."""
        return self.connections / max(self.open_seconds, 1e-9)

    @property
    def bytes_per_connection(self) -> float:
        """What a stream that is open and idle adds to the server's memory."""
        return (self.rss_open - self.rss_before) / self.connections

    @property
    def bound(self) -> str:
        """Whose core was the busy one: `server`, `driver`, `both` or neither (``)."""
        return _bound(self.server_cpu, self.driver_cpu, self.seconds)

    @property
    def open_bound(self) -> str:
        """The same while the streams were opened."""
        return _bound(self.open_server_cpu, self.open_driver_cpu, self.open_seconds)


def _bound(server: float, driver: float, seconds: float) -> str:
    busy = [name for name, cpu in (("server", server), ("driver", driver)) if cpu >= BUSY * seconds]
    return "both" if len(busy) == 2 else "".join(busy)
