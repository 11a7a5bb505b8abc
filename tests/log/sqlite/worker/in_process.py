"""A writer in the process of the test, and rows for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hub.eventstream import block, chunk
from hub.log.sqlite.worker.pipe import Row
from hub.log.sqlite.worker.writer import Writer


def open_writer(path: Path, *, count: int = 10**6, topics: Iterable[tuple[str, int]] = ()) -> Writer:
    """Return a writer in this process; *topics* are the patterns with bounds of their own."""
    options = {"epoch": "e", "count": count, "size": 10**9, "age": None, "topics": list(topics)}
    bounds = {"last": 10**9, "remembered": 10**4, "keys": 10**4, "key_bytes": 10**6}
    return Writer(str(path), {**options, **bounds, "patience": 1.0})


def rows(first: int, *topics: str) -> list[Row]:
    frame = chunk(block("x"))
    return [(n, 0.0, topic, False, None, None, False, None, 1, None, frame) for n, topic in enumerate(topics, first)]
