"""The parent of a private Redis: ends it when whoever needs it has ended, however that happened.

It needs nothing but the standard library, and is run as a script. Its standard input is a pipe from the process that
needs the server: the end of the pipe means the end of the server. If this process is killed, the kernel kills the
server (Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

END_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the server that the arguments say, behind the descriptor of the lock that it holds while it runs."""
    lock, *command = sys.argv[1:]
    server = subprocess.Popen(  # noqa: S603 - the command is that of the parent
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=(int(lock),),
        preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - there is no other thread yet
    )
    # The server's end is the end of this process, whatever it waits for.
    threading.Thread(target=lambda: os._exit(_status(server.wait())), daemon=True).start()
    while os.read(0, 4096):
        pass
    server.terminate()
    try:
        server.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
    return _status(server.wait())


def _status(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


def _die_with(parent: int) -> Callable[[], None] | None:
    """Return what the child does before it becomes the server: ask to be killed when its *parent* ends."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # what it has confirmed is on the disk
        if os.getppid() != parent:  # it has ended before
            os._exit(1)

    return ask
