"""The file of the state, and the thread that writes it.

One thread owns the connection: it opens the file, commits what has gathered while the last commit was on its way, and
closes it. SQLite lets other threads run while it waits for the disk, so the loop never does. A process of its own, as
the log has, would only cost more: little is written here, and nothing is read after the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import quote

from hub.errors import StateUnavailable

logger = logging.getLogger("hub.state")

APPLICATION_ID = 0x68756273  # "hubs"
OPEN_SECONDS = 60.0
LOCK_SECONDS = 5.0  # for a predecessor that is just ending
PATIENCE = 5.0  # for one commit
CLOSE_SECONDS = 5.0
WAITING = 10_000  # writes
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
)

Statement = tuple[str, tuple[Any, ...]]


class Rows(NamedTuple):
    """What a file holds, in the order in which it was written."""

    revocations: list[tuple[bytes, float, float | None]]
    buckets: list[tuple[int, float]]
    entries: list[tuple[str, str, float, str]]


class Refused(Exception):
    """The file can't be used; the text says why."""


class File:
    """The open file. All calls belong to one thread, which may wait in each of them.

    Raises:
        Refused: the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _refusing():
            _make(path)
            self._database = sqlite3.connect(
                f"file:{quote(os.path.realpath(path))}?mode=rw", uri=True, isolation_level=None, timeout=LOCK_SECONDS
            )
            try:
                self._prepare()
                status = path.stat()
            except BaseException:
                self._database.close()
                raise
        self._inode = (status.st_dev, status.st_ino)

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")  # two hubs with one file would not know each other's revocations
        (application,) = run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID and (tables or application):
            raise Refused("it is a SQLite file, but not the state of a hub")
        if version > len(MIGRATIONS):
            raise Refused(f"it was written by a newer hub (version {version}, this one knows {len(MIGRATIONS)})")
        if tables and run("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise Refused(_DAMAGED)
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            done = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            self._database.executescript(f"BEGIN IMMEDIATE; {script} {done}")

    def read(self) -> Rows:
        """Return what it holds; raise `Refused` if it can't be read."""
        run = self._database.execute
        with _refusing():
            return Rows(
                run("SELECT digest, at, until FROM revocation ORDER BY number").fetchall(),
                run("SELECT number, at FROM bucket").fetchall(),
                run("SELECT key, value, expires, owner FROM entry ORDER BY number").fetchall(),
            )

    def commit(self, statements: Sequence[Statement]) -> None:
        """Carry *statements* out, all or none of them, and have the disk keep it.

        Raises:
            Refused: they were not kept, or the file no longer lies where it did.
        """
        run = self._database.execute
        try:
            with _refusing():
                run("BEGIN IMMEDIATE")
                for statement in statements:
                    run(*statement)
                run("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    run("ROLLBACK")
            raise
        with _refusing():
            status = self._path.stat()
        if (status.st_dev, status.st_ino) != self._inode:
            raise Refused("another file was put in its place")

    def close(self) -> None:
        """Close it; what was committed is in the one file then."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


_DAMAGED = "it is damaged; the hub would not know what was revoked. Put a good copy there, or remove it"


def _make(path: Path) -> None:
    """Make the file, for its owner only, if it is not there.

    A file that is there is not opened: to close it would drop the locks of SQLite, if this process has it open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


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


class _Write(NamedTuple):
    """Statements on their way into the file, and whoever waits for that."""

    statements: Sequence[Statement]
    done: asyncio.Future[None]


class Journal:
    """The file of the state, seen from the loop: reads it once, and writes it in a thread.

    Args:
        path: the file.
        patience: seconds for one commit.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._waiting: dict[asyncio.Future[None], float] = {}  # since when, in seconds of time.monotonic
        self._thread: threading.Thread | None = None
        self._why = ""  # the last commit failed
        self._closed = False

    # ---- on the loop ----

    async def open(self) -> Rows:
        """Open the file, make it if it is not there, and return what it holds.

        Raises:
            StateUnavailable: it can't be used; says why.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Rows] = self._loop.create_future()
        # As a daemon: a disk that does not answer must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, args=(opened,), name="hub-state", daemon=True)
        self._ended = self._loop.create_future()
        self._thread.start()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await opened
        except Refused as error:
            raise StateUnavailable(f"{self._path}: {error}") from None
        except TimeoutError:
            raise StateUnavailable(f"{self._path}: the disk does not answer") from None
        finally:
            if not opened.done() or opened.cancelled() or opened.exception() is not None:
                self._closed = True
                self._queue.put(None)

    @property
    def up(self) -> bool:
        """Whether no commit takes longer than one that works does."""
        return not self._late

    @property
    def _late(self) -> bool:
        since = next(iter(self._waiting.values()), None)
        return since is not None and time.monotonic() - since >= self._patience

    def write(self, *statements: Statement) -> asyncio.Future[None]:
        """Have *statements* kept, after all that was written before; nobody has to await the future.

        It raises `StateUnavailable` if they are not kept.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_looked_at)
        if self._closed or self._thread is None:
            done.set_exception(StateUnavailable("its file is not open"))
        elif self._late or len(self._waiting) >= WAITING:
            done.set_exception(StateUnavailable("its disk does not answer"))
        else:
            self._waiting[done] = time.monotonic()
            self._queue.put(_Write(statements, done))
        return done

    async def keep(self, *statements: Statement) -> None:
        """Have *statements* kept; return when they are.

        Raises:
            StateUnavailable: they are not, or that takes too long; then they may be kept later.
        """
        done = self.write(*statements)
        await asyncio.wait([done], timeout=self._patience)
        if not done.done():
            raise StateUnavailable("its disk does not answer")
        done.result()

    def _told(self, batch: Sequence[_Write], why: str) -> None:
        """Learn what became of *batch*."""
        if why and why != self._why:
            logger.error("the state %s could not be written: %s", self._path, why)
        self._why = why
        for _, done in batch:
            self._waiting.pop(done, None)
            if done.done():  # whoever waited was cancelled
                continue
            if why:
                done.set_exception(StateUnavailable("its file could not be written; the hub's own log says why"))
            else:
                done.set_result(None)

    async def aclose(self) -> None:
        """Write what waits, within 5 seconds, and close the file."""
        if self._thread is None:
            return
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.wait([self._ended], timeout=CLOSE_SECONDS)
        if not self._ended.done():
            logger.error("the state %s can't be closed: its disk does not answer", self._path)

    # ---- in the thread ----

    def _run(self, opened: asyncio.Future[Rows]) -> None:
        try:
            file = File(self._path)
        except Exception as error:
            self._say(_settle, opened, error)
        else:
            try:
                self._say(_settle, opened, file.read())
                self._write_all(file)
            except Exception as error:
                self._say(_settle, opened, error)
                logger.exception("the thread that writes the state %s has failed", self._path)
            finally:
                file.close()
        self._say(_settle, self._ended, None)

    def _write_all(self, file: File) -> None:
        """Commit what waits, batch after batch, until the end: what arrives during one commit shares the next."""
        ends = False
        while not ends:
            batch = [self._queue.get()]
            with contextlib.suppress(Empty):
                while True:
                    batch.append(self._queue.get_nowait())
            ends = None in batch
            if writes := [each for each in batch if each is not None]:
                why = ""
                try:
                    file.commit([each for write in writes for each in write.statements])
                except Exception as error:  # whatever it is, the next batch may succeed
                    why = str(error)
                self._say(self._told, writes, why)

    def _say(self, call: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(call, *arguments)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _looked_at(future: asyncio.Future[None]) -> None:
    """Have nobody warned of an error that nobody awaits; `Journal` has logged it."""
    if not future.cancelled():
        future.exception()
