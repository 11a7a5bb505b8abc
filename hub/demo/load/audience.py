"""All subscribers of a run: seated, dropped, brought back, sent home."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Self

from hub.demo.load.errors import HubRefused, NotAllConnected
from hub.demo.load.latency import Latencies
from hub.demo.load.reading import Reader
from hub.demo.load.subscriber import State, Subscriber
from hub.demo.load.tally import Tally
from hub.demo.load.target import Target, source_address
from hub.sse import Message

USHERS = 64
"""Attempts under way at once: below the backlog of any server, or the system would make them wait a second."""
ATTEMPT = 15.0
"""Seconds until an attempt to get a stream is given up and tried anew."""


class Audience:
    """The subscribers of one run and what they have seen together. Use as `async with`.

    Attributes:
        seated: how many have ever had a stream.
        reconnects: streams had again after a lost one.
        failures: attempts that ended without a stream.
        refusals: subscribers turned away for good, by HTTP status.
        gaps: resumes that the hub could not fulfil, by its reason.
        notices: what the hub announced about streams, by type.
        returning: when the last of those whose connection ended will be back at the door (monotonic seconds).
        all_finished: everybody who was not turned away has read the end of the run.
    """

    def __init__(self, target: Target, address: str, topic: str, run: str, size: int) -> None:
        path = target.subscribe_path(topic)
        request = f"GET {path} HTTP/1.1\r\nHost: {target.authority}\r\nAccept: text/event-stream\r\n"
        self.tally = Tally()
        self.latencies = Latencies()
        self.caught_up = Latencies()
        self.reader = Reader(run)
        self.last_delivery = 0
        self.seated = self.reconnects = self.failures = 0
        self.refusals: Counter[int] = Counter()
        self.gaps: Counter[str] = Counter()
        self.notices: Counter[str] = Counter()
        self.returning = 0.0
        self.all_finished = asyncio.Event()
        self.subscribers = [Subscriber(number, request, self) for number in range(size)]
        self._path, self._address, self._port = path.partition("?")[0], address, target.port
        self._awaited = size
        self._last_failure = "their streams end at once, as over capacity and while draining"
        self._all_seated: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at_the_door: asyncio.Queue[Subscriber] = asyncio.Queue()
        self._away: dict[Subscriber, asyncio.TimerHandle] = {}
        self._ushers: list[asyncio.Task[None]] = []
        self._leaving = False
        self._links = 0
        self._all_left = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._ushers = [asyncio.create_task(self._usher()) for _ in range(USHERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def present(self) -> int:
        """How many have their stream now."""
        return sum(subscriber.state is State.OPEN for subscriber in self.subscribers)

    async def open(self, seconds: float) -> None:
        """Return once every subscriber has its stream.

        Raises:
            HubRefused: one of them was turned away.
            NotAllConnected: it took more than *seconds*.
        """
        for subscriber in self.subscribers:
            self._at_the_door.put_nowait(subscriber)
        try:
            async with asyncio.timeout(seconds):
                await self._all_seated
        except TimeoutError:
            raise NotAllConnected(self.seated, len(self.subscribers), seconds, self._last_failure) from None

    def drop(self, share: float) -> int:
        """Cut *share* of the open connections, chosen at random, all at once; return how many."""
        present = [subscriber for subscriber in self.subscribers if subscriber.state is State.OPEN]
        chosen = random.sample(present, round(len(present) * share))
        for subscriber in chosen:
            subscriber.drop()
        return len(chosen)

    def missing(self, total: int) -> int:
        """Return how many of the events 0 to *total* - 1 did not come, over all subscribers."""
        return sum(subscriber.track.missing(total) for subscriber in self.subscribers)

    async def aclose(self) -> None:
        """Cut all connections and return when the last is closed."""
        self._leaving = True
        for timer in self._away.values():
            timer.cancel()
        for usher in self._ushers:
            usher.cancel()
        outcomes = await asyncio.gather(*self._ushers, return_exceptions=True)
        for subscriber in self.subscribers:
            subscriber.abort()
        if self._links:
            await self._all_left.wait()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _usher(self) -> None:
        while True:
            await self._seat(await self._at_the_door.get())

    async def _seat(self, subscriber: Subscriber) -> None:
        loop = asyncio.get_running_loop()
        attempt = subscriber.attempt = loop.create_future()
        source = source_address(subscriber.number, self._address)
        try:
            async with asyncio.timeout(ATTEMPT):
                try:
                    await loop.create_connection(lambda: subscriber, self._address, self._port, local_addr=source)
                except BaseException:
                    # Cancelled with the connection made but not handed out: uvloop closes it without telling anybody.
                    subscriber.connection_lost(None)
                    raise
                self.failures += not await attempt
        except (OSError, TimeoutError) as error:
            self.failures += 1
            self._last_failure = str(error) or f"no stream within {ATTEMPT:.0f} s"
            if subscriber.state is State.AWAY:
                self._bring_back(subscriber)
            else:
                subscriber.abort()  # `lost` brings it back

    def _bring_back(self, subscriber: Subscriber) -> None:
        if subscriber not in self._away:
            loop = asyncio.get_running_loop()
            self._away[subscriber] = loop.call_later(subscriber.retry, self._return, subscriber)

    def _return(self, subscriber: Subscriber) -> None:
        del self._away[subscriber]
        self._at_the_door.put_nowait(subscriber)

    # What subscribers tell (see `House`)

    def connected(self, subscriber: Subscriber) -> None:
        """Count a connection."""
        self._links += 1

    def opened(self, subscriber: Subscriber) -> None:
        """Count a stream."""
        if subscriber.opened > 1:
            self.reconnects += 1
            return
        self.seated += 1
        if self.seated == len(self.subscribers) and not self._all_seated.done():
            self._all_seated.set_result(None)

    def heard(self, notice: Message) -> None:
        """Count what the hub announced, and the gaps it admitted."""
        self.notices[notice.type] += 1
        if notice.type == "hub.open":
            try:
                match notice.json():
                    case {"recovered": False, "reason": str(reason)}:
                        self.gaps[reason] += 1
            except ValueError:
                self.gaps["unreadable"] += 1

    def finished(self, subscriber: Subscriber) -> None:
        """Stop waiting for *subscriber*."""
        self._awaited -= 1
        if not self._awaited:
            self.all_finished.set()

    def refused(self, subscriber: Subscriber, status: int, detail: bytes) -> None:
        """Stop waiting for *subscriber*, which is turned away for good."""
        self.refusals[status] += 1
        if not subscriber.finished:
            self.finished(subscriber)
        if not self._all_seated.done():
            self._all_seated.set_exception(HubRefused.of(f"GET {self._path}", status, detail))

    def lost(self, subscriber: Subscriber) -> None:
        """Bring *subscriber* back when it is time, unless it was turned away."""
        self._links -= 1
        if self._leaving:
            if not self._links:
                self._all_left.set()
        elif subscriber.state is State.AWAY:
            self.returning = max(self.returning, time.monotonic() + subscriber.retry)
            self._bring_back(subscriber)
