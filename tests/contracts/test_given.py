"""Where something begins that happens now: what every log says of the newest position given out."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import LogUnavailable
from hub.log.log import Log
from hub.notification import Notification, Position
from tests.chance import examples
from tests.contracts.conftest import Make
from tests.contracts.far import Elsewhere, FarLog, turns
from tests.contracts.test_log import append, drafts, offsets


async def newest(log: Log) -> Position:
    async with asyncio.timeout(30):
        return await log.given()


async def test_of_an_empty_log_it_is_its_beginning(make: Make):
    log = await make()
    assert await newest(log) == Position(log.epoch, 0)


async def test_it_is_the_newest_that_is_kept(make: Make):
    log = await make(count=1)
    await append(log, "a", "b")
    assert await newest(log) == Position(log.epoch, 2) == log.bounds().newest


async def test_what_was_appended_before_stands_before_it_and_what_follows_behind_it(make: Make):
    log = await make()
    announced: list[Notification] = []
    log.announce_to(announced.extend)
    first, second = log.append(drafts("a", "b"))
    asked = [log.given()]
    third = log.append(drafts("c"))[0]
    asked.append(log.given())
    asked.append(log.given())
    fourth = log.append(drafts("d"))[0]
    async with asyncio.timeout(30):
        found = await asked[0]
        assert offsets(announced)[:2] == [1, 2], "what stands before it has been announced"
        assert found == await second == Position(log.epoch, (await first).offset + 1)
        assert [await each for each in asked[1:]] == [await third] * 2
        assert await fourth > await third


async def test_whoever_asks_may_lose_interest(make: Make):
    log = await make()
    receipts = log.append(drafts("a"))
    log.given().cancel()
    assert await newest(log) == await receipts[0]


async def test_a_closed_log_says_nothing(make: Make):
    log = await make()
    await log.aclose()
    with pytest.raises(LogUnavailable):
        await newest(log)


async def test_a_log_elsewhere_says_it_when_it_has_been_announced_here():
    log = FarLog(Elsewhere())
    await log.open()
    log.feed.held = True
    (receipt,) = log.append(drafts("a"))
    asked = log.given()
    position = await receipt
    for _ in range(20):
        await asyncio.sleep(0)
    assert not asked.done()
    log.feed.release()
    assert await asked == position == log.bounds().newest
    await log.aclose()


@settings(deadline=None, max_examples=examples(50, 1_000))
@given(delays=st.lists(st.integers(0, 5), min_size=1, max_size=7), steps=st.lists(st.integers(0, 3), max_size=12))
def test_a_log_elsewhere_parts_what_was_appended_before_from_what_follows(delays: list[int], steps: list[int]):
    async def follow() -> None:
        each = iter(delays * 1_000)
        log = FarLog(Elsewhere(), later=turns(lambda: next(each)))
        await log.open()
        appended, asked = 0, []
        for number in steps:
            appended += number
            log.append(drafts(*["a"] * number))
            asked.append((appended, log.given()))
            await asyncio.sleep(0)
        assert [(await answer).offset for _, answer in asked] == [before for before, _ in asked]
        await log.aclose()

    asyncio.run(follow())
