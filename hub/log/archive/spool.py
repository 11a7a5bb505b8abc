"""The file that holds an archive during an import: it is verified as a whole before the log is touched."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import BinaryIO

from hub.errors import LogUnavailable, TooLarge
from hub.log.archive.format import MAX_LINE_BYTES, Contents, read
from hub.notification import Notification

MAX_ARCHIVE_BYTES = 16 * 1024**3
PART_COUNT = 500
PART_BYTES = 256 * 1024

_Part = list[Notification | Contents]


class Spool:
    """An archive in a file; it can be read more than once.

    The file is read and written in threads, part by part, so that neither a slow disk nor a large archive blocks the
    event loop.

    Args:
        file: a file with the archive; None: make a temporary one, for `write`.
        bound: the greatest number of bytes that `write` takes.
    """

    def __init__(self, file: BinaryIO | None = None, *, bound: int = MAX_ARCHIVE_BYTES) -> None:
        self._file = file or tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._left = self._bound = bound

    async def write(self, part: bytes) -> None:
        """Append *part* to the file.

        Raises:
            TooLarge: the archive is larger than the bound.
            LogUnavailable: the disk is full, or fails.
        """
        self._left -= len(part)
        if self._left < 0:
            raise TooLarge("archive", self._bound)
        try:
            await asyncio.to_thread(self._file.write, part)
        except OSError as error:
            raise LogUnavailable(f"there is no place for the archive: {error.strerror or error}") from None

    async def verify(self) -> Contents:
        """Read the archive to its end, and return its contents.

        Raises:
            InvalidArchive: it is cut short, or a line breaks a rule; names the line and the rule.
        """
        last: Notification | Contents | None = None
        async for part in self._parts():
            last = part[-1]
        assert isinstance(last, Contents)  # or `read` would have refused the archive
        return last

    async def history(self) -> AsyncIterator[Sequence[Notification]]:
        """Yield the notifications, in order, in parts.

        Raises:
            InvalidArchive: the file has changed since `verify`.
        """
        async for part in self._parts():
            yield [each for each in part if isinstance(each, Notification)]

    async def _parts(self) -> AsyncIterator[_Part]:
        parts = self._read()
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part

    def _read(self) -> Iterator[_Part]:
        self._file.seek(0)
        part: _Part = []
        size = 0
        for item in read(iter(lambda: self._file.readline(MAX_LINE_BYTES + 1), b"")):
            part.append(item)
            size += len(item.chunk) if isinstance(item, Notification) else 0
            if len(part) == PART_COUNT or size > PART_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part

    def close(self) -> None:
        """Close the file; a temporary one is removed."""
        self._file.close()
