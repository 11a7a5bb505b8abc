"""The log in a SQLite file: durable on one machine.

A writer process commits and a reader process finds pages (`worker/`); each is replaced when it dies or hangs
(`supervisor.py`). This side gives the positions, gathers what arrives while a commit is on its way into the
next one, and confirms after the commit, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hub.access.visibility import EVERYTHING, Visibility
from hub.errors import LogNotEmpty, LogUnavailable
from hub.eventstream import compact_json, data_of, unchunk
from hub.log.keys import KEY_BYTES, KEY_COUNT, Keys
from hub.log.log import Announce, Bounds, Frames, Located, Page, Renewed, ignore_renewal, located
from hub.log.receipt import Receipt
from hub.log.sqlite.process import ANSWER_TICKS, RESTART_SECONDS, WorkerDied, WorkerProcess
from hub.log.sqlite.supervisor import Supervisor
from hub.log.sqlite.worker.pipe import Key, Row
from hub.log.trimmed import REMEMBERED_TOPICS, Trimmed, TrimmedState
from hub.notification import MAX_OFFSET, Draft, Notification, Position, new_epoch
from hub.topics import EVERY_TOPIC

logger = logging.getLogger("hub.log")

T = TypeVar("T")

TICK_SECONDS = 1.0
LOCK_SECONDS = 5.0
CLOSE_SECONDS = 10.0  # for what waits to be written when the log is closed
READER_SECONDS = 1.0  # by which the end of the reader may hold up that of the writer, which tidies up behind both
ADOPTION_TICKS = 20 * ANSWER_TICKS  # one transaction takes all of a history
WAITING_BYTES = 64 * 1024 * 1024
TIDY_STEPS = 20  # in which 10,000 notifications go; what is left then goes when the log is open
TIDY_SECONDS = 30.0  # for one of them


class _Unconfirmed(NamedTuple):
    """A publish on its way into the file."""

    notification: Notification
    receipt: Receipt
    key: str | None
    expires: float
    size: int


class SQLiteLog:
    """Keeps the newest notifications in a file, bounded by count, bytes and age; confirms after the commit.

    Args:
        path: the file; it is made if it is not there, its folder too.
        count: how many to keep.
        size: how many bytes to keep, everything counted as in the memory log.
        age: how many seconds to keep; None for ever.
        topics: by pattern, how many to keep of each topic that matches; a notification is trimmed when none of its
            topics keeps it.
        clock: seconds since 1970.
        unobserved: called with the error of each failed publish that nobody awaited.
    """

    def __init__(
        self,
        path: Path,
        *,
        count: int,
        size: int,
        age: float | None,
        topics: Mapping[str, int] | None = None,
        clock: Callable[[], float],
        unobserved: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self.epoch = new_epoch()  # of a log that is made now; `open` finds the one of a log that is there
        self._path = path
        self._real = path  # as of `open`
        self._clock = clock
        self._unobserved = unobserved
        self._announce: Announce = lambda notifications: None
        self._renewed: Renewed = ignore_renewal
        self._options: dict[str, Any] = {
            "epoch": self.epoch,
            "count": count,
            "size": size,
            "age": age,
            "topics": list((topics or {}).items()),
            "remembered": REMEMBERED_TOPICS,
            "last": MAX_OFFSET,
            "keys": KEY_COUNT,
            "key_bytes": KEY_BYTES,
            "patience": LOCK_SECONDS,
        }
        self._trimmed = Trimmed()
        self._keys = Keys(clock)
        self._ended: dict[str, int] = {}  # earlier epochs, and how far each of them went
        self._given = 0  # the newest offset given out
        self._bounds = Bounds(Position(self.epoch, 0), Position(self.epoch, 0), 0, 0)
        self._waiting: list[_Unconfirmed] = []  # for the next commit
        self._waiting_bytes = 0  # with what is being committed
        self._asked: list[tuple[int, asyncio.Future[Position]]] = []  # who waits for what was given out by then
        self._committing: asyncio.Task[None] | None = None
        self._writer = Supervisor("writes", path, self._start_writer, self._replaced)
        self._reader = Supervisor("reads", path, self._start_reader, lambda answer: self.trim())
        self._timer: asyncio.TimerHandle | None = None
        self._opened = self._closed = False

    def announce_to(self, announce: Announce, renewed: Renewed = ignore_renewal) -> None:
        self._announce, self._renewed = announce, renewed

    async def open(self) -> None:
        self._real = self._place()
        await self._begin()
        self._tick()
        self._opened = True

    def _place(self) -> Path:
        """Return the name under which the lock lies beside the file, whatever links lead to it; make its folder."""
        try:
            real = Path(os.path.realpath(self._path))
            real.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogUnavailable(f"{self._path}: {error.strerror or error}") from None
        return real

    async def tidy(self) -> bool:
        if not self._path.exists():
            return False
        self._real = self._place()
        writer, state = await self._start("writer", {}, again=False)
        try:
            steps = TIDY_STEPS if state["kept"] else 0
            for _ in range(steps):
                async with asyncio.timeout(TIDY_SECONDS):
                    state = await writer.ask("append", [], [], self._clock())
                if "error" in state:
                    raise LogUnavailable(state["error"])
                if not state["more"]:
                    break
            return bool(state["kept"])
        except WorkerDied:
            raise LogUnavailable("the process that writes it died") from None
        except TimeoutError:
            raise LogUnavailable(f"nothing was heard of the process that writes it for {TIDY_SECONDS:g} s") from None
        finally:
            await _to_its_end(writer.aclose())

    async def _begin(self) -> None:
        """Start both processes, and begin where the file stands."""
        state = await self._writer.begin()
        try:
            self._trimmed.restore(_trimmed_state(state))
            self._find(state)
            await self._reader.begin()
        except BaseException:
            await self._writer.aclose()
            raise
        self._take_bounds(state["newest"], state)

    async def _begin_again(self) -> None:
        """Start the processes, where the end of `adopt` could not.

        Raises:
            LogUnavailable: not now either; or the log is another one by now, and nobody was told.
        """
        epoch = self.epoch
        await self._begin()
        if self.epoch != epoch:
            self._closed = True
            await self._end()
            raise LogUnavailable(f"{self._path} is another log than it was: the hub has to be started anew")

    async def _start_writer(self, again: bool) -> tuple[WorkerProcess, dict[str, Any]]:
        # What it has of keys up to the newest position that was confirmed is known here.
        more = {"replaces": self.epoch, "known": self._bounds.newest.offset} if again else {}
        return await self._start("writer", more, again)

    async def _start_reader(self, again: bool) -> tuple[WorkerProcess, dict[str, Any]]:
        return await self._start("reader", {"inode": self._found["inode"]}, again)

    async def _start(self, role: str, more: Mapping[str, Any], again: bool) -> tuple[WorkerProcess, dict[str, Any]]:
        seconds = RESTART_SECONDS if again else None
        return await WorkerProcess.start(role, self._real, {**self._options, **more}, name=self._path, seconds=seconds)

    def _find(self, state: dict[str, Any]) -> None:
        """Take over what the writer found in the file."""
        self.epoch = state["epoch"]
        self._found, self._ended = state, state["ended"]
        self._given = max(self._given, state["newest"])
        for key, offset, topics, expires in state["keys"]:
            self._keys.put(key, tuple(topics.split("\n")), offset, expires=expires)

    def _replaced(self, state: dict[str, Any]) -> None:
        """Take over what the next writer found: the one before it may have committed more than it could say."""
        self._trimmed.learn(_trimmed_state(state))
        self._find(state)
        waiting, self._waiting = self._waiting, []
        self._waiting = self._unknown(waiting)
        self._waiting_bytes -= sum(each.size for each in waiting) - sum(each.size for each in self._waiting)
        self.trim()  # whose first step is to announce what was found

    def _tick(self) -> None:
        """Check both processes, every second."""
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        self._writer.tick()
        self._reader.tick()
        if self._writer.late and self._waiting:
            waiting, self._waiting = self._waiting, []
            self._waiting_bytes -= sum(each.size for each in waiting)
            self._fail(waiting, self._writer.why)  # nothing of it has gone anywhere

    def _take_bounds(self, newest: int, state: dict[str, Any]) -> None:
        oldest = Position(self.epoch, state["oldest"])
        self._bounds = Bounds(oldest, Position(self.epoch, newest), state["kept"], state["size"])

    # ---- in ----

    def append(self, drafts: Sequence[Draft]) -> list[Receipt]:
        self._must_be_open()
        if self._waiting_bytes > WAITING_BYTES:
            raise LogUnavailable("too much waits to be written")
        if self._given + len(drafts) > MAX_OFFSET:
            raise LogUnavailable("it has no position left to give")
        now = self._clock()
        receipts = [self._accept(draft, now) for draft in drafts]
        if self._waiting:
            self._commit_soon()
        return receipts

    def _must_be_open(self) -> None:
        """Raise `LogUnavailable` if nothing can be written, or soon."""
        if self._closed or not self._opened:
            raise LogUnavailable("it is closed" if self._closed else "its file is not open")
        if self._writer.late:
            raise self._writer.why

    def _commit_soon(self) -> None:
        if self._committing is None:
            self._committing = asyncio.get_running_loop().create_task(self._commit_all())

    def _accept(self, draft: Draft, now: float) -> Receipt:
        first = self._keys.get(draft.key, self.epoch) if draft.key is not None else None
        if first is not None:
            return first.repeat()
        self._given += 1
        notification = Notification.accept(draft, Position(self.epoch, self._given), now)
        receipt = Receipt(draft.topics)
        expires = 0.0
        if draft.key is not None:
            expires = self._keys.put(draft.key, draft.topics, self._given, receipt=receipt)
        size = notification.size
        self._waiting.append(_Unconfirmed(notification, receipt, draft.key, expires, size))
        self._waiting_bytes += size
        return receipt

    async def _commit_all(self) -> None:
        """Commit what waits, batch after batch: what arrives during one commit shares the next."""
        try:
            while self._waiting or self._asked:
                batch, self._waiting = self._waiting, []
                asked, self._asked = self._asked, []
                await self._commit(batch)
                self._tell(asked)
        finally:
            self._committing = None

    def given(self) -> asyncio.Future[Position]:
        answer: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        try:
            self._must_be_open()
        except LogUnavailable as error:
            answer.set_exception(error)
            return answer
        asked = [(self._given, answer)]
        if self._committing is None and self._knows_all:
            self._tell(asked)
        else:  # with the next batch, behind the one that is being committed
            self._asked += asked
            self._commit_soon()
        return answer

    @property
    def _knows_all(self) -> bool:
        """Whether all that is in the file has been announced: a writer that died may have left more there."""
        return not self._writer.dead and self._bounds.newest.offset >= self._found["newest"]

    def _tell(self, asked: list[tuple[int, asyncio.Future[Position]]]) -> None:
        """Tell whoever *asked* the newest position up to the one given out by then, of which none waits any more.

        A failed one is not told: an offset that nothing stands at is given out again when the file is opened anew.
        """
        for given, answer in asked:
            if answer.done():
                continue
            if self._knows_all:
                answer.set_result(Position(self.epoch, min(given, self._bounds.newest.offset)))
            else:
                answer.set_exception(self._writer.why)

    async def _commit(self, batch: list[_Unconfirmed]) -> None:
        size = sum(each.size for each in batch)
        try:
            if self._writer.dead:
                await self._writer.get()
                batch = self._unknown(batch)
            answer = await self._ask_writer([_row(each.notification, each.size) for each in batch], [*_keys(batch)])
        except LogUnavailable as error:
            self._fail(batch, error)
            return
        except Exception:
            logger.exception("the log %s failed", self._path)
            self._fail(batch, LogUnavailable("it failed; the hub's own log says why"))
            return
        finally:
            self._waiting_bytes -= size
        for each in batch:
            if each.key is not None:
                self._keys.confirm(each.key, each.receipt)
            each.receipt.confirm(each.notification.position)
        if answer is not None and batch:
            self._take(batch[-1].notification.position.offset, answer)
            self._announce([each.notification for each in batch])

    def _unknown(self, batch: list[_Unconfirmed]) -> list[_Unconfirmed]:
        """Return those of *batch* whose keys the file does not know, and confirm the others: they were kept before.

        A key is forgotten when its publish fails; if the writer had died, that was kept all the same, maybe.
        """
        unknown: list[_Unconfirmed] = []
        for each in batch:
            first = self._keys.get(each.key, self.epoch) if each.key is not None else None
            if first is None or first is each.receipt or not first.done:
                unknown.append(each)
            else:
                each.receipt.repeated = True
                each.receipt.confirm(first.result())
        return unknown

    async def _ask_writer(self, rows: list[Row], keys: list[Key]) -> dict[str, Any] | None:
        """Have the writer keep *rows*, restarted if it died; return None if it died after that, and they are announced.

        Raises:
            LogUnavailable: they were not kept; or that is not known, as no other writer could be started.
        """
        writer = await self._writer.get()
        await self._announce_found()
        try:
            answer = await writer.ask("append", rows, keys, self._clock())
        except WorkerDied:
            await self._writer.get()
            await self._announce_found()
            if not rows or self._bounds.newest.offset >= rows[-1][0]:  # one transaction keeps all or nothing
                return None
            raise LogUnavailable("the process that writes it died") from None
        if "error" in answer:
            raise LogUnavailable(answer["error"])
        return answer

    def _take(self, newest: int, answer: dict[str, Any]) -> None:
        """Take over what a commit that reached *newest* has changed."""
        for topic, offset in answer["overall"]:
            self._trimmed.trim_oldest((topic,), offset)
        for topic, offset in answer["topics"]:
            self._trimmed.trim_topic((topic,), offset)
        self._take_bounds(newest, answer)

    async def _announce_found(self) -> None:
        """Announce what was committed by a writer that died before it could say so; the bounds follow, not lead."""
        while self._bounds.newest.offset < self._found["newest"]:
            await self._reader.get()
            page = await self.read(self._bounds.newest.offset, EVERY_TOPIC, upto=self._found["newest"])
            self._take_bounds(page.reached, self._found)
            self._announce(page.notifications)

    def _fail(self, batch: list[_Unconfirmed], error: LogUnavailable) -> None:
        if batch:
            logger.error("%d publishes were not kept: %s", len(batch), error)
        for each in batch:
            if each.key is not None:
                self._keys.forget(each.key, each.receipt)
            each.receipt.fail(error, self._unobserved)

    # ---- out ----

    @property
    def answered(self) -> float:
        """When both processes had last answered."""
        return min(self._writer.answered, self._reader.answered)

    def bounds(self) -> Bounds:
        if not self._writer.up:
            raise self._writer.why
        if not self._reader.up:
            raise self._reader.why
        return self._bounds

    def locate(self, position: Position) -> asyncio.Future[Located]:
        answer: asyncio.Future[Located] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(located(position, self.bounds().newest, self._ended))
        except LogUnavailable as error:
            answer.set_exception(error)
        return answer

    def trimmed(self, topics: Collection[str], after: int = 0, visibility: Visibility = EVERYTHING) -> int:
        return self._trimmed.newest(topics, after, visibility.floors(self.epoch, after))

    def trimmed_state(self) -> TrimmedState:
        return self._trimmed.state()

    def read(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Page]:
        def page(found: dict[str, Any]) -> Page:
            notifications = [from_row(row, self.epoch) for row in found["rows"]]
            return Page(notifications, found["reached"], found["hole"], found["oldest"])

        return self._ask_reader("read", (after, upto, sorted(topics), latest), visibility, page)

    def frames(
        self,
        after: int,
        topics: Collection[str],
        *,
        upto: int,
        latest: bool = False,
        visibility: Visibility = EVERYTHING,
    ) -> asyncio.Future[Frames]:
        def frames(found: dict[str, Any]) -> Frames:
            return Frames(**found)

        return self._ask_reader("frames", (after, upto, sorted(topics), latest), visibility, frames)

    def _ask_reader(
        self,
        call: str,
        asked: tuple[int, int, list[str], bool],
        visibility: Visibility,
        made: Callable[[dict[str, Any]], T],
    ) -> asyncio.Future[T]:
        """Return the future of what *made* makes of the reader's answer."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            floors = dict(visibility.floors(self.epoch, asked[0])) if visibility.since else {}
        except LogUnavailable as error:
            result.set_exception(error)
            return result
        reader = self._reader.process
        if reader is None or reader.dead or reader.late:
            result.set_exception(self._reader.why)
            return result

        def answered(answer: asyncio.Future[dict[str, Any]]) -> None:
            if result.done():
                return
            if answer.cancelled() or answer.exception() is not None:
                result.set_exception(LogUnavailable("the process that reads it died"))
            elif "error" in answer.result():
                result.set_exception(LogUnavailable(answer.result()["error"]))
            else:
                try:
                    result.set_result(made(answer.result()))
                except Exception as error:
                    result.set_exception(error)

        reader.request(call, *asked, visibility.private, floors).add_done_callback(answered)
        return result

    # ---- retention, and taking over another log ----

    def trim(self) -> None:
        """Have the writer trim, beside what it writes anyway."""
        if self._committing is None and self._opened and not self._closed:
            self._committing = asyncio.get_running_loop().create_task(self._trim())

    async def _trim(self) -> None:
        try:
            if self._writer.process is None:
                await self._begin_again()
            more = True
            while more and not (self._waiting or self._asked or self._closed):
                answer = await self._ask_writer([], [])
                if answer is not None:
                    self._take(self._bounds.newest.offset, answer)
                more = answer is not None and answer["more"]
        except LogUnavailable as error:
            logger.warning("the log could not be trimmed: %s", error)
        except Exception:
            logger.exception("the log %s could not be trimmed", self._path)
        await self._commit_all()  # what came meanwhile found this task at work

    async def adopt(
        self, epoch: str, newest: int, trimmed: TrimmedState, history: AsyncIterator[Sequence[Notification]]
    ) -> None:
        if self._closed or not self._opened:
            raise LogUnavailable("it is closed" if self._closed else "its file is not open")
        if self._given:
            raise LogNotEmpty
        self._opened = False  # nothing can be appended meanwhile
        try:
            if self._committing is not None:  # a trim that was about to ask the same writer
                await asyncio.wait([self._committing])
            writer = await self._writer.get()  # this one: another one would know nothing of what it has begun
            try:
                await _must(writer, "adopt", epoch)
                async for part in history:
                    await _must(writer, "take", [_row(each, each.size) for each in part])
                await _must(writer, "adopted", newest, trimmed.overall, dict(trimmed.topics), trimmed.forgotten)
            except BaseException:
                with contextlib.suppress(LogUnavailable):
                    await _must(writer, "abandon")
                raise
        finally:
            before = self._bounds.newest
            try:
                await self._end()
                # What has become of the history is known by now: not to begin again is no failure of the adoption.
                with contextlib.suppress(LogUnavailable):
                    await self._begin()
                if self._bounds.newest != before:
                    self._renewed(self._bounds.newest)
            finally:
                self._opened = True  # should they not have started, the next trim tries again

    # ---- the end ----

    async def aclose(self) -> None:
        self._closed = True
        try:
            if self._committing is not None and self._waiting_bytes:
                await asyncio.wait([self._committing], timeout=CLOSE_SECONDS)
            await self._end()
            if self._committing is not None:  # nothing it could wait for is left
                await asyncio.wait([self._committing])
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _end(self) -> None:
        """End both processes, within a few seconds, whatever they do."""
        reading = asyncio.create_task(self._reader.aclose())
        await asyncio.wait([reading], timeout=READER_SECONDS)
        try:
            await self._writer.aclose()
        finally:
            await reading


async def _to_its_end(ending: Coroutine[Any, Any, None]) -> None:
    """Await *ending*, and do so to its end if this is cancelled meanwhile: half an end leaves a process behind."""
    task = asyncio.ensure_future(ending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def _must(writer: WorkerProcess, *request: Any) -> None:
    """Ask *writer* for one step of an adoption.

    Raises:
        LogUnavailable: it did not.
    """
    try:
        answer = await writer.ask(*request, ticks=ADOPTION_TICKS)
    except WorkerDied:
        raise LogUnavailable("the process that writes it died") from None
    if "error" in answer:
        raise LogUnavailable(answer["error"])


def _trimmed_state(state: dict[str, Any]) -> TrimmedState:
    return TrimmedState(state["trimmed"], state["gone"], state["forgotten"])


def _row(n: Notification, size: int) -> Row:
    tags = compact_json(n.tags) if n.tags else None
    topics = n.topics[0] if len(n.topics) == 1 else "\n".join(n.topics)
    return (n.position.offset, n.at, topics, n.is_json, n.type, n.retry, n.private, tags, size, n.text, b"")


def _keys(batch: Sequence[_Unconfirmed]) -> Iterator[Key]:
    for each in batch:
        if each.key is not None:
            n = each.notification
            yield (each.key, n.position.offset, "\n".join(n.topics), each.expires)


def from_row(row: Row, epoch: str) -> Notification:
    """Return the notification that a row of the file holds."""
    offset, at, topics, is_json, type, retry, private, tags, _, text, chunk = row
    if text is None:  # an older hub kept the chunk instead
        text = data_of(unchunk(chunk))
    tags_read = json.loads(tags) if tags else None
    draft = Draft(tuple(topics.split("\n")), text, bool(is_json), type, retry, bool(private), tags_read)
    return Notification.accept(draft, Position(epoch, offset), at)
