"""What a worker process runs."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sqlite3
import sys
from typing import BinaryIO

from .file import Refused
from .pipe import PIPE_BYTES, receive, send
from .reader import Reader
from .writer import Writer


def main() -> int:
    """Open the log and serve it."""
    role, path = sys.argv[1:3]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when it is over
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    options = receive(source)
    if options is None:
        return 0
    try:
        worker = Writer(path, options) if role == "writer" else Reader(path, options)
    except (Refused, sqlite3.Error) as error:
        send(sink, {"refused": str(error)})
        return 1
    if role == "reader":
        with contextlib.suppress(AttributeError, OSError):  # where it can be: a page goes through in one piece
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with contextlib.suppress(BrokenPipeError):
        send(sink, worker.state())
        serve(worker, source, sink)
    worker.close()
    return 0


def serve(worker: Writer | Reader, source: BinaryIO, sink: BinaryIO) -> None:
    """Answer every request on *source* until it ends."""
    while (message := receive(source)) is not None:
        call, *arguments = message
        try:
            answer = getattr(worker, call)(*arguments)
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        send(sink, answer)
