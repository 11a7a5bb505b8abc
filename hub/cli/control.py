"""What a supervisor and a worker say to each other, over the socket between them.

The worker says that it listens, and then every second that its event loop runs. The supervisor says first what to do;
later it may lend the sockets of another worker, which does not accept from them now, and take them back. For both, the
end of the other one is the end of the socket.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from hub.cli.door import Door
from hub.cli.sockets import close_all

logger = logging.getLogger("hub")

READY = b"ready\n"
BEAT = b"."
BEAT_SECONDS = 1.0
MOST_LENT = 253  # SCM_MAX_FD: so many descriptors go with one message


def own(fd: int) -> socket.socket:
    """Return the socket of a descriptor that came from another process; it does not block, and no child inherits it."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def lend(control: socket.socket, slot: int, sockets: Iterable[socket.socket]) -> None:
    """Ask the worker behind *control* to accept connections from *sockets* as well.

    Raises:
        OSError: it can't be asked now.
    """
    fds = [sock.fileno() for sock in sockets]
    socket.send_fds(control, [_line({"borrow": slot, "sockets": len(fds)})], fds)


def take_back(control: socket.socket, slot: int) -> None:
    """Ask the worker behind *control* to leave alone what was lent as *slot*.

    Raises:
        OSError: it can't be asked now.
    """
    control.send(_line({"give_back": slot}))


def _line(message: dict[str, int]) -> bytes:
    return json.dumps(message).encode() + b"\n"


class Control:
    """The end of the socket that a worker has, once it listens.

    Args:
        control: the socket.
        door: where what is lent is accepted.
    """

    def __init__(self, control: socket.socket, door: Door) -> None:
        self._control, self._door = control, door
        self._fds: deque[int] = deque()  # received, and not mentioned yet

    async def beat(self) -> None:
        """Say that this process listens, and then again and again that its event loop runs."""
        self._control.setblocking(False)
        said = READY
        while True:
            try:
                self._control.send(said)
            except BlockingIOError:
                pass  # the supervisor does not read now
            except OSError:
                return  # it has ended
            said = BEAT
            await asyncio.sleep(BEAT_SECONDS)

    async def follow(self) -> None:
        """Do what the supervisor says; when it has ended, end this process as if another one took its place."""
        text = b""
        while data := await self._receive():
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                await self._obey(json.loads(line))
        self._forget()
        os.kill(os.getpid(), signal.SIGHUP)

    async def _receive(self) -> bytes:
        while True:
            await _readable(self._control)
            try:
                data, fds, _, _ = socket.recv_fds(self._control, 4096, MOST_LENT, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                continue
            except ConnectionError:
                return b""
            self._fds.extend(fds)
            return data

    async def _obey(self, message: dict[str, Any]) -> None:
        if (slot := message.get("give_back")) is not None:
            self._door.give_back(slot)
            return
        slot, count = message["borrow"], message["sockets"]
        if len(self._fds) < count:  # the kernel gives only as many as this process may have open
            self._forget()
            logger.warning("the connections of worker %d can't be accepted here: too many open files", slot)
            return
        sockets = [own(self._fds.popleft()) for _ in range(count)]
        try:
            await self._door.borrow(slot, sockets)
        except OSError as error:
            logger.warning("the connections of worker %d can't be accepted here: %s", slot, error)
        finally:
            close_all(sockets)

    def _forget(self) -> None:
        while self._fds:
            os.close(self._fds.popleft())


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
