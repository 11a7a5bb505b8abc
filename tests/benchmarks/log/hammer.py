"""The process that keeps some connections busy with the same request: the next one when the last is answered."""

from __future__ import annotations

import select
import socket
import time
from typing import Any

from hub.load import stream
from hub.load.latency import Latencies
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.driver import shown
from tests.benchmarks.errors import CannotMeasure

READ_BYTES = 65_536


def hammer(task: dict[str, Any]) -> Answer:
    """Send *request* to *port* on *connections* connections for *seconds*; return how many were answered, and when."""
    request: bytes = task["request"].encode()
    latencies = Latencies()
    began_at: dict[int, int] = {}
    with select.epoll() as epoll:
        sockets = {}
        for _ in range(task["connections"]):
            each = socket.create_connection(("127.0.0.1", task["port"]), 30)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets[each.fileno()] = each
            epoll.register(each.fileno(), select.EPOLLIN)
        for fd, each in sockets.items():
            began_at[fd] = time.monotonic_ns()
            each.sendall(request)
        began = time.monotonic()
        until = began + task["seconds"]
        answered = 0
        answers = {fd: stream.Answer() for fd in sockets}
        while time.monotonic() < until:
            for fd, _ in epoll.poll(0.1):
                answers[fd].feed(sockets[fd].recv(READ_BYTES))
                if answers[fd].status // 100 not in {0, 2}:
                    raise CannotMeasure(f"a request was refused with {answers[fd].status}")
                if answers[fd].ended:
                    answers[fd] = stream.Answer()
                    answered += 1
                    now = time.monotonic_ns()
                    latencies.record(now - began_at[fd])
                    began_at[fd] = now
                    sockets[fd].sendall(request)
        seconds = time.monotonic() - began
        for each in sockets.values():
            each.close()
    return {"answered": answered, "seconds": seconds, "latency": shown(latencies)}


if __name__ == "__main__":
    answer(hammer)
