"""What open streams are told of who is there. Pure rules, no clock of its own: its owner calls `flush` when it is due.

Changes are gathered for 50 ms and encoded once for each kind of reader. A reader gets a snapshot first, then changes.
One that can't take bytes now keeps no queue of them: it gets a new snapshot when it can. Readers who may know names are
told them as long as there are few enough; all others are told numbers, at most once a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from hub.encoding import Attendance, Encoding
from hub.presence.presence import Change, Presence
from hub.topics import is_pattern

logger = logging.getLogger("hub.presence")

GATHER = 0.05
COUNT_EVERY = 1.0
MOST_NAMED = 1_000
NAMED_AGAIN = 900
"""A topic with more than `MOST_NAMED` users is told in numbers until there are as few as this: around one single limit,
each change of side would cost a snapshot."""
MOST_BYTES = 256 * 1024


class Kind(NamedTuple):
    """What readers have in common who are told the same bytes.

    Attributes:
        encoding: how it looks on the wire.
        names: whether they may know who is there; else how many are.
    """

    encoding: Encoding
    names: bool


class Watcher(Protocol):
    """A stream that is told who is there. One that raises is aborted, and nobody else feels it."""

    def tell(self, framed: bytes, missed: Callable[[], object]) -> None:
        """Write *framed* if it can go out now; else drop it, and call *missed* as soon as something can."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class _Topic:
    """A topic that is watched."""

    __slots__ = ("changes", "kinds", "named")

    def __init__(self, *, named: bool) -> None:
        self.kinds: dict[Kind, dict[Watcher, None]] = {}
        self.changes: list[Change] = []  # since the last flush
        self.named = named  # changes are told by name to those who may know names


class Watchers:
    """The streams that are told who is there.

    Args:
        presence: who is there.
        most_bytes: the most that one stream is told of one topic at once; a larger snapshot has no names.
        wake: is called when something is to be told, which was not so before.
        now: seconds of a monotonic clock.
    """

    def __init__(
        self,
        presence: Presence,
        *,
        most_bytes: int = MOST_BYTES,
        wake: Callable[[], object] = lambda: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._presence, self._most_bytes, self._wake, self._now = presence, most_bytes, wake, now
        self._topics: dict[str, _Topic] = {}
        self._watching: dict[Watcher, tuple[Kind, frozenset[str]]] = {}
        self._fresh: dict[Watcher, set[str]] = {}  # the topics of which each gets a snapshot with the next flush
        self._changed: dict[str, None] = {}  # topics with changes
        self._uncounted: dict[str, None] = {}  # topics whose new number is not told yet
        self._flush_at: float | None = None
        self._count_at = 0.0  # numbers are told no earlier

    def __len__(self) -> int:
        """Return how many streams are told."""
        return len(self._watching)

    # ---- watchers come and go ----

    def watch(self, watcher: Watcher, kind: Kind, topics: Iterable[str]) -> None:
        """Tell *watcher*, always of the same *kind*, who is on those of *topics* that are no patterns.

        If it is told already, these are its topics from now on; it gets a snapshot of those that are new.
        """
        wanted = frozenset(topic for topic in topics if not is_pattern(topic))
        _, before = self._watching.get(watcher, (kind, frozenset[str]()))
        self._watching[watcher] = kind, wanted
        for name in before - wanted:
            self._leave(watcher, kind, name)
        for name in wanted - before:
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = _Topic(named=self._presence.count(name) <= MOST_NAMED)
            topic.kinds.setdefault(kind, {})[watcher] = None
        self._renew(watcher, wanted - before)

    def forget(self, watcher: Watcher) -> None:
        """Tell *watcher*, which may be forgotten already, nothing more."""
        if watcher in self._watching:
            kind, names = self._watching.pop(watcher)
            self._fresh.pop(watcher, None)
            for name in names:
                self._leave(watcher, kind, name)

    def _leave(self, watcher: Watcher, kind: Kind, name: str) -> None:
        kinds = self._topics[name].kinds
        del kinds[kind][watcher]
        if not kinds[kind]:
            del kinds[kind]
        if not kinds:
            del self._topics[name]
            self._changed.pop(name, None)
            self._uncounted.pop(name, None)

    def _renew(self, watcher: Watcher, names: Iterable[str] | None = None) -> None:
        """Tell *watcher* who is on each of *names* (None: all its topics) with the next flush."""
        if watcher in self._watching:
            self._fresh.setdefault(watcher, set()).update(self._watching[watcher][1] if names is None else names)
            self._flush_soon()

    # ---- changes ----

    def note(self, changes: Iterable[Change]) -> None:
        """Tell *changes* with the next flush, where somebody watches."""
        for change in changes:
            topic = self._topics.get(change.place)
            if topic is not None:
                topic.changes.append(change)
                self._changed[change.place] = None
                self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush_at is None:
            self._flush_at = self._now() + GATHER
            self._wake()

    @property
    def due(self) -> float | None:
        """When `flush` is to be called, in seconds of the clock; None: nothing is to be told."""
        if not self._uncounted:
            return self._flush_at
        return self._count_at if self._flush_at is None else min(self._flush_at, self._count_at)

    def flush(self) -> None:
        """Tell what is due."""
        now = self._now()
        if self._flush_at is not None and self._flush_at <= now:
            self._flush_at = None
            fresh, self._fresh = self._fresh, {}
            changed, self._changed = self._changed, {}
            for name in changed:
                self._tell_changes(name, fresh)
            self._tell_fresh(fresh)
        if self._uncounted and self._count_at <= now:
            self._count_at = now + COUNT_EVERY
            uncounted, self._uncounted = self._uncounted, {}
            for name in uncounted:
                self._tell_number(name)

    def _tell_changes(self, name: str, fresh: Mapping[Watcher, Collection[str]]) -> None:
        """Tell the changes of the topic *name* by name, and note that its number is to be told."""
        topic = self._topics.get(name)
        if topic is None:
            return
        changes, topic.changes = topic.changes, []
        were_named = topic.named
        topic.named = self._presence.count(name) <= (MOST_NAMED if were_named else NAMED_AGAIN)
        for kind, watchers in list(topic.kinds.items()):
            if not (kind.names and topic.named):
                self._uncounted[name] = None
                continue
            told = self._changes(kind.encoding, changes) if were_named else b""
            if not told or len(told) > self._most_bytes:
                told = self._snapshot(kind, name)
            for watcher in list(watchers):
                if name not in fresh.get(watcher, ()):
                    self._tell(watcher, told)

    def _changes(self, encoding: Encoding, changes: Iterable[Change]) -> bytes:
        return b"".join(
            [(encoding.join if change.came else encoding.leave)(change.place, change.who) for change in changes]
        )

    def _tell_fresh(self, fresh: Mapping[Watcher, Iterable[str]]) -> None:
        """Tell each of *fresh* who is on its topics; what is the same for several is encoded once."""
        snapshots: dict[tuple[Kind, str], bytes] = {}
        for watcher, names in fresh.items():
            if watcher not in self._watching:
                continue
            kind, wanted = self._watching[watcher]
            for name in sorted(wanted.intersection(names)):
                told = snapshots.get((kind, name))
                if told is None:
                    told = snapshots[kind, name] = self._snapshot(kind, name)
                self._tell(watcher, told)

    def _snapshot(self, kind: Kind, name: str) -> bytes:
        """Return who is on the topic *name*, as readers of *kind* may know it."""
        number = self._presence.count(name)
        if kind.names and self._topics[name].named:
            users = self._presence.users(name, limit=number)
            told = kind.encoding.attendance(Attendance(name, number, users))
            if len(told) <= self._most_bytes:
                return told
        return kind.encoding.attendance(Attendance(name, number, None))

    def _tell_number(self, name: str) -> None:
        """Tell how many are on the topic *name* to those who are not told names."""
        topic = self._topics.get(name)
        if topic is None:
            return
        number = self._presence.count(name)
        for kind, watchers in list(topic.kinds.items()):
            if not (kind.names and topic.named):
                told = kind.encoding.attendance(Attendance(name, number, None))
                for watcher in list(watchers):
                    self._tell(watcher, told)

    def _tell(self, watcher: Watcher, framed: bytes) -> None:
        try:
            watcher.tell(framed, partial(self._renew, watcher))
        except Exception:
            logger.exception("a stream failed while it was told who is there, and is aborted")
            watcher.abort()
