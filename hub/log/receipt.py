"""A receipt: the place a draft took in the order, and the promise to say when it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

from hub.notification import Position


class Receipt:
    """What a publisher gets at once, and may await for the confirmation.

    `await receipt` returns the `Position` once the log has the notification, and raises what kept the log from it
    (`LogUnavailable`). Any number of tasks may await it; cancelling one changes nothing for the notification.
    A failure that nobody ever looks at is reported when the receipt is forgotten.

    Attributes:
        topics: where the notification is addressed.
        repeated: its idempotency key was used before; the position is the first one's and nothing was delivered.
    """

    __slots__ = ("_failure", "_followers", "_position", "_told", "_waiters", "_watcher", "repeated", "topics")

    def __init__(self, topics: tuple[str, ...], position: Position | None = None, *, repeated: bool = False) -> None:
        self.topics = topics
        self.repeated = repeated
        self._position = position
        self._failure: _Failure | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._followers: list[Receipt] | None = None
        self._told: tuple[Callable[[], None], Callable[[Exception], None]] | None = None
        self._watcher: Callable[[bool], object] | None = None

    @property
    def done(self) -> bool:
        """Whether the log has confirmed or failed."""
        return self._position is not None or self._failure is not None

    def result(self) -> Position:
        """Return the position.

        Raises:
            asyncio.InvalidStateError: the log has not answered yet.
            Exception: what kept the log from keeping it.
        """
        if self._failure is not None:
            raise self._failure.look()
        if self._position is None:
            raise asyncio.InvalidStateError("the log has not confirmed yet")
        return self._position

    def __await__(self) -> Generator[None, None, Position]:
        if not self.done:
            # One future per waiter: cancelling one must not cancel the others.
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            yield from waiter
        return self.result()

    def tell(self, confirmed: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """Call one of these, at once or when the log has answered; cheaper than a task that awaits it.

        Only one may ask for it, and neither call may raise: they are made from inside the log, in the order of the
        positions.
        """
        assert self._told is None, "somebody is told already"
        if self._failure is not None:
            failed(self._failure.look())
        elif self._position is not None:
            confirmed()
        else:
            self._told = (confirmed, failed)

    def watch(self, settled: Callable[[bool], object]) -> None:
        """Call *settled* when the log has answered, which it has not yet, with whether it has confirmed.

        For whoever only looks on: a failure counts as observed no more than it did before. Only one may ask for it, and
        the call may not raise.
        """
        self._watcher = settled

    def repeat(self) -> Receipt:
        """Return the receipt for another publish with the same key: it shares the answer, now or later."""
        again = Receipt(self.topics, self._position, repeated=True)
        if self._failure is not None:
            again.fail(self._failure.error, self._failure.unobserved)
        elif self._position is None:
            if self._followers is None:
                self._followers = []
            self._followers.append(again)
        return again

    def confirm(self, position: Position) -> None:
        """Confirm that the log has it. Called by the log, once."""
        self._position = position
        self._settle(lambda follower: follower.confirm(position))
        if self._watcher is not None:
            self._watcher(True)
        if self._told is not None:
            self._told[0]()

    def fail(self, error: Exception, unobserved: Callable[[Exception], None]) -> None:
        """Fail: the log will never have it. Called by the log, once; *unobserved* gets the error if nobody looks."""
        self._failure = _Failure(error, unobserved)
        self._settle(lambda follower: follower.fail(error, unobserved))
        if self._watcher is not None:
            self._watcher(False)
        if self._told is not None:
            self._told[1](self._failure.look())

    def _settle(self, tell: Callable[[Receipt], None]) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        for follower in self._followers or ():
            tell(follower)
        self._followers = None


class _Failure:
    """An error that reports itself when it is forgotten without having been looked at."""

    __slots__ = ("error", "seen", "unobserved")

    def __init__(self, error: Exception, unobserved: Callable[[Exception], None]) -> None:
        self.error, self.unobserved = error, unobserved
        self.seen = False

    def look(self) -> Exception:
        self.seen = True
        return self.error

    def __del__(self) -> None:
        if not self.seen:
            self.unobserved(self.error)
