"""The place of the file: who may write there, and whether what lies there is what was left there.

Two locks keep others away. One is on `….lock` beside the file, as ever. The other one is on the file itself, so that no
second name of it (a hard link, a bind mount) is a way around; it belongs to the open file, not to the process (Linux),
so that SQLite, which opens and closes the same file, can't drop it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

try:
    import ctypes
except ImportError:  # a Python built without it
    ctypes = None  # type: ignore[assignment]  # looked at before it is used

MARK_AT = 64  # in the lock file; before it, what hubs that know no marks write and read
BEYOND_SQLITE = 1 << 40  # the byte that is locked; SQLite's own are those from 1 << 30 on


class Refused(Exception):
    """The file can't be this log's home; the text says why."""


class Misplaced(Exception):
    """What lies at the path is no longer the file that is open."""


class Inode(NamedTuple):
    """Which file it is, as its file system knows it.

    Attributes:
        device: changes from mount to mount on many file systems.
        number: stays; is given to another file when this one is removed.
        born: when it was made, in nanoseconds; 0 where that is not known. No copy has it.
    """

    device: int
    number: int
    born: int

    @classmethod
    def at(cls, path: str) -> Inode:
        status = Path(path).stat()
        return cls(status.st_dev, status.st_ino, _born(path, status))

    def is_that_of(self, other: Inode) -> bool:
        """Tell whether they are the same, whatever the device is called by now."""
        return self.number == other.number and (self.born == other.born or not (self.born and other.born))


def _born(path: str, status: os.stat_result) -> int:
    seconds = getattr(status, "st_birthtime", None)  # macOS and BSD
    if seconds is not None:
        return int(seconds * 10**6) * 1_000
    try:
        found = ctypes.create_string_buffer(256)  # struct statx
        if ctypes.CDLL(None).statx(-100, os.fsencode(path), 0, 0x800, found):
            return 0
    except (AttributeError, OSError):
        return 0
    (mask,) = struct.unpack_from("=I", found, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", found, 80)
    return int(seconds * 10**9 + nanoseconds) if mask & 0x800 else 0


class Mark(NamedTuple):
    """What the file, or its lock, says of itself: which log it belongs to, and which inode it was last.

    Attributes:
        token: the same in a file and its lock; empty where an older hub wrote it.
    """

    token: str
    inode: Inode


class Place:
    """The place of one file. Made, it holds the lock beside the file; `enter` takes the file itself.

    A predecessor that is just ending gets *patience* seconds.

    Raises:
        Refused: somebody else has it.
    """

    def __init__(self, path: str, patience: float) -> None:
        self.path = path
        self._there = Path(path)  # made once: each commit looks there
        self._until = time.monotonic() + patience
        self._taken = f"another process has had it open for {patience:g} s"
        self._lock_path = f"{path}.lock"
        self._file = -1
        self._made = False
        with _refusing():
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._hold(lambda: fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB))

    def _hold(self, take: Callable[[], object]) -> None:
        while True:
            try:
                take()
            except OSError:
                if time.monotonic() >= self._until:
                    raise Refused(self._taken) from None
                time.sleep(0.05)
            else:
                return

    def enter(self, *, create: bool) -> None:
        """Take the file that lies here now, and hold it until `close`; without *create* it must be there.

        Only before SQLite opens it: to close a descriptor of it later would drop SQLite's locks.
        """
        with _refusing():
            self._made = not os.path.lexists(self.path)
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
            status = os.fstat(self._file)
        if create and status.st_nlink > 1:
            # Its write-ahead log lies beside one name only: opened by the other name, it would lack what that holds.
            raise Refused(f"the file has {status.st_nlink} names (hard links); it may have one")
        self._known = (status.st_dev, status.st_ino)
        if sys.platform == "linux":
            file, wish = self._file, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, BEYOND_SQLITE, 1, 0)
            self._hold(lambda: _lock_if_possible(file, wish))

    def check(self) -> None:
        """Look whether the file that is open still lies here.

        Raises:
            Misplaced: it was removed, moved, or another one was put in its place.
        """
        try:
            status = self._there.stat()
        except OSError as error:
            raise Misplaced(f"the file is no longer there ({error.strerror})") from None
        if (status.st_dev, status.st_ino) != self._known:
            raise Misplaced("another file was put in its place")

    def sync_ahead(self) -> None:
        """Sync the write-ahead log that was found to disk: a process that was killed may not have waited for it.

        Raises:
            Refused: it can't.
        """
        ahead = Path(f"{self.path}-wal")
        if ahead.exists():
            with _refusing(), ahead.open("rb") as file:
                os.fsync(file)

    @property
    def known(self) -> tuple[int, int]:
        """The device and the inode of the open file."""
        return self._known

    # ---- what the lock says ----

    def note(self, epoch: str, newest: int) -> None:
        """Write into the lock file how far the log goes, after a commit; the next start looks whether it still does."""
        with contextlib.suppress(OSError):  # without room for it there is an older note, and less is noticed
            os.pwrite(self._lock, f"{epoch:32} {newest:020}\n".encode(), 0)

    @property
    def noted(self) -> tuple[str, int]:
        """The epoch, and how far the log went."""
        epoch, _, newest = os.pread(self._lock, MARK_AT, 0).decode("ascii", "replace").partition(" ")
        return epoch, int(newest) if newest.strip().isdecimal() else 0

    def mark(self, token: str) -> None:
        """Write into the lock file, behind a note, that it belongs to the log *token*, and lies here."""
        with contextlib.suppress(OSError):
            inode = Inode.at(self._lock_path)
            padding = f"{'':{MARK_AT - 32 - 1 - 20 - 1 - 1}}\n"
            line = f"{padding}{token} {inode.device} {inode.number} {inode.born}\n"
            os.pwrite(self._lock, line.encode(), 32 + 1 + 20 + 1)

    @property
    def marked(self) -> Mark:
        """What it says of itself."""
        words = os.pread(self._lock, 256, MARK_AT).decode("ascii", "replace").partition("\n")[0].split()
        if len(words) == 4 and all(word.isdecimal() for word in words[1:]):
            return Mark(words[0], Inode(*map(int, words[1:])))
        return Mark("", Inode(0, 0, 0))

    @property
    def blank(self) -> bool:
        """Whether the lock file says nothing: no log was ever here."""
        return not os.pread(self._lock, 1, 0)

    def is_where_it_was(self, epoch: str, file: Mark) -> bool:
        """Tell whether the file, which says *epoch* and *file* of itself, is the one that was left here.

        How far it goes is another question. A lock that belongs to it and has not moved itself answers alone: what is
        here is what was left here, or a complete copy of that. Else the file must be the same inode; and where no lock
        belongs to it, on the same device, for two fresh disks give the same numbers.
        """
        here, lock = Inode.at(self.path), self.marked
        theirs = lock.token == file.token if file.token else self.noted[0] == epoch
        if theirs:
            unmoved = bool(lock.token) and Inode.at(self._lock_path).is_that_of(lock.inode)
            return unmoved or here.is_that_of(file.inode)
        return here.is_that_of(file.inode) and here.device == file.inode.device

    # ---- the end ----

    def leave_nothing(self) -> None:
        """Remove what this has made beside somebody else's file, or for a log that could not be made."""
        if self.blank:
            Path(self._lock_path).unlink()
            if self._made and self._file >= 0 and not os.fstat(self._file).st_size:
                Path(self.path).unlink()

    def close(self) -> None:
        """Release the locks. SQLite must have closed the file before."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1


def new_token() -> str:
    """Return the name of one log, which no copy shares."""
    return secrets.token_hex(8)


def _lock_if_possible(file: int, wish: bytes) -> None:
    """Lock the byte.

    Raises:
        BlockingIOError: somebody else has.
    """
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wish)
    except BlockingIOError:
        raise
    except PermissionError as error:  # what POSIX allows for the same
        raise BlockingIOError(error.errno, error.strerror) from None
    except OSError:  # a kernel or a file system that has no such locks: there is the other one
        return


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(error.strerror or str(error)) from None
