"""What the dashboard shows of a hub: gathered from all processes, and only when somebody looks."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

from hub.encoding import moment
from hub.hub import Hub
from hub.log_url import LogURL
from hub.state.state import Revocation
from hub.topics import is_pattern
from hub.web.access import Access
from hub.web.dashboard.debugger import Debugger
from hub.web.dashboard.failures import SECONDS, Failure, Failures, merged
from hub.web.dashboard.feed import Feed
from hub.web.dashboard.traffic import Traffic
from hub.web.monitoring import log_bounds
from hub.web.verifier import Verifier

LOOK, TOPICS, FAILURES = "dashboard: figures", "dashboard: topics", "dashboard: failures"
BUSIEST = 8
REVOCATIONS = 200
MOST_TOPICS = 2_000
"""Topics that each process tells of; beyond that those with the fewest subscribers are left out."""

_MEMORY = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Dashboard:
    """What the page of operators is told.

    Args:
        hub: the hub.
        access: its rules.
        verifier: what reads tokens; None: tokens are not accepted.

    Attributes:
        feed: the figures, once a second.
        traffic: what is published, by topic.
        failures: what the hub has logged lately.
        debugger: explains rights.
    """

    KEY: ClassVar[web.AppKey[Dashboard]]

    def __init__(self, hub: Hub, access: Access, verifier: Verifier | None) -> None:
        self._hub = hub
        self.traffic = Traffic(hub.notifications.subject)
        self.feed = Feed(self.sample, begin=self.traffic.start, end=self.traffic.stop)
        self.failures = Failures()
        self.debugger = Debugger(hub, access, verifier)
        self._revoked: deque[Revocation] = deque(maxlen=REVOCATIONS)
        hub.peers.answer(LOOK, self._look)
        hub.peers.answer(TOPICS, self._topics)
        hub.peers.answer(FAILURES, self._failures)

    @classmethod
    def of(cls, request: web.Request) -> Dashboard:
        """Return the dashboard of the application that got *request*."""
        return request.config_dict[cls.KEY]

    def open(self) -> None:
        """Listen to what the hub logs from now on."""
        self.failures.open()

    async def aclose(self) -> None:
        """Listen no more, and take no samples."""
        self.failures.close()
        await self.feed.aclose()

    def noting(self, announce: Callable[[Revocation], object]) -> Callable[[Revocation], None]:
        """Return *announce*, which is called with each revocation, with a note of it here."""

        def note(revocation: Revocation) -> None:
            self._revoked.append(revocation)
            announce(revocation)

        return note

    # ---- figures ----

    async def sample(self, late: float = 0.0) -> dict[str, Any]:
        """Return the figures of all processes that answer, by process and added up.

        *late* is by how many seconds the event loop of this one was late.
        """
        hub = self._hub
        said = await hub.peers.ask_all(LOOK)
        self.traffic.tick()
        workers = {hub.peers.id: {**self._here(), "late": late}, **said}
        return {
            "at": round(hub.clock(), 3),
            "worker": hub.peers.id,
            "workers": workers,
            "total": hub.elsewhere.added([each["figures"] for each in workers.values()]),
            "missing": max(hub.peers.others - len(said), 0),
            "log": {"home": str(LogURL.parse(hub.settings.log)), "bounds": log_bounds(hub)},
            "limits": {"streams": hub.max_connections, "count": hub.settings.retain_count},
            "online": hub.presence.online,
            "draining": hub.draining,
            "busiest": self.traffic.busiest(BUSIEST),
            "others": self.traffic.others,
            "failures": sum(each.times for each in self.failures.since(time.time() - SECONDS)),
        }

    def _here(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "cpu": round(time.process_time(), 4),
            "memory": _memory(),
            "figures": dict(self._hub.elsewhere.here()),
        }

    async def _look(self, asked: Any) -> dict[str, Any]:
        return self._here()

    # ---- topics ----

    async def topics(self, *, containing: str, order: str, offset: int, limit: int) -> dict[str, Any]:
        """Return *limit* topics from *offset* on, with their subscribers and rates.

        Args:
            containing: only topics that have this text in them.
            order: `subscribers`, `rate` (the most first) or `topic`.
            offset: how many to leave out.
            limit: how many at most.
        """
        numbers, more = self._most_wanted(containing)
        said = await self._hub.peers.ask_all(TOPICS, containing)
        for others, more_there in said.values():
            numbers.update(others)
            more = more or more_there
        rates = self.traffic.rates
        for topic in rates:
            if containing in topic:
                numbers.setdefault(topic, 0)
        found = sorted(numbers)
        if order == "subscribers":
            found.sort(key=lambda topic: -numbers[topic])
        elif order == "rate":
            found.sort(key=lambda topic: -rates.get(topic, 0.0))
        page = found[offset : offset + limit]
        shown = [
            {
                "topic": topic,
                "pattern": is_pattern(topic),
                "subscribers": numbers[topic],
                "users": None if is_pattern(topic) else self._hub.presence.count(topic),
                "rate": round(rates.get(topic, 0.0), 3) if self.traffic.counts and not is_pattern(topic) else None,
            }
            for topic in page
        ]
        return {"topics": shown, "total": len(found), "sampled": more, "missing": len(said) < self._hub.peers.others}

    def _most_wanted(self, containing: str) -> tuple[Counter[str], bool]:
        found = self._hub.fanout.subscribers()
        if containing:
            found = Counter({topic: number for topic, number in found.items() if containing in topic})
        more = len(found) > MOST_TOPICS and self._hub.peers.others > 0
        return (Counter(dict(found.most_common(MOST_TOPICS))) if more else found), more

    async def _topics(self, asked: Any) -> tuple[Mapping[str, int], bool]:
        return self._most_wanted(asked)

    # ---- failures, revocations ----

    async def failed(self) -> list[dict[str, Any]]:
        """Return what went wrong in the last hour, in all processes that answer."""
        oldest = time.time() - SECONDS
        said = await self._hub.peers.ask_all(FAILURES, oldest)
        found = [*self.failures.since(oldest), *(Failure(*each) for some in said.values() for each in some)]
        return [{**each._asdict(), "first": moment(each.first), "last": moment(each.last)} for each in merged(found)]

    async def _failures(self, asked: Any) -> list[list[Any]]:
        return [list(each) for each in self.failures.since(asked)]

    def revocations(self) -> list[dict[str, Any]]:
        """Return what this process has learned to be revoked since it began, the last one first; at most 200."""
        return [{"kind": each.kind, "id": each.id, "at": moment(each.at)} for each in reversed(self._revoked)]


Dashboard.KEY = web.AppKey("dashboard", Dashboard)


def _memory() -> int:
    """Return the bytes of memory that this process uses; 0: that can't be told here."""
    try:
        return int(_MEMORY.read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
