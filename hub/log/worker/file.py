"""The file: its schema, and how it is opened, checked, brought up to date and kept from others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

APPLICATION_ID = 0x68756231  # "hub1"
BUSY_SECONDS = 5.0
WAL_BYTES = 8 * 1024 * 1024

# A new file goes through all of them, an old one through those it has not seen; PRAGMA user_version counts them.
MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE notification (
        offset INTEGER PRIMARY KEY, at REAL NOT NULL, topics TEXT NOT NULL, text TEXT NOT NULL,
        is_json INTEGER NOT NULL, type TEXT, retry INTEGER, private INTEGER NOT NULL, tags TEXT, size INTEGER NOT NULL
    );
    CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE gone (topic TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE place (topic INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (topic, offset)) WITHOUT ROWID;
    CREATE TABLE key (
        key TEXT PRIMARY KEY, offset INTEGER NOT NULL, topics TEXT NOT NULL, expires REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX gone_offset ON gone (offset);
    CREATE INDEX key_expires ON key (expires);
    INSERT INTO meta VALUES
        ('epoch', ''), ('newest', 0), ('kept', 0), ('size', 0), ('trimmed', 0), ('forgotten', 0), ('home', '');
    """,
    # The frame is kept as it goes out; the text only where the frame has other line ends than the text.
    """
    ALTER TABLE notification RENAME TO old;
    CREATE TABLE notification (
        offset INTEGER PRIMARY KEY, at REAL NOT NULL, topics TEXT NOT NULL, is_json INTEGER NOT NULL, type TEXT,
        retry INTEGER, private INTEGER NOT NULL, tags TEXT, size INTEGER NOT NULL, text TEXT, chunk BLOB NOT NULL
    );
    INSERT INTO notification
        SELECT offset, at, topics, is_json, type, retry, private, tags, size,
            CASE WHEN instr(text, char(13)) THEN text END,
            CAST(
                printf('%x', length(CAST(frame AS BLOB))) || char(13, 10) || frame || char(13, 10) AS BLOB
            )
        FROM (
            SELECT *,
                coalesce('retry: ' || retry || char(10), '') || coalesce('event: ' || type || char(10), '')
                || 'id: ' || (SELECT value FROM meta WHERE name = 'epoch') || '-' || offset || char(10) || 'data: '
                || replace(
                    replace(replace(text, char(13, 10), char(10)), char(13), char(10)),
                    char(10), char(10) || 'data: '
                )
                || char(10, 10) AS frame
            FROM old
        );
    DROP TABLE old;
    INSERT INTO meta VALUES ('copied', 0);
    """,
)


class Refused(Exception):
    """The file can't be this log's home; the text says why."""


def connect(path: str) -> sqlite3.Connection:
    """Open the file, in autocommit."""
    database = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    database.execute("PRAGMA cache_size = -8192")
    return database


def meta(database: sqlite3.Connection, name: str) -> Any:
    """Return what the file says of itself under *name*."""
    return database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]


def oldest(database: sqlite3.Connection) -> int:
    """Return the oldest offset that is kept; the newest there was, if nothing is."""
    found = database.execute("SELECT min(offset) FROM notification").fetchone()[0]
    return int(found if found is not None else meta(database, "newest"))


def stands(database: sqlite3.Connection, offset: int, topics: Iterable[str]) -> bool:
    """Tell whether what stands at *offset* has still its place in one of *topics*."""
    query = "SELECT 1 FROM place WHERE topic = (SELECT id FROM topic WHERE name = ?) AND offset = ?"
    return any(list(database.execute(query, (topic, offset))) for topic in topics)


def lock(path: str, patience: float) -> int:
    """Make sure that nobody else writes *path*; a predecessor that is just ending gets *patience* seconds."""
    try:
        descriptor = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Refused(error.strerror or str(error)) from None
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() >= deadline:
                raise Refused(f"another process has had it open for {patience:g} s") from None
            time.sleep(0.05)


def note(lock: int, epoch: str, newest: int) -> None:
    """Write into the lock file how far the log goes, after a commit; the next start looks whether it still does."""
    with contextlib.suppress(OSError):  # without room for it there is an older note, and less is noticed
        os.pwrite(lock, f"{epoch:32} {newest:020}\n".encode(), 0)


def _noted(lock: int) -> tuple[str, int]:
    epoch, _, newest = os.pread(lock, 64, 0).decode("ascii", "replace").partition(" ")
    return epoch, int(newest) if newest.strip().isdecimal() else 0


def opened(path: str, epoch: str, lock: int) -> sqlite3.Connection:
    """Open the log at *path*; make it, under *epoch*, if there is none or the one there is damaged."""
    cut = _is_cut(path)
    try:
        database = connect(path)
        application = database.execute("PRAGMA application_id").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID and (tables or application):
            raise Refused("it is a SQLite file, but not the log of a hub")
        if version > len(MIGRATIONS):
            raise Refused(f"it was written by a newer hub (version {version}, this one knows {len(MIGRATIONS)})")
        damaged = bool(tables) and (cut or database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise Refused("it is not a SQLite file") from None
        damaged = True
    if damaged:
        return _opened_after_damage(path, epoch, lock)
    try:
        if not tables:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("VACUUM")
        _migrate(database, version, epoch)
        _notice_a_copy(database, path, epoch)
        _notice_a_loss(database, path, epoch, lock)
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None
    return database


def _is_cut(path: str) -> bool:
    """Tell whether the file ends in the middle of a page, and no write-ahead log knows how that goes on."""
    file, ahead = Path(path), Path(path + "-wal")
    if not file.is_file() or (ahead.exists() and ahead.stat().st_size):
        return False
    with file.open("rb") as opened:
        header = opened.read(18)
    page = int.from_bytes(header[16:], "big")
    return file.stat().st_size % (65_536 if page == 1 else page or 1) != 0


def _opened_after_damage(path: str, epoch: str, lock: int) -> sqlite3.Connection:
    """Put a damaged log aside, where somebody can look at it, and begin a new one."""
    aside = f"{path}.damaged-{int(time.time())}"
    for end in ("", "-wal", "-shm"):
        if Path(path + end).exists():
            Path(path + end).rename(aside + end)
    print(f"hub: the log {path} is damaged: put aside as {aside}, a new one begins", file=sys.stderr)
    return opened(path, epoch, lock)


def _migrate(database: sqlite3.Connection, version: int, epoch: str) -> None:
    """Bring the file from *version* to the newest one, a transaction each; a new file (0) gets *epoch*."""
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        done = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        try:
            database.executescript(f"BEGIN IMMEDIATE; {script} {done}")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
    database.execute("UPDATE meta SET value = ? WHERE name = 'epoch' AND value = ''", (epoch,))


def _notice_a_copy(database: sqlite3.Connection, path: str, epoch: str) -> None:
    """Begin a new epoch in a file that was copied here: its original may have given out the same offsets since."""
    status = Path(path).stat()
    home = f"{status.st_dev}:{status.st_ino}"
    known = database.execute("SELECT value FROM meta WHERE name = 'home'").fetchone()[0]
    if known == home:
        return
    database.execute("BEGIN IMMEDIATE")
    if known:
        _begin_an_epoch(database, epoch)
    database.execute("UPDATE meta SET value = ? WHERE name = 'home'", (home,))
    database.execute("COMMIT")


def _notice_a_loss(database: sqlite3.Connection, path: str, epoch: str, lock: int) -> None:
    """Begin a new epoch in a file that no longer has what it confirmed: it would give the same offsets again.

    An older copy was put in its place, or its write-ahead log was cut or removed.
    """
    noted, newest = _noted(lock)
    kept = meta(database, "newest")
    if noted != meta(database, "epoch") or newest <= kept:
        return
    print(
        f"hub: the log {path} went up to {newest}, and goes up to {kept} now: it goes on under a new epoch",
        file=sys.stderr,
    )
    database.execute("BEGIN IMMEDIATE")
    _begin_an_epoch(database, epoch)
    database.execute("COMMIT")


def _begin_an_epoch(database: sqlite3.Connection, epoch: str) -> None:
    newest = "(SELECT value FROM meta WHERE name = 'newest')"
    database.execute(f"UPDATE meta SET value = {newest} WHERE name = 'copied'")
    database.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (epoch,))
