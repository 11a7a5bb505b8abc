"""A process and all that it has started."""

from __future__ import annotations

import psutil

from hub.load.figures import Usage


def usage(pid: int) -> Usage:
    """Return what *pid* and its descendants use; memory that they share counts for each of them."""
    root = psutil.Process(pid)
    used = [found for each in (root, *root.children(recursive=True)) if (found := Usage.of([each])) is not None]
    return Usage(
        sum(each.rss for each in used), sum(each.cpu_percent for each in used), sum(each.cpu_seconds for each in used)
    )
