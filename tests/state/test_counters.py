"""Counters: bounded in number."""

from hub.state.counters import Counters
from tests.contracts.conftest import Clock


def test_beyond_their_number_the_window_that_began_first_is_forgotten(clock: Clock):
    counters = Counters(clock, most=3)
    for each in "abc":
        counters.count(each, 10)
    clock.now += 10
    assert counters.count("a", 10) == 1  # a new window: the newest now
    assert counters.count("a", 10) == 2
    assert counters.count("d", 10) == 1
    assert len(counters) == 3
    assert counters.count("a", 10) == 3
    assert counters.count("b", 1_000) == 1  # it would be the second one, were it remembered
