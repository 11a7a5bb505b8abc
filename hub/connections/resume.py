"""Where a stream begins, decided from what the client asked and what the log still has. Pure rules, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hub.encoding import GapReason
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


def start(asked: str | None, *, newest: Position, trimmed: Callable[[int], int]) -> Start:
    """Decide where a stream begins.

    Args:
        asked: the `Last-Event-ID`, as it came; None or empty if there was none; `earliest` for all that is kept,
            `latest` for the newest of each topic.
        newest: the newest position of the log.
        trimmed: returns, for an offset, the newest one beyond it that is gone and may have matched the subscription.
    """
    if not asked:
        return Start(None)
    if asked in {EARLIEST, LATEST}:
        return Start(0, latest=asked == LATEST)
    position = Position.parse(asked)
    if position is None:
        return Start(0, GapReason.UNKNOWN)
    if position.epoch != newest.epoch:
        return Start(0, GapReason.EPOCH)
    if position.offset > newest.offset:
        return Start(0, GapReason.UNKNOWN)
    if trimmed(position.offset):
        return Start(position.offset, GapReason.TRIMMED)
    return Start(position.offset, known=True)
