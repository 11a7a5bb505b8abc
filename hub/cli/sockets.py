"""The listening sockets of `hub serve`: opened here, or received from whoever started the process (systemd)."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Mapping
from typing import NamedTuple

from hub.cli.notify import VARIABLES
from hub.errors import InvalidSettings
from hub.settings import is_loopback

FIRST_RECEIVED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
MOST_RECEIVED = 64
BACKLOG = 8_192
ADMIN = "admin"
"""The name (`FileDescriptorName=`) of the received sockets that are for administration."""

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of *host*, bound to *port*, not listening yet; of port 0, all get the same one.

    Raises:
        OSError: an address is in use, or does not belong to this machine.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = _unbound(family, kind, protocol)
            sockets.append(sock)
            sock.bind((address[0], port or address[1], *address[2:]))
            port = sock.getsockname()[1]
    except BaseException:
        close_all(sockets)
        raise
    return sockets


def slots(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Return what `bound_sockets` does, *count* times; the kernel spreads connections evenly over those that listen.

    Those of the first slot listen already, so that the port is taken. For Linux only: elsewhere nothing is spread.

    Raises:
        OSError: an address is in use, or does not belong to this machine.
    """
    first = bound_sockets(host, port)
    made = [first]
    try:
        for sock in first:
            # It was bound without this option: with it, a second hub could have the port of a first one as well.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.listen(BACKLOG)
        while len(made) < count:
            made.append([])
            for sock in first:
                made[-1].append(other := _unbound(sock.family, sock.type, sock.proto))
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind(sock.getsockname())
    except BaseException:
        for sockets in made:
            close_all(sockets)
        raise
    return made


def _unbound(family: int, kind: int, protocol: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    if sys.platform != "win32":  # there it would let two processes have one port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def close_all(sockets: list[socket.socket]) -> None:
    """Close all *sockets*, and forget them."""
    while sockets:
        sockets.pop().close()


def shown(sock: socket.socket, scheme: str) -> str:
    """Return the address of *sock* as a URL."""
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return f"unix:{os.fsdecode(name)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{scheme}://{host}:{name[1]}"


class Received(NamedTuple):
    """The sockets that this process was started with; both lists are empty if it was started with none.

    Attributes:
        users: for everybody.
        admin: for administration.
    """

    users: list[socket.socket]
    admin: list[socket.socket]

    def settings(self) -> dict[str, object]:
        """Return the settings that say where these sockets are, as flags would; what they say is checked as such."""
        said: dict[str, object] = {}
        for sockets, host, port in ((self.users, "host", "port"), (self.admin, "admin_host", "admin_port")):
            names = [name for sock in sockets if isinstance(name := sock.getsockname(), tuple)]
            if names:
                # That which most can reach, so that it is refused if nobody is asked who they are.
                most = next((name for name in names if not is_loopback(name[0])), names[0])
                said |= {host: most[0], port: most[1]}
            elif sockets:
                said |= {port: 0}  # Unix sockets have none
        return said


def received_sockets(environ: Mapping[str, str]) -> Received:
    """Return the sockets that this process received by the protocol of sd_listen_fds(3).

    Raises:
        InvalidSettings: what was received is no listening socket.
    """
    received = Received([], [])
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return received
    count = environ.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit() and int(count) <= MOST_RECEIVED):
        raise InvalidSettings([f"LISTEN_FDS: {count!r}: is not a number of sockets, at most {MOST_RECEIVED}"])
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for place in range(int(count)):
        sock = _socket(FIRST_RECEIVED + place)
        name = names[place] if place < len(names) else ""
        (received.admin if name == ADMIN else received.users).append(sock)
    return received


def without_received(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* for a child process, without the variables that systemd has set for its parent alone."""
    return {name: value for name, value in environ.items() if name not in (*_VARIABLES, *VARIABLES)}


def _socket(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            sock = socket.socket(fileno=fd)
            if sock.type == socket.SOCK_STREAM:
                sock.setblocking(False)
                return sock
            sock.detach()
    except OSError:
        pass
    raise InvalidSettings([f"LISTEN_FDS: the descriptor {fd} is not a socket that connections can be accepted from"])
