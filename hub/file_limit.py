"""The number of files this process may have open; each connection is one."""

from __future__ import annotations

import sys
from contextlib import suppress

UNLIMITED = sys.maxsize


def raise_file_limit() -> tuple[int, int]:
    """Raise the limit as far as this user may; return it before and after, `UNLIMITED` where there is none.

    For a process as a whole: a program calls this, a library does not.
    """
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return UNLIMITED, UNLIMITED
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before != hard:
        with suppress(ValueError, OSError):  # macOS names a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    before, now = (UNLIMITED if limit == resource.RLIM_INFINITY else limit for limit in (before, now))
    return before, now
