"""The process that keeps some connections busy with the same request: the next one when the last is answered."""

from __future__ import annotations

import re
import select
import socket
import time
from typing import Any

from hub.load.latency import Latencies
from tests.benchmarks.child import Answer, answer
from tests.benchmarks.driver import shown
from tests.benchmarks.errors import CannotMeasure

LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
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
        heard = dict.fromkeys(sockets, b"")
        while time.monotonic() < until:
            for fd, _ in epoll.poll(0.1):
                heard[fd] += sockets[fd].recv(READ_BYTES)
                if is_whole(heard[fd]):
                    heard[fd] = b""
                    answered += 1
                    now = time.monotonic_ns()
                    latencies.record(now - began_at[fd])
                    began_at[fd] = now
                    sockets[fd].sendall(request)
        seconds = time.monotonic() - began
        for each in sockets.values():
            each.close()
    return {"answered": answered, "seconds": seconds, "latency": shown(latencies)}


def is_whole(received: bytes) -> bool:
    """Tell whether *received* is a whole answer.

    Raises:
        CannotMeasure: it is not the answer to a request that went well.
    """
    if received and not received.startswith(b"HTTP/1.1 2"[: len(received)]):
        raise CannotMeasure(f"a request was refused: {received[:80]!r}")
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    length = LENGTH.search(head + b"\r\n")
    return length is not None and len(body) >= int(length[1])


if __name__ == "__main__":
    answer(hammer)
