"""The npm packages that tests of this folder use, at the versions of the lock file."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
INSTALLING = 100.0  # seconds, less than a test may take


def installed() -> Path:
    """Return the folder of the packages; without npm the test is skipped, except where that would go unseen."""
    if shutil.which("npm") is None:
        _missing("there is no npm on PATH: apt-get install npm")
    # One worker installs them; the others wait, and find them there.
    with (HERE / "package-lock.json").open() as versions:
        fcntl.flock(versions, fcntl.LOCK_EX)
        done = MODULES / ".package-lock.json"
        if not done.exists() or done.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
            command = ["npm", "ci", "--no-audit", "--no-fund", "--silent"]
            ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=INSTALLING, check=False)
            if ran.returncode:
                _missing(f"npm ci failed: {ran.stdout}{ran.stderr}")
    return MODULES


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
