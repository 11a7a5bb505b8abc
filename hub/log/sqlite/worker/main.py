"""What a worker process runs."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sqlite3
import sys
from typing import BinaryIO

from hub.log.sqlite.worker.parent import end_with
from hub.log.sqlite.worker.pipe import PIPE_BYTES, receive
from hub.log.sqlite.worker.place import Misplaced, Refused
from hub.log.sqlite.worker.pulse import Pulse
from hub.log.sqlite.worker.reader import Reader
from hub.log.sqlite.worker.writer import Writer


def main() -> int:
    """Open the log and serve it. The arguments: the process id of the parent, its Python, the role, the path."""
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
        worker = Writer(path, options) if role == "writer" else Reader(path, options)
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
        print(f"hub: the log {path}: {error}", file=sys.stderr)
    worker.close()
    return 0


def serve(worker: Writer | Reader, source: BinaryIO, pulse: Pulse) -> None:
    """Answer every request on *source* until it ends."""
    while (message := receive(source)) is not None:
        pulse.begin()
        call, *arguments = message
        try:
            answer = getattr(worker, call)(*arguments)
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        pulse.answer(answer)
