"""The publishing side: one event after the other, each due at its own moment, whatever the hub does."""

from __future__ import annotations

import asyncio
import time

from hub.demo.load.errors import HubRefused
from hub.demo.load.mark import END, Mark, draft
from hub.demo.load.options import Options

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
        started: when the first event was due, in nanoseconds of the monotonic clock; 0 before.
        accepted: events the hub has confirmed, the numbers below this.
        posts: requests that were answered.
        retries: requests that had to be sent again.
        trouble: why the last request had to be, empty if none did.
    """

    def __init__(self, options: Options, address: str, run: str) -> None:
        self.started = self.accepted = self.posts = self.retries = 0
        self.trouble = ""
        self._target, self._topic, self._patience = options.target, options.topic, options.grace
        self._rate, self._count, self._pad = options.rate, options.planned, "x" * options.size
        self._address, self._run = address, run
        self._pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(self, stop: asyncio.Event) -> None:
        """Publish all events, or those before *stop* is set or the hub stays away for longer than the grace period.

        Raises:
            HubRefused: an answer to the first event says that this can never succeed.
        """
        self.started = time.monotonic_ns()
        while self.accepted < self._count and not stop.is_set():
            await self._wait_until(self._due(self.accepted), stop)
            if stop.is_set() or not await self._post(self._batch(), stop):
                break

    async def end(self, stop: asyncio.Event) -> bool:
        """Publish the end of the run; false if that did not succeed."""
        return await self._post([END], stop)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._pipe is not None:
            self._pipe[1].transport.abort()
            self._pipe = None

    def _due(self, number: int) -> int:
        return self.started + int(number / self._rate * 1e9)

    def _batch(self) -> list[Mark]:
        """Return the next event and the others that are due as well."""
        now, first = time.monotonic_ns(), self.accepted
        marks = [Mark(first, self._due(first))]
        for number in range(first + 1, min(first + MAX_BATCH, self._count)):
            if self._due(number) > now:
                break
            marks.append(Mark(number, self._due(number)))
        return marks

    async def _wait_until(self, due: int, stop: asyncio.Event) -> None:
        spin = SPIN if self._rate <= SPIN_UP_TO else 0.0
        # Not wait_for(stop.wait()): that is a task and a timer for each event.
        while not stop.is_set() and (left := (due - time.monotonic_ns()) / 1e9) > 0:  # noqa: ASYNC110  # see above
            await asyncio.sleep(min(max(left - spin, 0), 0.1))

    async def _post(self, marks: list[Mark], stop: asyncio.Event) -> bool:
        """Publish *marks* until the hub confirms them; false if it does not before *stop* or the end of patience."""
        until = time.monotonic() + self._patience
        drafts = ",".join(draft(self._run, self._topic, mark, self._pad) for mark in marks)
        body = (drafts if len(marks) == 1 else f"[{drafts}]").encode()
        while True:
            try:
                async with asyncio.timeout(ANSWER):
                    status, answer = await self._exchange(body)
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                await self.aclose()
                self.trouble = str(error) or type(error).__name__
            else:
                self.posts += 1
                if status in {200, 201}:
                    self.accepted += sum(mark.number >= 0 for mark in marks)
                    return True
                if status not in {429, 502, 503, 504}:
                    return self._give_up(HubRefused.of(f"POST {self._target.publish_path}", status, answer))
                self.trouble = f"POST {self._target.publish_path} was answered with {status}"
            if stop.is_set() or time.monotonic() > until:
                return False
            self.retries += 1
            await asyncio.sleep(AGAIN)

    def _give_up(self, refusal: HubRefused) -> bool:
        """Raise *refusal* if there is nothing yet to report on; otherwise leave it to the report."""
        if not self.accepted:
            raise refusal
        self.trouble = str(refusal)
        return False

    async def _exchange(self, body: bytes) -> tuple[int, bytes]:
        """Send one request and return the status and body of its answer."""
        if self._pipe is None:
            self._pipe = await asyncio.open_connection(self._address, self._target.port, limit=MAX_ANSWER)
        reader, writer = self._pipe
        writer.write(
            f"POST {self._target.publish_path} HTTP/1.1\r\nHost: {self._target.authority}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        status, length, closes = _parse(await reader.readuntil(b"\r\n\r\n"))
        if length is None:  # its end cannot be told cheaply: what came is enough, the connection is not used again
            answer, closes = await reader.read(MAX_ANSWER), True
        else:
            answer = await reader.readexactly(length)
        if closes:
            await self.aclose()
        return status, answer


def _parse(head: bytes) -> tuple[int, int | None, bool]:
    """Return the status, the length if the head tells it, and whether the connection ends after the answer."""
    status, *fields = head.decode("latin-1").lower().splitlines()
    version, code = status.split(maxsplit=2)[:2]
    named = dict(field.split(":", 1) for field in fields if ":" in field)
    length = named.get("content-length")
    closes = named.get("connection", "").strip() == "close" or version != "http/1.1"
    return int(code), None if length is None else min(int(length), MAX_ANSWER), closes
