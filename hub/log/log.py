"""What every log does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from hub.access.visibility import EVERYTHING, Visibility
from hub.log.receipt import Receipt
from hub.log.trimmed import TrimmedState
from hub.notification import Draft, Notification, Position

Announce = Callable[[Sequence[Notification]], None]
Renewed = Callable[[Position], None]


def ignore_renewal(newest: Position) -> None:
    """Do nothing: for callers whose log never becomes another one."""


class Bounds(NamedTuple):
    """What the log holds.

    Attributes:
        oldest: the oldest notification still kept; where none is, equal to *newest*.
        newest: the newest position given out and confirmed; offset 0 while there never was one.
        kept: how many notifications are kept.
        size: what keeping them costs, in bytes, everything counted.
    """

    oldest: Position
    newest: Position
    kept: int
    size: int


class Page(NamedTuple):
    """A part of the history, in order.

    Attributes:
        notifications: what matched.
        reached: the offset up to which this is all that matches and can be seen; less than the asked end if there is
            more to read.
        hole: not false if something that matched after the asked position had been trimmed when this was read: a mark,
            and another one each time something that matches is trimmed. Nothing else is missing for a reader that was
            told of the mark.
        oldest: the oldest offset still kept, when this was read.
    """

    notifications: Sequence[Notification]
    reached: int
    hole: Hashable
    oldest: int


class Frames(NamedTuple):
    """A part of the history as it goes out: the chunks of what matched, joined, in order.

    Attributes:
        payload: the bytes.
        number: how many notifications they are.
        first: the offset of the first of them; 0 if there is none.
        reached, hole, oldest: as in a `Page`.
    """

    payload: bytes
    number: int
    first: int
    reached: int
    hole: Hashable
    oldest: int


class Located(NamedTuple):
    """Where a client that holds a position goes on in the present history.

    Attributes:
        after: the offset behind which it goes on; None if there is no such place.
        why: what then is wrong with the position: it belongs to another history (`epoch`), or to no place in this one
            (`unknown`).
        end: the newest offset of the position's epoch that is a part of the present history, if the position is of an
            earlier epoch and beyond that offset; None: nothing is known of that epoch.
    """

    after: int | None
    why: Literal["epoch", "unknown"] | None = None
    end: int | None = None


def located(position: Position, newest: Position, ended: Mapping[str, int]) -> Located:
    """Return where *position* is in a history.

    Args:
        position: what a client holds.
        newest: the newest position of the history.
        ended: by name of an earlier epoch, the newest offset of it that is a part of the history.
    """
    epoch, offset = position
    if epoch == newest.epoch:
        return Located(offset) if offset <= newest.offset else Located(None, "unknown")
    end = ended.get(epoch)
    return Located(offset) if end is not None and offset <= end else Located(None, "epoch", end)


class Log(Protocol):
    """The append-only, totally ordered history; it gives positions.

    All calls belong to the event loop's thread.
    """

    @property
    def epoch(self) -> str:
        """The name of the present history: it lives as long as that does, which may end while the log is open."""
        ...

    async def open(self) -> None:
        """Open the log on the running loop. Until then a log outside this process refuses what is appended or read.

        Raises:
            LogUnavailable: what keeps it can't be used; says why.
        """
        ...

    def announce_to(self, announce: Announce, renewed: Renewed = ignore_renewal) -> None:
        """Call *announce* with what is confirmed, in position order, each once, from now on.

        And call *renewed* where the history has become another one while the log was open (a log elsewhere failed over,
        or this one took over another one): with its newest position, in the same step, before anything of it is
        announced. What was sent of the old one may be wrong: open streams have to end, and begin anew.
        """
        ...

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Keep *drafts*, in the order of the calls, as neighbours, all or none of them; return one receipt each.

        The position is known when the receipt is confirmed, not before. A draft whose key was used within the last five
        minutes gets none: its receipt repeats that of the first one, which is certain when it is confirmed. A failed
        position is never used again.

        Raises:
            LogUnavailable: too many bytes wait for confirmation already, or the log is closed.
        """
        ...

    def read(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Page]:
        """Return what matches *topics* (patterns too) with `after < offset <= upto`: a page, found by index.

        A page is bounded in count, in bytes and in what had to be looked at for it, whatever the patterns are; it gets
        nearer to *upto* each time, but may hold nothing. It holds nothing that *visibility* does not see; a hole is
        judged by the topics and their floors alone; a pattern may be judged as if the topics that it matches had none.

        With *latest* it holds only the newest of each topic that can be seen, as of *upto*. Where thousands that can't
        be seen are newer, older ones of that topic may come before it: to find it is bounded work as well.

        The future may already be done; cancelling it is allowed. It raises `LogUnavailable` if the log can't be read,
        or *visibility* has a floor of another epoch.
        """
        ...

    def locate(self, position: Position) -> asyncio.Future[Located]:
        """Return behind which offset of the present history a client that holds *position* goes on.

        That is its own offset, if the epoch is the present one and so much was given out; or if it is an earlier one of
        this log, and the offset not beyond the newest that was known of it when it ended. When the future is done,
        everything up to that offset has been announced here: a log elsewhere waits for that, and for no more than a
        bounded time. Cancelling it is allowed. It raises `LogUnavailable` if it can't be told now.
        """
        ...

    def given(self) -> asyncio.Future[Position]:
        """Return the newest position, as soon as all that was appended before this call is confirmed or has failed.

        What was appended here before stands at or before that position and has been announced here when the future is
        done; what is appended after this call stands behind it. So it is where something begins that happens now. The
        future may already be done; cancelling it is allowed. It raises `LogUnavailable` if that can't be told now.
        """
        ...

    def bounds(self) -> Bounds:
        """Return what this process knows that the log holds.

        Raises:
            LogUnavailable: the log can't be used now.
        """
        ...

    def trimmed(self, topics: Collection[str], after: int = 0, visibility: Visibility = EVERYTHING) -> int:
        """Return the newest offset beyond *after* that was trimmed and may have matched *topics*; 0 if none.

        A topic with a floor (`Visibility.since`) is judged from there, if that is beyond *after*.

        Exact for the topics that are remembered. Else, and for patterns, it is the newest offset that was
        trimmed overall. What was trimmed for a topic's own bound is known exactly for patterns, too, unless it takes
        too long to judge all those topics.

        Raises:
            LogUnavailable: as `read` does, because of a floor.
        """
        ...

    def trim(self) -> None:
        """Trim what the retention no longer keeps. Called now and then: age passes without appends."""
        ...

    async def aclose(self) -> None:
        """Close the log: confirm or fail what waits, then release every resource. Appends are refused from here on."""
        ...


# What only some logs can do. A caller asks with `isinstance`, once, and knows another way.


@runtime_checkable
class Framing(Protocol):
    """A log that has the frames ready, or makes them where they cost this process nothing."""

    def frames(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Frames]:
        """Return what `read` does, as the bytes that go out."""
        ...


@runtime_checkable
class Movable(Protocol):
    """A log whose history can move to another home, and which can be that home."""

    def trimmed_state(self) -> TrimmedState:
        """Return all that is known of what was trimmed."""
        ...

    async def adopt(
        self, epoch: str, newest: int, trimmed: TrimmedState, history: AsyncIterator[Sequence[Notification]]
    ) -> None:
        """Take over another log: its *epoch*, the *newest* offset it gave out, what it *trimmed*, and its *history*.

        The history comes in order, in parts, and keeps its positions; nothing is announced. All or nothing: if
        *history* raises, this log stays as it was. What the retention does not keep is trimmed as usual.

        Raises:
            LogNotEmpty: something was appended here once.
            LogUnavailable: it could not be kept.
        """
        ...


class MovableLog(Log, Movable, Protocol):
    """What is both; for annotations only."""


@runtime_checkable
class Lasting(Protocol):
    """A log that outlives its process."""

    async def tidy(self) -> bool:
        """Trim what an earlier process left and the retention no longer keeps; return whether anything is left.

        Only before `open`. It takes a bounded time, after which nothing stays open; where nothing was ever left,
        nothing is made.

        Raises:
            LogUnavailable: what keeps it can't be used; says why.
        """
        ...


@runtime_checkable
class Elsewhere(Protocol):
    """A log whose home is outside this process, and may hang there.

    Attributes:
        answered: when that has last answered, in seconds of `time.monotonic`. It is asked every few seconds at least.
    """

    @property
    def answered(self) -> float:
        """See above."""
        ...
