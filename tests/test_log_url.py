"""Addresses of logs: what they mean, and which rule a wrong one breaks."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hub.cli.history import add_arguments
from hub.errors import InvalidSettings
from hub.hub import Hub
from hub.log_url import LogURL
from hub.settings import Settings

RULE = "is not the address of a log; write memory://, or three slashes and a path: sqlite:///"


def test_memory_has_no_path():
    url = LogURL.parse("memory://")
    assert (url.scheme, str(url)) == ("memory", "memory://")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///hub.db", "hub.db"),
        ("sqlite:///data/hub.db", "data/hub.db"),
        ("sqlite:////var/lib/hub/hub.db", "/var/lib/hub/hub.db"),
        ("sqlite:///../a b/实.db?x=%20#y", "../a b/实.db?x=%20#y"),
        ("sqlite:///a://b", "a://b"),
    ],
)
def test_behind_three_slashes_is_the_path_of_a_file_as_it_is(text: str, path: str):
    url = LogURL.parse(text)
    assert (url.scheme, url.path, str(url)) == ("sqlite", Path(path), text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "path/to/file"),
        ("memory", "memory"),
        ("memory:///", "path/to/file"),
        ("memory://x", "x"),
        ("MEMORY://", "path/to/file"),
        ("hub.db", "hub.db"),
        ("/var/hub.db", "var/hub.db"),
        ("sqlite://hub.db", "hub.db"),
        ("sqlite:///", "path/to/file"),
        ("sqlite:/hub.db", "sqlite:/hub.db"),
        ("sqlite:///a\0b", "ab"),
        ("redes://localhost/0", "localhost/0"),
    ],
)
def test_what_is_no_address_breaks_the_rule_wherever_it_is_given(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence follows
        LogURL.parse(text)
    assert str(refused.value) == RULE + shown
    with pytest.raises(InvalidSettings) as wrong:
        Settings.load({"log": text}, environ={})
    assert wrong.value.problems == (f"log (HUB_LOG): {text!r}: {RULE}{shown}",)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for action in ("export", "import"):
        with pytest.raises(SystemExit):
            parser.parse_args([action, "--log", text])
        assert f"argument --log: {text!r} {RULE}{shown}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ("sqlite:///hub.db", "sqlite:///hub.ai.db"),
        ("sqlite:////var/lib/hub.d/hub.v1.db", "sqlite:////var/lib/hub.d/hub.v1.ai.db"),
        ("sqlite:///data.d/hub", "sqlite:///data.d/hub.ai"),
        ("sqlite:///../hub", "sqlite:///../hub.ai"),
        ("sqlite:///.hub", "sqlite:///.ai.hub"),
        ("memory://", "memory://"),
        ("redis://localhost:1/2", "redis://localhost:1/2"),
    ],
)
def test_a_second_log_of_the_same_hub_has_a_name_beside_the_first(text: str, beside: str):
    assert str(LogURL.parse(text).beside("ai")) == beside


def test_a_log_in_redis_is_where_that_is_and_a_second_one_has_a_name():
    url = LogURL.parse("redis+sentinel://a,b:1/main/2")
    assert url.scheme == "redis"
    assert url.redis.hosts == (("a", 26379), ("b", 1))
    assert (url.name, url.beside("ai").name, url.beside("ai").redis) == ("", "ai", url.redis)


def test_the_password_of_a_log_is_not_shown():
    assert str(LogURL.parse("redis://me:secret@host/1")) == "redis://host:6379/1"
    with pytest.raises(InvalidSettings) as wrong:
        Settings.load({"log": "redis://me:secret@host:0/1"}, environ={})
    assert "secret" not in str(wrong.value)
    assert "has a port that is none" in str(wrong.value)


def test_a_redis_that_is_to_be_started_has_a_folder():
    url = LogURL.parse("redis+private:///data/redis")
    assert (url.scheme, url.path, str(url)) == ("redis+private", Path("data/redis"), "redis+private:///data/redis")
    assert LogURL.parse("redis+private:////var/lib/hub").path == Path("/var/lib/hub")
    for wrong in ("redis+private://", "redis+private:///", "redis+private://host/folder", "redis+private:///a\0b"):
        with pytest.raises(ValueError, match="is not the address of a log"):
            LogURL.parse(wrong)
    with pytest.raises(InvalidSettings, match="only `hub serve` and `setup_hub` start a Redis"):
        Hub(Settings(log="redis+private:///data/redis"))
