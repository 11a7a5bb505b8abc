"""Where memberships go on that began in an earlier epoch of the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.log.memory import MemoryLog
from hub.notification import Position
from hub.state.epochs import Era, carried, carry_all
from hub.state.memory import MemoryState
from hub.state.state import Membership, State
from tests.contracts.far import Elsewhere, FarLog
from tests.contracts.test_log import append, until
from tests.log.sqlite.home import Home


@pytest.mark.parametrize(("since", "end", "expected"), [(3, 7, 3), (7, 7, 7), (9, 7, 7), (9, 0, 0), (9, None, 20)])
def test_a_membership_keeps_its_place_in_what_is_left_of_its_epoch(since: int, end: int | None, expected: int):
    assert carried(Position("old", since), Position("new", 20), end) == Position("new", expected)


ENDS = st.lists(st.tuples(st.integers(0, 20), st.none() | st.integers(0, 20)), max_size=6)


@given(offset=st.integers(0, 20), epochs=ENDS)
def test_an_era_does_at_once_what_is_done_to_each_of_its_memberships(offset: int, epochs: list[tuple[int, int | None]]):
    era, since = Era(1, "0"), Position("0", offset)
    for number, (newest, end) in enumerate(epochs, 1):
        since = carried(since, Position(str(number), newest), end)
        era.carry_over(Position(str(number), newest), end)
        assert Era(*era.row).since(offset) == era.since(offset) == since


@given(
    plan=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6),
)
def test_a_member_never_sees_what_was_there_before_and_sees_all_that_follows(plan: list[tuple[int, int]]):
    """Each epoch gives out so many; then the history loses so many of its newest, and a new epoch begins."""
    history: list[int] = []
    numbers = iter(range(100))
    members: list[tuple[Position, int]] = []  # where each stands, and the first number that is published after it
    for epoch, (more, lost) in enumerate(plan):
        if epoch:
            del history[max(0, len(history) - lost) :]
            newest = Position(str(epoch), len(history))
            members = [(carried(since, newest, len(history)), first) for since, first in members]
        for _ in range(more):
            members.append((Position(str(epoch), len(history)), len(history) and history[-1] + 1))
            history.append(next(numbers))
            members[-1] = (members[-1][0], history[-1])
        for since, first in members:
            assert history[since.offset :] == [number for number in history if number >= first]


# ---- all of them ----


def member(room: str, since: Position) -> Membership:
    return Membership(room, "ann", False, since, 1.0)


async def since(state: State) -> dict[str, Position]:
    return {each.room: each.since for each in await state.rooms_of("ann")}


async def joined(*positions: Position) -> MemoryState:
    """Return a state with a membership that began at each of *positions*, in rooms that are called after them."""
    state = MemoryState(lambda: 1.0)
    await state.join([member(str(position), position) for position in positions])
    return state


async def test_what_began_in_this_epoch_stays_where_it_is():
    log = MemoryLog()
    await append(log, "a", "b")
    state = await joined(Position(log.epoch, 1), Position(log.epoch, 2))
    await carry_all(state, log, log.bounds().newest)
    assert await since(state) == {f"{log.epoch}-1": (log.epoch, 1), f"{log.epoch}-2": (log.epoch, 2)}


async def test_in_a_log_that_has_nothing_of_an_epoch_a_membership_begins_anew():
    log = MemoryLog()
    state = await joined(Position("old", 7))
    await carry_all(state, log, log.bounds().newest)
    assert await since(state) == {"old-7": (log.epoch, 0)}, "all that this log ever holds follows"
    await append(log, "a")
    await carry_all(state, log, log.bounds().newest)
    assert await since(state) == {"old-7": (log.epoch, 0)}, "and it goes on so"


async def test_after_a_failover_a_membership_goes_on_where_its_epoch_ended():
    elsewhere = Elsewhere()
    log = FarLog(elsewhere)
    renewed: list[Position] = []
    log.announce_to(lambda notifications: None, renewed.append)
    await log.open()
    first = log.epoch
    await append(log, *"aaaa")
    state = await joined(*(Position(first, offset) for offset in (0, 2, 4)), Position("unknown", 1))
    await elsewhere.fail_over(loses=1)
    await until(lambda: bool(renewed))
    await append(log, "b")
    await carry_all(state, log, renewed[-1])
    epoch = log.epoch
    assert await since(state) == {
        f"{first}-0": (epoch, 0),
        f"{first}-2": (epoch, 2),
        f"{first}-4": (epoch, 3),
        "unknown-1": (epoch, 3),
    }
    await elsewhere.fail_over(loses=4)
    await until(lambda: len(renewed) == 2)
    await carry_all(state, log, renewed[-1])
    assert {each.offset for each in (await since(state)).values()} == {0}
    await log.aclose()


async def test_what_the_log_has_become_meanwhile_is_left_to_the_next_call():
    log = MemoryLog()
    await append(log, "a")
    state = await joined(Position(log.epoch, 1))
    await carry_all(state, log, Position("earlier", 9))
    assert await since(state) == {f"{log.epoch}-1": (log.epoch, 1)}


@pytest.mark.slow
async def test_in_a_file_that_was_rewound_a_membership_goes_on_where_the_copy_ends(tmp_path: Path):
    home = Home(tmp_path / "hub.db")
    log = await home.open()
    await append(log, *"aa")
    await log.aclose()
    copy = home.path.read_bytes()
    log = await home.open()
    await append(log, *"aaa")
    state = await joined(*(Position(log.epoch, offset) for offset in (1, 2, 5)))
    before = log.epoch
    await log.aclose()
    home.path.unlink()
    home.path.write_bytes(copy)
    log = await home.open()
    assert log.epoch != before
    await carry_all(state, log, log.bounds().newest)
    await home.aclose()
    assert await since(state) == {f"{before}-{was}": (log.epoch, now) for was, now in ((1, 1), (2, 2), (5, 2))}
