"""Which notifications a reader may see, live and in every replay by the same rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hub.patterns import compiled


class Visibility(NamedTuple):
    """The part of what matches a subscription that its reader may see.

    Equal visibilities see the same: they are part of what connections share by (an audience, a page of the history).

    Attributes:
        private: the topics and patterns through which a private notification may reach the reader; None: any.
    """

    private: frozenset[str] | None = None

    def sees(self, topics: Iterable[str], *, private: bool) -> bool:
        """Return whether the reader may see a notification of *topics* that matches what it asked for."""
        if not private or self.private is None:
            return True
        return any(map(compiled(self.private).match, topics))

    def through(self, topics: frozenset[str]) -> Visibility:
        """Return the visibility of a reader who asked only for *topics*, some of those that this one is for."""
        if self.private is None:
            return self
        granted = self.private & topics
        return EVERYTHING if granted == topics else Visibility(granted)


EVERYTHING = Visibility()
"""The visibility of a reader who may see all notifications."""
