"""What goes over the pipe between the hub and a worker: `marshal`, with its length before it."""

from __future__ import annotations

import marshal
import struct
from typing import Any, BinaryIO

SIZE = struct.Struct("<I")
PIPE_BYTES = 1024 * 1024
BEAT = SIZE.pack(0)
"""No message: a sign that one is being worked on."""

Row = tuple[int, float, str, bool, str | None, int | None, bool, str | None, int, str | None, bytes]
"""What `COLUMNS` names; topics are joined by line ends.

Only an older hub has kept a chunk, and a text beside it only where the chunk can't give that back. Else the chunk is
empty.
"""
COLUMNS = "offset, at, topics, is_json, type, retry, private, tags, size, text, chunk"
Key = tuple[str, int, str, float]


def pack(message: Any) -> bytes:
    """Return *message* as it goes over the pipe."""
    body = marshal.dumps(message)
    return SIZE.pack(len(body)) + body


def receive(source: BinaryIO) -> Any:
    """Return the next message; None where it is to end, or the parent has gone, be it in the middle of a message."""
    header = source.read(SIZE.size)
    if len(header) < SIZE.size:
        return None
    size = SIZE.unpack(header)[0]
    body = source.read(size)
    return marshal.loads(body) if len(body) == size else None


def send(sink: BinaryIO, message: Any) -> None:
    """Write one message."""
    sink.write(pack(message))
    sink.flush()
