"""The table of memberships."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from hub.errors import InvalidInput, TooManyMemberships
from hub.notification import MAX_OFFSET, Position
from hub.state.memberships import SMALL, Memberships
from hub.state.state import Membership


def member(room: str, user: str, offset: int = 1, *, epoch: str = "e", **more: bool) -> Membership:
    return Membership(room, user, more.get("publish", False), Position(epoch, offset), 1.5, more.get("loaded", False))


def test_members_come_in_the_order_of_their_names_however_many_they_are():
    table, chance = Memberships(), random.Random(3)
    names = [f"{chance.randrange(10**6)}" for _ in range(3 * SMALL)]
    for place, name in enumerate(names, 1):
        table.join([member("r", name)])
        if place in {SMALL // 2, SMALL, SMALL + 1, 2 * SMALL}:
            there = sorted(set(names[:place]))
            assert [each.user for each in table.members("r", "", 10**6)] == there
            middle = there[len(there) // 2]
            assert [each.user for each in table.members("r", middle, 7)] == [n for n in there if n > middle][:7]
            assert [each.user for each in table.members("r", middle + "x", 1)] == [
                min(n for n in there if n > middle + "x")
            ]
    for name in sorted(set(names)):
        assert [each.user for each in table.members("r", "", 1)] == [name]
        table.leave(name, ["r"])
    assert (table.members("r", "", 1), len(table)) == ([], 0)


def test_a_user_has_so_many_memberships_and_all_together_have_so_many():
    table = Memberships(most=5, most_of_a_user=3)
    table.join([member(room, "ann") for room in "abc"])
    with pytest.raises(TooManyMemberships) as refusal:
        table.join([member("x", "bob"), member("d", "ann")])
    assert (refusal.value.user, refusal.value.bound, refusal.value.status) == ("ann", 3, 409)
    assert str(refusal.value) == "the user has 3 memberships in rooms, and may have no more"
    assert not table.rooms_of("bob"), "all or none"
    table.join([member("a", "ann"), member("x", "bob"), member("y", "bob")])
    with pytest.raises(TooManyMemberships) as refusal:
        table.join([member("x", "cid")])
    assert (refusal.value.user, refusal.value.bound) == (None, 5)
    assert str(refusal.value) == "all users together have 5 memberships in rooms, and may have no more"
    table.leave("ann", "ab")
    table.join([member("x", "cid"), member("x", "cid")])
    assert len(table) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        *[member("", "ann"), member("r", ""), member("r" * 257, "ann"), member("r", "/" * 90), member("\ud800", "ann")],
        member("r", "ann")._replace(at=float("nan")),
    ],
)
def test_what_breaks_a_rule_begins_nothing(wrong: Membership):
    table = Memberships()
    with pytest.raises(InvalidInput):
        table.join([member("r", "bob"), wrong])
    assert len(table) == 0


def test_a_membership_that_is_wanted_again_goes_on():
    table = Memberships()
    first = member("r", "ann", 3, loaded=True)
    assert table.join([first]).begun == [first]
    again = table.join([member("r", "ann", 9, loaded=True, publish=True)])
    assert (again.memberships, again.begun) == ([first._replace(publish=True)], [])
    mine = table.join([member("r", "ann", 9)])
    assert mine.memberships == [first._replace(loaded=False)], "from now on it is one that was joined"
    loaded = table.join([member("r", "ann", 9, loaded=True, publish=True)])
    assert loaded.memberships == mine.memberships == table.rooms_of("ann"), (
        "which the application's hook does not change"
    )
    table.leave("ann", ["r"])
    assert table.join([member("r", "ann", 9)]).begun == [member("r", "ann", 9)], "another one, that begins now"


def test_whoever_is_named_twice_joins_once():
    table = Memberships()
    joined = table.join([member("r", "ann", 3), member("r", "ann", 4, publish=True)])
    assert joined.begun == [member("r", "ann", 3, publish=True)]
    assert len(joined.rows) == len(table) == 1


def test_what_a_home_has_written_down_is_the_same_table():
    table = Memberships()
    table.join([member("r", "ann", 3), member("s", "bob", 9, publish=True)])
    table.carry_over("e", Position("f", 20), 5)
    later = table.join([member("r", "cid", 7, epoch="f", loaded=True)])
    eras = {row[0]: row for row in [*later.eras, *(era.row for era in table._eras.values())]}
    rows = [row for each in table.members("r", "", 9) + table.members("s", "", 9) for row in table.join([each]).rows]
    again = Memberships()
    again.restore_eras(eras.values())
    again.restore(rows)
    for room in "rs":
        assert again.members(room, "", 9) == table.members(room, "", 9)
    assert again.rooms_of("bob") == [Membership("s", "bob", True, Position("f", 5), 1.5)]
    assert len(again) == 3
    assert again.join([member("t", "ann", 8, epoch="f")]).eras == later.eras, "it stands in the one that is there"


def test_of_an_era_that_was_not_written_down_nothing_is_known():
    table = Memberships()
    table.restore([("r", "ann", 7, 3, 1.5, False, False)])
    assert table.epochs() == [""]
    assert table.carry_over("", Position("f", 20), None) == [(7, "f", 20, MAX_OFFSET)]
    assert table.rooms_of("ann") == [member("r", "ann", 20, epoch="f")]


def test_an_era_ends_with_its_last_membership():
    table = Memberships()
    table.join([member("r", "ann"), member("s", "ann", epoch="f")])
    assert sorted(table.epochs()) == ["e", "f"]
    table.leave("ann", ["r"])
    assert table.epochs() == ["f"]
    number = table.join([member("r", "ann")]).eras[0][0]
    assert number == 3, "the file may still have memberships of the one that has ended"


def test_what_belongs_to_an_earlier_epoch_is_not_what_begins_in_it_later():
    table = Memberships()
    table.join([member("r", "ann", 9)])
    table.carry_over("e", Position("f", 20), 5)
    table.join([member("r", "bob", 9, epoch="f")])
    assert {each.user: each.since for each in table.members("r", "", 9)} == {"ann": ("f", 5), "bob": ("f", 9)}
    table.carry_over("f", Position("g", 20), 7)
    assert {each.user: each.since for each in table.members("r", "", 9)} == {"ann": ("g", 5), "bob": ("g", 7)}


@pytest.mark.slow
def test_a_membership_costs_less_than_a_kilobyte():
    table = Memberships()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(20_000):
            table.join([member(f"room-{number % 400}", f"user-{number // 4}", number)])
        gc.collect()
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(table) == 20_000
    assert used / len(table) < 1_000
    assert not any(map(gc.is_tracked, table._rooms["room-0"].members.values()))
