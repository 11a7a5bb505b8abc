"""What this process takes of the machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")


def memory_bytes() -> int:
    """Return how much memory this process has in use; where the system does not say that, the most it ever had."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _most_memory()


def _most_memory() -> int:
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # macOS counts bytes, all others KiB


def cpu_seconds() -> float:
    """Return how much time of a processor this process has used, in all of its threads."""
    return time.process_time()
