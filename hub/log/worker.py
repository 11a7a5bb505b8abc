"""The processes that keep a SQLite log, so that the event loop never waits for a disk.

A script of its own on the standard library alone (`python worker.py writer|reader PATH`): it starts fast, shares no
lock of the interpreter with the loop, inherits no socket, and ends with its input, so it cannot outlive its parent.
Both sides speak length-prefixed `marshal` over a pipe; each request gets one answer, in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import marshal
import os
import re
import signal
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

SIZE = struct.Struct("<I")

APPLICATION_ID = 0x68756231  # "hub1"
VERSION = 1
LOCK_SECONDS = 5.0

PAGE_COUNT = 1_000
PAGE_BYTES = 256 * 1024
PAGE_WALK = 10_000
MERGED_TOPICS = 200
TRIM_STEP = 500
FORGET_EVERY = 64

Row = tuple[int, float, str, str, int, str | None, int | None, int, str | None, int]
Key = tuple[str, int, str, float]
COLUMNS = "offset, at, topics, text, is_json, type, retry, private, tags, size"

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE notification (
    offset INTEGER PRIMARY KEY, at REAL NOT NULL, topics TEXT NOT NULL, text TEXT NOT NULL, is_json INTEGER NOT NULL,
    type TEXT, retry INTEGER, private INTEGER NOT NULL, tags TEXT, size INTEGER NOT NULL
);
CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE gone (topic TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE place (
    topic INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (topic, offset)
) WITHOUT ROWID;
CREATE TABLE key (
    key TEXT PRIMARY KEY, offset INTEGER NOT NULL, topics TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX gone_offset ON gone (offset);
CREATE INDEX key_expires ON key (expires);
"""


class Refused(Exception):
    """The file can't be this log's home; the text says why."""


def connect(path: str) -> sqlite3.Connection:
    """Open the file, in autocommit."""
    database = sqlite3.connect(path, isolation_level=None, timeout=LOCK_SECONDS, cached_statements=256)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA cache_size = -8192")
    return database


class Writer:
    """Appends and trims; the only one that does."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._options = options
        self._lock = _lock(path)
        try:
            self._database = _opened(path, options["epoch"])
        except Refused:
            Path(path + ".lock").unlink()  # it is somebody else's file: leave nothing beside it
            raise
        self._topics: dict[str, int] = {}
        self._commits = 0

    def state(self) -> dict[str, Any]:
        """Return what the parent has to know at the start."""
        ask = self._database.execute
        meta = dict(ask("SELECT name, value FROM meta"))
        self._forget(0.0)
        return {
            "epoch": meta["epoch"],
            "newest": meta["newest"],
            "oldest": self._oldest(),
            "kept": meta["kept"],
            "size": meta["size"],
            "trimmed": meta["trimmed"],
            "gone": list(ask("SELECT topic, offset FROM gone ORDER BY offset")),
            "forgotten": self._meta("forgotten"),
            "keys": list(ask("SELECT key, offset, topics, expires FROM key ORDER BY expires")),
        }

    def _oldest(self) -> int:
        found = self._database.execute("SELECT min(offset) FROM notification").fetchone()[0]
        return found if found is not None else self._meta("newest")

    def _meta(self, name: str) -> int:
        return int(self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])

    def append(self, rows: list[Row], keys: list[Key], now: float) -> dict[str, Any]:
        """Keep *rows* and *keys*, and let go what at *now* the retention no longer keeps, in one transaction."""
        with self._transaction() as ask:
            self._database.executemany(f"INSERT INTO notification ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", rows)
            places = [(self._topic(topic), row[0]) for row in rows for topic in row[2].split("\n")]
            self._database.executemany("INSERT INTO place (topic, offset) VALUES (?, ?)", places)
            self._database.executemany("INSERT OR REPLACE INTO key VALUES (?, ?, ?, ?)", keys)
            if rows:
                size = sum(row[9] for row in rows)
                ask("UPDATE meta SET value = ? WHERE name = 'newest'", (rows[-1][0],))
                ask("UPDATE meta SET value = value + ? WHERE name = 'kept'", (len(rows),))
                ask("UPDATE meta SET value = value + ? WHERE name = 'size'", (size,))
            gone = self._trim(TRIM_STEP + 2 * len(rows), now)
            self._commits += 1
            if self._commits % FORGET_EVERY == 0:
                self._forget(now)
        return {"gone": gone, "oldest": self._oldest(), "kept": self._meta("kept"), "size": self._meta("size")}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database.execute
            self._database.execute("COMMIT")
        except BaseException:
            self._topics.clear()  # ids given out in a transaction that is no more
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _topic(self, name: str) -> int:
        id = self._topics.get(name)
        if id is None:
            self._database.execute("INSERT OR IGNORE INTO topic (name) VALUES (?)", (name,))
            id = int(self._database.execute("SELECT id FROM topic WHERE name = ?", (name,)).fetchone()[0])
            if len(self._topics) >= 100_000:
                self._topics.clear()
            self._topics[name] = id
        return id

    def _trim(self, most: int, now: float) -> list[tuple[str, int]]:
        """Let go of at most *most* of the oldest; return the topics that lost something, with the newest offset."""
        ask, options = self._database.execute, self._options
        kept, size = self._meta("kept"), self._meta("size")
        too_old = now - options["age"] if options["age"] is not None else 0.0
        gone: dict[str, int] = {}
        doomed: list[int] = []
        for offset, at, topics, cost in ask(
            "SELECT offset, at, topics, size FROM notification ORDER BY offset LIMIT ?", (most,)
        ):
            full = kept > options["count"] or (size > options["size"] and kept > 1)
            if not full and at >= too_old:
                break
            kept, size = kept - 1, size - cost
            doomed.append(offset)
            gone.update(dict.fromkeys(topics.split("\n"), offset))
        if doomed:
            last = doomed[-1]
            for topic in gone:
                id = self._topic(topic)
                ask("DELETE FROM place WHERE topic = ? AND offset <= ?", (id, last))
                if ask("SELECT 1 FROM place WHERE topic = ? LIMIT 1", (id,)).fetchone() is None:
                    ask("DELETE FROM topic WHERE id = ?", (id,))
                    del self._topics[topic]
            self._database.executemany("INSERT OR REPLACE INTO gone VALUES (?, ?)", gone.items())
            ask("DELETE FROM notification WHERE offset <= ?", (last,))
            ask("UPDATE meta SET value = ? WHERE name = 'kept'", (kept,))
            ask("UPDATE meta SET value = ? WHERE name = 'size'", (size,))
            ask("UPDATE meta SET value = ? WHERE name = 'trimmed'", (last,))
        return sorted(gone.items(), key=lambda item: item[1])

    def _forget(self, now: float) -> None:
        """Keep no more keys, and no more topics that lost something, than are remembered."""
        ask = self._database.execute
        ask("DELETE FROM key WHERE expires <= ?", (now,))
        for table, order, most in (
            ("key", "expires", self._options["keys"]),
            ("gone", "offset", self._options["remembered"]),
        ):
            surplus = ask(f"SELECT count(*) FROM {table}").fetchone()[0] - most
            if surplus <= 0:
                continue
            last = ask(f"SELECT {order} FROM {table} ORDER BY {order} LIMIT 1 OFFSET ?", (surplus - 1,)).fetchone()[0]
            ask(f"DELETE FROM {table} WHERE {order} <= ?", (last,))
            if table == "gone":
                ask("UPDATE meta SET value = ? WHERE name = 'forgotten'", (last,))

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()


def _lock(path: str) -> int:
    """Make sure that nobody else writes *path*; a predecessor that is just ending gets a few seconds."""
    try:
        descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(error.strerror or str(error)) from None
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() >= deadline:
                raise Refused(f"another process has had it open for {LOCK_SECONDS:g} s") from None
            time.sleep(0.05)


def _opened(path: str, epoch: str) -> sqlite3.Connection:
    """Open the log at *path*; make it, under *epoch*, if there is none or the one there is damaged."""
    try:
        database = connect(path)
        application = database.execute("PRAGMA application_id").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID and (tables or application):
            raise Refused("it is a SQLite file, but not the log of a hub")
        if version > VERSION:
            raise Refused(f"it was written by a newer hub (version {version}, this one knows {VERSION})")
        damaged = bool(tables) and database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok"
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise Refused("it is not a SQLite file") from None
        damaged = True
    if damaged:
        return _opened_after_damage(path, epoch)
    if not tables:
        _create(database, epoch)
    _notice_a_copy(database, path, epoch)
    return database


def _opened_after_damage(path: str, epoch: str) -> sqlite3.Connection:
    """Put a damaged log aside, where somebody can look at it, and begin a new one."""
    aside = f"{path}.damaged-{int(time.time())}"
    for end in ("", "-wal", "-shm"):
        if Path(path + end).exists():
            Path(path + end).rename(aside + end)
    print(f"hub: the log {path} is damaged: put aside as {aside}, a new one begins", file=sys.stderr)
    return _opened(path, epoch)


def _create(database: sqlite3.Connection, epoch: str) -> None:
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("VACUUM")
        database.executescript(f"BEGIN; {SCHEMA}")
        values = {"epoch": epoch, "newest": 0, "kept": 0, "size": 0, "trimmed": 0, "forgotten": 0, "home": ""}
        database.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None


def _notice_a_copy(database: sqlite3.Connection, path: str, epoch: str) -> None:
    """Begin a new epoch in a file that was copied here: its original may have given out the same offsets since."""
    status = Path(path).stat()
    home = f"{status.st_dev}:{status.st_ino}"
    known = database.execute("SELECT value FROM meta WHERE name = 'home'").fetchone()[0]
    try:
        if known not in ("", home):
            database.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (epoch,))
        if known != home:
            database.execute("UPDATE meta SET value = ? WHERE name = 'home'", (home,))
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None


class Reader:
    """Reads pages, beside the writer and without waiting for it."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._database = connect(path)
        self._database.execute("PRAGMA query_only = ON")

    def state(self) -> dict[str, Any]:
        """Return nothing: the writer knows it all."""
        return {}

    def read(self, after: int, upto: int, exact: list[str], patterns: list[tuple[str, str]]) -> dict[str, Any]:
        """Return the rows that match, `after < offset <= upto`, as a page; *patterns* are prefixes and expressions."""
        compiled = [(prefix, re.compile(expression, re.DOTALL)) for prefix, expression in patterns]
        topics = self._topics(exact, compiled)
        if topics is None:
            return self._walk(after, upto, frozenset(exact), [expression for _, expression in compiled])
        return self._merge(after, upto, topics)

    def _topics(self, exact: list[str], patterns: list[tuple[str, re.Pattern[str]]]) -> list[int] | None:
        """Return the ids of the topics that exist; None if they are so many that walking the rows is cheaper."""
        ask = self._database.execute
        found: set[int] = set()
        for name in exact:
            found.update(id for (id,) in ask("SELECT id FROM topic WHERE name = ?", (name,)))
        for prefix, expression in patterns:
            # A prefix ends with '/', and '0' is the character after it: all that begins so, by index.
            rows = ask(
                "SELECT id, name FROM topic WHERE name >= ? AND name < ?",
                (prefix, prefix[:-1] + "0" if prefix else chr(0x10FFFF)),
            )
            for looked_at, (id, name) in enumerate(rows):
                if expression.fullmatch("/" + name):
                    found.add(id)
                if len(found) > MERGED_TOPICS or looked_at > PAGE_WALK:
                    return None
        return sorted(found)

    def _merge(self, after: int, upto: int, topics: list[int]) -> dict[str, Any]:
        ask = self._database.execute
        query = "SELECT offset FROM place WHERE topic = ? AND offset > ? AND offset <= ? ORDER BY offset LIMIT ?"
        most = PAGE_COUNT + 1
        lists = [[offset for (offset,) in ask(query, (topic, after, upto, most))] for topic in topics]
        offsets = lists[0] if len(lists) == 1 else list(dict.fromkeys(heapq.merge(*lists)))[:most]
        chosen, reached = offsets[:PAGE_COUNT], offsets[PAGE_COUNT - 1] if len(offsets) == most else upto
        rows: list[Row] = []
        size = 0
        for place in range(0, len(chosen), 250):
            part = chosen[place : place + 250]
            marks = ",".join("?" * len(part))
            for row in ask(f"SELECT {COLUMNS} FROM notification WHERE offset IN ({marks}) ORDER BY offset", part):
                size += len(row[3])
                if rows and size > PAGE_BYTES:
                    return {"rows": rows, "reached": rows[-1][0]}
                rows.append(row)
        return {"rows": rows, "reached": reached}

    def _walk(self, after: int, upto: int, exact: frozenset[str], patterns: list[re.Pattern[str]]) -> dict[str, Any]:
        query = f"SELECT {COLUMNS} FROM notification WHERE offset > ? AND offset <= ? ORDER BY offset LIMIT ?"
        known: dict[str, bool] = {}
        rows: list[Row] = []
        size = looked_at = 0
        for row in self._database.execute(query, (after, upto, PAGE_WALK)):
            looked_at += 1
            topics = row[2]
            wanted = known.get(topics)
            if wanted is None:
                wanted = known[topics] = any(
                    name in exact or any(each.fullmatch("/" + name) for each in patterns) for name in topics.split("\n")
                )
            if wanted:
                size += len(row[3])
                if rows and (len(rows) == PAGE_COUNT or size > PAGE_BYTES):
                    return {"rows": rows, "reached": rows[-1][0]}
                rows.append(row)
            last = row[0]
        return {"rows": rows, "reached": last if looked_at == PAGE_WALK else upto}

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


def serve(worker: Writer | Reader, source: BinaryIO, sink: BinaryIO) -> None:
    """Answer every request on *source* until it ends."""
    while header := source.read(SIZE.size):
        call, *arguments = marshal.loads(source.read(SIZE.unpack(header)[0]))
        try:
            answer = getattr(worker, call)(*arguments)
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        send(sink, answer)


def send(sink: BinaryIO, message: Any) -> None:
    """Write one message."""
    body = marshal.dumps(message)
    sink.write(SIZE.pack(len(body)) + body)
    sink.flush()


def main() -> int:
    """Open the log and serve it."""
    role, path = sys.argv[1:3]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when it is over
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    header = source.read(SIZE.size)
    if not header:
        return 0
    options = marshal.loads(source.read(SIZE.unpack(header)[0]))
    try:
        worker = Writer(path, options) if role == "writer" else Reader(path, options)
    except (Refused, sqlite3.Error) as error:
        send(sink, {"refused": str(error)})
        return 1
    with contextlib.suppress(BrokenPipeError):
        send(sink, worker.state())
        serve(worker, source, sink)
    worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
