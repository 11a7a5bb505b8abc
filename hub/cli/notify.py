"""What a process says to systemd (`Type=notify`): that it is ready, that it stops, that its event loop runs.

The protocol is that of sd_notify(3): a datagram to the socket that `NOTIFY_SOCKET` names. Without it, all of this does
nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger("hub")

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What only the process that systemd has started is to read."""


class Notifier:
    """Says to systemd how the process is doing.

    Args:
        environ: the environment of the process.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace; nothing else but a path is defined for Unix sockets.
        self._address = "\0" + path[1:] if path.startswith("@") else path if path.startswith("/") else ""
        self._every = _watchdog_seconds(environ) / 2 if self._address else 0.0
        self._watching: asyncio.Task[None] | None = None

    def ready(self) -> None:
        """Say that the process serves; from now on, if systemd asks for it, that the running event loop still runs."""
        self.say(READY)
        if self._every:
            self._watching = asyncio.create_task(self._watch())

    def stopping(self) -> None:
        """Say that the process drains; it goes on saying that its event loop runs."""
        self.say(STOPPING)

    def stop(self) -> None:
        """Stop saying that the event loop runs."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _watch(self) -> None:
        while True:
            self.say(WATCHDOG)
            await asyncio.sleep(self._every)

    def say(self, text: str) -> None:
        """Send *text*, if there is somebody who wants to know."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.connect(self._address)
                sock.send(text.encode())
        except OSError as error:
            logger.warning("systemd can't be told %s: %s", text, error.strerror or error)


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Return within how many seconds systemd wants to hear of the process again and again; 0: it does not."""
    said = environ.get("WATCHDOG_USEC", "")
    if not (said.isascii() and said.isdigit()) or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(said) / 1e6
