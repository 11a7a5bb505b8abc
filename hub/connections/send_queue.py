"""What waits for a slow reader, and what gives way when it is too much. Pure rules, no I/O."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

from hub.notification import Notification
from hub.settings import SlowPolicy

_OVERHEAD = 160  # what a waiting frame costs beside its bytes
_OVERHEAD_OF_A_SET = 120  # what it costs to find the newest of a set of topics, beside their names

# What names a set of topics: mostly there is one, and a frozenset of it would cost four times as much.
_Set = str | frozenset[str]


@dataclass(slots=True)
class _Waiting:
    """A frame that waits, or, once `frame` is None, only the memory that something stood here."""

    offset: int
    cost: int  # bytes, everything counted
    frame: bytes | None
    topics: _Set | None = None  # where only the newest waits
    dropped: int = 0  # how many were dropped at this place: before the frame, or instead of it


@dataclass(frozen=True, slots=True)
class Dropped:
    """A place where frames were left out: *count* of them, between the offsets *after* and *before*."""

    count: int
    after: int
    before: int


class SendQueue:
    """The frames one connection could not take yet, in order, under its policy and its bound in bytes.

    `offer` keeps a frame or says that the connection must be cut; `take` gives back what goes out next, with a
    `Dropped` in the place of what a policy left out. The newest frame is never dropped.

    Args:
        policy: what gives way.
        after: the offset of the last frame given to the transport, where the waiting began.

    Attributes:
        after: the offset of the last frame that was taken.
        size: bytes that wait, each frame's own cost included.
        dropped: how many frames have given way so far.
    """

    __slots__ = ("_newest_of", "_policy", "_tombstones", "_waiting", "after", "dropped", "size")

    def __init__(self, policy: SlowPolicy, after: int) -> None:
        self._policy = policy
        self.after = after
        self._waiting: deque[_Waiting] = deque()
        self._newest_of: dict[_Set, _Waiting] = {}
        self._tombstones = 0
        self.size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting) - self._tombstones

    def offer(self, notification: Notification, frame: bytes, room: int) -> bool:
        """Keep *frame* and return True, or return False if the connection must be cut instead.

        *room* is how many bytes may wait here altogether. `drop_oldest` and `conflate` make room; the newest frame
        stays even if it alone is larger.
        """
        if self._policy is SlowPolicy.DISCONNECT and self.size + len(frame) + _OVERHEAD > room:
            return False
        waiting = _Waiting(notification.position.offset, len(frame) + _OVERHEAD, frame)
        if self._policy is SlowPolicy.CONFLATE:
            topics = _set(notification.topics)
            older = self._newest_of.get(topics)
            if older is not None:
                self._drop(older)
            self._newest_of[topics] = waiting
            waiting.topics = topics
            waiting.cost += _cost(topics)
        self._waiting.append(waiting)
        self.size += waiting.cost
        if self.size > room:
            self._make_room(room)
        elif self._tombstones > 16 and self._tombstones * 2 > len(self._waiting):
            self._compact()
        return True

    def _drop(self, waiting: _Waiting) -> None:
        """Leave a tombstone where *waiting* stood, if it is not one already."""
        if waiting.frame is None:
            return
        self.size -= waiting.cost
        waiting.frame = None
        waiting.dropped += 1
        self.dropped += 1
        self._tombstones += 1
        self._forget_topics(waiting)

    def _forget_topics(self, waiting: _Waiting) -> None:
        if waiting.topics is not None:
            self._newest_of.pop(waiting.topics, None)
            waiting.topics = None

    def _make_room(self, room: int) -> None:
        """Drop from the old end until *room* is enough; the next frame remembers how many went."""
        dropped = 0
        while self.size > room and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._drop(oldest)
            self._tombstones -= 1
            dropped += oldest.dropped
        self._waiting[0].dropped += dropped

    def _compact(self) -> None:
        """Move the count of the tombstones before a frame into the frame, so that only frames cost memory."""
        kept: deque[_Waiting] = deque()
        dropped = 0
        for waiting in self._waiting:
            dropped += waiting.dropped
            if waiting.frame is not None:
                waiting.dropped = dropped
                kept.append(waiting)
                dropped = 0
        self._waiting = kept
        self._tombstones = 0

    def take(self, size: int) -> list[bytes | Dropped]:
        """Remove and return what goes out next: about *size* bytes of frames, at least one if any waits."""
        taken: list[bytes | Dropped] = []
        dropped = taken_size = 0
        while self._waiting and taken_size < size:
            waiting = self._waiting.popleft()
            dropped += waiting.dropped
            if waiting.frame is None:
                self._tombstones -= 1
                continue
            if dropped:
                taken.append(Dropped(dropped, self.after, waiting.offset))
                dropped = 0
            taken.append(waiting.frame)
            taken_size += len(waiting.frame)
            self.size -= waiting.cost
            self.after = waiting.offset
            self._forget_topics(waiting)
        return taken


def _set(topics: tuple[str, ...]) -> _Set:
    return topics[0] if len(topics) == 1 else frozenset(topics)


def _cost(topics: _Set) -> int:
    names = 0 if isinstance(topics, str) else sum(map(sys.getsizeof, topics))
    return _OVERHEAD_OF_A_SET + sys.getsizeof(topics) + names
