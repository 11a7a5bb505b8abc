"""The other end of an open stream: a client that only listens, on a network that may lose it without a word."""

from __future__ import annotations

import socket
import sys

UNSENT_BYTES = 128 * 1024

_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
# Python knows the name of this one only where the C headers do; Linux has had the number since 3.12.
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)


def watch_peer(its_socket: socket.socket | None, seconds: float) -> None:
    """Ask the kernel to end the connection when sent bytes stay unacknowledged for *seconds* (RFC 5482).

    And to take little more than the peer has room for: otherwise megabytes wait where no policy and no bound sees
    them, and a slow reader that does read looks like one that does not. What is set on a listening socket holds for
    every connection that it accepts (Linux).
    """
    if its_socket is None or its_socket.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    for option, value in ((_USER_TIMEOUT, int(seconds * 1000)), (_NOTSENT_LOWAT, UNSENT_BYTES)):
        if option is not None:
            its_socket.setsockopt(socket.IPPROTO_TCP, option, value)
