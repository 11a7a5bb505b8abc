"""A subscription whose client also sends: it says who it is, asks for topics, publishes, joins rooms."""

from __future__ import annotations

import asyncio
from typing import ClassVar, NamedTuple

from hub.connections.connection import Connection, PresenceView, Subscription, Wiring
from hub.connections.holders import NOBODY, Holder

KNOWN_SECONDS = 5.0
"""Seconds that a client has to say who it is."""


class Asked(NamedTuple):
    """What a client asked for when it connected.

    Attributes:
        rooms: the rooms of its user.
        presence: to be told who is on its topics.
    """

    rooms: bool = False
    presence: bool = False


class Conversation(Connection):
    """One open subscription whose client sends as well. It opens without topics.

    Attributes:
        asked: what its client asked for when it connected.
        known: whether it is known who holds it; until then it has not begun.
    """

    rests: ClassVar[bool] = True

    __slots__ = ("_at_leisure", "asked", "known")

    def __init__(
        self,
        subscription: Subscription,
        wiring: Wiring,
        *,
        holder: Holder = NOBODY,
        known: bool = True,
        asked: Asked = Asked(),  # noqa: B008 - it is immutable
    ) -> None:
        super().__init__(subscription, wiring, holder=holder)
        self.known = known
        self.asked = asked
        self._at_leisure: asyncio.Future[None] | None = None  # somebody waits for that

    @property
    def has_begun(self) -> bool:
        """Whether it is known who speaks, and `hub.open` has been given to the transport."""
        return self.known and super().has_begun

    def _begin(self) -> None:
        """Say `hub.open`, unless it is not known yet who speaks."""
        if self.known:
            super()._begin()

    def identify(self, holder: Holder) -> None:
        """Note who holds it."""
        super().identify(holder)
        self.known = True

    def begin(self, presence: PresenceView) -> None:
        """Begin, now that it is known who speaks."""
        self.presence = presence
        self._unread = 0
        super()._begin()

    async def leisure(self) -> None:
        """Return when the client has taken its answers, or has ended: whoever does not read them gets no more."""
        while not self.at_leisure and self.closed_because is None:
            self._at_leisure = asyncio.get_running_loop().create_future()
            await self._at_leisure

    def _go_on(self) -> None:
        super()._go_on()
        self._tell_leisure()

    def _tell_leisure(self) -> None:
        if self._at_leisure is not None and (self.at_leisure or self.closed_because is not None):
            waiting, self._at_leisure = self._at_leisure, None
            if not waiting.done():
                waiting.set_result(None)

    def _left(self) -> None:
        super()._left()
        self._tell_leisure()
