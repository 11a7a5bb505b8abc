"""Cleanup that is foreign code: awaited, but not for ever. What does not end is left behind, by its name."""

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
    """Wait until *tasks*, which were told to end, have ended; leave behind, by their names, those that do not.

    A task that still cleans up after 5 seconds is cancelled, whatever that interrupts, and has one more second. What
    then still runs is counted, and nobody waits for it any more. Either is logged.
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
