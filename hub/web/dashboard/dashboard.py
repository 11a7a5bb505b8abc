"""What the dashboard shows of a hub: gathered from all processes, and only when somebody looks."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
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
from hub.web.dashboard.recent import Recent
from hub.web.dashboard.traffic import Traffic
from hub.web.monitoring import log_bounds
from hub.web.verifier import Verifier

TOPICS, FAILURES = "dashboard: topics", "dashboard: failures"
BUSIEST = 8
REVOCATIONS = 200
MOST_TOPICS = 2_000
"""Topics that each process tells of; beyond that those with the fewest subscribers are left out."""


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
        self.feed = Feed(self.sample, begin=self.traffic.start, end=self._rest)
        self.failures = Failures()
        self.debugger = Debugger(hub, access, verifier)
        self._recent = Recent()
        self._revoked: deque[Revocation] = deque(maxlen=REVOCATIONS)
        hub.peers.answer(TOPICS, self._topics)
        hub.peers.answer(FAILURES, self._failures)

    @classmethod
    def of(cls, request: web.Request) -> Dashboard:
        """Return the dashboard of the application that got *request*."""
        return request.config_dict[cls.KEY]

    def _rest(self) -> None:
        self.traffic.stop()
        self._recent.clear()

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

    async def sample(self) -> dict[str, Any]:
        """Return the figures of all processes that answer: each one's own, and those of all."""
        hub = self._hub
        figures = await hub.elsewhere.figures()
        self.traffic.tick()
        workers = figures.pop("workers")
        latest = self._recent.add({"": figures, **workers})
        return {
            "at": round(hub.clock(), 3),
            "workers": {name: {**_plain(own), "lag": latest.lag(name)} for name, own in workers.items()},
            "total": _plain(figures),
            "written": latest.written,
            "lag": latest.lag(""),
            "missing": max(hub.peers.others + 1 - len(workers), 0),
            "log": {"home": str(LogURL.parse(hub.settings.log)), "bounds": log_bounds(hub)},
            "online": hub.presence.online,
            "draining": hub.draining,
            "busiest": self.traffic.busiest(BUSIEST),
            "others": self.traffic.others,
            "failures": sum(each.times for each in self.failures.since(time.time() - SECONDS)),
        }

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
        weights: Mapping[str, float] = {"subscribers": numbers, "rate": rates}.get(order, {})
        # Not all of them in order: there may be hundreds of thousands, and this is asked again every two seconds.
        page = heapq.nsmallest(offset + limit, numbers, key=lambda topic: (-weights.get(topic, 0), topic))[offset:]
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
        return {"topics": shown, "total": len(numbers), "sampled": more, "missing": len(said) < self._hub.peers.others}

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


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers among *figures*, and the streams by kind: what the page makes no use of stays here."""
    return {name: each for name, each in figures.items() if name == "streams" or not isinstance(each, Mapping)}
