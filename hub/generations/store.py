"""What of the generations survives a crash: a log for them alone, in which each has a topic of its own.

A generation is a `start`, its parts by number, and an `end`; each is in the log before anybody sees it. A key, too, has
a topic: it leads to the generation that began with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable

from hub.errors import GenerationExpired, HubError, LogUnavailable
from hub.generations.generation import Ending, Generation, Head, Phase
from hub.log.choice import make_log
from hub.log.log import Lasting, Log
from hub.log.receipt import Receipt
from hub.log_url import MEMORY, LogURL
from hub.notification import Draft
from hub.settings import Settings

logger = logging.getLogger("hub.generations")

LOOK_SECONDS = 60.0
"""How long until it is looked again what an earlier process left, where that could not be seen."""
CLOSE_SECONDS = 10.0
"""How long an opening that was given up may take to end: longer than a process that is killed in the end."""
SPARE = 100
"""How much more the log may hold than what is kept of the text: a part of a few bytes is a record of hundreds."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def generation_log(settings: Settings, clock: Callable[[], float]) -> Log | None:
    """Return the log for the generations of a hub with *settings*: a file beside its own; None if that is in memory.

    It keeps records for as long as an answer may take and is kept then, from when each was written. One that takes
    longer, as only one that the application appends to itself can, is not found again after a restart.
    """
    url = LogURL.parse(settings.log)
    if url.scheme == MEMORY:
        return None
    age = settings.ai_timeout + settings.ai_keep
    size = SPARE * settings.ai_keep_bytes
    # No failure is unobserved: each receipt is awaited, or told to somebody.
    return make_log(
        url.beside("ai"), count=10**9, size=size, age=age, topics={}, clock=clock, unobserved=lambda error: None
    )


class GenerationLog:
    """Keeps generations in *log*, which it opens when the first one needs it, or an earlier process left some.

    Args:
        log: holds nothing else.
        lost: hears of a generation of which something can't be kept.
    """

    def __init__(self, log: Log, lost: Callable[[Generation, Exception], None]) -> None:
        self._log = log
        self._lost = lost
        self._looking: asyncio.Task[None] | None = None
        self._look_at: float | None = None  # when it is to be looked again, in seconds of time.monotonic
        self._opening: asyncio.Task[None] | None = None
        self._given_up: list[asyncio.Task[None]] = []
        self._opened = self._closed = False

    def look(self) -> None:
        """Let go, in the background, of what an earlier process left and is too old.

        What is not old enough yet goes in its time, too: then the log is opened, without anybody asking for it.
        """
        if isinstance(self._log, Lasting) and not self._opened:
            self._look_at = None
            self._looking = asyncio.create_task(self._look(self._log))

    async def _look(self, log: Lasting) -> None:
        try:
            if await log.tidy() and not self._closed:
                await self._open_once()
        except LogUnavailable as error:
            logger.warning("what is left of earlier answers can't be looked at: %s", error)
            self._look_at = time.monotonic() + LOOK_SECONDS
        finally:
            self._looking = None

    async def open(self) -> None:
        """Open the log, unless it is open, or closed for good.

        Raises:
            LogUnavailable: the log can't be used.
        """
        if self._looking is not None:  # it has the file
            await asyncio.wait([self._looking])
        if not (self._opened or self._closed):
            await self._open_once()

    async def _open_once(self) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)  # others may wait for it, too

    async def _open(self) -> None:
        try:
            await self._log.open()
            self._opened = True
        except asyncio.CancelledError:
            raise LogUnavailable("the hub has ended") from None  # for those who wait for it
        finally:
            self._opening = None

    def give_up_opening(self) -> None:
        """Let the log not be opened any more: it may take long, and nothing was given yet."""
        if not self._closed:  # a second time would interrupt the cleanup
            self._closed = True
            self._given_up = [task for task in (self._looking, self._opening) if task is not None]
            for task in self._given_up:
                task.cancel()

    async def aclose(self) -> None:
        """Wait until what was given is kept, then close for good; an opening that does not end is left behind."""
        self.give_up_opening()
        if self._given_up:
            await asyncio.wait(self._given_up, timeout=CLOSE_SECONDS)
        if self._opened:
            self._opened = False
            await self._log.aclose()

    def trim(self) -> None:
        """Let go of what is too old."""
        if self._opened:
            self._log.trim()
        elif self._look_at is not None and time.monotonic() >= self._look_at and self._opening is None:
            self.look()

    # ---- in ----

    async def begin(self, head: Head, key: str | None) -> None:
        """Return when it is kept that a generation has begun, with *key*.

        Raises:
            LogUnavailable: it can't be kept.
        """
        await self._append(head.id, head.as_json(), "start", *([key_topic(head.owner, key)] if key else []))

    def keep(self, stream: Generation, what: str | Ending) -> None:
        """Keep the next part of *stream*, or its end."""
        number = stream.given
        if isinstance(what, str):
            data, type = {"number": number, "text": what}, "part"
        else:
            data, type = {"number": number, "phase": what.phase, "facts": what.facts}, "end"
        try:
            receipt = self._append(stream.id, data, type)
        except HubError as error:
            self._lost(stream, error)
        else:
            receipt.tell(lambda: _take(stream, number, what), lambda error: self._lost(stream, error))

    def _append(self, id: str, data: object, type: str, *more: str) -> Receipt:
        return self._log.append([Draft.of(data, topics=(id, *more), type=type)])[0]

    # ---- out ----

    async def begun_with(self, owner: str | None, key: str) -> str | None:
        """Return the id of the newest generation that is kept and began with *key*.

        Raises:
            LogUnavailable: that can't be read.
        """
        newest = self._log.bounds().newest.offset
        page = await self._log.read(0, (key_topic(owner, key),), upto=newest, latest=True)
        return page.notifications[-1].topics[0] if page.notifications else None

    async def restore(self, id: str) -> Generation | None:
        """Return what is kept of a generation that began before this process did; nobody produces it any more.

        Raises:
            GenerationExpired: only a part of it is left.
            LogUnavailable: it can't be read.
        """
        if not _ID.fullmatch(id):  # nothing we gave out; to the log it might be a pattern
            return None
        head: Head | None = None
        parts: list[str] = []
        ending: Ending | None = None
        at = 0.0
        after, upto = 0, self._log.bounds().newest.offset
        while after < upto:
            page = await self._log.read(after, (id,), upto=upto)
            after = page.reached
            for record in page.notifications:
                at, said = record.at, record.data
                if record.type == "start":
                    head = Head.from_json(said)
                elif record.type == "part" and said["number"] == len(parts) + 1:
                    parts.append(said["text"])
                elif record.type == "end" and said["number"] == len(parts):
                    ending = Ending(Phase(said["phase"]), said["facts"])
        if head is None:
            if at:
                raise GenerationExpired  # its beginning has gone
            return None
        return Generation.over(head, parts, ending or _LOST, at)


_LOST = Ending(
    Phase.FAILED,
    {"reason": "producer_lost", "message": "the hub was restarted before the answer was complete"},
)


def key_topic(owner: str | None, key: str) -> str:
    """Return the topic that leads to what *owner* began with *key*: of one length, however long these are."""
    named = repr((owner, key)).encode(errors="surrogatepass")
    return f"key/{hashlib.sha256(named).hexdigest()}"


def _take(stream: Generation, number: int, what: str | Ending) -> None:
    """Deliver *what* is kept, unless something before it is not: who watches gets no text with a hole."""
    if number == stream.newest + isinstance(what, str):
        stream.kept(what)
