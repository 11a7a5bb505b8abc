"""Rights that end while streams are open: revoked, or no longer what the application's login says."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from hub.access.identity import Identity
from hub.access.policy import NO_ROOMS, Policy
from hub.connections.client_stream import ClientStream, CloseReason
from hub.connections.registry import StreamRegistry
from hub.errors import AuthUnavailable, Forbidden, Unauthorized
from hub.presence.rooms import Held, Rooms
from hub.state.state import Revocation
from hub.topics import room_of
from hub.web.access import telling_rooms
from hub.web.hooks import HOOK_SECONDS, Recheck, asked, called

logger = logging.getLogger("hub.access")

Session = tuple[str, str | None]

_RIGHTS = ("subscribe", "publish", "admin", "presence", "info")

STEPS = 10
"""Walks over all streams in one interval, in search of sessions."""
AT_ONCE = 500
"""Streams that are looked at in one turn of the loop, which takes half a millisecond."""


def end_revoked(streams: StreamRegistry, revocation: Revocation) -> None:
    """End the streams whose holders' rights *revocation* takes back."""
    if revocation.kind == "user":
        streams.end_of(CloseReason.REVOKED, lambda holder: holder.user == revocation.id)
    else:
        streams.end_of(
            CloseReason.REVOKED,
            lambda holder: holder.identity is not None and holder.identity.token == revocation.id,
        )


def _note_rights(streams: Sequence[ClientStream], present: Identity) -> None:
    """Note what the holder of *streams* may do at *present*: over some of them a client publishes and joins, too."""
    for stream in streams:
        began = stream.holder.identity
        if began is None or stream.closed_because is not None:
            continue
        today = replace(began, **{name: getattr(present, name) for name in _RIGHTS})
        if today != began:
            stream.holder = stream.holder._replace(identity=today)


class Schedule:
    """When the application is asked about each session: within every *interval* seconds, spread over that time.

    A session that is first seen gets a time of its own at random; many streams may have come back at once. Each is
    asked about early enough that the answer is here when the interval is over.

    Attributes:
        step: seconds between two calls of `due`.
    """

    def __init__(self, interval: float) -> None:
        self.step = interval / STEPS
        self._period = max(interval - HOOK_SECONDS - self.step, interval / 2)
        self._next: dict[Session, float] = {}

    def due(self, sessions: Collection[Session], now: float) -> list[Session]:
        """Return those of *sessions*, all that have streams, that have to be asked about until the next call."""
        known = self._next
        self._next = {each: known.get(each) or now + random.uniform(0, self._period) for each in sessions}
        due = [each for each, at in self._next.items() if at <= now + self.step]
        self._next.update(dict.fromkeys(due, now + self._period))
        return due


class Rechecks:
    """Asks the application, again and again, about the sessions that have open streams.

    A session whose rights have ended loses its streams, and one with fewer rights those that are no longer covered.
    Over the others a client may do what its rights of today allow. The streams of a session about which nothing can be
    told twice in a row end with `auth_unavailable`, so that their clients come back: nobody has said that the rights
    have ended. A hook that hangs is given up after 5 seconds, and keeps no other session waiting.

    Args:
        streams: all open streams.
        policy: the rules.
        recheck: the application's hook.
        interval: seconds within which each session is asked about.
        rooms: who belongs to which rooms; None: nobody does.
    """

    def __init__(
        self,
        streams: StreamRegistry,
        policy: Policy,
        recheck: Recheck,
        interval: float,
        rooms: Rooms | None = None,
    ) -> None:
        self._streams, self._policy, self._rooms = streams, policy, rooms
        self._recheck, self._schedule = recheck, Schedule(interval)
        self._asking: set[Session] = set()
        self._untold: set[Session] = set()  # those about which nothing could be told the last time
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        step = self._schedule.step
        async with asyncio.TaskGroup() as asking:
            while True:
                sessions = await self._sessions()
                due = self._schedule.due(sessions, time.monotonic())
                for session in due:
                    if session not in self._asking:
                        self._asking.add(session)
                        asking.create_task(self._ask(session, sessions[session]))
                    await asyncio.sleep(step / len(due))
                if not due:
                    await asyncio.sleep(step)

    async def _sessions(self) -> dict[Session, list[ClientStream]]:
        """Return the open streams of identities that the application's login knows, by session."""
        sessions: dict[Session, list[ClientStream]] = {}
        for number, stream in enumerate(self._streams, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            identity = stream.holder.identity
            if identity is not None and not identity.by_token and stream.closed_because is None:
                sessions.setdefault((identity.user, identity.session), []).append(stream)
        self._untold &= sessions.keys()
        return sessions

    async def _ask(self, session: Session, streams: Sequence[ClientStream]) -> None:
        try:
            await self._take_answer(session, streams)
        finally:
            self._asking.discard(session)

    async def _take_answer(self, session: Session, streams: Sequence[ClientStream]) -> None:
        identity = streams[-1].holder.identity
        assert identity is not None
        held = None
        try:
            present = await asked("recheck", called(self._recheck, identity))
            held = await self._held(identity.user, streams)
        except (Unauthorized, Forbidden):
            present = None
        except AuthUnavailable:
            # A second time in a row: nobody knows for longer than the interval whether the rights go on.
            if session in self._untold:
                self._streams.end_each(CloseReason.AUTH_UNAVAILABLE, streams, within=(2, 10))
            self._untold.add(session)
            return
        self._untold.discard(session)
        ended = [stream for stream in streams if present is None or not self._covers(present, stream, held)]
        self._streams.end_each(CloseReason.REVOKED, ended)
        if present is not None:
            _note_rights(streams, present)

    async def _held(self, user: str, streams: Sequence[ClientStream]) -> Held | None:
        """Return the memberships of *user* in the rooms of *streams*.

        Raises:
            AuthUnavailable: they can't be told now.
        """
        rooms = {room_of(topic) for stream in streams for topic in stream.topics} - {None}
        if self._rooms is None or not rooms:
            return None
        with telling_rooms():
            return await self._rooms.held(user, [room for room in rooms if room is not None])

    def _covers(self, identity: Identity, stream: ClientStream, held: Held | None) -> bool:
        rooms = NO_ROOMS if self._rooms is None else self._rooms.floors(stream, held, stream.topics)
        try:
            return self._policy.read(identity, stream.topics, rooms) == stream.visibility
        except (Unauthorized, Forbidden):
            return False
