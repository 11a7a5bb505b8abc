"""Memberships that began in an earlier epoch of the log: where they go on in the present one."""

from __future__ import annotations

from hub.log.log import Log
from hub.notification import MAX_OFFSET, Position
from hub.state.state import State

EraRow = tuple[int, str, int | None, int]
"""Number, name, fixed and cap of an `Era`."""


def carried(since: Position, newest: Position, end: int | None) -> Position:
    """Return where a membership goes on that began at *since*, a position of an earlier epoch of the log.

    Args:
        since: where it began.
        newest: the newest position as the present epoch began here.
        end: the newest offset of the epoch of *since* that is a part of the present history; None: nothing is known of
            that epoch, and what stood in it. Then the membership begins anew, and nothing of before is seen.
    """
    return Position(newest.epoch, newest.offset if end is None else min(since.offset, end))


class Era:
    """The memberships that began in one epoch: where they stand in another one is said once for all of them.

    Attributes:
        number: names it in the file.
        name: the epoch in which they stand now.
        fixed: the offset at which all of them stand; None: each at its own.
        cap: the offset beyond which none of them stands.
        count: how many they are.
    """

    __slots__ = ("cap", "count", "fixed", "name", "number")

    def __init__(self, number: int, name: str, fixed: int | None = None, cap: int = MAX_OFFSET) -> None:
        self.number, self.name, self.fixed, self.cap = number, name, fixed, cap
        self.count = 0

    def since(self, offset: int) -> Position:
        """Return where a membership stands that began at *offset*."""
        return Position(self.name, min(offset if self.fixed is None else self.fixed, self.cap))

    def carry_over(self, newest: Position, end: int | None) -> None:
        """Do with all of them what `carried` says."""
        self.name = newest.epoch
        if end is None:
            self.fixed, self.cap = newest.offset, MAX_OFFSET
        else:
            self.cap = min(self.cap, end)

    @property
    def row(self) -> EraRow:
        """What the file has of it."""
        return (self.number, self.name, self.fixed, self.cap)


async def carry_all(state: State, log: Log, newest: Position) -> None:
    """Have all memberships of *state* go on in the present epoch of *log*; see `carried`.

    To be called when the hub opens, and each time when the log has become another one, with its newest position of
    that moment. A call after the first one changes nothing. Should the log become another one meanwhile, what is left
    is for the call that follows from that.

    Raises:
        LogUnavailable, StateUnavailable: it can't be told, or is not confirmed; the next call goes on with the rest.
    """
    for epoch in await state.epochs():
        if epoch == newest.epoch:
            continue
        found = await log.locate(Position(epoch, MAX_OFFSET))  # beyond the end of any epoch: so it says where that is
        if found.why == "epoch":
            await state.carry_over(epoch, newest, found.end)
