"""The publisher: publishes the events of a run in order and on a fixed schedule, however slow the hub is."""

from __future__ import annotations

import asyncio
import time
from itertools import takewhile

from hub.load.figures import Figures
from hub.load.stream import END, Answer, Mark, draft, refusal

MAX_BATCH = 100
"""Maximum number of events in one POST when the publisher has fallen behind."""
SPIN = 0.0015
"""Seconds before an event is due at which the publisher stops sleeping: timers have a resolution of a millisecond."""
SPIN_UP_TO = 50
"""Maximum rate, in events per second, at which there is enough CPU time for this."""
ANSWER = 30.0
"""Seconds to wait for an answer before the same drafts are sent again."""
AGAIN = 0.25
"""Seconds between two tries."""
MAX_ANSWER = 1024 * 1024


class Publisher:
    """Publishes the events of a run in order, over one connection that is renewed when necessary.

    The schedule is open-loop: each mark carries the time at which it was due, so that a slow hub (or driver) does not
    look fast because the next event was delayed. Each draft has a key: sending it again after a lost answer is safe.

    Attributes:
        stopped: set it to True to end the publishing; it is checked between two requests, ten times a second.
    """

    def __init__(self, figures: Figures, hub: tuple[str, int], run: str) -> None:
        self.stopped = False
        self._figures, self._options, self._hub, self._run = figures, figures.options, hub, run
        self._request = f"POST {(self._options.url / 'notifications/publish').raw_path}"
        self._bearer = f"Authorization: Bearer {self._options.token}\r\n" if self._options.token else ""
        self._pad = "x" * figures.options.size
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(self) -> None:
        """Publish all events; stop early if `stopped` is set, or if the hub does not answer for the grace period."""
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
        # Not wait_for(event.wait()), which would cost a task and a timer for each event.
        while not self.stopped and (left := (due - time.monotonic_ns()) / 1e9) > 0:  # noqa: ASYNC110  # see above
            await asyncio.sleep(min(max(left - spin, 0), 0.1))

    async def _post(self, marks: list[Mark]) -> bool:
        """Publish *marks*, repeatedly if necessary; return False if `stopped` is set or the grace period ends first."""
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
                    if not self._figures.published:  # there is nothing to report
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
            f"{self._bearer}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
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
