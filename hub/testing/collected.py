"""The notifications of some topics, as a test collects them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from hub.notification import Notification
from hub.notifications import NotificationService

PATIENCE = 5.0


class NothingCame(AssertionError):
    """What a test waited for did not come; the text says what did."""


class Collected:
    """The notifications to some topics since `collect`, in their order.

    Args:
        notifications: the service of the hub.
        topics: topics and patterns; none: all of them.
        check: raises what has gone wrong in the hub meanwhile.
    """

    def __init__(
        self, notifications: NotificationService, topics: tuple[str, ...], check: Callable[[], None] = lambda: None
    ) -> None:
        self._topics, self._check = topics, check
        self._collected: list[Notification] = []
        self._taken = 0
        self._changed = asyncio.Event()
        self._subscription = notifications.stream(*topics).subscribe(self._take)

    def _take(self, notification: Notification) -> None:
        self._collected.append(notification)
        self._changed.set()

    def __len__(self) -> int:
        return len(self._collected)

    def __iter__(self) -> Iterator[Notification]:
        return iter(list(self._collected))

    def __getitem__(self, place: int) -> Notification:
        return self._collected[place]

    def __repr__(self) -> str:
        shown = ", ".join(f"{each.type or 'message'} {each.data!r} to {'+'.join(each.topics)}" for each in self)
        return f"<Collected {shown or 'nothing'}>"

    @property
    def data(self) -> list[Any]:
        """The data of each notification."""
        return [each.data for each in self._collected]

    @property
    def types(self) -> list[str | None]:
        """The type of each notification."""
        return [each.type for each in self._collected]

    async def next(self, timeout: float = PATIENCE) -> Notification:
        """Return the first notification that no `next` has returned, and wait for it if need be.

        Raises:
            NothingCame: none came within *timeout* seconds.
        """
        await self.until(lambda each: len(each) > self._taken, timeout)
        self._taken += 1
        return self._collected[self._taken - 1]

    async def wait(self, number: int, timeout: float = PATIENCE) -> list[Notification]:
        """Return the notifications as soon as there are *number* of them, or more.

        Raises:
            NothingCame: there were not so many within *timeout* seconds.
        """
        await self.until(lambda each: len(each) >= number, timeout)
        return list(self._collected)

    async def until(self, condition: Callable[[Self], object], timeout: float = PATIENCE) -> None:
        """Wait until *condition* of this object is true; it is asked after each notification.

        Raises:
            NothingCame: it was not within *timeout* seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while not condition(self):
                    self._check()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._check()
            where = ", ".join(self._topics) or "all topics"
            raise NothingCame(f"after {timeout:g} seconds there was only {self!r} of {where}") from None

    def clear(self) -> None:
        """Forget what was collected."""
        self._collected.clear()
        self._taken = 0

    def close(self) -> None:
        """Collect no more."""
        self._subscription.dispose()

    def wake(self) -> None:
        """Look again at what a waiting test waits for, and at what has gone wrong."""
        self._changed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
