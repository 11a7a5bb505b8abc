"""The publishing side: one event after the other, each due at its own moment, whatever the hub does."""

from __future__ import annotations

import asyncio
import time
from itertools import takewhile

from hub.load.figures import Figures
from hub.load.stream import END, Answer, Mark, draft, refusal

MAX_BATCH = 100
"""Events in one POST when the publisher has fallen behind."""
SPIN = 0.0015
"""Seconds before an event is due at which the publisher stops sleeping: timers are a millisecond coarse."""
SPIN_UP_TO = 50
"""Events per second up to which that is affordable."""
ANSWER = 30.0
"""Seconds to wait for an answer before the same drafts are sent again."""
AGAIN = 0.25
"""Seconds between two tries."""
MAX_ANSWER = 1024 * 1024


class Publisher:
    """Publishes the events of a run in order, over one connection that it renews when it must.

    The schedule is open-loop: a mark is stamped with the moment it was due, so that a slow hub (or driver) cannot
    make itself look fast by delaying the next event. Each draft has a key: sending it again after a lost answer
    is safe.

    Attributes:
        stopped: set it to end the publishing; it is looked at between two requests, ten times a second.
    """

    def __init__(self, figures: Figures, hub: tuple[str, int], run: str) -> None:
        self.stopped = False
        self._figures, self._options, self._hub, self._run = figures, figures.options, hub, run
        self._request = f"POST {(self._options.url / 'notifications/publish').raw_path}"
        self._pad = "x" * figures.options.size
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(self) -> None:
        """Publish all events, or those before it is stopped or the hub stays away for longer than the grace period."""
        self._figures.started = time.monotonic_ns()
        while self._figures.published < self._options.planned:
            await self._wait_until(self._due(self._figures.published))
            if self.stopped or not await self._post(self._batch()):
                break

    async def publish_end(self) -> None:
        """Publish the end of the run, if the hub accepts it within the grace period."""
        self.stopped = False
        await self._post([END])

    def close(self) -> None:
        """Close the connection."""
        if self._pipe is not None:
            self._pipe[1].transport.abort()
            self._pipe = None

    def _due(self, number: int) -> int:
        return self._figures.started + int(number / self._options.rate * 1e9)

    def _batch(self) -> list[Mark]:
        """Return the next events that are due."""
        now, first = time.monotonic_ns(), self._figures.published
        numbers = range(first, min(first + MAX_BATCH, self._options.planned))
        return list(takewhile(lambda mark: mark.stamp <= now, (Mark(each, self._due(each)) for each in numbers)))

    async def _wait_until(self, due: int) -> None:
        spin = SPIN if self._options.rate <= SPIN_UP_TO else 0.0
        # Not wait_for(event.wait()): that is a task and a timer for each event.
        while not self.stopped and (left := (due - time.monotonic_ns()) / 1e9) > 0:  # noqa: ASYNC110  # see above
            await asyncio.sleep(min(max(left - spin, 0), 0.1))

    async def _post(self, marks: list[Mark]) -> bool:
        """Publish *marks* until the hub confirms them; false if it does not before it is stopped or the grace ends."""
        until = time.monotonic() + self._options.grace
        drafts = ",".join(draft(self._run, self._options.topic, mark, self._pad) for mark in marks)
        body = (drafts if len(marks) == 1 else f"[{drafts}]").encode()
        while True:
            try:
                async with asyncio.timeout(ANSWER):
                    status, answer = await self._exchange(body)
            except (OSError, EOFError, ValueError) as error:
                self.close()
                self._figures.trouble = str(error) or type(error).__name__
            else:
                self._figures.posts += 1
                if status in {200, 201}:
                    self._figures.published += sum(mark.number >= 0 for mark in marks)
                    return True
                if status not in {429, 502, 503, 504}:
                    refused = refusal(self._request, status, answer)
                    if not self._figures.published:  # then there is nothing to report on
                        raise refused
                    self._figures.trouble = str(refused)
                    return False
                self._figures.trouble = f"{self._request} was answered with {status}"
            if self.stopped or time.monotonic() > until:
                return False
            self._figures.retries += 1
            await asyncio.sleep(AGAIN)

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        """Send one request and return the status and body of its answer."""
        if self._pipe is None:
            self._pipe = await asyncio.open_connection(*self._hub)
        reader, writer = self._pipe
        writer.write(
            f"{self._request} HTTP/1.1\r\nHost: {self._options.url.raw_authority}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        answer, said = Answer(), b""
        while not answer.ended and len(said) < MAX_ANSWER:
            received = await reader.read(MAX_ANSWER)
            if not received and not answer.status:
                raise EOFError("the connection ended before the answer")
            if not received:
                break
            said += answer.feed(received)
        if answer.closes or not answer.ended:
            self.close()
        return answer.status, said
