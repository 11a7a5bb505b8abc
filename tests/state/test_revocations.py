"""The table of revocations: bounded, and never wrong in favour of what was revoked."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.access.identity import Identity
from hub.state.revocations import SLACK_SECONDS, Change, Revocations
from hub.state.state import Kind, Revocation
from tests.contracts.conftest import Clock


def user(name: str, issued: float | None = None, token: str | None = None) -> Identity:
    return Identity(user=name, issued=issued, token=token)


def filled(clock: Clock, number: int, most: int) -> tuple[Revocations, list[Change]]:
    """Return a table with revoked users 0 … *number*, at that second, half of them by a token of that name."""
    table = Revocations(clock, most)
    kinds: tuple[Kind, ...] = ("user", "token")
    return table, [table.add(Revocation(kinds[each % 2], f"{each}", float(each))) for each in range(number)]


def refused(table: Revocations, number: int, issued: float | None) -> bool:
    return table.revoked(user("x", issued, f"{number}") if number % 2 else user(f"{number}", issued))


def test_beyond_the_bound_nothing_that_was_revoked_counts_again(clock: Clock):
    table, _ = filled(clock, 5_000, most=100)
    assert len(table) <= 100
    assert all(refused(table, each, float(each)) for each in range(5_000))
    assert all(refused(table, each, None) for each in range(5_000))


def test_beyond_the_bound_few_others_are_refused_and_nobody_with_a_new_token(clock: Clock):
    table, _ = filled(clock, 5_000, most=100)
    others = [user(f"other {each}", 0.5, f"o{each}") for each in range(10_000)]
    wrong = sum(map(table.revoked, others))
    assert wrong <= 10_000 * 2 * 5_000 / 2**18 * 1.5
    assert not any(table.revoked(user(f"other {each}", 5_000.0, f"o{each}")) for each in range(10_000))


def test_what_has_ended_anyway_goes_first(clock: Clock):
    table = Revocations(clock, 100)
    for each in range(100):
        until = clock.now + 10 if each >= 50 else None
        table.add(Revocation("token", f"{each}", clock.now, until))
    clock.now += 10 + SLACK_SECONDS - 1
    assert len(table) == 100
    clock.now += 1
    change = table.add(Revocation("token", "last", clock.now))
    assert (len(change.gone), change.buckets) == (50, [])
    assert len(table) == 51
    assert all(refused(table, each, 1.0) for each in range(1, 50, 2))
    assert not any(refused(table, each, 1.0) for each in range(51, 100, 2))


@pytest.mark.parametrize(
    ("first", "second", "kept"), [(5.0, 9.0, 9.0), (9.0, 5.0, 9.0), (None, 5.0, None), (5.0, None, None)]
)
def test_a_second_revocation_never_shortens_the_first(
    clock: Clock, first: float | None, second: float | None, kept: float | None
):
    table = Revocations(clock)
    table.add(Revocation("token", "t", 2.0, first))
    assert table.add(Revocation("token", "t", 1.0, second))[1:3] == (2.0, kept)


def test_a_user_whose_first_revocation_is_remembered_by_a_hash_can_be_revoked_again(clock: Clock):
    table, _ = filled(clock, 1_000, most=100)
    table.add(Revocation("user", "0", 2_000.0))
    assert table.revoked(user("0", 1_500.0))
    assert not table.revoked(user("0", 2_001.0))


def test_an_earlier_time_does_not_make_a_remembered_revocation_earlier(clock: Clock):
    table, _ = filled(clock, 1_000, most=100)
    table.add(Revocation("user", "500", 1.0))
    assert table.revoked(user("500", 400.0))


@given(st.integers(0, 60), st.integers(1, 20), st.randoms(use_true_random=False))
def test_what_the_changes_say_makes_the_same_table(number: int, most: int, chance: random.Random):
    clock = Clock()
    table = Revocations(clock, most)
    rows: dict[bytes, tuple[float, float | None]] = {}
    buckets: dict[int, float] = {}
    for _ in range(number):
        kind: Kind = chance.choice(["user", "token"])
        until = chance.choice([None, clock.now + chance.randint(-8_000, 100)])
        revocation = Revocation(kind, f"{chance.randint(0, 30)}", clock.now + chance.randint(-9, 9), until)
        change = table.add(revocation)
        rows.pop(change.digest, None)
        rows[change.digest] = (change.at, change.until)
        for digest in change.gone:
            del rows[digest]
        buckets.update(change.buckets)
        clock.now += chance.choice([0, 1, 1_000])
    again = Revocations(clock, most)
    again.restore([(digest, *row) for digest, row in rows.items()], buckets.items())
    assert len(again) == len(table) <= most
    for each in range(31):
        for issued in (None, 1.0, clock.now - 1_000.5, clock.now, clock.now + 10):
            for identity in (user(f"{each}", issued), user("x", issued, f"{each}")):
                assert again.revoked(identity) == table.revoked(identity)
