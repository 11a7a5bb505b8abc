"""The log in a SQLite file as it stands at one moment, for a reader that needs no hub, no worker and no lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from hub.errors import LogUnavailable
from hub.log.archive.format import first_line, last_line, line
from hub.log.sqlite.log import from_row
from hub.log.sqlite.worker.file import APPLICATION_ID, BUSY_SECONDS, MIGRATIONS
from hub.log.sqlite.worker.pipe import COLUMNS
from hub.log.trimmed import TrimmedState


def snapshot(path: Path) -> Iterator[bytes]:
    """Yield the archive of the log at *path*, line by line; a hub that has it open goes on writing.

    What is written meanwhile is not included, and makes the write-ahead log grow until this ends.

    Raises:
        LogUnavailable: it is not there, not a log, or can't be read.
    """
    try:
        with closing(_opened(path)) as database:
            yield from _lines(database)
    except sqlite3.Error as error:
        raise LogUnavailable(f"{path}: {error}") from None


def is_new(path: Path) -> bool:
    """Return whether *path* has no history: there is no file, an empty one, or a log that never held a notification.

    The file is not changed.

    Raises:
        LogUnavailable: what is there is not the log of a hub, or can't be read.
    """
    if not path.exists():
        return True
    try:
        with closing(_connected(path)) as database:
            if _is_blank(database):
                return True
            _check(database, path)
            return bool(database.execute("SELECT value = 0 FROM meta WHERE name = 'newest'").fetchone()[0])
    except sqlite3.Error as error:
        raise LogUnavailable(f"{path}: {error}") from None


def _is_blank(database: sqlite3.Connection) -> bool:
    """Return whether the file has no content yet, not even the tables of a log."""
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not tables and not database.execute("PRAGMA application_id").fetchone()[0]


def _opened(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise LogUnavailable(f"{path}: there is no such file")
    database = _connected(path)
    try:
        _check(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _connected(path: Path) -> sqlite3.Connection:
    """Open the file, to read what it holds at this moment."""
    # Not read-only: the last one that closes a write-ahead log removes it, and must be able to.
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    database = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")  # all that follows reads one state
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection, path: Path) -> None:
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise LogUnavailable(f"{path}: it is not the log of a hub")
    if version != len(MIGRATIONS):
        whose = "a newer hub" if version > len(MIGRATIONS) else "an older hub: start this one on it once"
        raise LogUnavailable(f"{path}: it was written by {whose}")


def _lines(database: sqlite3.Connection) -> Iterator[bytes]:
    meta = dict(database.execute("SELECT name, value FROM meta"))
    gone = dict(database.execute("SELECT topic, offset FROM gone ORDER BY offset"))
    yield first_line(meta["epoch"])
    number = 0
    for row in database.execute(f"SELECT {COLUMNS} FROM notification ORDER BY offset"):  # noqa: S608 - a constant
        number += 1
        yield line(from_row(row, meta["epoch"]))
    yield last_line(meta["newest"], number, TrimmedState(meta["trimmed"], gone, meta["forgotten"]))
