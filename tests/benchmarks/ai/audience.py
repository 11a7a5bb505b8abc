"""The process that lets answers be generated and watches them: `Task` in, `Outcome` out."""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from http.client import HTTPConnection

from hub.load.latency import Latencies
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.driver import shown
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.tree import usage

PATH = "/ai/chat/stream"
READ_BYTES = 65_536
OPENING = 128
PATIENCE = 30.0
CONTENT = re.compile(rb'"content":"([0-9: ]*)"')
END = b"event: close\n"
PER_SECOND = 1_000
"""Answers and viewers that even a slow machine begins in a second: so long before them the first token is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """So many answers, each with so many viewers.

    Attributes:
        pid: the process whose CPU and memory are looked at, with its children.
        tokens: of each answer.
        rate: tokens a second of each answer.
        patience: seconds beyond the last token until what has not arrived counts as lost.
    """

    port: int
    pid: int
    answers: int
    viewers: int
    tokens: int
    rate: float
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        lost: tokens that did not reach a viewer, or came again, over all viewers.
        unfinished: viewers who were not told of the end.
        messages: in which the tokens came.
        bytes_per_answer, bytes_per_viewer: what each adds to the server's memory before the first token.
        seconds: from the first token to the last arrival.
        server_cpu, driver_cpu: seconds of CPU in that time.
        late: from when a token was due to its arrival at a viewer, in ms: p50, p90, p99, max.
        gap: between two messages that a viewer gets, in ms, likewise.
    """

    expected: int
    lost: int
    unfinished: int
    messages: int
    bytes_per_answer: float
    bytes_per_viewer: float
    seconds: float
    server_cpu: float
    driver_cpu: float
    late: dict[str, float]
    gap: dict[str, float]

    @property
    def busy(self) -> str:
        """Whose core was the busy one."""
        names = (("server", self.server_cpu), ("driver", self.driver_cpu))
        return ", ".join(name for name, cpu in names if cpu >= 0.9 * self.seconds) or "–"


class Viewer:
    """One connection: all that came, and when."""

    def __init__(self, port: int, place: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.socket.sendall(f"GET {place} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.received: list[bytes] = []
        self.at: list[int] = []

    def receive(self) -> bool:
        """Take what is there; tell whether more may come."""
        try:
            received = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            received = b""
        self.at.append(time.monotonic_ns())
        self.received.append(received)
        return bool(received)

    def tokens(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield each message's time and tokens. No frame is cut by the framing of chunks, which may be ignored."""
        whole = b"".join(self.received)
        ends, end = [], 0
        for received in self.received:
            end += len(received)
            ends.append(end)
        read = 0
        for match in CONTENT.finditer(whole):
            while ends[read] < match.end():
                read += 1
            yield self.at[read], match[1].split()

    @property
    def finished(self) -> bool:
        """Whether it was told of the end."""
        return END in b"".join(self.received[-3:])


def watch(task: Answer) -> Answer:
    """Begin the answers, open the viewers, read until every one has ended."""
    asked = Task(**task)
    gc.disable()  # what is noted lives as long as the run
    _begin(replace(asked, answers=1, tokens=1), 0.0)  # with the first one comes what all share, such as the log's file
    rss = [usage(asked.pid).rss]
    begin = time.monotonic() + 1 + asked.answers * (1 + asked.viewers) / PER_SECOND
    places = _begin(asked, begin)
    rss.append(usage(asked.pid).rss)
    epoll = select.epoll()
    viewers: dict[int, Viewer] = {}
    for place in places:
        for _ in range(asked.viewers):
            viewer = Viewer(asked.port, place)
            viewers[viewer.socket.fileno()] = viewer
            epoll.register(viewer.socket, select.EPOLLIN)
            if len(viewers) % OPENING == 0:
                _receive(epoll, viewers, 0)
    while any(not viewer.received for viewer in viewers.values()):
        _receive(epoll, viewers, 0.1)
        if time.monotonic() > begin:
            raise CannotMeasure("the viewers were not there when the first token was due")
    rss.append(usage(asked.pid).rss)
    time.sleep(max(0.0, begin - time.monotonic()))
    spent, own = usage(asked.pid).cpu_seconds, time.process_time()
    deadline = begin + asked.tokens / asked.rate + asked.patience
    left = len(viewers)
    while left and time.monotonic() < deadline:
        left -= _receive(epoll, viewers, 0.5)
    own, spent = time.process_time() - own, usage(asked.pid).cpu_seconds - spent
    outcome = _read(asked, list(viewers.values()))
    outcome.update(
        bytes_per_answer=(rss[1] - rss[0]) / asked.answers,
        bytes_per_viewer=(rss[2] - rss[1]) / len(viewers),
        seconds=max(viewer.at[-1] for viewer in viewers.values()) / 1e9 - begin,
        server_cpu=spent,
        driver_cpu=own,
    )
    return asdict(Outcome(**outcome))


def _begin(asked: Task, begin: float) -> list[str]:
    """Begin the answers, their first tokens spread over the time between two; return where they can be watched."""
    connection = HTTPConnection("127.0.0.1", asked.port, timeout=30)
    places = []
    for number in range(asked.answers):
        first = begin + number / asked.answers / asked.rate
        prompt = {"message": "go", "tokens": asked.tokens, "rate": asked.rate, "begin": first}
        connection.request("POST", f"{PATH}/init", json.dumps(prompt), {"Content-Type": "application/json"})
        said = json.loads(connection.getresponse().read())
        if "streamUrl" not in said:
            raise CannotMeasure(f"an answer was refused: {said}")
        places.append(said["streamUrl"])
    connection.close()
    return places


def _receive(epoll: select.epoll, viewers: dict[int, Viewer], seconds: float) -> int:
    """Take what comes within *seconds*; return how many streams ended."""
    ended = 0
    for fd, _ in epoll.poll(seconds, OPENING):
        if not viewers[fd].receive():
            epoll.unregister(fd)
            ended += 1
    return ended


def _read(asked: Task, viewers: list[Viewer]) -> Answer:
    """Read what every viewer got: each token once, in order."""
    late, gap = Latencies(), Latencies()
    lost = messages = 0
    for viewer in viewers:
        right, before = 0, 0
        for at, tokens in viewer.tokens():
            messages += 1
            if before:
                gap.record(at - before)
            before = at
            for token in tokens:
                number, _, due = token.partition(b":")
                lost += max(0, int(number) - right) + (int(number) < right)  # skipped, or come again
                right = max(right, int(number) + 1)
                late.record(at - int(due))
        lost += asked.tokens - right
    unfinished = sum(not viewer.finished for viewer in viewers)
    expected = asked.tokens * len(viewers)
    return {
        "expected": expected,
        "lost": lost,
        "unfinished": unfinished,
        "messages": messages,
        "late": shown(late),
        "gap": shown(gap),
    }


if __name__ == "__main__":
    answer(watch)
