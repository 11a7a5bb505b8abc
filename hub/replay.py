"""Where a stream begins, decided from what the client asked and what the log still has. Pure rules, no I/O."""

from __future__ import annotations

import enum
from typing import NamedTuple

from hub.notification import Position


class GapReason(enum.StrEnum):
    """Why not everything after the asked id can be sent."""

    TRIMMED = "trimmed"  # something that matches was kept once, and is no longer
    EPOCH = "epoch"  # the id belongs to another log: this one is new
    UNKNOWN = "unknown"  # no position of this log has that id


class Start(NamedTuple):
    """Where a stream begins.

    Attributes:
        after: everything with a greater offset follows; None: nothing was asked, the stream begins with what is new.
        gap: why something is missing before what follows; None if nothing is.
    """

    after: int | None
    gap: GapReason | None = None

    @property
    def recovered(self) -> bool | None:
        """What `hub.open` says: None if nothing was asked, else whether everything asked follows."""
        return None if self.after is None else self.gap is None


def start(asked: str | None, *, newest: Position, trimmed: int) -> Start:
    """Decide where a stream begins.

    Args:
        asked: the `Last-Event-ID`, as it came; None or empty if there was none.
        newest: the newest position of the log.
        trimmed: the newest offset that is gone and may have matched the subscription.
    """
    if not asked:
        return Start(None)
    position = Position.parse(asked)
    if position is None:
        return Start(0, GapReason.UNKNOWN)
    if position.epoch != newest.epoch:
        return Start(0, GapReason.EPOCH)
    if position.offset > newest.offset:
        return Start(0, GapReason.UNKNOWN)
    return Start(position.offset, GapReason.TRIMMED if trimmed > position.offset else None)
