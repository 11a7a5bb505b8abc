"""A network that can go dark without a word."""

from __future__ import annotations

import ctypes
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Network:
    """A network of its own for one thread: what happens to it happens to nobody else, and it ends with the test."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        try:
            self._thread.submit(self._move).result()
            self.run("ip", "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _move() -> None:
        new_network = 0x40000000  # CLONE_NEWNET, sched.h
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(new_network):
            raise OSError(ctypes.get_errno(), "unshare")

    def do(self, call: Callable[[], T]) -> T:
        """Return what *call* returns when it is called inside."""
        return self._thread.submit(call).result()

    def run(self, *command: str) -> None:
        """Run *command* inside."""
        self.do(lambda: subprocess.run(command, check=True, capture_output=True))

    def listen(self) -> socket.socket:
        """Return a listening socket of this network."""
        return self.do(lambda: socket.create_server((self.address, 0)))

    def connect(self, port: int) -> socket.socket:
        """Return a socket of this network, connected to *port*."""
        its_socket = self.do(lambda: socket.create_connection((self.address, port), timeout=60))
        its_socket.setblocking(False)
        return its_socket

    def go_dark(self) -> None:
        """From now on let every packet vanish without a word."""
        self.run("iptables", "-A", "INPUT", "-j", "DROP")

    def close(self) -> None:
        self._thread.shutdown()
