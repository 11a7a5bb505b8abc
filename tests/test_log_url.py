"""Addresses of logs: what they mean, and which rule a wrong one breaks."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hub.cli.history import add_arguments
from hub.errors import InvalidSettings
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
        ("redis://localhost/0", "localhost/0"),
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
    ],
)
def test_a_second_log_of_the_same_hub_has_a_name_beside_the_first(text: str, beside: str):
    assert str(LogURL.parse(text).beside("ai")) == beside
