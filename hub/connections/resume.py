"""Where a stream begins, decided from what the client asked and what the log still has. Pure rules, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hub.encoding import GapReason
from hub.log.log import Located
from hub.notification import Position

EARLIEST = "earliest"
LATEST = "latest"


class Start(NamedTuple):
    """Where a stream begins.

    Attributes:
        after: everything with a greater offset follows; None: nothing was asked, the stream begins with what is new.
        gap: why something is missing before what follows; None if nothing is.
        latest: of what is there already only the newest of each topic follows.
        known: the asked id is where the stream begins; else it begins right before the first that follows.
    """

    after: int | None
    gap: GapReason | None = None
    latest: bool = False
    known: bool = False

    @property
    def recovered(self) -> bool | None:
        """What `hub.open` says: None if nothing was asked, else whether everything asked follows."""
        return None if self.after is None else self.gap is None


def position_asked(asked: str | None) -> Position | None:
    """Return the position that the log has to locate before a stream begins; None if what was asked names none."""
    return Position.parse(asked) if asked else None


def start(asked: str | None, *, located: Located | None = None, trimmed: Callable[[int], int]) -> Start:
    """Decide where a stream begins.

    Args:
        asked: the `Last-Event-ID`, as it came; None or empty if there was none; `earliest` for all that is kept,
            `latest` for the newest of each topic.
        located: where the log found the position that it names, if it names one.
        trimmed: returns, for an offset, the newest one beyond it that is gone and may have matched the subscription.
    """
    if not asked:
        return Start(None)
    if asked in {EARLIEST, LATEST}:
        return Start(0, latest=asked == LATEST)
    if located is None:
        return Start(0, GapReason.UNKNOWN)
    if located.after is None:
        return Start(0, GapReason(located.why or GapReason.UNKNOWN))
    if trimmed(located.after):
        return Start(located.after, GapReason.TRIMMED)
    return Start(located.after, known=True)
