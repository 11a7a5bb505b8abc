"""Which users are on which topics now. Pure rules, no I/O; each call costs the same for any number of users.

A user is on a topic as long as one of the user's streams has subscribed to exactly that topic, and for a grace of 3
seconds after the last of them has ended. Whoever comes back within the grace has neither left nor come: a page that is
loaded again, a network that changes.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from hub.access.identity import NOTHING
from hub.encoding import Present
from hub.topics import is_pattern

GRACE = 3.0
"""Seconds after which a user whose last stream has ended is gone."""

ONLINE = ""
"""The place of all users with an open stream, whatever it is for. No topic is empty."""


class Change(NamedTuple):
    """A user has come, or is gone.

    Attributes:
        place: the topic, or `ONLINE`.
        who: the user.
        came: whether the user has come; else the user is gone.
    """

    place: str
    who: Present
    came: bool


Tell = Callable[[str, str, Present | None], object]


class _Member:
    """A user on one topic."""

    __slots__ = ("info", "own", "since", "streams")

    def __init__(self, info: Mapping[str, Any], since: float) -> None:
        self.info, self.since = info, since
        self.own = 0  # streams of this process
        self.streams = 0  # these, and one for each other process that has some; none during the grace


class Presence:
    """The users on each topic, and those who are online.

    Args:
        now: seconds of a monotonic clock; the grace is measured by it.
        clock: seconds since 1970; says since when a user has been there.
        tell: called with place, user and facts when this process has the first stream of a user there, or other facts;
            without facts when it has none any more. None: there is nobody to tell.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        tell: Tell | None = None,
    ) -> None:
        self._now, self._clock, self._tell = now, clock, tell
        self._places: dict[str, dict[str, _Member]] = {}
        # Those without a stream, and when they are gone, in the order in which that happens: the grace is a constant.
        self._leaving: OrderedDict[tuple[str, str], float] = OrderedDict()

    # ---- streams come and go ----

    def enter(self, user: str, topics: Iterable[str], info: Mapping[str, Any] = NOTHING) -> list[Change]:
        """Count a stream of *user* that has begun; return what changes.

        Args:
            user: the id.
            topics: what it subscribed to. Patterns do not count.
            info: what others are told of the user; it replaces what an earlier stream said.
        """
        return self._enter(user, (ONLINE, *topics), info)

    def leave(self, user: str, topics: Iterable[str]) -> list[Change]:
        """Count a stream of *user* no more, which has entered with *topics*; return what changes.

        The user is gone when the grace is over.
        """
        return self._leave(user, (ONLINE, *topics))

    def move(
        self, user: str, before: Iterable[str], after: Iterable[str], info: Mapping[str, Any] = NOTHING
    ) -> list[Change]:
        """Change the topics of a stream of *user* from *before* to *after*; return what changes."""
        old, new = set(before), set(after)
        return self._enter(user, new - old, info) + self._leave(user, old - new)

    def _enter(self, user: str, places: Iterable[str], info: Mapping[str, Any]) -> list[Change]:
        changes, since = self.pass_time(), self._clock()
        for place in places:
            if is_pattern(place):
                continue
            members = self._places.setdefault(place, {})
            member = members.get(user)
            if member is None:
                member = members[user] = _Member(info, since)
                changes.append(Change(place, Present(user, info, since), came=True))
            elif not member.streams:
                del self._leaving[place, user]
            if self._tell is not None and (not member.own or member.info != info):
                self._tell(place, user, Present(user, info, member.since))
            member.info = info
            member.own += 1
            member.streams += 1
        return changes

    def _leave(self, user: str, places: Iterable[str]) -> list[Change]:
        changes, gone_at = self.pass_time(), self._now() + GRACE
        for place in places:
            if is_pattern(place):
                continue
            member = self._places[place][user]
            member.own -= 1
            member.streams -= 1
            if self._tell is not None and not member.own:
                self._tell(place, user, None)
            if not member.streams:
                self._leaving[place, user] = gone_at
        return changes

    # ---- other processes ----

    def hear(self, place: str, who: Present, *, first: bool) -> list[Change]:
        """Count a user whom another process has on *place*; return what changes.

        Args:
            place: the topic, or `ONLINE`.
            who: what that process says.
            first: it has not said so before; else it has only other facts.
        """
        changes = self.pass_time()
        members = self._places.setdefault(place, {})
        member = members.get(who.id)
        if member is None:
            member = members[who.id] = _Member(who.info, who.since)
            changes.append(Change(place, who, came=True))
        elif not member.streams:
            del self._leaving[place, who.id]
        member.info, member.since = who.info, min(member.since, who.since)
        member.streams += first
        return changes

    def unhear(self, place: str, user: str) -> list[Change]:
        """Count a user no more whom another process had on *place*; return what changes."""
        changes = self.pass_time()
        member = self._places[place][user]
        member.streams -= 1
        if not member.streams:
            self._leaving[place, user] = self._now() + GRACE
        return changes

    # ---- time passes ----

    @property
    def due(self) -> float | None:
        """When the next user is gone, in seconds of the monotonic clock; None: nobody is about to go."""
        return next(iter(self._leaving.values()), None)

    def pass_time(self) -> list[Change]:
        """Remove the users whose grace is over; return what changes."""
        changes: list[Change] = []
        now = self._now() if self._leaving else 0.0
        while self._leaving and next(iter(self._leaving.values())) <= now:
            (place, user), _ = self._leaving.popitem(last=False)
            members = self._places[place]
            member = members.pop(user)
            if not members:
                del self._places[place]
            changes.append(Change(place, Present(user, member.info, member.since), came=False))
        return changes

    # ---- who is there ----

    def count(self, place: str) -> int:
        """Return how many users are on the topic *place*, or `ONLINE`."""
        return len(self._places.get(place, ()))

    def is_there(self, user: str, place: str = ONLINE) -> bool:
        """Return whether *user* is on the topic *place*, or online."""
        return user in self._places.get(place, ())

    def users(self, place: str, *, after: str = "", limit: int) -> list[Present]:
        """Return the first *limit* users on the topic *place*, or `ONLINE`, whose ids come after *after*, by id."""
        members = self._places.get(place, {})
        if limit >= len(members) and not after:
            page = sorted(members)
        else:
            page = heapq.nsmallest(limit, (user for user in members if user > after))
        return [Present(user, members[user].info, members[user].since) for user in page]
