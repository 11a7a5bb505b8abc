"""The process that reads the log."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .file import connect, meta, oldest, stands
from .pipe import COLUMNS
from .place import Refused

PAGE_COUNT = 1_000
PAGE_BYTES = 64 * 1024
PAGE_WALK = 10_000
MERGED_TOPICS = 200
REMEMBERED_LATEST = 8


class Asked(NamedTuple):
    """What the parent wants to read: `after < offset <= upto`, of topics by name and by pattern.

    Attributes:
        exact: names.
        patterns: a prefix that stands before every match, and a regular expression for topics with a `/` before them.
        latest: only the newest of each topic, as of `upto`.
    """

    after: int
    upto: int
    exact: list[str]
    patterns: list[tuple[str, str]]
    latest: bool


class Reader:
    """Reads pages, beside the writer and without waiting for it."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._database = connect(path)
        self._database.execute("PRAGMA query_only = ON")
        status = Path(path).stat()
        if options.get("inode", (status.st_dev, status.st_ino)) != (status.st_dev, status.st_ino):
            raise Refused("another file was put in its place")
        facts = dict(self._database.execute("SELECT name, value FROM meta"))
        (lost,) = self._database.execute("SELECT max(offset) FROM gone").fetchone()
        # Whether some topic has, or had before this start, a bound of its own, and lost what is kept for another one.
        self._limited = bool(options["topics"]) or max(lost or 0, facts["forgotten"]) > facts["trimmed"]
        self._epoch, self._copied = facts["epoch"].encode(), facts["copied"]
        self._newest_each: dict[object, list[int]] = {}  # the answers to the last few questions for the latest

    def state(self) -> dict[str, Any]:
        """Return nothing: the writer knows it all."""
        return {}

    def look(self) -> dict[str, Any]:
        """Return nothing, but show that this process runs."""
        return {}

    def read(self, *asked: Any) -> dict[str, Any]:
        """Return the rows that match (the arguments are those of `Asked`), as a page."""
        rows, facts = self._page(COLUMNS, Asked(*asked))
        return {"rows": [(*row[:-1], self._chunk(row)) for row in rows], **facts}

    def frames(self, *asked: Any) -> dict[str, Any]:
        """Do what `read` does, and return only what goes out."""
        rows, facts = self._page("offset, topics, chunk", Asked(*asked))
        if rows and rows[0][0] <= self._copied:
            payload = b"".join([self._chunk(row) for row in rows])
        else:
            payload = b"".join([row[-1] for row in rows])
        return {"payload": payload, "number": len(rows), "first": rows[0][0] if rows else 0, **facts}

    def _chunk(self, row: tuple[Any, ...]) -> bytes:
        """Return the chunk of *row*; what was kept before the file was copied gets the epoch it has now."""
        chunk: bytes = row[-1]
        if row[0] > self._copied:
            return chunk
        frame = chunk[chunk.index(b"\r\n") + 2 : -2]
        begin = 0 if frame.startswith(b"id: ") else frame.index(b"\nid: ") + 1
        frame = b"%bid: %b%b" % (frame[:begin], self._epoch, frame[frame.index(b"-", begin) :])
        return b"%x\r\n%b\r\n" % (len(frame), frame)

    def _page(self, columns: str, asked: Asked) -> tuple[list[Any], dict[str, Any]]:
        # One state of the file for all that is looked up: the id of a topic that is gone is given to another one, and
        # what the writer lets go of meanwhile must either be in the page or be known to be missing.
        self._database.execute("BEGIN")
        try:
            rows, reached = self._found(columns, asked)
            return rows, {"reached": reached, "hole": self._hole(asked), "oldest": oldest(self._database)}
        finally:
            if self._database.in_transaction:
                self._database.execute("COMMIT")

    def _hole(self, asked: Asked) -> bool:
        """Tell whether something that matched, beyond `after`, is gone; as `Gone` knows it in the parent."""
        ask = self._database.execute
        swept, forgotten = (meta(self._database, name) for name in ("trimmed", "forgotten"))
        if asked.patterns and max(swept, forgotten) > asked.after:
            return True
        for name in asked.exact:
            row = ask("SELECT offset FROM gone WHERE topic = ?", (name,)).fetchone()
            if (row[0] if row else forgotten) > asked.after:
                return True
        matches = [re.compile(expression, re.DOTALL).fullmatch for _, expression in asked.patterns]
        lost = ask("SELECT topic FROM gone WHERE offset > ?", (asked.after,)) if matches else ()
        return any(match("/" + name) for (name,) in lost for match in matches)

    def _found(self, columns: str, asked: Asked) -> tuple[list[Any], int]:
        if asked.latest:
            return _filled(self._latest(columns, asked), asked.upto)
        topics = self._topics(asked, MERGED_TOPICS)
        if topics is None:
            return self._walk(columns, asked)
        own = ", ".join(f"notification.{column}" for column in columns.split(", "))
        query = (
            f"SELECT {own} FROM place CROSS JOIN notification ON notification.offset = place.offset "
            "WHERE place.topic = ? AND place.offset > ? AND place.offset <= ? ORDER BY place.offset"
        )
        cursors = [self._database.execute(query, (topic, asked.after, asked.upto)) for topic in topics]
        try:
            return _filled(cursors[0] if len(cursors) == 1 else heapq.merge(*cursors, key=_offset), asked.upto)
        finally:
            for cursor in cursors:
                cursor.close()  # an open one would hold the write-ahead log

    def _topics(self, asked: Asked, most: float) -> list[int] | None:
        """Return the ids of the topics that exist; None if they are so many that walking the rows is cheaper."""
        ask = self._database.execute
        found: set[int] = set()
        for name in asked.exact:
            found.update(id for (id,) in ask("SELECT id FROM topic WHERE name = ?", (name,)))
        for prefix, expression in asked.patterns:
            matches = re.compile(expression, re.DOTALL).fullmatch
            # A prefix ends with '/', and '0' is the character after it: all that begins so, by index. A blob stands
            # after every text.
            beyond = prefix[:-1] + "0" if prefix else b""
            rows = ask("SELECT id, name FROM topic WHERE name >= ? AND name < ?", (prefix, beyond))
            for looked_at, (id, name) in enumerate(rows):
                if matches("/" + name):
                    found.add(id)
                if len(found) > most or looked_at > most * PAGE_WALK / MERGED_TOPICS:
                    rows.close()
                    return None
        return sorted(found)

    def _latest(self, columns: str, asked: Asked) -> Iterator[Any]:
        """Yield the newest row of each topic, as of `upto`, in order."""
        ask = self._database.execute
        question = (asked.upto, tuple(asked.exact), tuple(asked.patterns))
        offsets = self._newest_each.get(question)
        if offsets is None:
            query = "SELECT max(offset) FROM place WHERE topic = ? AND offset <= ?"
            topics = self._topics(asked, math.inf) or ()
            offsets = sorted({ask(query, (topic, asked.upto)).fetchone()[0] or 0 for topic in topics})
            while len(self._newest_each) >= REMEMBERED_LATEST:
                del self._newest_each[next(iter(self._newest_each))]
            self._newest_each[question] = offsets
        wanted = iter([offset for offset in offsets if offset > asked.after])
        while part := list(islice(wanted, 250)):
            marks = ",".join("?" * len(part))
            yield from ask(f"SELECT {columns} FROM notification WHERE offset IN ({marks}) ORDER BY offset", part)

    def _walk(self, columns: str, asked: Asked) -> tuple[list[Any], int]:
        query = f"SELECT {columns} FROM notification WHERE offset > ? AND offset <= ? ORDER BY offset LIMIT ?"
        place = columns.split(", ").index("topics")
        exact = frozenset(asked.exact)
        patterns = [re.compile(expression, re.DOTALL) for _, expression in asked.patterns]
        known: dict[str, list[str]] = {}
        last = looked_at = 0

        def matching(rows: Iterable[Any]) -> Iterator[Any]:
            nonlocal last, looked_at
            for row in rows:
                looked_at += 1
                last, topics = row[0], row[place]
                names = known.get(topics)
                if names is None:
                    names = known[topics] = [
                        name
                        for name in topics.split("\n")
                        if name in exact or any(each.fullmatch("/" + name) for each in patterns)
                    ]
                if names and (not self._limited or "\n" not in topics or stands(self._database, last, names)):
                    yield row

        rows = self._database.execute(query, (asked.after, asked.upto, PAGE_WALK))
        chosen, reached = _filled(matching(rows), asked.upto)
        rows.close()
        return chosen, last if reached == asked.upto and looked_at == PAGE_WALK else reached

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def _offset(row: Sequence[Any]) -> int:
    return int(row[0])


def _filled(rows: Iterable[Any], upto: int) -> tuple[list[Any], int]:
    """Return as many of *rows*, each offset once, as make a page, and how far it reaches."""
    chosen: list[Any] = []
    last = size = 0
    for row in rows:
        if row[0] == last:
            continue
        size += len(row[-1])
        if chosen and (len(chosen) == PAGE_COUNT or size > PAGE_BYTES):
            return chosen, last
        last = row[0]
        chosen.append(row)
    return chosen, upto
