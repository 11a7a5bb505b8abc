"""What a worker process runs."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from hub.log.sqlite.worker.parent import end_with
from hub.log.sqlite.worker.pipe import PIPE_BYTES, receive
from hub.log.sqlite.worker.place import Misplaced, Refused
from hub.log.sqlite.worker.pulse import Pulse
from hub.log.sqlite.worker.reader import Reader
from hub.log.sqlite.worker.writer import Writer


class Worker(Protocol):
    """What serves requests: each is the name of a method, and its arguments."""

    def state(self) -> dict[str, Any]:
        """Return what there is to say of the file: the first answer."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def main() -> int:
    """Open the log and serve it."""
    return run(lambda role, path, options: Writer(path, options) if role == "writer" else Reader(path, options))


def run(opened: Callable[[str, str, dict[str, Any]], Worker]) -> int:
    """Open a file and serve it; *opened* gets the role, the path and the options.

    The arguments of the process: the process id of the parent, its Python, the role, the path.
    """
    parent, version, role, path = sys.argv[1:5]
    end_with(int(parent))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when it is over
    source = sys.stdin.buffer
    pulse = Pulse(sys.stdout.buffer, int(parent))
    options = receive(source)
    if options is None:
        return 0
    here = "{}.{}".format(*sys.version_info)
    if here != version:
        pulse.answer({"refused": f"{sys.executable} is Python {here}, and the hub runs on {version}"})
        return 1
    pulse.start()
    try:
        worker = opened(role, path, options)
    except (Refused, sqlite3.Error) as error:
        pulse.answer({"refused": str(error)})
        return 1
    if role == "reader":
        with contextlib.suppress(AttributeError, OSError):  # where it can be: a page goes through in one piece
            fcntl.fcntl(sys.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        pulse.answer(worker.state())
        serve(worker, source, pulse)
    except BrokenPipeError:
        pass
    except Misplaced as error:  # without an answer: what was committed last is not confirmed
        print(f"hub: {path}: {error}", file=sys.stderr)
    worker.close()
    return 0


def serve(worker: Worker, source: BinaryIO, pulse: Pulse) -> None:
    """Answer every request on *source* until it ends."""
    while (message := receive(source)) is not None:
        pulse.begin()
        call, *arguments = message
        try:
            answer = getattr(worker, call)(*arguments)
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        pulse.answer(answer)
