"""The limit of open files of this process; each connection is an open file."""

from __future__ import annotations

import sys
from contextlib import suppress

UNLIMITED = sys.maxsize


def raise_file_limit() -> tuple[int, int]:
    """Raise the limit as far as this user may; return the limits before and after, `UNLIMITED` for none.

    The limit belongs to the whole process: a program may call this, a library must not.
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


def file_limit() -> int:
    """Return how many files this process may have open now; `UNLIMITED` for any number."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return UNLIMITED
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if now == resource.RLIM_INFINITY else now
