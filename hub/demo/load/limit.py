"""The number of files this process may have open: one per connection."""

from __future__ import annotations

import sys

from hub.demo.load.errors import TooFewFiles

RESERVE = 64
"""Files the process needs for itself: the loop, the publisher, the terminal, the report, modules being read."""


def raise_file_limit() -> tuple[int, int] | None:
    """Raise the soft file limit to the hard one; return both as (before, now), or None where there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415  # not on every platform

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft, soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS reports a hard limit it does not grant
        return soft, soft
    return soft, hard


def check_file_limit(limit: int, connections: int) -> None:
    """Make sure that *limit* files are enough for *connections*; a negative limit is none.

    Raises:
        TooFewFiles: they are not.
    """
    needed = connections + RESERVE
    if 0 <= limit < needed:
        raise TooFewFiles(needed, limit)
