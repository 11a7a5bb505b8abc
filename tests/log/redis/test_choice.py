"""The client library is loaded only where Redis is used, and missed by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

HUB = """
import sys
{before}
from hub.errors import InvalidSettings
from hub.hub import Hub
from hub.settings import Settings
try:
    Hub(Settings(log={log!r}))
except InvalidSettings as missing:
    print(missing)
print("redis" in sys.modules and sys.modules["redis"] is not None)
"""


def run(log: str, before: str = "") -> str:
    program = HUB.format(log=log, before=before)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.slow
def test_it_is_loaded_only_with_a_log_in_redis():
    assert run("memory://") == run("sqlite:///hub.db") == "False\n"
    assert run("redis://localhost") == "True\n"


@pytest.mark.slow
def test_what_is_missing_is_said():
    said = run("redis://me:secret@localhost", "sys.modules['redis'] = None")
    assert "redis://localhost:6379 needs the package redis" in said
    assert "broadcast-hub[redis]" in said
    assert "secret" not in said
