"""What it was measured on."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hub.file_limit import raise_file_limit
from tests.benchmarks.place import HOME

PACKAGES = ("aiohttp", "aiohttp-sse", "reactivex", "uvloop", "pydantic", "hdrhistogram", "matplotlib", "pyperf")

SPARE_FILES = 200
"""Open files that are no connections, of a server or of a driver."""


def most_connections() -> int:
    """Return how many connections fit into the file limit of one process."""
    return min(raise_file_limit()[1], 1_000_000) - SPARE_FILES


def today() -> str:
    """Return the date, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def machine() -> dict[str, str]:
    """Return what there is to say of this machine, by name."""
    return {
        "CPU": _cpu(),
        "Cores": f"{os.cpu_count()}, of which {len(os.sched_getaffinity(0))} may be used",
        "Memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "Disk": _disk(),
        "System": f"{platform.system()} {platform.release()}, {_distribution()}",
        "Open files": f"{raise_file_limit()[1]:,} at most",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "Packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "Revision": _revision(),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _distribution() -> str:
    found = re.search(r'^PRETTY_NAME="?(.+?)"?$', _text("/etc/os-release"), re.MULTILINE)
    return found[1] if found else "unknown distribution"


def _disk() -> str:
    """Return the device and the file system below the folder of the logs."""
    best = ("", "unknown")
    for line in _text("/proc/mounts").splitlines():
        device, place, kind, *_ = line.split()
        if HOME.is_relative_to(place) and len(place) > len(best[0]):
            best = (place, f"{kind} on {device}")
    return best[1]


def _revision() -> str:
    """Return the commit that is checked out, without asking git."""
    root = HOME.parent / ".git"
    head = _text(root / "HEAD").strip()
    ref = head.removeprefix("ref: ")
    found = head if ref == head else _text(root / ref).strip()
    return found[:12] or "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
