"""Counting by sequence number: what came once, what twice, what late, what not at all. Pure, in bounded memory."""

from __future__ import annotations

MAX_HOLES = 64
"""Runs of skipped numbers that one track remembers; far more than a hub that works ever leaves open."""


class Track:
    """What one subscriber has received: everything below `next`, except for its holes.

    A hole is a run of numbers that later ones overtook. Beyond `MAX_HOLES` of them the oldest is forgotten and
    its numbers stay missing, whatever comes later.
    """

    __slots__ = ("forgotten", "holes", "next")

    def __init__(self) -> None:
        self.next = 0
        self.holes: list[tuple[int, int]] = []  # [first, after the last), ascending
        self.forgotten = 0

    def missing(self, total: int) -> int:
        """Return how many of the numbers 0 to *total* - 1 have not come."""
        skipped = sum(max(0, min(end, total) - start) for start, end in self.holes)
        return self.forgotten + skipped + max(0, total - self.next)

    def skip_to(self, number: int) -> None:
        """Note that everything from `next` up to *number* was overtaken."""
        self.holes.append((self.next, number))
        if len(self.holes) > MAX_HOLES:
            start, end = self.holes.pop(0)
            self.forgotten += end - start

    def fill(self, number: int) -> bool:
        """Take *number* out of its hole; false if it lies in none."""
        for index, (start, end) in enumerate(self.holes):
            if start <= number < end:
                halves = ((start, number), (number + 1, end))
                self.holes[index : index + 1] = [(first, after) for first, after in halves if first < after]
                return True
        return False


class Tally:
    """The totals over all tracks.

    Attributes:
        delivered: numbers that came, each counted once per track.
        duplicates: numbers that came again.
        out_of_order: numbers that came after a greater one.
        skipped: numbers overtaken and still not here; at the end they are missing.
    """

    __slots__ = ("delivered", "duplicates", "out_of_order", "skipped")

    def __init__(self) -> None:
        self.delivered = self.duplicates = self.out_of_order = self.skipped = 0

    def take(self, track: Track, number: int) -> bool:
        """Count *number* for *track*; true if it is there for the first time."""
        if number == track.next:
            track.next = number + 1
        elif number > track.next:
            self.skipped += number - track.next
            track.skip_to(number)
            track.next = number + 1
        elif track.fill(number):
            self.skipped -= 1
            self.out_of_order += 1
        else:
            self.duplicates += 1
            return False
        self.delivered += 1
        return True
