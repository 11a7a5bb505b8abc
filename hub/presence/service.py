"""Who is there, for the application: follows the open streams, and keeps the time of what waits."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hub.access.identity import NOTHING, Identity
from hub.connections.client_stream import ClientStream, StreamFacts
from hub.connections.connection import Connection, PresenceView
from hub.connections.registry import StreamRegistry
from hub.encoding import Present
from hub.eventstream import compact_json
from hub.presence.lifecycle import Lifecycle
from hub.presence.presence import ONLINE, Change, Presence
from hub.presence.watchers import Kind, Watchers
from hub.state.peers import Alone, News, Peers
from hub.topics import check_topic

logger = logging.getLogger("hub.presence")

PRESENCE = "presence"
"""What a process tells the others: that it has a user on a topic."""

MOST_INFO = 1_024
"""Bytes of JSON that others are told of one user at most, as much as a token may say."""


class PresenceService:
    """Which users are on which topics now, in all processes of the hub. Call it on the loop's thread.

    A user is on a topic while one of the user's streams has subscribed to exactly that topic, and for 3 seconds after
    the last of them has ended. Streams without a known user, and patterns, do not count.

    Args:
        streams: all open streams; the service follows them from now on.
        lifecycle: emits the events.
        most_bytes: the most that one stream is told of one topic at once.
        now: seconds of a monotonic clock.
        clock: seconds since 1970.
        peers: the other processes of the hub.
    """

    def __init__(
        self,
        streams: StreamRegistry,
        lifecycle: Lifecycle,
        *,
        most_bytes: int,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        peers: Peers | None = None,
    ) -> None:
        self._streams, self._lifecycle, self._now = streams, lifecycle, now
        self._peers = Alone() if peers is None else peers
        self._timer: asyncio.TimerHandle | None = None
        self._waking = 0.0  # when the timer ends
        alone = isinstance(self._peers, Alone)
        self._presence = Presence(now, clock) if alone else Presence(now, clock, self._tell)
        self._watchers = Watchers(self._presence, most_bytes=most_bytes, wake=self._wake_in_time, now=now)
        streams.follow(self)
        self._peers.follow(PRESENCE, self._hear)

    # ---- for the application ----

    def count(self, topic: str) -> int:
        """Return how many users are on *topic*.

        Raises:
            InvalidTopic: *topic* breaks the grammar, or is a pattern.
        """
        return self._presence.count(check_topic(topic))

    def users(self, topic: str, *, after: str = "", limit: int = 100) -> list[Present]:
        """Return the first *limit* users on *topic* whose ids come after *after*, by id.

        Raises:
            InvalidTopic: *topic* breaks the grammar, or is a pattern.
        """
        return self._presence.users(check_topic(topic), after=after, limit=limit)

    def is_online(self, user: str) -> bool:
        """Return whether *user* holds an open stream, for whatever, or did so within the last 3 seconds.

        In whatever process of the hub.
        """
        return self._presence.is_there(user)

    @property
    def online(self) -> int:
        """How many users are online."""
        return self._presence.count(ONLINE)

    def connections_of(self, user: str) -> list[StreamFacts]:
        """Return the facts of the open streams of *user* in this process, the oldest first."""
        return [stream.facts() for stream in self._streams.of(user)]

    # ---- following the streams ----

    def opened(self, stream: ClientStream) -> None:
        """Count *stream*, which is about to begin, and tell it who is there if it asks for that."""
        holder = stream.holder
        if holder.user is not None:
            changes = self._presence.enter(holder.user, stream.topics, _info(holder.identity))
            if changes:
                self._note(changes)
        if isinstance(stream, Connection) and stream.presence is not PresenceView.NOTHING:
            self._watch(stream)
        self._lifecycle.opened(stream)

    def moved(self, stream: ClientStream, before: Collection[str]) -> None:
        """Count *stream* on its present topics, not on those of *before*."""
        holder = stream.holder
        if holder.user is not None:
            self._note(self._presence.move(holder.user, before, stream.topics, _info(holder.identity)))
        if isinstance(stream, Connection) and stream.presence is not PresenceView.NOTHING:
            self._watch(stream)

    def closed(self, stream: ClientStream) -> None:
        """Count *stream*, which has ended, no more."""
        self._lifecycle.closed(stream)
        user = stream.holder.user
        if isinstance(stream, Connection) and stream.presence is not PresenceView.NOTHING:
            self._watchers.forget(stream)
        if user is not None:
            self._note(self._presence.leave(user, stream.topics))

    def _watch(self, stream: Connection) -> None:
        kind = Kind(stream.encoding, stream.presence is PresenceView.NAMES)
        self._watchers.watch(stream, kind, stream.topics)

    # ---- other processes ----

    def _tell(self, place: str, user: str, facts: Present | None) -> None:
        held = None if facts is None else [dict(facts.info), facts.since]
        self._peers.hold(PRESENCE, json.dumps([place, user]), held)

    def _hear(self, news: News) -> None:
        """Count, or count no more, a user whom another process has."""
        place, user = json.loads(news.key)
        if news.now is None:
            self._note(self._presence.unhear(place, user))
        else:
            info, since = news.now
            self._note(self._presence.hear(place, Present(user, info, since), first=news.before is None))

    def _note(self, changes: list[Change]) -> None:
        self._spread(changes)
        self._wake_in_time()

    def _spread(self, changes: list[Change]) -> None:
        if changes:
            if self._peers.first:  # of all processes, which all see it, one says so
                self._lifecycle.changed(changes)
            self._watchers.note(changes)

    # ---- time ----

    def _wake_in_time(self) -> None:
        """See to it that `_wake` is called when something is due."""
        dues = [due for due in (self._presence.due, self._watchers.due) if due is not None]
        if dues and (self._timer is None or min(dues) < self._waking):
            if self._timer is not None:
                self._timer.cancel()
            self._waking = min(dues)
            self._timer = asyncio.get_running_loop().call_later(max(self._waking - self._now(), 0.0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._spread(self._presence.pass_time())
        self._watchers.flush()
        self._wake_in_time()

    def stop(self) -> None:
        """Tell nobody anything more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _info(identity: Identity | None) -> Mapping[str, Any]:
    """Return what others are told of *identity*, if it can be told."""
    if identity is None or not identity.info:
        return NOTHING
    try:
        size = len(compact_json(dict(identity.info)).encode())
    except (TypeError, ValueError, RecursionError):
        logger.exception("what others are told of the user %r is not JSON, and is left out", identity.user)
        return NOTHING
    if size > MOST_INFO:
        logger.error("what others are told of the user %r has more than %d bytes: left out", identity.user, MOST_INFO)
        return NOTHING
    return identity.info
