"""The Python that runs the processes, where the hub runs in a program that is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.log.sqlite.home import Home, left

pytestmark = pytest.mark.slow


async def test_where_python_is_embedded_its_processes_still_run_on_python(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    assert await left(home, "a")
    monkeypatch.setattr(sys, "executable", "")
    assert await left(home, "b")


async def test_without_a_python_the_start_says_so(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", "")
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    assert "/usr/sbin/uwsgi is none" in await home.refused()
