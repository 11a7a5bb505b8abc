"""Rights that end while streams are open: revoked, or no longer what the application's login says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from hub.access.identity import Identity
from hub.access.policy import Policy
from hub.connections.client_stream import ClientStream, CloseReason
from hub.connections.registry import StreamRegistry
from hub.errors import AuthUnavailable, Forbidden, Unauthorized
from hub.state.state import Revocation
from hub.web.access import Recheck, asked

logger = logging.getLogger("hub.access")

Session = tuple[str, str | None]


def end_revoked(streams: StreamRegistry, revocation: Revocation) -> None:
    """End the streams whose holders' rights *revocation* takes back."""
    if revocation.kind == "user":
        streams.end_of(CloseReason.REVOKED, lambda holder: holder.user == revocation.id)
    else:
        streams.end_of(
            CloseReason.REVOKED,
            lambda holder: holder.identity is not None and holder.identity.token == revocation.id,
        )


class Rechecks:
    """Asks the application, again and again, about the sessions that have open streams.

    A session whose rights have ended loses its streams, and one with fewer rights those that are no longer covered. The
    streams of a session about which nothing can be told twice in a row end. A hook that hangs is given up after 5
    seconds, and keeps no other session waiting.

    Args:
        streams: all open streams.
        policy: the rules.
        recheck: the application's hook.
        interval: seconds within which each session is asked about once.
    """

    def __init__(
        self,
        streams: StreamRegistry,
        policy: Policy,
        recheck: Recheck,
        interval: float,
    ) -> None:
        self._streams, self._policy = streams, policy
        self._recheck, self._interval = recheck, interval
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
        while True:
            sessions = self._sessions()
            # Spread, so that the application is not asked about all of them at once.
            pause = self._interval / max(len(sessions), 1)
            async with asyncio.TaskGroup() as asking:
                for session, streams in sessions.items():
                    asking.create_task(self._ask(session, streams))
                    await asyncio.sleep(pause)
            if not sessions:
                await asyncio.sleep(self._interval)

    def _sessions(self) -> dict[Session, list[ClientStream]]:
        """Return the open streams of identities that the application's login knows, by session."""
        sessions: dict[Session, list[ClientStream]] = {}
        for stream in self._streams:
            identity = stream.holder.identity
            if identity is not None and not identity.by_token and stream.closed_because is None:
                sessions.setdefault((identity.user, identity.session), []).append(stream)
        self._untold &= sessions.keys()
        return sessions

    async def _ask(self, session: Session, streams: Sequence[ClientStream]) -> None:
        identity = streams[-1].holder.identity
        assert identity is not None
        try:
            present = await asked("recheck", self._recheck(identity))
        except (Unauthorized, Forbidden):
            present = None
        except AuthUnavailable:
            # A second time in a row: nobody knows for longer than the interval whether the rights go on.
            if session in self._untold:
                self._end(streams, lambda stream: True)
            self._untold.add(session)
            return
        self._untold.discard(session)
        self._end(streams, lambda stream: present is None or not self._covers(present, stream))

    def _covers(self, identity: Identity, stream: ClientStream) -> bool:
        try:
            return self._policy.read(identity, stream.topics) == stream.visibility
        except (Unauthorized, Forbidden):
            return False

    def _end(self, streams: Sequence[ClientStream], ended: Callable[[ClientStream], bool]) -> None:
        ids = {id(stream.holder) for stream in streams if ended(stream)}
        self._streams.end_of(CloseReason.REVOKED, lambda holder: id(holder) in ids)
