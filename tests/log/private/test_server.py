"""A Redis of the hub's own, as real processes: Debian's, and the Valkey of the extra."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import BusyLoadingError

from hub.errors import InvalidSettings, LogUnavailable
from hub.log.redis.private import server
from hub.log.redis.private.server import PrivateRedis
from hub.redis_link import BROKEN, RedisLink
from hub.redis_url import RedisURL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, which is not there yet."""
    parent = Path(tempfile.mkdtemp(prefix="hub-private-", dir="/tmp"))
    yield parent / "redis"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(params=["redis", "valkey"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The program that is found."""
    if request.param == "valkey":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        assert shutil.which("redis-server"), "apt-get install redis-server"
        monkeypatch.setenv("PATH", "/usr/bin:/usr/local/bin")
    return str(request.param)


async def ask(redis: PrivateRedis, *command: Any) -> Any:
    """Return the answer to *command*, as soon as the server has read its file."""
    async with asyncio.timeout(60):
        while True:
            connection = await RedisLink(RedisURL.parse(redis.url), "any").connect()
            try:
                return await connection.call(*command)
            except BusyLoadingError:
                await asyncio.sleep(0.01)
            finally:
                await connection.aclose()


async def pid_of(redis: PrivateRedis) -> int:
    """Return the process of the server."""
    for line in (await ask(redis, "INFO", "server")).decode().splitlines():
        name, _, value = line.partition(":")
        if name == "process_id":
            return int(value)
    raise AssertionError("it does not say its process")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - other processes have no event to wait for
            await asyncio.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def again(redis: PrivateRedis, before: int) -> int:
    """Return the process that took the place of the one *before*."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (pid := await pid_of(redis)) != before:
                    return pid
            except BROKEN:
                pass
            await asyncio.sleep(0.02)


async def test_it_keeps_what_it_confirmed_and_says_its_version(folder: Path, kind: str) -> None:
    async with PrivateRedis(folder) as redis:
        assert await ask(redis, "SET", "a", "1") == b"OK"
        pid = await pid_of(redis)
        assert (folder / "version").read_text().startswith(f"{kind} ")
    assert not runs(pid)
    async with PrivateRedis(folder) as redis:
        assert await ask(redis, "GET", "a") == b"1"
        for name, value in {
            b"appendonly": b"yes",
            b"appendfsync": b"always",
            b"maxmemory-policy": b"noeviction",
        }.items():
            assert await ask(redis, "CONFIG", "GET", name) == [name, value]


async def test_it_has_no_port_and_only_this_user_may_connect(folder: Path, kind: str) -> None:
    async with PrivateRedis(folder) as redis:
        assert await ask(redis, "CONFIG", "GET", "port") == [b"port", b"0"]
        pid = await pid_of(redis)
        assert not sockets_of(pid) & ports()
    assert mode(folder) == 0o700


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has."""
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    found = {link[8:-1] for link in links if link.startswith("socket:[")}
    assert found
    return found


def ports() -> set[str]:
    """Return the inodes of the sockets with a TCP port."""
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return {line.split()[9] for line in lines}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_one_that_is_killed_is_started_again_with_what_it_confirmed(folder: Path, kind: str) -> None:
    async with PrivateRedis(folder) as redis:
        await ask(redis, "SET", "a", "1")
        pid = await pid_of(redis)
        os.kill(pid, signal.SIGKILL)
        second = await again(redis, pid)
        assert await ask(redis, "GET", "a") == b"1"
        os.kill(parent_of(second), signal.SIGKILL)  # the guard: the server goes with it, before the next one begins
        third = await again(redis, second)
        assert not runs(second)
        assert await ask(redis, "GET", "a") == b"1"
    assert not runs(third)


async def test_one_that_can_not_be_started_again_at_once_is_started_later(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, tries = asyncio.create_subprocess_exec, 0

    async def fail_at_first(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return await start(*arguments, **options)

    async with PrivateRedis(folder) as redis:
        pid = await pid_of(redis)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", fail_at_first)
        os.kill(pid, signal.SIGKILL)
        await again(redis, pid)
    assert tries == 3


async def test_a_disk_that_is_full_does_not_take_away_which_version_wrote_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PrivateRedis(folder):
        pass
    (folder / "version").write_text("redis 6.2.0\n")  # it was written by an older one
    before = (folder / "version").read_text()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LogUnavailable, match="No space left on device"):
        await PrivateRedis(folder).__aenter__()
    assert (folder / "version").read_text() == before
    monkeypatch.undo()
    async with PrivateRedis(folder):
        assert (folder / "version").read_text() != before


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


OWNER = """
import asyncio
import sys
from pathlib import Path

from hub.log.redis.private.server import PrivateRedis


async def own():
    async with PrivateRedis(Path(sys.argv[1])):
        print("runs", flush=True)
        await asyncio.Event().wait()


asyncio.run(own())
"""


@pytest.fixture
def owner(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has a private Redis in the folder."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"runs\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


async def test_it_ends_with_its_owner_even_if_that_is_killed(folder: Path, owner: subprocess.Popen[bytes]) -> None:
    redis = PrivateRedis(folder)
    pid = await pid_of(redis)
    await ask(redis, "SET", "a", "1")
    guard = parent_of(pid)
    owner.kill()
    await until(lambda: not runs(pid) and not runs(guard))
    async with redis:
        assert await ask(redis, "GET", "a") == b"1"


async def test_the_next_owner_waits_for_the_end_of_the_one_before(folder: Path, owner: subprocess.Popen[bytes]) -> None:
    redis = PrivateRedis(folder)
    pid = await pid_of(redis)
    guard = parent_of(pid)
    os.kill(guard, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    begin = asyncio.create_task(redis.__aenter__())
    await asyncio.wait([begin], timeout=0.5)
    assert not begin.done(), "the server of the one before still has the folder"
    assert runs(pid)
    os.kill(guard, signal.SIGCONT)
    await begin
    assert not runs(pid)
    await redis.__aexit__()


async def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(
    folder: Path, owner: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOCK_SECONDS", 0.1)
    with pytest.raises(LogUnavailable, match=f"{folder}: process {owner.pid} uses it"):
        await PrivateRedis(folder).__aenter__()
    assert await ask(PrivateRedis(folder), "PING") == b"PONG"


async def test_files_of_a_newer_server_are_left_alone(folder: Path, kind: str) -> None:
    async with PrivateRedis(folder):
        pass
    (folder / "version").write_text(f"{kind} 99.0.0\n")
    with pytest.raises(LogUnavailable, match=rf"{folder}: its files were written by {kind} 99\.0\.0"):
        await PrivateRedis(folder).__aenter__()
    (folder / "version").write_text("?")
    with pytest.raises(LogUnavailable, match="does not say which server wrote its files"):
        await PrivateRedis(folder).__aenter__()


async def test_what_keeps_the_server_from_starting_is_told(folder: Path, kind: str) -> None:
    async with PrivateRedis(folder) as redis:
        await ask(redis, "SET", "a", "1")
    spoil(folder)
    with pytest.raises(LogUnavailable, match=rf"{folder}: {kind} .* does not start: .*AOF"):
        await PrivateRedis(folder).__aenter__()


def spoil(folder: Path) -> None:
    """Write what is no command into the append-only file."""
    (file,) = (folder / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"no commands\r\n" * 100)


def test_a_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="at most 100 bytes"):
        PrivateRedis(tmp_path / ("x" * 100))
