"""The parent: a worker ends with it, whatever else holds its pipes open.

The end of a pipe is no sign: a child that the parent has forked holds it open, and may live on.
"""

from __future__ import annotations

import contextlib
import os
import signal

try:
    import ctypes
except ImportError:  # a Python built without it
    ctypes = None  # type: ignore[assignment]  # looked at before it is used

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Ask the kernel (Linux) to end this process when the thread that started it ends, even if this one is stopped.

    Elsewhere, and besides, `Pulse` looks for the parent now and then.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    check(parent)  # it may have ended before that


def check(parent: int) -> None:
    """End this process if *parent* is not its parent any more."""
    if os.getppid() != parent:
        os._exit(1)
