"""What a reader has heard, in order, and what that says: pure, so that the judge itself can be tested."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

Item = tuple[int, int]
"""A publisher, and the number it gave to what it published: 0, 1, 2, …"""

GAP: Item = (-1, -1)
"""Stands where a reader was told that it has missed something."""


class Verdict(NamedTuple):
    """What is wrong with what one reader, or many, have heard.

    Attributes:
        lost: numbers that were left out, and nobody said so; or are kept, and did not come behind the gap either.
        doubled: numbers that came again, or too late, and nobody said so.
        gaps: how often it was said that something is missing.
        missed: numbers that were left out where that was said.
        again: numbers that came again behind a gap.
    """

    lost: tuple[Item, ...] = ()
    doubled: tuple[Item, ...] = ()
    gaps: int = 0
    missed: int = 0
    again: int = 0

    @property
    def fine(self) -> bool:
        """Whether everything that is missing or came twice was announced."""
        return not self.lost and not self.doubled

    def and_of(self, other: Verdict) -> Verdict:
        """Return what is wrong with both."""
        gaps, missed, again = self.gaps + other.gaps, self.missed + other.missed, self.again + other.again
        return Verdict(self.lost + other.lost, self.doubled + other.doubled, gaps, missed, again)

    def __str__(self) -> str:
        return (
            f"losses {len(self.lost)}, doubles {len(self.doubled)}, gaps {self.gaps} "
            f"(in them {self.missed} missed, {self.again} repeated)"
        )


def judge(heard: Iterable[Item], ends: dict[int, int], kept: Collection[Item]) -> Verdict:
    """Judge what a reader has *heard* of publishers, each of which has published up to a number in *ends*.

    Each publisher counts from 0, and begins a number when the one before is confirmed. So each reader hears every
    number of a publisher once, in order. Behind a gap what came before may come again, in order; and what is not among
    that which is *kept* may never come.
    """
    states = {publisher: _State(publisher) for publisher in ends}
    lost: list[Item] = []
    doubled: list[Item] = []
    gaps = missed = again = 0
    for item in heard:
        if item == GAP:
            gaps += 1
            for each in states.values():
                each.unsure, each.since_gap = True, -1
            continue
        publisher, number = item
        state = states[publisher]
        if number >= state.next:
            missed += state.leave_out(number, kept, lost)
            state.next, state.unsure = number + 1, False
        elif state.unsure and number > state.since_gap:
            again += 1
        else:
            doubled.append(item)
        state.since_gap = max(number, state.since_gap)
    missed += sum(states[publisher].leave_out(end + 1, kept, lost) for publisher, end in ends.items())
    return Verdict(tuple(lost), tuple(doubled), gaps, missed, again)


class _State:
    """How far a reader has heard one publisher.

    Attributes:
        next: the number behind the greatest one.
        unsure: there was a gap, and nothing behind the greatest one came since.
        since_gap: the last number since the last gap.
    """

    def __init__(self, publisher: int) -> None:
        self._publisher = publisher
        self.next, self.unsure, self.since_gap = 0, False, -1

    def leave_out(self, upto: int, kept: Collection[Item], lost: list[Item]) -> int:
        """Judge the numbers from the next to before *upto*, which did not come: add to *lost*, return the others."""
        left_out = [(self._publisher, number) for number in range(self.next, upto)]
        silent = [item for item in left_out if not self.unsure or item in kept]
        lost += silent
        return len(left_out) - len(silent)


def in_order(heard: Sequence[Item], history: Sequence[Item]) -> bool:
    """Tell whether *heard* is exactly *history*, gaps left aside."""
    return [item for item in heard if item != GAP] == list(history)
