"""The idempotency keys: what one stands for, and for how long. What they cost is in tests/test_bounds.py."""

from __future__ import annotations

from hub.errors import LogUnavailable
from hub.log.keys import KEY_AGE, Keys
from hub.log.receipt import Receipt
from hub.notification import Position
from tests.contracts.test_log import Clock

TOPICS = ("a", "b/c", "ü")


def test_a_key_stands_for_the_place_and_the_topics_of_its_first_publish():
    keys = Keys(Clock())
    keys.put("k", TOPICS, 7)
    receipt = keys.get("k", "e")
    assert receipt is not None
    assert (receipt.result(), receipt.topics) == (Position("e", 7), TOPICS)
    assert keys.get("K", "e") is None


def test_before_the_confirmation_it_stands_for_the_receipt_that_waits_for_it():
    keys, receipt = Keys(Clock()), Receipt(TOPICS)
    keys.put("k", TOPICS, 7, receipt=receipt)
    assert keys.get("k", "e") is receipt
    keys.confirm("k", Receipt(TOPICS))
    assert keys.get("k", "e") is receipt, "another one's confirmation is none of it"
    receipt.confirm(Position("e", 7))
    keys.confirm("k", receipt)
    again = keys.get("k", "e")
    assert again is not None
    assert again is not receipt
    assert (again.result(), again.topics) == (Position("e", 7), TOPICS)


def test_the_key_of_a_publish_that_failed_is_free_again():
    keys, failed, retried = Keys(Clock()), Receipt(TOPICS), Receipt(TOPICS)
    keys.put("k", TOPICS, 7, receipt=failed)
    failed.fail(LogUnavailable("full"), lambda error: None)
    keys.forget("k", failed)
    assert keys.get("k", "e") is None
    assert len(keys) == 0
    keys.put("k", TOPICS, 8, receipt=retried)
    keys.forget("k", failed)
    assert keys.get("k", "e") is retried, "it was used again meanwhile"


def test_a_key_counts_for_five_minutes_or_until_it_is_said_to_expire():
    clock = Clock()
    keys = Keys(clock)
    assert keys.put("k", TOPICS, 7) == clock.now + KEY_AGE
    assert keys.put("restored", TOPICS, 8, expires=clock.now + 10) == clock.now + 10
    clock.now += 9
    assert keys.get("restored", "e") is not None
    clock.now += 1
    assert keys.get("restored", "e") is None
    clock.now += KEY_AGE - 11
    assert keys.get("k", "e") is not None
    clock.now += 1
    assert keys.get("k", "e") is None


def test_what_no_longer_counts_is_let_go_of_with_the_next_one_and_costs_nothing():
    clock = Clock()
    keys = Keys(clock)
    keys.put("only", TOPICS, 1)
    one = keys.size
    for number in range(2, 100):
        keys.put(str(number), TOPICS, number)
    clock.now += KEY_AGE
    keys.put("last", TOPICS, 100)
    assert (len(keys), keys.size) == (1, one)


def test_a_key_that_is_used_again_after_its_time_is_not_let_go_of_with_its_first_use():
    clock = Clock()
    keys = Keys(clock)
    keys.put("k", ("first",), 1, expires=clock.now + 1)
    keys.put("k", ("second",), 2)
    clock.now += 1
    keys.put("other", TOPICS, 3)
    receipt = keys.get("k", "e")
    assert receipt is not None
    assert (receipt.result().offset, receipt.topics) == (2, ("second",))
