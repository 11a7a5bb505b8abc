"""A log on another machine, as small as it can be: everything that is asked of it is answered late, and from afar.

`Elsewhere` is the log; any number of processes follow it, each through a `FarLog` of its own. Three lines lie between
them: what is asked goes one way, answers the other, and what is announced comes by a third one, which is slower. So a
publish is confirmed before its own process has heard of the notification, and a client may come with an id that its
process does not know yet. It can fail over: the newest is trimmed, and a new epoch begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from hub.access.visibility import EVERYTHING, Visibility
from hub.errors import LogUnavailable
from hub.log.log import Announce, Bounds, Located, Page, Renewed, located
from hub.log.memory import MemoryLog
from hub.log.receipt import Receipt
from hub.log.trimmed import Trimmed, TrimmedState
from hub.notification import Draft, Notification, Position
from hub.topics import EVERY_TOPIC

T = TypeVar("T")

Call = Callable[[], None]
Later = Callable[[Call], None]

WAITING_BYTES = 64 * 1024 * 1024


def turns(number: Callable[[], int]) -> Later:
    """Return what makes a call as many turns of the loop later as *number* says each time."""

    def later(call: Call) -> None:
        step(call, number())

    def step(call: Call, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(step, call, left - 1)
        else:
            call()

    return later


class Line:
    """Carries calls one way, in order, each of them later.

    Attributes:
        held: nothing arrives until `release`.
    """

    def __init__(self, later: Later) -> None:
        self._later = later
        self._under_way: deque[Call] = deque()
        self._late = 0  # that would have arrived, but were held
        self.held = False

    def carry(self, call: Call) -> None:
        """Make *call* at the other end."""
        self._under_way.append(call)
        self._later(self._arrive)

    def _arrive(self) -> None:
        if self.held:
            self._late += 1
        else:
            self._under_way.popleft()()

    def release(self) -> None:
        """Let everything arrive that was held, and hold nothing more."""
        self.held = False
        while self._late:
            self._late -= 1
            self._under_way.popleft()()


class Elsewhere:
    """The log: one history, the epochs it has had, and those who follow it.

    Args:
        bounds: those of a log in memory.

    Attributes:
        away: it answers nothing but that it is away.
    """

    def __init__(self, **bounds: Any) -> None:
        self._bounds = bounds
        self.ended: dict[str, int] = {}
        self.followers: list[FarLog] = []
        self.away = False
        self._begin(MemoryLog(**bounds))

    def _begin(self, memory: MemoryLog) -> None:
        self.memory = memory
        memory.announce_to(self._announce)

    def _announce(self, notifications: Sequence[Notification]) -> None:
        for follower in self.followers:
            follower.hear(notifications, self.memory.bounds(), self.memory.trimmed_state())

    def locate(self, position: Position) -> Located:
        """Return where a position is."""
        return located(position, self.memory.bounds().newest, self.ended)

    async def fail_over(self, *, loses: int = 0) -> None:
        """Lose so many of the newest, and go on under a new epoch."""
        before = self.memory
        newest = max(before.bounds().newest.offset - loses, 0)
        page = await before.read(0, EVERY_TOPIC, upto=newest)
        assert page.reached == newest, "it is for short histories"
        heir = MemoryLog(**self._bounds)
        overall, topics, forgotten = before.trimmed_state()
        topics = {topic: min(end, newest) for topic, end in topics.items()}
        trimmed = TrimmedState(min(overall, newest), topics, forgotten)
        await heir.adopt(heir.epoch, newest, trimmed, _told(list(page.notifications), heir.epoch))
        self.ended[before.epoch] = newest
        self.ended = {epoch: min(end, newest) for epoch, end in self.ended.items()}
        self._begin(heir)
        for follower in self.followers:
            follower.hear([], heir.bounds(), heir.trimmed_state())


async def _told(history: Sequence[Notification], epoch: str) -> AsyncIterator[Sequence[Notification]]:
    """Tell *history* as it reads under another *epoch*."""
    for each in history:
        draft = Draft(each.topics, each.text, each.is_json, each.type, each.retry, each.private, each.tags)
        yield [Notification.accept(draft, Position(epoch, each.position.offset), each.at)]


class FarLog:
    """What one process has of a log elsewhere.

    Args:
        elsewhere: the log.
        later: makes a call later; used for all three lines, for that of the announcements twice.
        patience: seconds that `locate` waits until what was confirmed elsewhere has been announced here.
        unobserved: hears of each failed publish that nobody awaited.
    """

    def __init__(
        self,
        elsewhere: Elsewhere,
        *,
        later: Later | None = None,
        patience: float = 10.0,
        unobserved: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        later = later or turns(lambda: 2)
        self.there = elsewhere
        self.requests, self.answers = Line(later), Line(later)
        self.feed = Line(lambda call: later(partial(later, call)))
        self._patience = patience
        self._unobserved = unobserved
        self._announce: Announce = lambda notifications: None
        self._renewed: Renewed = lambda newest: None
        self._bounds: Bounds | None = None
        self._trimmed = Trimmed()
        self._open = self._closed = False
        self._joined, self._settled = asyncio.Event(), asyncio.Event()
        self._settled.set()
        self._asked: set[asyncio.Future[Any]] = set()
        self._unconfirmed: dict[Receipt, int] = {}
        self._unconfirmed_bytes = 0
        self._trims = False
        self._behind: list[tuple[Position, asyncio.Future[None]]] = []  # who waits for a position to be announced

    # ---- the beginning and the end ----

    @property
    def epoch(self) -> str:
        return self.bounds().newest.epoch

    async def open(self) -> None:
        def join() -> None:
            self.there.followers.append(self)
            self.hear([], self.there.memory.bounds(), self.there.memory.trimmed_state())

        try:
            async with asyncio.timeout(self._patience):
                await self._ask(join)
                await self._joined.wait()
        except TimeoutError:
            raise LogUnavailable("it does not answer") from None
        self._open = True

    async def aclose(self) -> None:
        self._closed = True
        if self in self.there.followers:
            self.there.followers.remove(self)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._settled.wait()
        for receipt in list(self._unconfirmed):
            self._settle(receipt)
            receipt.fail(LogUnavailable("it is closed"), self._unobserved)
        for future in [*self._asked, *(future for _, future in self._behind)]:
            _fail(future, "it is closed")

    def announce_to(self, announce: Announce, renewed: Renewed = lambda newest: None) -> None:
        self._announce, self._renewed = announce, renewed

    # ---- what is announced ----

    def hear(self, notifications: Sequence[Notification], bounds: Bounds, trimmed: TrimmedState) -> None:
        """Called elsewhere, with what was kept there and how the log stands after that."""
        self.feed.carry(lambda: self._heard(list(notifications), bounds, trimmed))

    def _heard(self, notifications: Sequence[Notification], bounds: Bounds, trimmed: TrimmedState) -> None:
        if self._closed:
            return
        before, self._bounds = self._bounds, bounds
        self._joined.set()
        if before is not None and before.newest.epoch == bounds.newest.epoch:
            self._trimmed.learn(trimmed)
        else:
            self._trimmed.restore(trimmed)
            if before is not None:
                self._renewed(bounds.newest)
        if notifications:
            self._announce(notifications)
        self._tell_who_waits()

    def _tell_who_waits(self) -> None:
        for awaited in list(self._behind):
            position, future = awaited
            if self._knows(position):
                self._behind.remove(awaited)
                if not future.done():
                    future.set_result(None)

    def _knows(self, position: Position) -> bool:
        newest = self.bounds().newest
        return position.epoch == newest.epoch and position.offset <= newest.offset

    # ---- in ----

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._closed or not self._open:
            raise LogUnavailable("it is closed" if self._closed else "it is not open")
        if self._unconfirmed_bytes > WAITING_BYTES:
            raise LogUnavailable("too much waits to be confirmed")
        receipts = [Receipt(draft.topics) for draft in drafts]
        for receipt, draft in zip(receipts, drafts, strict=True):
            self._unconfirmed[receipt] = len(draft.text)
            self._unconfirmed_bytes += len(draft.text)
            self._settled.clear()
        self.requests.carry(lambda: self._append_there(list(drafts), receipts))
        return receipts

    def _append_there(self, drafts: Sequence[Draft], receipts: Sequence[Receipt]) -> None:
        if self.there.away:
            self.answers.carry(partial(self._failed, receipts, LogUnavailable("it is away")))
            return
        try:
            kept = self.there.memory.append(drafts)
        except LogUnavailable as error:
            self.answers.carry(partial(self._failed, receipts, error))
        else:
            self.answers.carry(lambda: self._confirmed(receipts, kept))

    def _confirmed(self, receipts: Sequence[Receipt], kept: Sequence[Receipt]) -> None:
        for receipt, there in zip(receipts, kept, strict=True):
            if self._settle(receipt):
                receipt.topics, receipt.repeated = there.topics, there.repeated
                receipt.confirm(there.result())

    def _failed(self, receipts: Sequence[Receipt], error: LogUnavailable) -> None:
        for receipt in receipts:
            if self._settle(receipt):
                receipt.fail(error, self._unobserved)

    def _settle(self, receipt: Receipt) -> bool:
        """Count *receipt* no more; tell whether it was still waited for."""
        size = self._unconfirmed.pop(receipt, None)
        self._unconfirmed_bytes -= size or 0
        if not self._unconfirmed:
            self._settled.set()
        return size is not None

    # ---- out ----

    def _ask(self, there: Callable[[], T]) -> asyncio.Future[T]:
        """Return the future of what *there* returns, called elsewhere."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)
        if self._closed:
            answer.set_exception(LogUnavailable("it is closed"))
            return answer

        def arrive() -> None:
            if self.there.away:
                self.answers.carry(partial(_fail, answer, "it is away"))
                return
            try:
                found = there()
            except LogUnavailable as error:
                self.answers.carry(partial(_fail, answer, error.why))
            else:
                self.answers.carry(partial(_resolve, answer, found))

        self.requests.carry(arrive)
        return answer

    def read(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Page]:
        wanted = list(topics)

        def there() -> Page:
            return self.there.memory.read(after, wanted, upto=upto, latest=latest, visibility=visibility).result()

        return self._ask(there)

    def given(self) -> asyncio.Future[Position]:
        # Asked in this very step: what was appended here before arrives there before it, and what follows behind it.
        return asyncio.ensure_future(self._heard_of(self._ask(lambda: self.there.memory.bounds().newest)))

    async def _heard_of(self, asked: asyncio.Future[Position]) -> Position:
        newest = await asked
        await self._announced(newest)
        return newest

    def locate(self, position: Position) -> asyncio.Future[Located]:
        if self._bounds is not None and not self._closed and self._knows(position):
            known: asyncio.Future[Located] = asyncio.get_running_loop().create_future()
            known.set_result(Located(position.offset))
            return known
        return asyncio.ensure_future(self._locate(position))

    async def _locate(self, position: Position) -> Located:
        found, newest = await self._ask(lambda: (self.there.locate(position), self.there.memory.bounds().newest))
        if found.after is not None:
            await self._announced(newest._replace(offset=found.after))
        return found

    async def _announced(self, position: Position) -> None:
        """Wait until everything up to *position* has been announced here."""
        if self._knows(position):
            return
        announced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._behind.append((position, announced))
        try:
            async with asyncio.timeout(self._patience):
                await announced
        except TimeoutError:
            raise LogUnavailable("what it holds has not come here yet") from None
        finally:
            self._behind = [each for each in self._behind if each[1] is not announced]

    def bounds(self) -> Bounds:
        if self._bounds is None:
            raise LogUnavailable("it is not open")
        return self._bounds

    def trimmed(self, topics: Collection[str], after: int = 0, visibility: Visibility = EVERYTHING) -> int:
        return self._trimmed.newest(topics, after, visibility.floors(self.epoch, after))

    def trim(self) -> None:
        if not (self._trims or self._closed):
            self._trims = True
            self.requests.carry(self._trim_there)

    def _trim_there(self) -> None:
        self._trims = False
        memory = self.there.memory
        memory.trim()
        self.hear([], memory.bounds(), memory.trimmed_state())


def _resolve(answer: asyncio.Future[T], found: T) -> None:
    if not answer.done():
        answer.set_result(found)


def _fail(answer: asyncio.Future[Any], why: str) -> None:
    if not answer.done():
        answer.set_exception(LogUnavailable(why))
        answer.exception()  # whether somebody looks at it or not
