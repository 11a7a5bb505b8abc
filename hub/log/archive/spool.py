"""An archive on its way in: whole in a file first, and verified, before any log hears of it."""

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
    """Keeps an archive in a file, and reads it as often as it is asked to.

    Every touch of the file is a thread's affair, part by part: neither a disk nor a large archive holds the event
    loop up.

    Args:
        file: holds the archive already; None: a temporary one, to be written.
        bound: how many bytes may be written.
    """

    def __init__(self, file: BinaryIO | None = None, *, bound: int = MAX_ARCHIVE_BYTES) -> None:
        self._file = file or tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        self._left = self._bound = bound

    async def write(self, part: bytes) -> None:
        """Add *part*.

        Raises:
            TooLarge: it is more than may be written.
            LogUnavailable: there is no room for it.
        """
        self._left -= len(part)
        if self._left < 0:
            raise TooLarge("archive", self._bound)
        try:
            await asyncio.to_thread(self._file.write, part)
        except OSError as error:
            raise LogUnavailable(f"there is no place for the archive: {error.strerror or error}") from None

    async def verify(self) -> Contents:
        """Read everything, and return what it is.

        Raises:
            InvalidArchive: names the line, and what is wrong with it.
        """
        last: Notification | Contents | None = None
        async for part in self._parts():
            last = part[-1]
        assert isinstance(last, Contents)  # or `read` would have refused the archive
        return last

    async def history(self) -> AsyncIterator[Sequence[Notification]]:
        """Yield the notifications, in order, in parts.

        Raises:
            InvalidArchive: it is no longer what `verify` saw.
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
        """Let go of the file; a temporary one is gone."""
        self._file.close()
