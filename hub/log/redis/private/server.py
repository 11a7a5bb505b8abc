"""The owner's end of a private Redis: its folder, its start, its end; it is started again when it dies."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from hub.errors import InvalidSettings, LogUnavailable
from hub.log.redis.private.programs import Program, Version, choose
from hub.log.sqlite.interpreter import interpreter
from hub.redis_url import MAX_SOCKET_PATH

logger = logging.getLogger("hub.log")

SOCKET, LOCK, VERSION = "redis.sock", "lock", "version"
LOCK_SECONDS = 15.0  # the server of a process that was killed needs some to write what it has
START_SECONDS = 60.0
SECONDS_PER_GIB = 30.0  # it reads all of its files at the start
END_SECONDS = 15.0
KILL_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
HEALTHY_SECONDS = 10.0
_LAST_LINES = 5

# Behind the standard library on the path: the guard starts fast.
_SCRIPT = f"""
import sys
sys.path.append({str(Path(__file__).parents[4])!r})
from hub.log.redis.private.guard import main
sys.exit(main())
"""


class PrivateRedis:
    """A Redis that runs while this is open, in a folder that no other process uses meanwhile.

    What it has confirmed is on the disk. It listens on a Unix socket only, to which this user alone may connect. It
    ends with this process, however that ends.

    Args:
        folder: where its files are; made if it is not there.

    Raises:
        InvalidSettings: the path of its socket would be too long.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._socket = self._folder / SOCKET
        if len(os.fsencode(self._socket)) > MAX_SOCKET_PATH:
            why = f"log (HUB_LOG): {self._socket}: the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes"
            raise InvalidSettings([why])
        self._lock: int | None = None
        self._program: Program | None = None
        self._guard: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=_LAST_LINES)
        self._reading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address at which it is reached."""
        return f"redis+unix://{quote(str(self._socket))}"

    async def __aenter__(self) -> Self:
        """Start it; return when it answers.

        Raises:
            LogUnavailable: it can't be started; says why.
            InvalidSettings: there is no program for it.
        """
        try:
            await self._take_folder()
            self._program = await asyncio.to_thread(choose, self._recorded())
            await self._start()
            await asyncio.to_thread(self._record, self._program.version)
        except BaseException as error:
            await self._end()
            if isinstance(error, OSError):
                raise self._unavailable(error.strerror or str(error)) from None
            if isinstance(error, LogUnavailable) and str(self._folder) not in error.why:
                raise self._unavailable(error.why) from None
            raise
        self._keeping = asyncio.create_task(self._keep())
        logger.info("%s runs in %s", self._program.version, self._folder)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it, and wait until it has ended."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        await self._end()

    def _unavailable(self, why: str) -> LogUnavailable:
        return LogUnavailable(f"{self._folder}: {why}")

    # ---- its folder ----

    async def _take_folder(self) -> None:
        """Lock the folder. The server holds the lock as well: it is free only when that has ended, too."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        loop = asyncio.get_running_loop()
        until = loop.time() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if loop.time() > until:
                    holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
                    who = f"process {holder}" if holder else "another process"
                    raise self._unavailable(
                        f"{who} uses it; several programs need a Redis that is started apart from them"
                    ) from None
            await asyncio.sleep(0.05)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _recorded(self) -> Version | None:
        """Return the version of the server that wrote the files."""
        try:
            text = (self._folder / VERSION).read_text()
        except FileNotFoundError:
            return None
        version = Version.recorded(text)
        if version is None:
            raise self._unavailable(f"{VERSION} does not say which server wrote its files")
        return version

    def _record(self, version: Version) -> None:
        """Write down which server writes the files, in a step: a disk that is full leaves what was there."""
        if version != self._recorded():
            new = self._folder / f"{VERSION}.new"
            with new.open("w") as file:
                file.write(f"{version}\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._folder / VERSION)

    # ---- the server ----

    async def _start(self) -> None:
        """Start the server, and wait until it answers."""
        assert self._program is not None
        assert self._lock is not None
        options = {
            "dir": str(self._folder),
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "600",
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "supervised": "no",
            "loglevel": "warning",
            "logfile": "",
        }
        self._guard = await asyncio.create_subprocess_exec(
            *(interpreter(), "-IS", "-c", _SCRIPT, str(self._lock), self._program.path),
            *(part for name, value in options.items() for part in (f"--{name}", value)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=(self._lock,),
            start_new_session=True,  # a Ctrl-C in the terminal reaches only the hub
            cwd="/",
        )
        self._said.clear()
        assert self._guard.stdout is not None
        self._reading = asyncio.create_task(self._read(self._guard.stdout))
        seconds = START_SECONDS + SECONDS_PER_GIB * self._gibibytes()
        try:
            async with asyncio.timeout(seconds):
                while not await self._answers():
                    if self._reading.done():
                        raise self._unavailable(f"{self._program.version} does not start: {' '.join(self._said)}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise self._unavailable(f"{self._program.version} did not answer within {seconds:g} s") from None

    def _gibibytes(self) -> float:
        return sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file()) / 1024**3

    async def _answers(self) -> bool:
        """Return whether it answers; while it reads its files, it does not."""
        with suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
        return False

    async def _read(self, said: asyncio.StreamReader) -> None:
        """Keep the last lines that it says, for when it dies; return when both the guard and the server have ended."""
        rest = b""
        while some := await said.read(4096):
            *lines, rest = (rest[-4096:] + some).split(b"\n")
            for line in lines:
                logger.debug("redis: %s", line.decode(errors="replace"))
                self._said.append(line.decode(errors="replace"))

    async def _keep(self) -> None:
        """Start it again whenever it dies; if that goes on, after growing pauses."""
        clock = asyncio.get_running_loop().time
        pause, since = 0.0, clock()
        while True:
            how = "could not be started"  # such as because there is no memory for a process now
            if self._guard is not None and self._reading is not None:
                how = f"ended with status {await self._guard.wait()}"
                await asyncio.wait([self._reading], timeout=KILL_SECONDS)
                how += f" ({' '.join(self._said)})" if self._said else ""
            if clock() - since >= HEALTHY_SECONDS:
                pause = 0.0
            again = f" in {pause:g} s" if pause else ""
            logger.error("the Redis in %s %s: it is started again%s", self._folder, how, again)
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            since = clock()
            try:
                await self._end_guard()
                await self._start()
            except (LogUnavailable, OSError) as error:
                logger.error("%s", error)

    async def _end(self) -> None:
        try:
            await self._end_guard()
        except LogUnavailable as error:
            logger.error("%s", error.why)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _end_guard(self) -> None:
        """End the server by its guard, and wait for the end of both; kill them if that takes too long."""
        guard, reading = self._guard, self._reading
        if guard is None or reading is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        await asyncio.wait([reading], timeout=END_SECONDS)
        if not reading.done():
            with suppress(ProcessLookupError):
                guard.kill()  # the server is killed with it
            # One that waits for a disk is still there; two of them in one folder would be the end of its files.
            await asyncio.wait([reading], timeout=KILL_SECONDS)
        if not reading.done():
            raise self._unavailable("the Redis that runs there hangs, and can't be ended")
        await guard.wait()
        self._guard = self._reading = None
