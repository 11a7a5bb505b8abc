import asyncio
import gc

import pytest

from hub.errors import LogUnavailable
from hub.log.receipt import Receipt
from hub.notification import Position

AT = Position("e", 1)


async def _await(receipt: Receipt) -> Position:
    return await receipt


async def test_a_confirmed_receipt_is_the_position():
    receipt = Receipt(("a",), AT)
    assert receipt.done
    assert await receipt == receipt.result() == AT


async def test_everybody_who_waits_hears_of_the_confirmation():
    receipt = Receipt(("a",))
    waiting = [asyncio.create_task(_await(receipt)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not receipt.done
    waiting[0].cancel()
    receipt.confirm(AT)
    assert await asyncio.gather(*waiting[1:]) == [AT, AT]
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]


async def test_a_receipt_has_no_position_before_it_is_confirmed():
    with pytest.raises(asyncio.InvalidStateError):
        Receipt(("a",)).result()


async def test_a_failure_reaches_who_waits_and_who_repeats():
    unobserved: list[Exception] = []
    receipt = Receipt(("a",))
    again = receipt.repeat()
    waiting = asyncio.create_task(_await(again))
    await asyncio.sleep(0)
    receipt.fail(LogUnavailable("full"), unobserved.append)
    for each in (receipt, waiting, receipt.repeat()):
        with pytest.raises(LogUnavailable):
            await each
    del receipt, again, waiting, each
    gc.collect()
    assert unobserved == []


async def test_a_failure_nobody_looked_at_is_reported_when_the_receipt_is_forgotten():
    unobserved: list[Exception] = []
    receipt = Receipt(("a",))
    receipt.fail(LogUnavailable("full"), unobserved.append)
    assert unobserved == []
    del receipt
    gc.collect()
    assert [str(error) for error in unobserved] == ["the log is not available: full"]


async def test_a_repeat_made_while_the_first_is_unconfirmed_shares_its_answer():
    receipt = Receipt(("a",))
    again = receipt.repeat()
    assert again.repeated
    assert not receipt.repeated
    receipt.confirm(AT)
    assert await again == AT


async def test_who_wants_to_be_told_is_told_once_now_or_later():
    heard: list[object] = []
    unobserved: list[Exception] = []
    error = LogUnavailable("full")
    good, bad, kept, lost = Receipt(("a",)), Receipt(("b",)), Receipt(("c",), AT), Receipt(("d",))
    lost.fail(error, unobserved.append)
    for receipt in (good, bad, kept, lost):
        receipt.tell(lambda topics=receipt.topics: heard.append(topics), heard.append)  # type: ignore[misc]
    assert heard == [("c",), error]
    good.confirm(AT)
    bad.fail(error, unobserved.append)
    assert heard == [("c",), error, ("a",), error]
    del good, bad, kept, lost, receipt
    gc.collect()
    assert unobserved == []
