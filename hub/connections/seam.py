"""The way of one subscription from where its client stands to live: no loss, no repeat. Pure rules, no I/O.

    REPLAYING ──everything is read, and nothing is newer──────────────> LIVE
        │  ^                                                             ^
        │  └──too much was held, or the client takes its time──┐         │
        └──everything is read, but something is newer──> HOLDING ──the last page is there, then what was held

While a client is behind, nothing is held for it: the log is its buffer. Only while what may be the last page is being
read do live batches wait beside it. The seam decides; its owner reads pages, writes, and joins and leaves the fan-out.

The way may have several stretches (`stretches.py`): all but the last one are read to their ends, in REPLAYING.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import NamedTuple

from hub.connections.resume import Start
from hub.connections.stretches import Stretches
from hub.encoding import Gap, GapReason
from hub.fanout import Batch
from hub.log.log import Frames
from hub.notification import Position


class State(enum.Enum):
    """Where a subscription stands between its client's position and live."""

    REPLAYING = enum.auto()  # history is being sent; the log is the buffer, nothing is held
    HOLDING = enum.auto()  # what may be the last page is being read; live batches are held until it is there
    LIVE = enum.auto()  # in step with the fan-out


class Step(enum.Enum):
    """What the owner does after a page."""

    READ = enum.auto()  # ask `question` and read on
    JOIN_AND_READ = enum.auto()  # join the fan-out in this very step, then read on
    LEAVE = enum.auto()  # leave the fan-out; read on when the transport has room
    WAIT = enum.auto()  # read on when the transport has room
    JOIN = enum.auto()  # join the fan-out in this very step: live
    RELEASE = enum.auto()  # write what `release` returns: live


class Question(NamedTuple):
    """What is read next.

    Attributes:
        after: everything beyond this offset,
        upto: and up to this one.
        bounded: *upto* stays what it is even if more is there when the page is read.
        latest: only the newest of each topic, as of *upto*.
    """

    after: int
    upto: int
    bounded: bool
    latest: bool


class Beginning(NamedTuple):
    """What the stream begins with.

    Attributes:
        position: everything after this one follows.
        recovered: whether everything after the asked position follows; None if nothing was asked.
        gap: what is missing before *position*; None if nothing is.
    """

    position: Position
    recovered: bool | None
    gap: Gap | None


class Seam:
    """Brings one subscription to live.

    Args:
        start: where the stream begins, which asks for something; None: it has begun, and its topics have changed.
        tail: the newest position that the fan-out has flushed.
        bound: bytes of live batches that may be held.
        stretches: what is to come.

    Attributes:
        state: where it stands.
        stretches: what is still to come.
        replayed: how many notifications were read; None: its client asked for nothing.
    """

    __slots__ = (
        "_bound",
        "_epoch",
        "_held",
        "_held_bytes",
        "_owed",
        "_told",
        "_upto",
        "replayed",
        "state",
        "stretches",
    )

    def __init__(self, start: Start | None, tail: Position, bound: int, stretches: Stretches) -> None:
        self.state = State.REPLAYING
        self.stretches = stretches
        self._owed = start  # the beginning, still to be said
        self.replayed = None if start is None else 0
        self._epoch, self._upto = tail
        self._bound = bound
        self._told: Hashable = None  # which mark of a hole was the last one that the client was told of
        self._held: list[Batch] = []
        self._held_bytes = 0

    @property
    def cursor(self) -> int:
        """The offset up to which the present stretch was given to the owner, or announced as missing."""
        return self.stretches.cursor

    @property
    def has_begun(self) -> bool:
        """Whether the owner was given what the stream begins with."""
        return self._owed is None

    def beginning(self) -> Beginning | None:
        """Return what can be said before anything is read: a client that comes back with a known id waits for nothing.

        None: the first page tells.
        """
        if self._owed is None or not self._owed.known or self._owed.after is None:
            return None
        after, self._owed = self._owed.after, None
        return Beginning(Position(self._epoch, after), recovered=True, gap=None)

    def question(self, tail: int) -> Question:
        """Return what to read next of the present stretch; *tail* is the newest offset that the fan-out has flushed."""
        present, is_last = self.stretches.present, self.stretches.is_last
        bounded = not is_last or self.state is State.HOLDING
        if not bounded:
            self._upto = tail
        elif not is_last:
            self._upto = present.until
        return Question(self.cursor, self._upto, bounded, present.latest)

    def take(self, page: Frames) -> Beginning | Gap | None:
        """Note *page*, the answer to `question`; return what is sent before it: a beginning, a gap, or None."""
        latest, is_last = self.stretches.present.latest, self.stretches.is_last
        self.stretches.reach(page.reached)
        if self.replayed is not None:
            self.replayed += page.number
        told, self._told = self._told, page.hole or self._told
        oldest = Position(self._epoch, page.oldest)
        if self._owed is not None:
            if not page.number and (page.reached < self._upto or not is_last):
                return None  # nothing yet: the stream begins right before the first one that follows
            owed, self._owed = self._owed, None
            position = Position(self._epoch, (page.first or self._upto + 1) - 1)
            return Beginning(position, owed.recovered, None if owed.gap is None else Gap(owed.gap, oldest))
        if page.hole and page.hole != told and not latest:
            return Gap(GapReason.TRIMMED, oldest)
        return None

    def step(self, tail: int, *, room: bool) -> Step:
        """Return what to do now that the page is written.

        Args:
            tail: the newest offset that the fan-out has flushed, in this very step.
            room: the transport took all of the page.
        """
        at_end = self.stretches.is_last and self.cursor >= self._upto
        if not room:
            # The reader takes its time. Live it would be judged by what is still in the transport, so it stays where
            # nothing can be lost, and asks again when that has room: what is held now will come from the log.
            return self._fall_back() if self.state is State.HOLDING else Step.WAIT
        if not at_end:
            return Step.READ
        if self._owed is not None:
            return Step.READ  # a first stretch had nothing: the next page, of whatever is there, says the beginning
        if self.state is State.HOLDING:
            self.state = State.LIVE
            return Step.RELEASE
        if tail == self._upto:
            # Flushed, nothing newer, and no await in between: to join now misses nothing and repeats nothing.
            self.state = State.LIVE
            return Step.JOIN
        # The bound of the next page is where the holding begins: what is held follows that page without a repeat.
        self._upto = tail
        self.state = State.HOLDING
        return Step.JOIN_AND_READ

    def hold(self, batch: Batch) -> bool:
        """Hold *batch*, which came while the last page is being read; return False if it is too much.

        Then the owner leaves the fan-out: what was held is in the log, and reading goes on.
        """
        self._held.append(batch)
        self._held_bytes += len(batch.payload)
        if self._held_bytes <= self._bound:  # it will go to the transport in one write
            return True
        self._fall_back()
        return False

    def _fall_back(self) -> Step:
        self._held, self._held_bytes = [], 0
        self.state = State.REPLAYING
        return Step.LEAVE

    def release(self) -> list[Batch]:
        """Return what was held; it follows the last page."""
        held, self._held = self._held, []
        if held:
            self.stretches.reach(held[-1].last)
        return held

    def change(self, told: Hashable) -> None:
        """Go back to reading: the stretches are about to change, and its owner has left the fan-out.

        *told* is the mark of the hole that the client is told of with the change; None: there is none.
        """
        self._fall_back()
        self._told = told or self._told

    @property
    def waiting(self) -> int:
        """Bytes that are held."""
        return self._held_bytes
