"""A bounded wait for the cleanup of foreign code; tasks that do not end are logged by name and given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from hub.metrics import Metrics

logger = logging.getLogger("hub")

CLEANUP_SECONDS = 5.0
LAST_SECONDS = 1.0


async def cleaned_up(tasks: Mapping[asyncio.Future[Any], str], metrics: Metrics) -> None:
    """Wait until *tasks*, which were asked to end, have ended; give up those that do not within 6 seconds.

    A task that still runs after 5 seconds is cancelled, even in the middle of its cleanup, and gets one more second. A
    task that still runs then is counted in `left_behind` and no longer waited for. Both are logged with the name that
    *tasks* gives.
    """
    if not tasks:
        return
    _, left = await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)
    if left:
        for task in left:
            logger.warning("%s still cleans up after %g s: it is cancelled", tasks[task], CLEANUP_SECONDS)
            task.cancel()
        _, left = await asyncio.wait(left, timeout=LAST_SECONDS)
    for task in left:
        metrics.left_behind += 1
        logger.error("%s does not end: it is left behind", tasks[task])
