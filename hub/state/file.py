"""The file of the state, in the process that writes it: `hub.state.journal` is the other end.

Of the hub this loads nothing but what the processes of the log load, too.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hub.log.sqlite.worker.main import run
from hub.log.sqlite.worker.place import Refused

APPLICATION_ID = 0x68756273  # "hubs"
LOCK_SECONDS = 5.0  # for a predecessor that is just ending
WAL_BYTES = 1024 * 1024

# A new file goes through all of them, an old one through those it has not seen; PRAGMA user_version counts them.
MIGRATIONS = (
    """
    CREATE TABLE revocation (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, at REAL NOT NULL, until REAL);
    CREATE TABLE bucket (number INTEGER PRIMARY KEY, at REAL NOT NULL);
    CREATE TABLE entry (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, expires REAL NOT NULL,
        owner TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE era (number INTEGER PRIMARY KEY, name TEXT NOT NULL, fixed INTEGER, cap INTEGER NOT NULL);
    CREATE TABLE membership (
        room TEXT NOT NULL, user TEXT NOT NULL, era INTEGER NOT NULL, offset INTEGER NOT NULL, at REAL NOT NULL,
        publish INTEGER NOT NULL, loaded INTEGER NOT NULL, PRIMARY KEY (room, user)
    ) WITHOUT ROWID;
    """,
)

Statement = tuple[str, tuple[Any, ...]]


class File:
    """The open file.

    Args:
        path: where it is; it is made if it is not there, unless *inode* is given.
        inode: what the process before this one had open: the file must be the same one still.

    Raises:
        Refused: the file can't be used.
    """

    def __init__(self, path: str, inode: tuple[int, int] | None = None) -> None:
        self._path = Path(path)
        with _refusing():
            if inode is None:
                _make(self._path)
            elif _inode(self._path) != inode:
                raise Refused(_ANOTHER)
            self._database = sqlite3.connect(
                f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_SECONDS
            )
            try:
                self._prepare()
                self._inode = _inode(self._path)
            except BaseException:
                self._database.close()
                raise

    def _prepare(self) -> None:
        ask = self._database.execute
        ask("PRAGMA locking_mode = EXCLUSIVE")  # two hubs with one file would not know each other's revocations
        (application,) = ask("PRAGMA application_id").fetchone()
        (tables,) = ask("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = ask("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID and (tables or application):
            raise Refused("it is a SQLite file, but not the state of a hub")
        if version > len(MIGRATIONS):
            raise Refused(f"it was written by a newer hub (version {version}, this one knows {len(MIGRATIONS)})")
        if tables and ask("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise Refused(_DAMAGED)
        ask("PRAGMA journal_mode = WAL")
        ask("PRAGMA synchronous = FULL")
        ask(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            done = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            self._database.executescript(f"BEGIN IMMEDIATE; {script} {done}")

    def state(self) -> dict[str, Any]:
        """Return what it holds, in the order in which it was written."""
        ask = self._database.execute
        with _refusing():
            return {
                "inode": self._inode,
                "revocations": ask("SELECT digest, at, until FROM revocation ORDER BY number").fetchall(),
                "buckets": ask("SELECT number, at FROM bucket").fetchall(),
                "entries": ask("SELECT key, value, expires, owner FROM entry ORDER BY number").fetchall(),
                "eras": ask("SELECT * FROM era WHERE number IN (SELECT era FROM membership)").fetchall(),
            }

    def memberships(self, room: str, user: str, limit: int) -> dict[str, Any]:
        """Return up to *limit* memberships behind that of *user* in *room*, in the order of rooms and users."""
        query = "SELECT * FROM membership WHERE (room, user) > (?, ?) ORDER BY room, user LIMIT ?"
        try:
            with _refusing():
                return {"rows": self._database.execute(query, (room, user, limit)).fetchall()}
        except Refused as error:
            return {"error": str(error)}

    def look(self) -> dict[str, Any]:
        """Do nothing: the hub asks whether somebody is there."""
        return {}

    def commit(self, statements: Sequence[Statement]) -> dict[str, Any]:
        """Carry *statements* out, all or none, have the disk keep that, and return the `error` if there is one."""
        try:
            with _refusing():
                self._commit(statements)
                return {} if _inode(self._path) == self._inode else {"error": _ANOTHER}
        except Refused as error:
            return {"error": str(error)}

    def _commit(self, statements: Sequence[Statement]) -> None:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for statement in statements:
                self._database.execute(*statement)
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close it; what was committed is in the one file then."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


_DAMAGED = "it is damaged; the hub would not know what was revoked. Put a good copy there, or remove it"
_ANOTHER = "another file was put in its place; the hub has to be started anew, or the file put back"


def _make(path: Path) -> None:
    """Make the file, for its owner only, if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return (status.st_dev, status.st_ino)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(error.strerror or str(error)) from None
    except sqlite3.DatabaseError as error:
        said = str(error)
        if "locked" in said:
            said = f"another hub has had it open for {LOCK_SECONDS:g} s"
        elif "malformed" in said:
            said = _DAMAGED
        elif "not a database" in said:
            said = "it is not a SQLite file"
        raise Refused(said) from None


def main() -> int:
    """Open the file and serve it: what the process runs."""
    return run(lambda role, path, options: File(path, options.get("inode")))
