"""What a log on another machine may do that the others never do: answer late, and become another one meanwhile."""

import asyncio
from typing import Any

import pytest

from hub.connections.page_cache import PageCache, PageQuery
from hub.errors import LogUnavailable
from hub.log.log import Framing, Lasting, Located, Movable
from hub.notification import MAX_OFFSET, Position
from tests.connections.test_connection import Desk
from tests.contracts.far import Elsewhere, FarLog
from tests.contracts.test_log import append, drafts, offsets, read_all, until


class Process:
    """A process that follows a log elsewhere, and what it has heard."""

    def __init__(self, log: FarLog) -> None:
        self.log = log
        self.heard: list[Any] = []
        log.announce_to(self._announce, self.heard.append)

    def _announce(self, notifications: Any) -> None:
        self.heard += [each.position for each in notifications]


async def follow(elsewhere: Elsewhere, **options: Any) -> Process:
    process = Process(FarLog(elsewhere, **options))
    await process.log.open()
    return process


async def several_turns() -> None:
    """Let pass more turns of the loop than any line takes."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_it_can_do_only_what_every_log_can():
    log = FarLog(Elsewhere())
    assert not isinstance(log, Framing | Movable | Lasting)


async def test_all_processes_hear_the_same_in_the_same_order():
    elsewhere = Elsewhere()
    one, other = await follow(elsewhere), await follow(elsewhere)
    receipts = [each for _ in range(5) for log in (one.log, other.log) for each in log.append(drafts("a", "b"))]
    given = [await receipt for receipt in receipts]
    await until(lambda: len(one.heard) == len(other.heard) == 20)
    assert one.heard == other.heard == sorted(given)
    assert len(set(given)) == 20


async def test_a_position_is_known_with_the_confirmation_and_not_before():
    process = await follow(Elsewhere())
    process.log.answers.held = True
    (receipt,) = process.log.append(drafts("a", key="k"))
    (again,) = process.log.append(drafts("b", key="k"))
    await several_turns()
    assert process.heard == [(process.log.epoch, 1)], "it is kept elsewhere, and announced"
    for each in (receipt, again):
        assert not each.done
        with pytest.raises(asyncio.InvalidStateError):
            each.result()
    process.log.answers.release()
    assert await receipt == await again == (process.log.epoch, 1)
    assert (receipt.repeated, again.repeated, again.topics) == (False, True, ("a",))


async def test_what_is_not_confirmed_is_told_so():
    elsewhere = Elsewhere()
    process = await follow(elsewhere)
    elsewhere.away = True
    (receipt,) = process.log.append(drafts("a"))
    with pytest.raises(LogUnavailable, match="away"):
        await receipt
    with pytest.raises(LogUnavailable, match="away"):
        await process.log.read(0, ["a"], upto=1)
    elsewhere.away = False
    assert await append(process.log, "a") == [1]


# ---- an id that this process does not know yet ----


async def ahead(**options: Any) -> tuple[Process, Position]:
    """Return a process that hears nothing for now, and the position of something that another one has published."""
    elsewhere = Elsewhere()
    process, other = await follow(elsewhere, **options), await follow(elsewhere)
    process.log.feed.held = True
    (receipt,) = other.log.append(drafts("t"))
    return process, await receipt


async def test_a_position_from_elsewhere_is_located_as_soon_as_all_up_to_it_was_announced_here():
    process, position = await ahead()
    locating = process.log.locate(position)
    await several_turns()
    assert not locating.done()
    assert process.heard == []
    process.log.feed.release()
    assert process.heard == [position]
    assert await locating == Located(1)
    assert process.log.locate(position).done(), "what is known here takes no question"
    assert await process.log.locate(position._replace(offset=2)) == Located(None, "unknown")


async def test_it_does_not_wait_for_ever_for_what_does_not_come():
    process, position = await ahead(patience=0.01)
    with pytest.raises(LogUnavailable, match="not come here yet"):
        await process.log.locate(position)
    assert process.log._behind == []


async def test_nobody_waits_for_a_position_any_more_when_the_log_is_closed():
    process, position = await ahead()
    locating = process.log.locate(position)
    await several_turns()
    await process.log.aclose()
    with pytest.raises(LogUnavailable, match="closed"):
        await locating


async def test_a_stream_begins_when_its_position_is_located():
    process, position = await ahead()
    desk = Desk(process.log)
    client = desk.connect(str(position))
    await several_turns()
    assert client.transport.received == b"", "where it begins is not known yet"
    process.log.feed.release()
    await until(lambda: "hub.open" in client.facts)
    assert client.facts["hub.open"]["recovered"] is True
    assert client.blocks[0].id == str(position)
    await append(process.log, "t")
    await until(lambda: client.offsets == [2])


async def test_a_stream_whose_position_can_not_be_located_is_told_to_come_back():
    process, position = await ahead(patience=0.01)
    client = Desk(process.log).connect(str(position))
    await until(lambda: "hub.close" in client.facts)
    assert client.facts["hub.close"] == {"reason": "log_unavailable"}
    assert client.transport.closed


async def test_a_client_that_leaves_while_its_position_is_looked_for_leaves_nothing_behind():
    process, position = await ahead()
    desk = Desk(process.log)
    client = desk.connect(str(position))
    await several_turns()
    client.transport.lose()
    await several_turns()
    assert process.log._behind == []
    assert not len(desk.streams)
    process.log.feed.release()
    await several_turns()
    assert client.transport.received == b""


# ---- pages ----


async def test_a_log_without_frames_gets_them_made_of_what_is_read():
    process = await follow(Elsewhere())
    await append(process.log, "t", "u", "t")
    page = await PageCache(process.log).read(PageQuery(0, frozenset("t")), upto=3)
    kept = await read_all(process.log, 0, ["t"])
    assert offsets(kept) == [1, 3]
    assert page[:4] == (b"".join(each.chunk for each in kept), 2, 1, 3)


# ---- failover ----


async def test_a_log_that_fails_over_says_so_before_anything_of_the_new_history_is_announced():
    elsewhere = Elsewhere()
    process = await follow(elsewhere)
    before = process.log.epoch
    await append(process.log, *"aaaa")
    await elsewhere.fail_over(loses=2)
    (receipt,) = process.log.append(drafts("b"))
    given = await receipt
    await until(lambda: len(process.heard) == 6)
    epoch = process.log.epoch
    assert epoch != before
    assert given == (epoch, 3)
    assert process.heard == [*((before, n) for n in (1, 2, 3, 4)), (epoch, 2), (epoch, 3)]
    history = await read_all(process.log, 0, ["**"])
    assert [each.id for each in history] == [f"{epoch}-{offset}" for offset in (1, 2, 3)]
    assert [each.frame.split(b"\n")[0].decode() for each in history] == [f"id: {each.id}" for each in history]


async def test_after_a_failover_clients_go_on_unless_they_have_seen_what_was_lost():
    elsewhere = Elsewhere()
    process = await follow(elsewhere)
    first = process.log.epoch
    await append(process.log, *"aaaa")
    await elsewhere.fail_over(loses=1)
    await until(lambda: process.log.epoch != first)
    second = process.log.epoch
    await append(process.log, "b", "b")
    await elsewhere.fail_over(loses=3)
    await until(lambda: process.log.epoch != second)
    await append(process.log, "c", "c", "c")

    async def found(epoch: str) -> list[int | str | None]:
        places = [await process.log.locate(Position(epoch, offset)) for offset in range(7)]
        return [place.why or place.after for place in places]

    gap = "epoch"
    assert await found(first) == await found(second) == [0, 1, 2, gap, gap, gap, gap]
    beyond = [await process.log.locate(Position(epoch, MAX_OFFSET)) for epoch in (first, second, "another")]
    assert beyond == [Located(None, "epoch", 2), Located(None, "epoch", 2), Located(None, "epoch", None)]
    assert await found(process.log.epoch) == [0, 1, 2, 3, 4, 5, "unknown"]


async def test_a_position_of_a_history_that_this_process_has_not_heard_of_is_waited_for():
    elsewhere = Elsewhere()
    process = await follow(elsewhere)
    await append(process.log, "a")
    process.log.feed.held = True
    await elsewhere.fail_over()
    other = await follow(elsewhere)
    locating = process.log.locate(Position(other.log.epoch, 1))
    await several_turns()
    assert not locating.done()
    process.log.feed.release()
    assert await locating == Located(1)
    assert process.log.epoch == other.log.epoch
