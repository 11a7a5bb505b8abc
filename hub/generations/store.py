"""The log of the generations, which survives a crash: it holds nothing else, and each generation has its own topic.

A generation is stored as a `start` record, numbered `part` records and an `end` record; each is in the log before any
viewer gets it. An idempotency key has a topic too: it leads to the generation that began with the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from hub.errors import GenerationExpired, HubError, LogUnavailable
from hub.generations.generation import Ending, Generation, Head, Phase
from hub.log.choice import make_log
from hub.log.log import Lasting, Log
from hub.log.receipt import Receipt
from hub.log_url import MEMORY, LogURL
from hub.notification import Draft, Notification, Position
from hub.settings import Settings
from hub.state.peers import Peers

logger = logging.getLogger("hub.generations")

LOOK_SECONDS = 60.0
"""Seconds until the next try, after the file that an earlier process left could not be read."""
CLOSE_SECONDS = 10.0
"""Seconds that a cancelled opening may take to end: longer than it takes to kill a process of the log."""
SPARE = 100
"""Factor of the log's size on that of the kept text: a part of a few bytes takes a record of hundreds."""

UNKNOWN = -1
"""Stands for the number of parts where it is not known how many of them are stored."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def generation_log(settings: Settings, clock: Callable[[], float]) -> Log | None:
    """Return the log for the generations of a hub with *settings*: a file beside the hub's log; None for `memory://`.

    Each record is kept for `ai_timeout` plus `ai_keep` seconds after it was written. An answer that takes longer than
    `ai_timeout`, which is possible only if the application appends to it itself, is not found after a restart.
    """
    url = LogURL.parse(settings.log)
    if url.scheme == MEMORY:
        return None
    age = settings.ai_timeout + settings.ai_keep
    size = SPARE * settings.ai_keep_bytes
    # There are no unobserved failures to report: each receipt is awaited or has a callback.
    return make_log(
        url.beside("ai"),
        count=10**9,
        size=size,
        age=age,
        topics={},
        clock=clock,
        unobserved=lambda error: None,
        prefix=settings.redis_prefix,
        wait=settings.redis_wait,
        fence=settings.redis_fence == "on",
    )


class GenerationLog:
    """Stores generations in *log*, which is opened by the first generation, or if an earlier process left some.

    Args:
        log: a log that holds nothing else.
        lost: called with a generation of which something can't be stored, and the error.
        peers: the other processes, which have the same log if it is in Redis.
    """

    def __init__(self, log: Log, lost: Callable[[Generation, Exception], None], peers: Peers) -> None:
        self._log = log
        self._lost = lost
        self._peers = peers
        self._holding: dict[object, tuple[str, list[Notification]]] = {}  # what comes while a generation is read
        self._followed: dict[str, Generation] = {}  # those of other processes that stream
        self._unended: dict[str, Ending] = {}  # of generations that were given up, until it is stored
        self._ending: set[str] = set()  # those of them for which that is under way
        log.announce_to(self._announced, self._renewed)
        self._looking: asyncio.Task[None] | None = None
        self._look_at: float | None = None  # time of the next try of `look`, in seconds of time.monotonic
        self._opening: asyncio.Task[None] | None = None
        self._given_up: list[asyncio.Task[None]] = []
        self._opened = self._closed = False

    def look(self) -> None:
        """Remove, in the background, what an earlier process left and is too old.

        If something is left that is not old enough yet, the log is opened, so that `trim` can remove it in time.
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
        """Open the log, unless it is open or has been closed.

        Raises:
            LogUnavailable: the log can't be used.
        """
        if self._looking is not None:  # it is using the file
            await asyncio.wait([self._looking])
        if not (self._opened or self._closed):
            await self._open_once()

    async def _open_once(self) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)  # other callers may wait for the same task

    async def _open(self) -> None:
        try:
            await self._log.open()
            self._opened = True
        except asyncio.CancelledError:
            raise LogUnavailable("the hub has ended") from None  # for the callers that wait for the opening
        finally:
            self._opening = None

    def give_up_opening(self) -> None:
        """Cancel an opening under way and allow no other: it may take long, and nothing needs to be stored yet."""
        if not self._closed:  # a second cancellation would interrupt the cleanup
            self._closed = True
            self._given_up = [task for task in (self._looking, self._opening) if task is not None]
            for task in self._given_up:
                task.cancel()

    async def aclose(self) -> None:
        """Wait until everything is stored, then close for good; a cancelled opening is waited for at most 10 s."""
        self.give_up_opening()
        if self._given_up:
            await asyncio.wait(self._given_up, timeout=CLOSE_SECONDS)
        if self._opened:
            self._opened = False
            await self._log.aclose()

    def trim(self) -> None:
        """Remove what is too old, and store the end of what was given up."""
        if self._opened:
            self._log.trim()
            for id in self._unended.keys() - self._ending:
                self._end(id)
        elif self._look_at is not None and time.monotonic() >= self._look_at and self._opening is None:
            self.look()

    # ---- in ----

    async def begin(self, head: Head, key: str | None) -> None:
        """Store the beginning of a generation, under its id and under *key*; return when the log has it.

        Raises:
            LogUnavailable: it can't be stored.
        """
        await self._append(head.id, head.as_json(), "start", *([key_topic(head.owner, key)] if key else []))

    def keep(self, stream: Generation, what: str | Ending) -> None:
        """Store the next part of *stream*, or its ending; then call `stream.kept`, or *lost* if it can't be stored."""
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

    def give_up(self, stream: Generation) -> None:
        """Store the ending of *stream*, whatever is kept of its parts, as soon as the log takes it."""
        if stream.ending is not None:
            self._unended[stream.id] = stream.ending
            if self._opened:
                self._end(stream.id)

    def _end(self, id: str) -> None:
        def over(*, stored: bool) -> None:
            self._ending.discard(id)
            if stored:
                self._unended.pop(id, None)

        ending = self._unended[id]
        with suppress(HubError):  # then it is tried again
            receipt = self._append(id, {"number": UNKNOWN, "phase": ending.phase, "facts": ending.facts}, "end")
            self._ending.add(id)
            receipt.tell(lambda: over(stored=True), lambda error: over(stored=False))

    def _append(self, id: str, data: object, type: str, *more: str) -> Receipt:
        return self._log.append([Draft.of(data, topics=(id, *more), type=type)])[0]

    # ---- out ----

    async def begun_with(self, owner: str | None, key: str) -> str | None:
        """Return the id of the newest stored generation that began with *key*; None if there is none.

        Raises:
            LogUnavailable: the log can't be read.
        """
        newest = await self._newest()
        page = await self._log.read(0, (key_topic(owner, key),), upto=newest, latest=True)
        return page.notifications[-1].topics[0] if page.notifications else None

    async def _newest(self) -> int:
        """Return the newest offset; of what other processes have stored before this call, all is here."""
        return (await self._log.given()).offset if self._peers.others else self._log.bounds().newest.offset

    async def restore(self, id: str) -> Generation | None:
        """Return the stored generation *id* of another process, which follows it if it streams; None without one.

        One that streamed in a process that is gone has failed.

        Raises:
            GenerationExpired: its first records are no longer kept.
            LogUnavailable: the log can't be read.
            StateUnavailable: it can't be told whether its process is gone.
        """
        if not _ID.fullmatch(id):  # not an id of a generation; the log might read it as a pattern
            return None
        name, held = object(), list[Notification]()
        try:
            upto = await self._newest()
            self._holding[name] = id, held  # in this very step: what comes from now on stands behind it
            stored = _Stored()
            after = 0
            while after < upto:
                page = await self._log.read(after, (id,), upto=upto)
                after = page.reached
                stored.take(page.notifications)
            if stored.head is None and stored.at:
                raise GenerationExpired  # the `start` record was trimmed
            if stored.head is None:
                return None
            alive = stored.ending is None and await self._peers.alive(stored.head.process)
            if stored.ending is None and not alive:
                await self._newest()  # what its process has said at the end
            stored.take(held)
            if stored.ending is None and alive:
                # Nothing has come in between: this step ends the holding, and begins to follow.
                stream = self._followed.setdefault(id, Generation.followed(stored.head, stored.parts))
                stream.on_end(lambda ended: self._unfollow(ended.id))
                return stream
            return Generation.over(stored.head, stored.parts, stored.ending or _INTERRUPTED, stored.at)
        finally:
            self._holding.pop(name, None)

    # ---- what other processes store ----

    def _unfollow(self, id: str) -> None:
        self._followed.pop(id, None)

    def _announced(self, notifications: Sequence[Notification]) -> None:
        if not (self._holding or self._followed):
            return
        for record in notifications:
            id = record.topics[0]
            for which, held in self._holding.values():
                if which == id:
                    held.append(record)
            stream = self._followed.get(id)
            if stream is not None:
                _go_on(stream, record)

    def _renewed(self, newest: Position) -> None:
        """Give up what is followed: parts of it may be missing."""
        for stream in list(self._followed.values()):
            stream.lose("unavailable", "the answer could not be kept")

    def gone(self, process: str) -> None:
        """Note that *process* is gone: what it has not finished has failed."""
        for stream in list(self._followed.values()):
            if stream.head.process == process:
                stream.lose(_INTERRUPTED.facts["reason"], _INTERRUPTED.facts["message"])


class _Stored:
    """What is stored of one generation, as its records say in their order; each may come twice.

    Attributes:
        head: the facts known at its beginning; None: that record was not there.
        parts: of its text.
        ending: how it ended; None: it has not.
        at: when the last record was written, in seconds since 1970; 0: there was none.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.parts: list[str] = []
        self.ending: Ending | None = None
        self.at = 0.0

    def take(self, records: Iterable[Notification]) -> None:
        """Go on with *records*."""
        for record in records:
            self.at, said = record.at, record.data
            if record.type == "start":
                self.head = Head.from_json(said)
            elif record.type == "part" and said["number"] == len(self.parts) + 1:
                self.parts.append(said["text"])
            elif record.type == "end" and said["number"] in {len(self.parts), UNKNOWN}:
                self.ending = Ending(Phase(said["phase"]), said["facts"])


def _go_on(stream: Generation, record: Notification) -> None:
    """Have *stream*, which streams in another process, say what is stored there."""
    said = record.data
    if record.type == "part" and said["number"] == stream.newest + 1:
        stream.kept(said["text"])
    elif record.type == "end" and said["number"] in {stream.newest, UNKNOWN}:
        stream.kept(Ending(Phase(said["phase"]), said["facts"]))
    elif record.type in {"part", "end"} and said["number"] > stream.newest:  # viewers get no text with a hole
        stream.lose("unavailable", "the answer could not be kept")


_INTERRUPTED = Ending(
    Phase.FAILED,
    {"reason": "producer_lost", "message": "the hub was restarted before the answer was complete"},
)


def key_topic(owner: str | None, key: str) -> str:
    """Return the topic of the generation that *owner* began with *key*; a digest, so that its length is fixed."""
    named = repr((owner, key)).encode(errors="surrogatepass")
    return f"key/{hashlib.sha256(named).hexdigest()}"


def _take(stream: Generation, number: int, what: str | Ending) -> None:
    """Deliver *what*, which is now stored, unless an earlier part was lost: viewers get no text with a hole."""
    if number == stream.newest + isinstance(what, str):
        stream.kept(what)
