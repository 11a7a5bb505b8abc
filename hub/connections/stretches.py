"""The way of one subscription from where its client stands to live, as stretches of the history. Pure rules, no I/O.

Most have one: everything after a position, without an end. There are more where the topics count from different
positions on: topics that were added to an open stream, with or without what came before. Those that may be read only
since some moment are another matter: their floors are part of the visibility, on all stretches.

    asked for "orders", read up to 90; "news" is added after 40; ids up to 70 have been written

    ├── news, without ids ──┼── news, with ids ──┼── news and orders ──────>
    40                      70                   90

Each stretch is read to its end before the next one begins; in the last one the subscription goes live.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from hub.access.visibility import EVERYTHING, Visibility, above
from hub.notification import Notification
from hub.patterns import compiled

OPEN = sys.maxsize
"""The end of the last stretch, which has none."""

Since = int | Mapping[str, int]
"""The offset after which the topics of a subscription count: one for all of them, or one for each."""


class Covered(NamedTuple):
    """What topics match and a reader may see, of each topic after an offset.

    Attributes:
        parts: offsets, each with the topics and patterns that count after it.
        visibility: which of it the reader may see.
    """

    parts: tuple[tuple[int, frozenset[str]], ...]
    visibility: Visibility = EVERYTHING

    @classmethod
    def of(cls, topics: Iterable[str], since: Since, visibility: Visibility = EVERYTHING) -> Covered:
        """Return what *topics* cover that count after *since*; those that it does not name count from the beginning."""
        parts: dict[int, set[str]] = {}
        for topic in topics:
            parts.setdefault(since if isinstance(since, int) else since.get(topic, 0), set()).add(topic)
        return cls(tuple((after, frozenset(parts[after])) for after in sorted(parts)), visibility)

    def begins_before(self, offset: int) -> bool:
        """Return whether anything at or before *offset* may be covered."""
        return bool(self.parts) and self.parts[0][0] < offset

    def judge(self) -> Callable[[Notification], bool]:
        """Return a function that tells whether a notification is covered."""
        parts = [(after, compiled(topics).match, self.visibility.through(topics)) for after, topics in self.parts]
        floors = {topic: offset for topic, (_, offset) in self.visibility.since}  # of the epoch that was read

        def covers(notification: Notification) -> bool:
            offset, topics = notification.position.offset, notification.topics
            seen = above(floors, topics, offset) if floors else topics
            return any(
                after < offset and any(map(match, seen)) and visibility.sees(seen, private=notification.private)
                for after, match, visibility in parts
            )

        return covers


class Stretch(NamedTuple):
    """A part of the way: what *topics* match with `after < offset <= until`.

    Attributes:
        visibility: which of it the reader may see.
        but: what is left out of it: the client has it already; None: nothing.
        latest: of each topic only the newest, as of *until*.
    """

    after: int
    until: int
    topics: frozenset[str]
    visibility: Visibility = EVERYTHING
    but: Covered | None = None
    latest: bool = False


class Stretches:
    """What is still to come for one subscription.

    But for the first ones with the newest of each topic, each begins where the one before ends, or later.

    Attributes:
        cursor: the offset in the present stretch up to which everything was read.
        written: ids up to this one may have been written. What is not beyond it goes out without an id: ids never go
            backwards on a connection, and a client that has seen a new id has everything before it.
    """

    __slots__ = ("_stretches", "cursor", "written")

    def __init__(self, cursor: int, stretches: Iterable[Stretch], written: int = 0) -> None:
        self._stretches = list(stretches)
        self.written = written
        self.cursor = max(cursor, self._stretches[0].after)

    @classmethod
    def begin(
        cls,
        after: int,
        topics: Collection[str],
        visibility: Visibility = EVERYTHING,
        *,
        latest: int | None = None,
    ) -> Stretches:
        """Return the way of a client that stands at the offset *after*.

        Args:
            after: what is not beyond it does not follow.
            topics: topics and patterns that it asked for.
            visibility: which of what they match it may see.
            latest: up to this offset only the newest of each topic; None: all.
        """
        wanted = frozenset(topics)
        if latest is not None:
            newest = [Stretch(after, latest, wanted, visibility, latest=True)] if after < latest else []
            return cls(after, [*newest, Stretch(latest, OPEN, wanted, visibility)])
        return cls(after, [Stretch(after, OPEN, wanted, visibility)])

    @property
    def present(self) -> Stretch:
        """The stretch that is being read."""
        return self._stretches[0]

    @property
    def place(self) -> int:
        """The offset from which on all is read; before it only the newest of each topic may still follow."""
        if not self.present.latest:
            return self.cursor
        return next(each.after for each in self._stretches if not each.latest)

    @property
    def is_last(self) -> bool:
        """Whether that is the last one, in which the subscription goes live."""
        return len(self._stretches) == 1

    @property
    def with_ids(self) -> bool:
        """Whether the notifications of the present stretch carry their ids."""
        return self.present.until > self.written

    def reach(self, offset: int) -> None:
        """Note that everything up to *offset* was read in the present stretch; at its end the next one begins."""
        self.cursor = max(self.cursor, offset)
        if self.cursor >= self.present.until:
            del self._stretches[0]
            self.cursor = self.present.after

    def change(
        self,
        topics: frozenset[str],
        visibility: Visibility,
        *,
        added: frozenset[str],
        after: int,
        latest: bool = False,
        had: Covered,
        written: int,
    ) -> None:
        """Go on with *topics*, of which *added* are new and count after the offset *after*.

        Topics that are not among them any more are left out from here on, in all stretches. Those that stay come
        without loss and without repeat.

        Args:
            topics: all of them.
            visibility: which of what they match may be seen.
            added: those that are new.
            after: not beyond the newest position that was flushed.
            latest: up to the place of the stream only the newest of each topic that was added, as of there.
            had: what the reader was given up to the cursor: the former topics.
            written: the greatest id that may have been written.
        """
        place, former = self.place, self.present
        newest = [stretch for stretch in self._stretches if stretch.latest]
        ascending = self._stretches[len(newest) :]
        self.written = max(self.written, newest[0].until if newest else written)
        if latest and after < self.written:
            self.written = max(self.written, place)  # the newest of each topic can't be divided
        changed = [stretch._replace(topics=stretch.topics & topics) for stretch in newest]
        if added and after < place:
            left_out = had if had.begins_before(place) else None
            changed.append(Stretch(after, place, added, but=left_out, latest=latest))
        for stretch in ascending:
            changed += _with(stretch._replace(after=max(stretch.after, place)), topics, added, after)
        kept = [stretch for stretch in changed if stretch.topics or stretch.until == OPEN]
        parts = [part for stretch in kept for part in _cut(stretch, self.written)]
        self._stretches = [part._replace(visibility=visibility.through(part.topics)) for part in parts]
        goes_on = former.latest and bool(former.topics & topics)
        self.cursor = self.cursor if goes_on else self.present.after


def with_added(since: Since, kept: Collection[str], added: Iterable[str], after: int) -> Since:
    """Return after which offset each of the *kept* topics counts, and those that were *added* after *after*."""
    if not kept:  # one number for all takes less memory: so it is with the first topics of every WebSocket
        return after
    if isinstance(since, int):
        return {**dict.fromkeys(kept, since), **dict.fromkeys(added, after)}
    return {**{topic: since[topic] for topic in kept}, **dict.fromkeys(added, after)}


def _with(stretch: Stretch, topics: frozenset[str], added: frozenset[str], after: int) -> list[Stretch]:
    """Return *stretch* with *topics* only, and with those that were *added* after the offset *after*."""
    kept = stretch.topics & topics
    if not added or after >= stretch.until:
        return [stretch._replace(topics=kept)]
    if after <= stretch.after:
        return [stretch._replace(topics=kept | added)]
    return [stretch._replace(until=after, topics=kept), stretch._replace(after=after, topics=kept | added)]


def _cut(stretch: Stretch, offset: int) -> list[Stretch]:
    """Return *stretch*, in two parts if *offset* is inside; the newest of each topic can't be divided."""
    if stretch.latest or not stretch.after < offset < stretch.until:
        return [stretch]
    return [stretch._replace(until=offset), stretch._replace(after=offset)]
