"""PageCache of the history, read once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from hub.access.visibility import Visibility
from hub.connections.page_cache import SHARED_BYTES, SHARED_SECONDS, PageCache, PageQuery
from hub.encoding import SSE, Envelope
from hub.errors import LogUnavailable
from hub.log.log import Frames
from hub.log.memory import MemoryLog
from hub.notification import Draft, Notification, Position
from tests.fakes import SlowLog
from tests.wire import dechunk

CHUNKED = SSE()
BARE = SSE(chunked=False)
ENVELOPE = SSE(envelope=True)


class Desk:
    """PageCache of a log that answers when the test says so, under a clock moved by hand."""

    def __init__(self) -> None:
        self.memory = MemoryLog(epoch="e")
        self.log = SlowLog(self.memory)
        self.now = 100.0
        self.pages = PageCache(self.log, lambda: self.now)

    def send(self, *topics: str, size: int = 1) -> int:
        """Append one notification; return its offset."""
        return self.memory.append([Draft.of("x" * size, topics=topics or ("t",))])[0].result().offset

    def ask(
        self, after: int = 0, *topics: str, encoding: SSE = CHUNKED, until: int = 0, upto: int | None = None
    ) -> asyncio.Future[Frames]:
        """Ask for a page."""
        question = PageQuery(after, frozenset(topics or ("t",)), encoding, until=until)
        return self.pages.read(question, upto=until or (self.memory.bounds().newest.offset if upto is None else upto))

    @property
    def asked(self) -> int:
        """How many questions the log has still to answer."""
        return len(self.log.pending)

    async def answer(self) -> None:
        """Let the log answer everything, and let that be noticed."""
        while self.log.pending:
            self.log.answer()
        await settle()


async def settle() -> None:
    """Let callbacks run."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize("encoding", [CHUNKED, BARE, ENVELOPE])
async def test_all_who_ask_the_same_get_the_same_bytes_of_one_read(encoding: SSE):
    desk = Desk()
    desk.send()
    before = [desk.ask(encoding=encoding) for _ in range(50)]
    assert desk.asked == 1
    await desk.answer()
    after = [desk.ask(encoding=encoding) for _ in range(50)]
    assert desk.asked == 0
    pages = [each.result() for each in before + after]
    assert pages[0].number == 1
    assert all(each is pages[0] for each in pages)


async def test_each_question_is_one_of_its_own():
    desk = Desk()
    for _ in range(3):
        desk.send("t", "u")
    questions = [
        *[desk.ask(), desk.ask(1), desk.ask(0, "u"), desk.ask(0, "t", "u"), desk.ask(encoding=BARE)],
        *[desk.ask(encoding=ENVELOPE), desk.ask(until=2), desk.ask(until=3)],
        desk.pages.read(PageQuery(0, frozenset("t"), CHUNKED, until=3, latest=True), upto=3),
    ]
    assert desk.asked == len(questions) == len(set(map(id, questions)))
    await desk.answer()
    assert [each.result().number for each in questions] == [3, 2, 3, 3, 3, 3, 2, 3, 1]


async def test_the_order_of_topics_makes_no_other_question():
    desk = Desk()
    desk.send("a")
    assert desk.ask(0, "a", "b") is desk.ask(0, "b", "a")


async def test_shapes_differ_in_their_bytes_and_in_nothing_else():
    desk = Desk()
    desk.send("t", "u")
    desk.send("other")
    desk.send("u")
    plain, bare, envelope = (desk.ask(0, "u", encoding=encoding) for encoding in (CHUNKED, BARE, ENVELOPE))
    await desk.answer()
    assert plain.result()[1:] == bare.result()[1:] == envelope.result()[1:] == (2, 1, 3, False, 1)
    assert bare.result().payload == b"id: e-1\ndata: x\n\nid: e-3\ndata: x\n\n"
    assert dechunk(plain.result().payload) == bare.result().payload
    assert b'data: {"topic":"u","data":"x"}' in envelope.result().payload


@pytest.mark.parametrize("encoding", [CHUNKED, BARE])
async def test_a_failure_reaches_all_who_wait_and_is_not_kept(encoding: SSE):
    desk = Desk()
    desk.send()
    waiting = [desk.ask(encoding=encoding) for _ in range(3)]
    desk.log.fail(LogUnavailable("the disk is full"))
    await settle()
    for each in waiting:
        with pytest.raises(LogUnavailable, match="disk is full"):
            each.result()
    again = desk.ask(encoding=encoding)
    assert desk.asked == 1
    await desk.answer()
    assert again.result().number == 1


def since(epoch: str = "e", **floors: int) -> Visibility:
    return Visibility(None, frozenset((topic, Position(epoch, offset)) for topic, offset in floors.items()))


@pytest.mark.parametrize("encoding", [CHUNKED, BARE])
async def test_readers_whose_floors_lie_behind_a_page_share_it(encoding: SSE):
    desk = Desk()
    for _ in range(5):
        desk.send("a")

    def ask(visibility: Visibility, after: int = 3) -> asyncio.Future[Frames]:
        return desk.pages.read(PageQuery(after, frozenset("a"), encoding, visibility), upto=5)

    shared = [ask(since(a=1)), ask(since(a=3)), ask(Visibility())]
    assert desk.asked == 1
    own = [ask(since(a=4)), ask(since(a=4, b=4)), ask(since(a=1), after=0)]
    assert desk.asked == 4
    await desk.answer()
    assert [each.result().number for each in [*shared, *own]] == [2, 2, 2, 1, 1, 4]


async def test_an_envelope_names_a_topic_through_which_the_notification_is_seen():
    desk = Desk()
    desk.send("a", "b")
    desk.send("a", "b")
    asked = desk.pages.read(PageQuery(0, frozenset("ab"), ENVELOPE, since(a=1)), upto=2)
    await desk.answer()
    assert dechunk(asked.result().payload).splitlines()[1::3] == [
        b'data: {"topic":"b","data":"x"}',
        b'data: {"topic":"a","data":"x"}',
    ]


async def test_an_envelope_with_topics_names_all_through_which_the_notification_is_seen():
    desk = Desk()
    desk.send("a", "b", "x")
    desk.send("a", "b", "x")
    visibility = since(a=1)
    asked = desk.pages.read(PageQuery(0, frozenset("ab"), SSE(Envelope.TOPICS), visibility), upto=2)
    await desk.answer()
    assert dechunk(asked.result().payload).splitlines()[1::3] == [
        b'data: {"topics":["b"],"data":"x"}',
        b'data: {"topics":["a","b"],"data":"x"}',
    ]


@pytest.mark.parametrize("encoding", [CHUNKED, BARE])
async def test_floors_of_another_epoch_are_a_log_that_can_not_be_read_now(encoding: SSE):
    desk = Desk()
    desk.send("a")
    asked = PageCache(desk.memory).read(PageQuery(0, frozenset("a"), encoding, since("old", a=0)), upto=1)
    await settle()
    with pytest.raises(LogUnavailable):
        asked.result()


@pytest.mark.parametrize("cleared", [False, True])
async def test_a_failure_that_nobody_waits_for_any_more_is_no_complaint(
    caplog: pytest.LogCaptureFixture, cleared: bool
):
    desk = Desk()
    desk.send()
    desk.ask()
    if cleared:
        desk.pages.clear()
    desk.log.fail(LogUnavailable("gone"))
    await settle()
    assert not caplog.records


async def test_one_that_leaves_takes_nothing_from_the_others():
    desk = Desk()
    desk.send()
    heard: list[str] = []
    leaves, stays = (lambda answer: heard.append("left"), lambda answer: heard.append("stayed"))
    answer = desk.ask()
    answer.add_done_callback(leaves)
    desk.ask().add_done_callback(stays)
    answer.remove_done_callback(leaves)
    await desk.answer()
    assert heard == ["stayed"]
    assert desk.ask().result().number == 1


@pytest.mark.parametrize("encoding", [CHUNKED, BARE])
async def test_a_page_with_an_end_never_goes_beyond_it(encoding: SSE):
    desk = Desk()
    for _ in range(5):
        desk.send()
    held = desk.ask(2, encoding=encoding, until=4)
    await desk.answer()
    open_end = desk.ask(2, encoding=encoding)
    await desk.answer()
    assert (held.result().number, held.result().reached) == (2, 4)
    assert (open_end.result().number, open_end.result().reached) == (3, 5)
    assert desk.ask(2, encoding=encoding, until=4) is held
    desk.send()
    assert desk.ask(2, encoding=encoding, until=4) is held


async def test_who_comes_later_gets_the_page_of_who_came_first_and_asks_on_from_there():
    desk = Desk()
    desk.send()
    first = desk.ask()
    await desk.answer()
    desk.send()
    assert desk.ask() is first
    assert first.result().reached == 1
    more = desk.ask(1)
    await desk.answer()
    assert (more.result().number, more.result().reached) == (1, 2)


async def test_that_there_is_nothing_yet_is_not_kept():
    desk = Desk()
    desk.send()
    nothing = desk.ask(1)
    assert not desk.asked, "that takes no read"
    assert (nothing.result().number, nothing.result().reached) == (0, 1)
    desk.send()
    something = desk.ask(1)
    await desk.answer()
    assert something.result().number == 1


async def test_what_was_let_go_of_since_may_still_be_sent():
    desk = Desk()
    desk.memory = MemoryLog(count=2, epoch="e")
    desk.log._log = desk.memory
    desk.send()
    page = desk.ask()
    await desk.answer()
    for _ in range(5):
        desk.send()
    assert desk.ask() is page
    assert not page.result().hole


async def test_pages_are_kept_for_a_few_seconds():
    desk = Desk()
    desk.send()
    early = desk.ask()
    await desk.answer()
    desk.now += SHARED_SECONDS / 2
    late = desk.ask(encoding=BARE)
    await desk.answer()
    desk.now += SHARED_SECONDS / 2 + 0.1
    desk.pages.trim()
    assert desk.ask(encoding=BARE) is late
    assert desk.ask() is not early
    assert desk.asked == 1


async def test_a_page_that_has_not_come_is_waited_for_however_old_it_is():
    desk = Desk()
    desk.send()
    waiting = desk.ask()
    desk.now += 10 * SHARED_SECONDS
    desk.pages.trim()
    assert desk.ask() is waiting
    await desk.answer()
    desk.pages.trim()
    assert desk.ask() is not waiting


async def test_pages_are_kept_up_to_so_many_bytes_the_newest_of_them():
    desk = Desk()
    count = SHARED_BYTES // 1_000_000 + 4
    for number in range(count):
        desk.send(f"t/{number}", size=1_000_000)
    asked = [desk.ask(0, f"t/{number}") for number in range(count)]
    await desk.answer()
    kept = [number for number in range(count) if desk.ask(0, f"t/{number}") is asked[number]]
    assert kept == list(range(count - SHARED_BYTES // 1_000_100, count))
    assert sum(len(asked[number].result().payload) for number in kept) < desk.pages._size <= SHARED_BYTES


async def test_pages_with_nothing_in_them_count_with_what_was_asked():
    desk = Desk()
    topics = [f"t/{number}".ljust(200, "x") for number in range(128)]
    desk.send()
    for number in range(2_000):
        desk.ask(0, f"u/{number}", *topics)
        await desk.answer()
    assert desk.pages._size <= SHARED_BYTES
    assert len(desk.pages._shared) < 2_000


async def test_what_was_kept_and_let_go_of_is_counted_right_in_the_end():
    desk = Desk()
    for _ in range(20):
        number = desk.send(size=1_000)
        desk.ask(number - 1)
        desk.ask(number - 1, encoding=BARE)
        await desk.answer()
    assert desk.pages._size > 40_000
    desk.now += 2 * SHARED_SECONDS
    desk.pages.trim()
    assert (desk.pages._size, len(desk.pages._shared)) == (0, 0)


async def test_pages_of_a_log_that_has_become_another_one_are_forgotten():
    desk = Desk()
    desk.send()
    before = desk.ask()
    await desk.answer()
    assert desk.ask() is before
    desk.pages.clear()
    assert desk.ask() is not before
    await desk.answer()
    assert len(desk.pages._shared) == 1


async def test_an_encoding_that_fails_is_told_to_whoever_waits_for_the_page():
    class Broken(NamedTuple):
        takes_chunks: bool = False
        names_all_topics: bool = False

        def notification(self, notification: Notification, topics: Sequence[str]) -> bytes:
            raise RuntimeError("mine")

    desk = Desk()
    desk.send()
    asked = desk.ask(encoding=Broken())  # type: ignore[arg-type]  # the rest of it is not needed
    await desk.answer()
    with pytest.raises(RuntimeError, match="mine"):
        asked.result()
