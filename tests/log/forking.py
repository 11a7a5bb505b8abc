"""A listener that forks a child that outlives the hub, as a process pool of an application may.

The child holds open what the hub had open by then: the pipes of its log. Its process id goes to the file that
`FORKED` names; it ends by itself after a few minutes.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

from hub import Event, NotificationService, on_event


def _fork() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads: the child touches nothing
        child = os.fork()
    if not child:
        os.closerange(0, 3)  # whoever reads what the hub writes waits for their end
        time.sleep(300)
        os._exit(0)
    with Path(os.environ["FORKED"]).open("a") as file:
        file.write(f"{child}\n")


class Forking:
    """Hears nothing: a module of listeners needs a class. It is made when the log is open."""

    def __init__(self, notifications: NotificationService) -> None:
        _fork()

    @on_event("never.emitted")
    async def hear(self, event: Event) -> None:
        """Do nothing."""
