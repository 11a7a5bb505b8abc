"""Where a client goes on: what every log says of the positions that clients hold."""

from hypothesis import given
from hypothesis import strategies as st

from hub.log.log import Located, located
from hub.notification import Position
from tests.contracts.conftest import Make, MakeMovable
from tests.contracts.test_log import adopt, another, append


async def test_a_position_that_was_given_out_is_where_it_is(make: Make):
    log = await make()
    await append(log, "a", "b")
    assert [await log.locate(Position(log.epoch, offset)) for offset in (0, 1, 2)] == [
        Located(0),
        Located(1),
        Located(2),
    ]


async def test_a_position_that_was_trimmed_is_where_it_was(make: Make):
    log = await make(count=1)
    await append(log, *"aaa")
    assert await log.locate(Position(log.epoch, 1)) == Located(1)


async def test_a_position_that_nobody_was_given_is_unknown(make: Make):
    log = await make()
    assert await log.locate(Position(log.epoch, 1)) == Located(None, "unknown")
    await append(log, "a")
    assert await log.locate(Position(log.epoch, 2)) == Located(None, "unknown")


async def test_a_position_of_another_log_belongs_to_another_epoch(make: Make):
    log, other = await make(), await make()
    await append(log, "a")
    await append(other, "a")
    for offset in (0, 1, 2):
        assert await log.locate(Position(other.epoch, offset)) == Located(None, "epoch")


async def test_a_log_that_was_taken_over_is_not_its_own_past(make_movable: MakeMovable):
    log, other = await make_movable(), await another("a", "b")
    before = log.epoch
    await adopt(log, other)
    assert await log.locate(Position(other.epoch, 2)) == Located(2)
    assert await log.locate(Position(before, 0)) == Located(None, "epoch")


@given(
    plan=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6),
)
def test_a_client_goes_on_where_it_was_if_and_only_if_the_history_still_has_all_that_it_saw(
    plan: list[tuple[int, int]],
):
    """Each epoch gives out so many; then the history loses so many of its newest, and a new epoch begins."""
    history: list[int] = []
    ended: dict[str, int] = {}
    clients: list[tuple[Position, list[int]]] = []
    numbers = iter(range(100))
    for epoch, (more, lost) in enumerate(plan):
        if epoch:
            del history[max(0, len(history) - lost) :]
            ended[str(epoch - 1)] = len(history)
            ended = {name: min(end, len(history)) for name, end in ended.items()}
        clients.append((Position(str(epoch), len(history)), [*history]))
        for _ in range(more):
            history.append(next(numbers))
            clients.append((Position(str(epoch), len(history)), [*history]))
    newest = Position(str(len(plan) - 1), len(history))
    for position, seen in clients:
        expected = Located(position.offset)
        if seen != history[: position.offset]:
            expected = Located(None, "epoch", ended[position.epoch])
        assert located(position, newest, ended) == expected
