import random

import pytest

from hub.access.rates import PublishRates, Rates
from hub.errors import TooManyPublishes


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def spent_at_once(rates: Rates, key: str = "a", most: int = 1_000) -> int:
    """Return how many times *key* may spend one before it has to wait."""
    return next(number for number in range(most) if rates.ask(key))


def test_a_burst_goes_at_once_and_then_so_many_a_second():
    clock = Clock()
    rates = Rates(4, burst=2, clock=clock)
    assert spent_at_once(rates) == 8
    assert rates.wait("a") == pytest.approx(0.25, abs=1e-5)
    clock.now += 0.5
    assert spent_at_once(rates) == 2
    clock.now += 3600
    assert spent_at_once(rates) == 8


def test_who_waits_as_long_as_told_may_go():
    clock = Clock()
    rates = Rates(3, clock=clock)
    for _ in range(100):
        while not (wait := rates.ask("a")):
            pass
        clock.now += wait + 1e-6
        assert rates.ask("a") == 0


def test_asking_in_vain_costs_nothing():
    clock = Clock()
    rates = Rates(1, clock=clock)
    rates.spend("a")
    for _ in range(100):
        assert rates.ask("a")
    clock.now += 1.001
    assert rates.ask("a") == 0


def test_one_key_does_not_feel_another():
    rates = Rates(1, clock=Clock())
    assert rates.ask("a") == rates.ask("b") == 0
    assert rates.ask("a")
    assert rates.ask("b")


def test_a_list_is_not_refused_for_its_length_but_has_to_be_paid_for():
    clock = Clock()
    rates = Rates(10, clock=clock)
    assert rates.ask("a", 1_000) == 0
    assert rates.wait("a") == pytest.approx(99.1, abs=1e-5)
    clock.now += 99
    assert rates.ask("a")
    clock.now += 0.2
    assert rates.ask("a") == 0


def test_less_than_one_a_second_is_a_rate_too():
    clock = Clock()
    rates = Rates(0.1, clock=clock)
    assert rates.ask("a") == 0
    assert rates.wait("a") == pytest.approx(10, abs=1e-5)


def test_without_a_limit_nothing_is_remembered():
    rates = Rates(0, clock=Clock())
    assert not any(rates.ask("a", 10**6) for _ in range(100))
    assert len(rates) == 0


def test_never_more_goes_than_the_burst_and_the_rate_allow():
    clock, chance = Clock(), random.Random(7)
    rates, begun, gone = Rates(5, burst=3, clock=clock), clock.now, 0
    for _ in range(5_000):
        clock.now += chance.random() / 4
        gone += not rates.ask("a")
        assert gone <= 15 + 5 * (clock.now - begun) + 1e-6
    assert gone >= 5 * (clock.now - begun) * 0.9


def test_a_flood_of_keys_takes_bounded_memory_and_frees_no_heavy_spender():
    clock = Clock()
    rates = Rates(1, most=100, clock=clock)
    rates.spend("heavy", 50)
    for number in range(10_000):
        rates.ask(f"address {number}")
        assert len(rates) <= 100
    assert rates.wait("heavy")


def test_full_buckets_are_forgotten_first():
    clock = Clock()
    rates = Rates(1, most=4, clock=clock)
    for key in "abc":
        rates.spend(key)
    clock.now += 2
    rates.spend("d")
    rates.spend("e")
    assert len(rates) == 2
    assert rates.wait("d")


def test_publishers_are_limited_each_and_all_together():
    clock = Clock()
    rates = PublishRates(2, 5, clock=clock)
    for who in ("user a", "user a", "user b", "user b"):
        rates.take(who, 1)
    with pytest.raises(TooManyPublishes) as own:
        rates.take("user a", 1)
    assert (own.value.limit, own.value.retry_after) == ("publish_rate", 1)
    rates.take("user c", 1)
    with pytest.raises(TooManyPublishes) as total:
        rates.check("user d")
    assert total.value.limit == "publish_rate_total"
    with pytest.raises(TooManyPublishes):
        rates.take("", 1)
    clock.now += 1
    rates.take("", 1)


def test_what_all_together_may_not_costs_the_one_nothing():
    clock = Clock()
    rates = PublishRates(1, 1, clock=clock)
    rates.take("", 3)
    with pytest.raises(TooManyPublishes) as total:
        rates.take("user a", 1)
    assert total.value.retry_after == 3
    clock.now += 3
    rates.take("user a", 1)


def test_the_refusal_says_how_long_to_wait_in_whole_seconds():
    rates = PublishRates(100, 0, clock=Clock())
    rates.take("user a", 250)
    with pytest.raises(TooManyPublishes, match=r"more than 100 notifications a second \(publish_rate\): wait 2 s"):
        rates.check("user a")
