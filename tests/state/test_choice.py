"""Where the state is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hub.errors import InvalidSettings
from hub.settings import Settings
from hub.state.choice import make_state, state_file
from hub.state.memory import MemoryState
from hub.state.redis.state import RedisState
from hub.state.sqlite import SQLiteState
from tests.contracts.conftest import Clock


@pytest.mark.parametrize(
    ("settings", "file"),
    [
        (Settings(), None),
        (Settings(state=Path("a.db")), "a.db"),
        (Settings(log="sqlite:///data/hub.db"), "data/hub.state.db"),
        (Settings(log="sqlite:////var/lib/hub"), "/var/lib/hub.state"),
        (Settings(log="sqlite:///data/hub.db", state=Path("/b/c")), "/b/c"),
        (Settings.load(environ={"HUB_STATE": ""}), None),
    ],
)
def test_the_file_is_the_one_that_is_set_or_beside_the_log(clock: Clock, settings: Settings, file: str | None):
    assert state_file(settings) == (None if file is None else Path(file))
    assert isinstance(make_state(settings, clock), MemoryState if file is None else SQLiteState)


def test_it_is_in_redis_where_the_log_is_unless_a_file_is_set(clock: Clock):
    assert isinstance(make_state(Settings(log="redis://localhost"), clock), RedisState)
    assert isinstance(make_state(Settings(log="redis://localhost", state=Path("a.db")), clock), SQLiteState)


def test_a_package_that_is_missing_is_named(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "hub.state.redis.state", None)
    with pytest.raises(InvalidSettings, match=r"redis://localhost:6379 needs the package .*\[redis\]"):
        make_state(Settings(log="redis://localhost"), clock)


@pytest.mark.parametrize("text", ["sqlite:///hub.state.db", "redis://localhost:6379", "memory://"])
def test_an_address_is_not_a_file(text: str):
    with pytest.raises(InvalidSettings, match=r"HUB_STATE.*is not the path of a file"):
        Settings.load(environ={"HUB_STATE": text})
