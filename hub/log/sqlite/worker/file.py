"""The file: its schema, and how it is opened, checked and brought up to date."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hub.log.sqlite.worker.place import Inode, Mark, Misplaced, Place, Refused, new_token

APPLICATION_ID = 0x68756231  # "hub1"
BUSY_SECONDS = 5.0
WAL_BYTES = 8 * 1024 * 1024
EPOCHS = 64  # earlier ones that are remembered

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
    # The epochs that this history has had before, each with the newest offset that is a part of it. And from here on
    # the text is kept, with an empty chunk; rows that are there stay as they are.
    """
    CREATE TABLE epoch (number INTEGER PRIMARY KEY, name TEXT NOT NULL, ended INTEGER NOT NULL);
    """,
)


def connect(path: str) -> sqlite3.Connection:
    """Open the file, which must be there, in autocommit."""
    address = f"file:{quote(path)}?mode=rw"
    database = sqlite3.connect(address, uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=256)
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    database.execute("PRAGMA cache_size = -8192")
    return database


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, beside which others can read.

    Raises:
        Refused: where the file lies, there can be none.
    """
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Refused(f"its file system can't hold a write-ahead log (SQLite's journal mode stays {mode!r})")


def meta(database: sqlite3.Connection, name: str) -> Any:
    """Return what the file says of itself under *name*."""
    return database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]


def oldest(database: sqlite3.Connection) -> int:
    """Return the oldest offset that is kept; the newest there was, if nothing is."""
    found = database.execute("SELECT min(offset) FROM notification").fetchone()[0]
    return int(found if found is not None else meta(database, "newest"))


def stands(database: sqlite3.Connection, offset: int, topics: Iterable[str]) -> bool:
    """Return whether one of *topics* still keeps what stands at *offset*."""
    query = "SELECT 1 FROM place WHERE topic = (SELECT id FROM topic WHERE name = ?) AND offset = ?"
    return any(list(database.execute(query, (topic, offset))) for topic in topics)


def opened(place: Place, epoch: str, replaces: str | None = None) -> sqlite3.Connection:
    """Open the log at *place*; make it, under *epoch*, if there is none or the one there is damaged.

    *replaces* is the epoch of the log that a process before this one had open here, for the same hub: the file was
    looked through then, must be there, and must be the same one still.

    Raises:
        Refused: what is there is not to be touched.
    """
    path, again = place.path, replaces is not None
    place.enter(create=not again)
    cut = not again and _is_cut(path)
    try:
        database = connect(path)
        application = database.execute("PRAGMA application_id").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID and (tables or application):
            raise Refused("it is a SQLite file, but not the log of a hub")
        if version > len(MIGRATIONS):
            raise Refused(f"it was written by a newer hub (version {version}, this one knows {len(MIGRATIONS)})")
        if again and not tables:
            raise Refused(_ANOTHER)
        sound = again or not tables or database.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        damaged = bool(tables) and (cut or not sound)
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise Refused("it is not a SQLite file") from None
        if again:
            raise Refused(str(error)) from None
        damaged = True
    if damaged:
        return _opened_after_damage(place, epoch)
    try:
        _write_ahead(database)
        if not tables:
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("VACUUM")
        _migrate(database, version, epoch)
        place.check()
        _settle(database, place, epoch, replaces)
    except Misplaced as error:
        raise Refused(str(error)) from None
    except sqlite3.OperationalError as error:
        raise Refused(str(error)) from None
    return database


_ANOTHER = "it is another log than it was: the hub has to be started anew, or the file put back"


def _is_cut(path: str) -> bool:
    """Tell whether the file ends in the middle of a page, and no write-ahead log knows how that goes on."""
    file, ahead = Path(path), Path(path + "-wal")
    if not file.is_file() or (ahead.exists() and ahead.stat().st_size):
        return False
    with file.open("rb") as opened:
        header = opened.read(18)
    page = int.from_bytes(header[16:], "big")
    return file.stat().st_size % (65_536 if page == 1 else page or 1) != 0


def _opened_after_damage(place: Place, epoch: str) -> sqlite3.Connection:
    """Rename a damaged log, so that somebody can look at it, and begin a new one."""
    path = place.path
    aside = f"{path}.damaged-{int(time.time())}"
    for end in ("", "-wal", "-shm"):
        if Path(path + end).exists():
            Path(path + end).rename(aside + end)
    print(f"hub: the log {path} is damaged: put aside as {aside}, a new one begins", file=sys.stderr)
    return opened(place, epoch)


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


def _settle(database: sqlite3.Connection, place: Place, epoch: str, replaces: str | None) -> None:
    """Begin a new epoch in a file that may give offsets a second time, and write down where it lies.

    It would give them again if it no longer has what it confirmed: an older copy was put in its place, or its
    write-ahead log was cut or removed. And where it was copied to, its original may have given them since.
    """
    facts = dict(database.execute("SELECT name, value FROM meta"))
    device, _, number = facts["home"].partition(":")
    known = Mark(facts.get("token", ""), Inode(int(device or 0), int(number or 0), facts.get("born", 0)))
    noted, newest = place.noted
    why = ""
    if facts["home"]:
        if noted == facts["epoch"] and newest > facts["newest"]:
            why = f"went up to {newest}, and goes up to {facts['newest']} now"
        elif not place.is_where_it_was(facts["epoch"], known):
            why = "is a copy, or was restored"
    if replaces is not None and (why or facts["epoch"] != replaces):
        raise Refused(_ANOTHER)
    token = known.token
    database.execute("BEGIN IMMEDIATE")
    if why:
        print(f"hub: the log {place.path} {why}: it goes on under a new epoch", file=sys.stderr)
        _begin_an_epoch(database, epoch)
        token = ""
    here = Inode.at(place.path)
    token = token or new_token()
    said = {"home": f"{here.device}:{here.number}", "born": here.born, "token": token}
    if any(facts.get(name) != value for name, value in said.items()):
        database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", said.items())
    database.execute("COMMIT")
    place.note(meta(database, "epoch"), meta(database, "newest"))
    place.mark(token)


def _begin_an_epoch(database: sqlite3.Connection, epoch: str) -> None:
    # What this file has of the epoch is where it ended: a client that has seen more of it has seen what is not here.
    ended = (meta(database, "epoch"), meta(database, "newest"))
    database.execute("INSERT INTO epoch (name, ended) VALUES (?, ?)", ended)
    database.execute("DELETE FROM epoch WHERE number <= (SELECT max(number) FROM epoch) - ?", (EPOCHS,))
    newest = "(SELECT value FROM meta WHERE name = 'newest')"
    database.execute(f"UPDATE meta SET value = {newest} WHERE name = 'copied'")
    database.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (epoch,))
