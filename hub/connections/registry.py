"""All open connections: one sweep for their heartbeats, one drain for their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hub.connections.connection import CloseReason, Connection, Wiring, retry_between
from hub.eventstream import block

SLICES_PER_HEARTBEAT = 15
DRAIN_SLICE = 0.05


class Connections:
    """Every open connection of one hub.

    Args:
        wiring: what the connections share; its registry is the truth about who is open.
        heartbeat: seconds a stream may be idle before it gets a heartbeat.
        now: seconds of the clock that connections use.
    """

    def __init__(self, wiring: Wiring, *, heartbeat: float = 15.0, now: Callable[[], float] = time.monotonic) -> None:
        self._wiring = wiring
        self._heartbeat = heartbeat
        self._now = now
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._wiring.connections)

    def __bool__(self) -> bool:
        return True

    def get(self, id: str) -> Connection | None:
        """Return the open connection with this *id*."""
        return self._wiring.connections.get(id)

    def start(self) -> None:
        """Sweep from now on, on the running loop."""
        self._timer = asyncio.get_running_loop().call_later(self._heartbeat / SLICES_PER_HEARTBEAT, self._again)

    def _again(self) -> None:
        self.sweep()
        self.start()

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """Send a heartbeat to each idle stream, with the cursor it stands at, and cut the peers that are stuck.

        An idle live stream has been offered everything the fan-out has flushed, so they all stand at its newest
        position and share the same bytes.
        """
        now = self._now()
        self._wiring.log.trim()
        self._wiring.pages.trim()
        self._wiring.fanout.flush()
        heartbeat = block(comment="", id=str(self._wiring.fanout.newest))
        for connection in list(self._wiring.connections.values()):
            connection.tend(now, now - self._heartbeat, heartbeat)

    def send_away(self) -> None:
        """End every stream at once; each client gets a jittered time to come back."""
        for connection in list(self._wiring.connections.values()):
            connection.close(CloseReason.LOG_UNAVAILABLE, retry_between(1, 6))

    async def drain(self, seconds: float) -> None:
        """End every stream within *seconds*, spread evenly; cut what still has unsent bytes at the end.

        Returns as soon as the last stream has ended.
        Each client gets a jittered time to come back, so that the next process is not met by all at once.
        """
        deadline = self._now() + seconds
        waiting = list(self._wiring.connections.values())
        slices = max(1, round(seconds / DRAIN_SLICE))
        for turn in range(slices):
            for connection in waiting[turn::slices]:
                connection.close(CloseReason.SHUTDOWN, retry_between(1, 6))
            if not self._wiring.connections:
                break
            await asyncio.sleep(DRAIN_SLICE if seconds else 0)
        # What a close still has to send is the kernel's affair: its end is looked for, not announced.
        while self._wiring.connections and self._now() < deadline:  # noqa: ASYNC110 - see above
            await asyncio.sleep(DRAIN_SLICE)
        await self._end_the_rest()

    async def _end_the_rest(self) -> None:
        """Close who came in meanwhile, allow a turn of the loop for what can be sent at once, then cut."""
        for connection in list(self._wiring.connections.values()):
            connection.close(CloseReason.SHUTDOWN, retry_between(1, 6))
        await asyncio.sleep(0)
        for connection in list(self._wiring.connections.values()):
            connection.abort(CloseReason.SHUTDOWN)
        while self._wiring.connections:  # noqa: ASYNC110 - an abort ends within a turn or two
            await asyncio.sleep(0)
