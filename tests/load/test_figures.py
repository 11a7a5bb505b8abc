"""Counting by sequence number, whatever comes twice, late or not at all."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.load.figures import MAX_HOLES, Tally, Track, Usage, process, processes_listening
from hub.load.options import CannotRun


def taken(*numbers: int) -> tuple[Tally, Track]:
    tally, track = Tally(), Track()
    for number in numbers:
        tally.take(track, number)
    return tally, track


def test_everything_once_and_in_order_is_delivered_and_nothing_else() -> None:
    tally, track = taken(0, 1, 2, 3)
    assert (tally.delivered, tally.duplicates, tally.out_of_order, tally.missing) == (4, 0, 0, 0)
    assert track.missing(4) == 0


def test_what_comes_again_is_a_duplicate_and_not_a_delivery() -> None:
    tally, _ = taken(0, 1, 1, 0)
    assert (tally.delivered, tally.duplicates, tally.out_of_order) == (2, 2, 0)


def test_what_is_overtaken_is_missing_until_it_comes_out_of_order() -> None:
    tally, track = taken(0, 3)
    assert (tally.missing, track.missing(4)) == (2, 2)
    tally.take(track, 1)
    assert (tally.missing, tally.out_of_order, track.missing(4)) == (1, 1, 1)
    tally.take(track, 1)
    assert (tally.duplicates, tally.delivered) == (1, 3)


def test_what_never_came_at_the_end_is_missing() -> None:
    assert taken(0, 1)[1].missing(5) == 3
    assert Track().missing(5) == 5


def test_an_event_that_was_never_confirmed_is_not_missed() -> None:
    assert taken(0, 1, 4)[1].missing(3) == 1


@settings(deadline=None)  # what else the machine does is none of its claims
@given(st.lists(st.integers(0, 12), max_size=40), st.integers(0, 15))
def test_counting_agrees_with_a_set(numbers: list[int], total: int) -> None:
    tally, track = taken(*numbers)
    seen: set[int] = set()
    late = 0
    for number in numbers:
        late += number not in seen and number < max(seen, default=-1)
        seen.add(number)
    assert tally.delivered == len(seen)
    assert tally.duplicates == len(numbers) - len(seen)
    assert tally.out_of_order == late
    assert tally.missing == max(seen, default=-1) + 1 - len(seen)
    assert track.missing(total) == len(set(range(total)) - seen)


def test_a_track_stays_small_and_never_forgets_that_something_is_missing() -> None:
    tally, track = taken(*range(0, 10_000, 2))
    assert len(track.holes) == MAX_HOLES
    assert track.missing(10_000) == 5000
    tally.take(track, 1)  # its hole is forgotten: it stays missing
    assert track.missing(10_000) == 5000
    assert tally.duplicates == 1


# The hub's processes


def test_a_process_that_is_not_there_is_named() -> None:
    with pytest.raises(CannotRun, match="2147483647"):
        process(2**31 - 1)


def test_whoever_listens_on_the_port_is_the_hub() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert [found.pid for found in processes_listening("127.0.0.1", port)] == [os.getpid()]
        assert processes_listening("127.0.0.2", port) == []


def test_processes_that_are_unknown_use_nothing_that_is_known() -> None:
    assert Usage.of([]) is None
    used = Usage.of([process(os.getpid())])
    assert used is not None
    assert used.rss > 1e6
    assert used.cpu_seconds > 0
