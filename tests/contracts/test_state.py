"""What every home of the state must do; a new home is one more parameter of the fixture."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.access.identity import Identity
from hub.errors import InvalidInput, StateUnavailable, TooLarge, TooManyMemberships
from hub.notification import Position
from hub.redis_url import RedisURL
from hub.state import journal
from hub.state.entries import MOST_OF_AN_OWNER, VALUE_BYTES
from hub.state.epochs import carried
from hub.state.memberships import MOST_OF_A_USER
from hub.state.memory import MemoryState
from hub.state.redis.state import RedisState
from hub.state.sqlite import SQLiteState
from hub.state.state import Membership, Revocation, State
from tests.chance import examples
from tests.conftest import Disk
from tests.contracts.conftest import Clock
from tests.log.image import Image
from tests.redis_server import KINDS, RedisServer

Make = Callable[[], Awaitable[State]]


@pytest.fixture(params=["memory", "sqlite", *KINDS])
async def make(
    request: pytest.FixtureRequest, clock: Clock, tmp_path: Path, redis_servers: Callable[[str], RedisServer]
) -> AsyncIterator[Make]:
    """Return a maker of open states, in every home there is."""
    made: list[State] = []

    async def one() -> State:
        state: State
        if request.param in KINDS:
            url = RedisURL.parse(redis_servers(request.param).url)
            state = RedisState(url, secrets.token_hex(4), clock, time=clock)
        else:
            memory = request.param == "memory"
            state = MemoryState(clock) if memory else SQLiteState(tmp_path / f"{len(made)}.db", clock)
        await state.open()
        made.append(state)
        return state

    yield one
    for state in made:
        await state.aclose()


def user(name: str, issued: float | None = None, token: str | None = None) -> Identity:
    return Identity(user=name, issued=issued, token=token)


# ---- revocations ----


async def test_nobody_is_revoked_at_first(make: Make):
    state = await make()
    assert not state.revoked(user("ann"))
    assert not state.revoked(user("ann", 1.0, "t"))


@pytest.mark.parametrize(
    ("issued", "revoked"),
    [(None, True), (99.0, True), (100.0, True), (100.5, True), (100.6, False), (float("nan"), True)],
)
async def test_a_user_is_revoked_with_all_that_was_issued_until_then(make: Make, issued: float | None, revoked: bool):
    state = await make()
    await state.revoke(Revocation("user", "ann", 100.5))
    assert state.revoked(user("ann", issued)) is revoked
    assert state.revoked(user("ann", issued, "token")) is revoked
    assert not state.revoked(user("ann ", issued))
    assert not state.revoked(user("bob", issued, "ann"))


async def test_a_token_is_revoked_whenever_it_was_issued_and_no_other(make: Make):
    state = await make()
    await state.revoke(Revocation("token", "t1", 100.0, 200.0))
    assert state.revoked(user("ann", 50.0, "t1"))
    assert state.revoked(user("ann", 150.0, "t1"))
    assert not state.revoked(user("ann", 50.0, "t2"))
    assert not state.revoked(user("t1", 50.0))


async def test_who_is_revoked_twice_is_revoked_until_the_later_time(make: Make):
    state = await make()
    await state.revoke(Revocation("user", "ann", 200.0))
    await state.revoke(Revocation("user", "ann", 100.0))
    assert state.revoked(user("ann", 150.0))
    await state.revoke(Revocation("user", "ann", 300.0))
    assert state.revoked(user("ann", 250.0))
    assert not state.revoked(user("ann", 301.0))


async def test_a_revocation_counts_and_is_announced_before_anything_is_waited_for(make: Make):
    state = await make()
    heard: list[tuple[Revocation, bool]] = []
    state.announce_to(lambda revocation: heard.append((revocation, state.revoked(user("ann")))))
    revocation = Revocation("user", "ann", 100.0)
    task = asyncio.ensure_future(state.revoke(revocation))
    await asyncio.sleep(0)
    assert heard == [(revocation, True)]
    await task
    assert len(heard) == 1


@pytest.mark.parametrize("name", ["a", "a" * 250, "\U0001f600" * 60, "a\0b", "*", "a/b"])
async def test_any_id_can_be_revoked(make: Make, name: str):
    state = await make()
    await state.revoke(Revocation("user", name, 100.0))
    await state.revoke(Revocation("token", name, 100.0))
    assert state.revoked(user(name, 1.0))
    assert state.revoked(user("bob", 200.0, name))
    assert not state.revoked(user(name + "x", 1.0, name + "x"))


@pytest.mark.parametrize(
    "revocation", [Revocation("user", "a", float("nan")), Revocation("user", "a", 1.0, float("inf"))]
)
async def test_a_time_that_is_none_is_refused(make: Make, revocation: Revocation):
    state = await make()
    with pytest.raises(InvalidInput):
        await state.revoke(revocation)
    await state.revoke(Revocation("user", "bob", 1.0))


# ---- memberships ----


def member(room: str, name: str, offset: int = 1, *, publish: bool = False, loaded: bool = False) -> Membership:
    return Membership(room, name, publish, Position("e", offset), 1.5, loaded)


async def test_whoever_joins_is_a_member_until_he_leaves(make: Make):
    state = await make()
    assert await state.membership("r", "ann") is None
    assert await state.rooms_of("ann") == await state.members("r") == await state.join([]) == []
    mine = [member("s", "ann", 2, publish=True), member("r", "ann")]
    assert await state.join(mine) == mine
    assert await state.join([member("r", "bob", 3)]) == [member("r", "bob", 3)]
    assert await state.membership("s", "ann") == mine[0]
    assert await state.rooms_of("ann") == [mine[1], mine[0]]
    assert await state.members("r") == [mine[1], member("r", "bob", 3)]
    assert await state.leave("ann", ["r", "never", "r"]) == [mine[1]]
    assert await state.leave("ann", ["r"]) == []
    assert await state.rooms_of("ann") == [mine[0]]
    assert await state.members("r") == [member("r", "bob", 3)]


async def test_whoever_is_a_member_stays_it_since_then_and_comes_anew_after_leaving(make: Make):
    state = await make()
    await state.join([member("r", "ann", 3)])
    assert await state.join([member("r", "ann", 9, publish=True)]) == [member("r", "ann", 3, publish=True)]
    await state.leave("ann", ["r"])
    assert await state.join([member("r", "ann", 9)]) == [member("r", "ann", 9)]


async def test_what_a_hook_says_changes_only_what_a_hook_said(make: Make):
    state = await make()
    loaded = member("r", "ann", 3, loaded=True)
    await state.join([loaded])
    assert await state.join([member("r", "ann", 9, publish=True, loaded=True)]) == [loaded._replace(publish=True)]
    assert await state.join([member("r", "ann", 9)]) == [member("r", "ann", 3)]
    assert await state.join([member("r", "ann", 9, publish=True, loaded=True)]) == [member("r", "ann", 3)]


async def test_members_are_told_page_by_page(make: Make):
    state = await make()
    names = sorted({f"{number * 7919 % 1_000}" for number in range(700)} | {"a\0", "é", "\U0001f600"})
    await state.join([member("r", name) for name in reversed(names)])
    found: list[str] = []
    while page := await state.members("r", after=found[-1] if found else "", limit=64):
        assert len(page) == min(64, len(names) - len(found))
        found += [each.user for each in page]
    assert found == names


async def test_joining_and_leaving_count_and_are_announced_before_anything_is_waited_for(make: Make):
    state = await make()
    heard: list[Any] = []
    state.announce_members_to(heard.append, lambda room, user: heard.append((room, user)))
    tasks = [asyncio.ensure_future(state.join([member("r", "ann"), member("r", "bob")]))]
    await asyncio.sleep(0)
    assert heard == [member("r", "ann"), member("r", "bob")] == await state.members("r")
    tasks.append(asyncio.ensure_future(state.join([member("r", "ann", publish=True)])))
    tasks.append(asyncio.ensure_future(state.leave("ann", ["r", "s"])))
    await asyncio.sleep(0)
    assert heard[2:] == [("r", "ann")], "to join again is nothing new, nor is it to leave what one was never in"
    assert await state.rooms_of("ann") == []
    await asyncio.gather(*tasks)
    assert len(heard) == 3


async def test_a_user_belongs_to_a_bounded_number_of_rooms(make: Make):
    state = await make()
    heard: list[Membership] = []
    state.announce_members_to(heard.append, lambda room, user: None)
    await state.join([member(f"{number}", "ann") for number in range(MOST_OF_A_USER)])
    with pytest.raises(TooManyMemberships):
        await state.join([member("r", "bob"), member("more", "ann")])
    assert len(heard) == len(await state.rooms_of("ann")) == MOST_OF_A_USER
    assert await state.members("r") == []
    await state.leave("ann", ["7"])
    await state.join([member("more", "ann")])


@pytest.mark.parametrize(
    "wrong",
    [
        *[member("", "ann"), member("r", ""), member("r" * 257, "ann"), member("\ud800", "ann"), member("r", "\ud800")],
        member("r", "ann")._replace(at=float("nan")),
    ],
)
async def test_a_membership_that_breaks_a_rule_begins_nothing_and_disturbs_no_other(make: Make, wrong: Membership):
    state = await make()
    good, bad = state.join([member("r", "bob")]), state.join([member("r", "cid"), wrong])
    said = await asyncio.gather(good, bad, return_exceptions=True)
    assert said[0] == [member("r", "bob")]
    assert isinstance(said[1], InvalidInput)
    assert await state.members("r") == [member("r", "bob")]


async def test_memberships_are_carried_over_by_the_epoch_that_they_stand_in(make: Make):
    state = await make()
    assert await state.epochs() == []
    await state.join([member("r", "ann", 3), member("r", "bob", 9)])
    await state.join([member("r", "cid", 4)._replace(since=Position("f", 4))])
    assert sorted(await state.epochs()) == ["e", "f"]
    await state.carry_over("e", Position("f", 20), 5)
    assert await state.epochs() == ["f"]
    assert [each.since for each in await state.members("r")] == [("f", 3), ("f", 5), ("f", 4)]
    await state.carry_over("e", Position("f", 1), 1)
    await state.carry_over("f", Position("g", 30), None)
    assert {each.since for each in await state.members("r")} == {("g", 30)}
    assert await state.join([member("r", "ann", 99, publish=True)]) == [
        member("r", "ann", publish=True)._replace(since=Position("g", 30))
    ]


# ---- entries ----


async def test_an_entry_is_kept_until_it_is_taken(make: Make, clock: Clock):
    state = await make()
    await state.put("k", "v", expires=clock.now + 30, owner="ann")
    assert await state.get("k") == "v"
    assert await state.get("k") == "v"
    assert await state.take("k") == "v"
    assert await state.take("k") is None
    assert await state.get("k") is None


@pytest.mark.parametrize("lasting", [False, True])
async def test_of_all_who_take_an_entry_at_once_one_gets_it(make: Make, clock: Clock, lasting: bool):
    state = await make()
    await state.put("k", "v", expires=clock.now + 30, owner="ann", lasting=lasting)
    taken = await asyncio.gather(*(state.take("k") for _ in range(50)))
    assert sorted(taken, key=str) == [None] * 49 + ["v"]


@pytest.mark.parametrize("lasting", [False, True])
async def test_an_entry_expires(make: Make, clock: Clock, lasting: bool):
    state = await make()
    await state.put("k", "v", expires=clock.now + 30, owner="ann", lasting=lasting)
    clock.now += 29.5
    assert await state.get("k") == "v"
    clock.now += 0.5
    assert await state.get("k") is None
    assert await state.take("k") is None


async def test_an_entry_replaces_the_one_under_the_same_key(make: Make, clock: Clock):
    state = await make()
    for value, seconds, lasting in (("a", 10, True), ("b", 30, False), ("c", 20, True)):
        await state.put("k", value, expires=clock.now + seconds, owner=value, lasting=lasting)
    clock.now += 15
    await state.put("other", "x", expires=clock.now + 1, owner="b")
    assert await state.take("k") == "c"
    assert await state.take("k") is None


async def test_one_owner_has_a_bounded_number_and_costs_others_nothing(make: Make, clock: Clock):
    state = await make()
    await state.put("bob", "v", expires=clock.now + 30, owner="bob")
    for number in range(MOST_OF_AN_OWNER + 3):
        await state.put(f"{number}", "v", expires=clock.now + 30, owner="ann")
    kept = [number for number in range(MOST_OF_AN_OWNER + 3) if await state.get(f"{number}")]
    assert kept == list(range(3, MOST_OF_AN_OWNER + 3))
    assert await state.get("bob") == "v"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"key": "k" * 1025}, TooLarge),
        ({"value": "v" * (VALUE_BYTES + 1)}, TooLarge),
        ({"value": "\U0001f600" * (VALUE_BYTES // 4 + 1)}, TooLarge),
        ({"owner": "o" * 1025}, TooLarge),
        ({"key": "\ud800"}, InvalidInput),
        ({"value": "\ud800"}, InvalidInput),
        ({"owner": "\ud800"}, InvalidInput),
        ({"expires": float("nan")}, InvalidInput),
        ({"expires": float("inf")}, InvalidInput),
    ],
)
async def test_an_entry_beyond_the_bounds_is_refused_and_disturbs_no_other(
    make: Make, clock: Clock, wrong: dict[str, Any], error: type[Exception]
):
    state = await make()
    good = state.put("good", "v" * VALUE_BYTES, expires=clock.now + 9, owner="o" * 1024, lasting=True)
    bad = state.put(**{"key": "k", "value": "", "owner": "", "expires": clock.now + 9, "lasting": True, **wrong})
    said = await asyncio.gather(good, bad, return_exceptions=True)
    assert said[0] is None
    assert isinstance(said[1], error)
    assert await state.get("good") == "v" * VALUE_BYTES


# ---- counters ----


async def test_a_counter_counts_within_its_window(make: Make, clock: Clock):
    state = await make()
    assert [await state.count("k", window=10) for _ in range(3)] == [1, 2, 3]
    assert await state.count("other", window=10) == 1
    clock.now += 9.5
    assert await state.count("k", window=10) == 4
    clock.now += 0.5
    assert await state.count("k", window=10) == 1


async def test_a_clock_that_is_put_back_begins_a_new_window(make: Make, clock: Clock):
    state = await make()
    assert [await state.count("k", window=10) for _ in range(2)] == [1, 2]
    clock.now -= 1000
    assert await state.count("k", window=10) == 1


# ---- any order of calls ----

NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.integers(1, 20), st.booleans()),
        st.tuples(st.just("take"), NAMES),
        st.tuples(st.just("get"), NAMES),
        st.tuples(st.just("pass"), st.integers(1, 10)),
        st.tuples(st.just("count"), NAMES),
        st.tuples(st.just("revoke"), st.sampled_from(["user", "token"]), NAMES, st.integers(-5, 5)),
        st.tuples(st.just("join"), NAMES, NAMES, st.integers(0, 9), st.booleans(), st.booleans()),
        st.tuples(st.just("leave"), NAMES, st.lists(NAMES, max_size=2)),
        st.tuples(st.just("carry"), st.integers(0, 9), st.none() | st.integers(0, 9)),
        st.tuples(st.just("again")),
    ),
    max_size=40,
)


class Model:
    """The state as plain dictionaries."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: dict[str, tuple[str, float, bool]] = {}
        self.windows: dict[str, list[float]] = {}
        self.revoked: dict[tuple[str, str], float] = {}
        self.members: dict[tuple[str, str], Membership] = {}
        self.epoch = 0

    def join(self, wanted: Membership) -> Membership:
        before = self.members.get((wanted.room, wanted.user), wanted)
        if before.loaded or not wanted.loaded:
            before = before._replace(publish=wanted.publish, loaded=wanted.loaded)
        self.members[wanted.room, wanted.user] = before
        return before

    def leave(self, user: str, rooms: list[str]) -> list[Membership]:
        ended = [self.members.pop((room, user), None) for room in rooms]
        return [each for each in ended if each is not None]

    @property
    def all(self) -> list[Membership]:
        return sorted(self.members.values())

    def carry_over(self, newest: int, end: int | None) -> None:
        self.epoch += 1
        position = Position(str(self.epoch), newest)
        for place, each in self.members.items():
            self.members[place] = each._replace(since=carried(each.since, position, end))

    def get(self, key: str) -> str | None:
        value, expires, _ = self.entries.get(key, ("", 0.0, False))
        return value if expires > self.clock.now else None

    def count(self, key: str) -> int:
        times = self.windows.setdefault(key, [])
        if times and self.clock.now >= times[0] + 10:
            times.clear()
        times.append(self.clock.now)
        return len(times)

    def is_revoked(self, identity: Identity) -> bool:
        at = self.revoked.get(("user", identity.user))
        by_user = at is not None and (identity.issued is None or identity.issued <= at)
        return by_user or ("token", identity.token) in self.revoked

    def begin_again(self) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if entry[2]}
        self.windows.clear()


async def walk_through_rooms(state: State, model: Model, what: str, rest: list[Any]) -> None:
    if what == "join":
        room, name, offset, publish, loaded = rest
        wanted = Membership(room, name, publish, Position(str(model.epoch), offset), model.clock.now, loaded)
        assert await state.join([wanted]) == [model.join(wanted)]
    elif what == "leave":
        name, rooms = rest
        assert await state.leave(name, rooms) == model.leave(name, rooms)
    else:
        newest, end = rest
        before = str(model.epoch)
        model.carry_over(newest, end)
        await state.carry_over(before, Position(str(model.epoch), newest), end)
        assert await state.epochs() == ([str(model.epoch)] if model.members else [])


async def walk(steps: list[Any], folder: Path | None) -> None:
    """Take *steps* with a state and with the model; both must say the same. In a *folder*, the state is a file."""
    clock = Clock()
    model = Model(clock)

    def made() -> State:
        return MemoryState(clock) if folder is None else SQLiteState(folder / "state.db", clock)

    state = made()
    await state.open()
    try:
        for number, step in enumerate(steps):
            if step[0] == "again" and folder is not None:
                await state.aclose()
                state = made()
                await state.open()
                model.begin_again()
            await walk_on(state, model, number, step)
    finally:
        await state.aclose()


async def walk_on(state: State, model: Model, number: int, step: Any) -> None:
    """Take one *step* with *state* and with *model*; both must say the same."""
    clock = model.clock
    what, *rest = step
    if what == "put":
        key, seconds, lasting = rest
        expires = clock.now + seconds
        await state.put(key, str(number), expires=expires, owner=key, lasting=lasting)
        model.entries[key] = (str(number), expires, lasting)
    elif what == "take":
        assert await state.take(rest[0]) == model.get(rest[0])
        model.entries.pop(rest[0], None)
    elif what == "get":
        assert await state.get(rest[0]) == model.get(rest[0])
    elif what == "pass":
        clock.now += rest[0]
    elif what == "count":
        assert await state.count(rest[0], window=10) == model.count(rest[0])
    elif what == "revoke":
        kind, name, seconds = rest
        await state.revoke(Revocation(kind, name, clock.now + seconds))
        model.revoked[kind, name] = max(clock.now + seconds, model.revoked.get((kind, name), 0.0))
    elif what in {"join", "leave", "carry"}:
        await walk_through_rooms(state, model, what, rest)
    for name in "abc":
        assert await state.rooms_of(name) == [each for each in model.all if each.user == name]
        assert await state.members(name) == [each for each in model.all if each.room == name]
        for issued in (None, clock.now - 3, clock.now, clock.now + 3):
            identity = user(name, issued, "abc"[number % 3])
            assert state.revoked(identity) == model.is_revoked(identity)


@given(STEPS)
def test_the_memory_does_what_the_model_does(steps: list[Any]):
    asyncio.run(walk(steps, None))


@pytest.mark.slow
@settings(max_examples=examples(15, 300))
@given(STEPS)
def test_the_file_does_what_the_model_does_also_when_it_is_opened_again(steps: list[Any]):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(walk(steps, Path(folder)))


# ---- the file ----


async def opened(path: Path, clock: Clock) -> SQLiteState:
    state = SQLiteState(path, clock)
    await state.open()
    return state


def test_only_the_file_lasts(clock: Clock, tmp_path: Path):
    assert not MemoryState(clock).lasting
    assert SQLiteState(tmp_path / "state.db", clock).lasting


async def test_its_folder_is_made_and_only_its_owner_reads_it(clock: Clock, tmp_path: Path):
    path = tmp_path / "a" / "b" / "state.db"
    state = await opened(path, clock)
    await state.revoke(Revocation("user", "ann", 1.0))
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    await state.aclose()
    assert [each.name for each in path.parent.iterdir()] == ["state.db"]


async def test_memberships_outlive_the_process_however_many_they_are(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "PART", 7)
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    wanted = [member(f"{number % 5}", f"{number}\0", number, publish=number % 2 == 0) for number in range(35)]
    await state.join(wanted)
    await state.leave("3\0", ["3"])
    await state.aclose()
    for count in (34, 33, 32):
        state = await opened(path, clock)
        found = [each for room in "01234" for each in await state.members(room)]
        assert sorted(found) == sorted(each for each in wanted if each.user != "3\0")[:count]
        await state.leave(max(found).user, [max(found).room])
        await state.aclose()


async def test_what_was_carried_over_is_kept(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    await state.join([member("r", "ann", 3), member("r", "bob", 9)])
    await state.carry_over("e", Position("f", 20), 5)
    await state.join([member("r", "cid", 9)._replace(since=Position("f", 9))])
    await state.aclose()
    state = await opened(path, clock)
    assert [each.since for each in await state.members("r")] == [("f", 3), ("f", 5), ("f", 9)]
    await state.carry_over("f", Position("g", 20), None)
    await state.aclose()
    state = await opened(path, clock)
    assert [each.since for each in await state.members("r")] == [("g", 20)] * 3
    await state.aclose()


async def test_a_file_of_an_older_hub_gets_memberships(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    await state.revoke(Revocation("user", "ann", 1.0))
    await state.aclose()
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE membership; DROP TABLE era; PRAGMA user_version = 1")
    database.close()
    for rooms in ([], ["r"]):
        state = await opened(path, clock)
        assert state.revoked(user("ann"))
        assert [each.room for each in await state.rooms_of("ann")] == rooms
        await state.join([member("r", "ann")])
        await state.aclose()


async def test_what_was_not_confirmed_is_kept_when_it_is_asked_for_again(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    await state.join([member("r", "bob")])
    aside = path.rename(tmp_path / "aside.db")
    with pytest.raises(StateUnavailable):
        await state.join([member("r", "ann")])
    with pytest.raises(StateUnavailable):
        await state.leave("bob", ["r"])
    assert [each.user for each in await state.members("r")] == ["ann"]
    aside.rename(path)
    await state.join([member("r", "ann")])
    await state.leave("bob", ["r"])
    await state.aclose()
    state = await opened(path, clock)
    assert await state.members("r") == [member("r", "ann")]
    await state.aclose()


async def test_memberships_that_can_not_be_read_prevent_the_start(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    await state.aclose()
    with sqlite3.connect(path) as database:
        database.executescript("DROP TABLE membership; CREATE TABLE membership (era)")
    database.close()
    state = SQLiteState(path, clock)
    with pytest.raises(StateUnavailable, match="no such column"):
        await state.open()
    assert not state.up, "nothing of it is left behind"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()


async def test_an_entry_that_was_taken_or_replaced_does_not_come_back(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    for key in ("taken", "replaced", "kept", "expired"):
        await state.put(key, "v", expires=clock.now + (1 if key == "expired" else 30), owner="ann", lasting=True)
    await state.take("taken")
    await state.put("replaced", "w", expires=clock.now + 30, owner="ann")
    await state.aclose()
    clock.now += 1
    state = await opened(path, clock)
    assert [await state.get(key) for key in ("taken", "replaced", "kept", "expired")] == [None, None, "v", None]
    await state.aclose()
    with sqlite3.connect(path) as database:
        assert list(database.execute("SELECT key FROM entry")) == [("kept",)]
    database.close()


async def test_what_an_owner_has_too_much_goes_from_the_file_too(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    puts = [
        state.put(f"{number:03}", "v", expires=clock.now + 30, owner="ann", lasting=True)
        for number in range(MOST_OF_AN_OWNER + 3)
    ]
    await asyncio.gather(*puts)
    await state.aclose()
    with sqlite3.connect(path) as database:
        (found,) = database.execute("SELECT count(*), min(key) FROM entry")
    database.close()
    assert found == (MOST_OF_AN_OWNER, "003")


async def test_a_closed_state_confirms_nothing(clock: Clock, tmp_path: Path):
    state = await opened(tmp_path / "state.db", clock)
    await state.aclose()
    await state.aclose()
    with pytest.raises(StateUnavailable):
        await state.revoke(Revocation("user", "ann", 1.0))
    with pytest.raises(StateUnavailable):
        await state.put("k", "v", expires=clock.now + 30, owner="ann", lasting=True)


async def test_what_was_accepted_is_kept_when_it_is_closed_at_once(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    tasks = [asyncio.ensure_future(state.revoke(Revocation("user", f"{number}", 1.0))) for number in range(500)]
    await asyncio.sleep(0)
    await state.aclose()
    await asyncio.gather(*tasks)
    state = await opened(path, clock)
    assert all(state.revoked(user(f"{number}")) for number in range(500))
    await state.aclose()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE x (y)")
    database.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA application_id = 0x68756273")
        database.execute("PRAGMA user_version = 99")
    database.close()


def text(path: Path) -> None:
    path.write_text("no database " * 1000)


def folder(path: Path) -> None:
    path.mkdir()


def damaged(path: Path) -> None:
    asyncio.run(_filled(path))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * len(content[4096:])
    path.write_bytes(content)


async def _filled(path: Path) -> None:
    state = await opened(path, Clock())
    await asyncio.gather(*(state.revoke(Revocation("user", f"{number}", 1.0)) for number in range(500)))
    await state.aclose()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (foreign, "not the state of a hub"),
        (newer, "written by a newer hub"),
        (text, "not a SQLite file"),
        (folder, "unable to open"),
        (damaged, "is damaged; the hub would not know what was revoked"),
    ],
)
def test_a_file_that_is_not_the_state_is_refused_and_left_alone(
    clock: Clock, tmp_path: Path, spoil: Callable[[Path], None], why: str
):
    path = tmp_path / "state.db"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""

    async def refused() -> None:
        state = SQLiteState(path, clock)
        with pytest.raises(StateUnavailable, match=why):
            await state.open()
        await state.aclose()

    asyncio.run(refused())
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_a_file_that_was_removed_confirms_nothing_more(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    state = await opened(path, clock)
    path.unlink()
    with pytest.raises(StateUnavailable):
        await state.revoke(Revocation("user", "ann", 1.0))
    assert state.revoked(user("ann"))
    await state.aclose()


async def test_a_full_disk_confirms_nothing_and_what_was_revoked_counts(clock: Clock, disk: Disk):
    path = disk.path / "state.db"
    state = await opened(path, clock)
    await state.revoke(Revocation("user", "before", 1.0))
    disk.fill()
    refused = ""
    for number in range(10_000):
        try:
            await state.revoke(Revocation("user", f"full {number}", 1.0))
        except StateUnavailable as error:
            refused = str(error)
            break
    assert refused == "the state is not available: its file could not be written; the hub's own log says why"
    assert state.revoked(user(f"full {number}"))
    disk.grow(20)
    await state.revoke(Revocation("user", "after", 1.0))
    await state.aclose()
    state = await opened(path, clock)
    assert state.revoked(user("before"))
    assert state.revoked(user("after"))
    await state.aclose()


@pytest.mark.slow
async def test_a_frozen_disk_does_not_hold_up_the_loop(clock: Clock, image: Image):
    state = await opened(image.path / "state.db", clock)
    await state.revoke(Revocation("user", "before", 1.0))
    assert state.up
    image.freeze()
    try:
        with pytest.raises(StateUnavailable, match="does not answer"):
            await state.revoke(Revocation("user", "ann", 1.0))
        assert state.revoked(user("ann"))
        assert not state.up
        with pytest.raises(StateUnavailable, match="does not answer"):
            await state.revoke(Revocation("user", "bob", 1.0))
        await state.put("k", "v", expires=clock.now + 30, owner="ann")
        assert await state.take("k") == "v"
        await state.aclose()
    finally:
        image.thaw()


ENDING = """
import asyncio, sys, time
from pathlib import Path
from hub.state.sqlite import SQLiteState
from hub.state.state import Revocation

async def main():
    state = SQLiteState(Path(sys.argv[1]), time.time)
    await state.open()
    await state.revoke(Revocation("user", "ann", 1.0))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    revoking = asyncio.ensure_future(state.revoke(Revocation("user", "bob", 1.0)))
    await asyncio.sleep(0)
    await state.aclose()
    await asyncio.wait([revoking])

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_process_ends_while_the_disk_is_frozen(clock: Clock, image: Image):
    path = image.path / "state.db"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ENDING, str(path), stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"open\n"
            image.freeze()
            process.stdin.write(b"\n")
            assert await process.wait() == 0
    finally:
        image.thaw()
        if process.returncode is None:
            process.kill()
            await process.wait()
    async with aclosing(await opened(path, clock)) as state:
        assert state.revoked(user("ann"))


# ---- processes ----

PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from hub.state.sqlite import SQLiteState
from hub.state.state import Revocation

async def main():
    state = SQLiteState(Path(sys.argv[1]), time.time)
    await state.open()
    print("open", flush=True)
    number = int(sys.argv[2])
    while True:
        names = [f"{number + place}" for place in range(number % 7 + 1)]
        puts = [state.put(f"k{name}", name, expires=time.time() + 600, owner=name, lasting=True) for name in names]
        revoked = [state.revoke(Revocation("user", name, time.time())) for name in names]
        said = await asyncio.gather(*revoked, *puts, return_exceptions=True)
        if said.count(None) == len(said):  # a disk that is too busy confirms nothing
            print(*names, flush=True)
        number += len(names)

asyncio.run(main())
"""


JOINING = """
import asyncio, sys
from pathlib import Path
from hub.errors import StateUnavailable
from hub.notification import Position
from hub.state.sqlite import SQLiteState
from hub.state.state import Membership

async def main():
    state = SQLiteState(Path(sys.argv[1]), lambda: 1.0)
    await state.open()
    print("open", flush=True)
    number = int(sys.argv[2])
    while True:
        try:
            wanted = [Membership("r", f"{each}", False, Position("e", each), 1.0) for each in range(number, number + 3)]
            await state.join(wanted)
            print(*(f"+{each.user}" for each in wanted), f"?{number}", flush=True)
            await state.leave(f"{number}", ["r"])
            print(f"-{number}", flush=True)
            if number % 4 == 0:
                await state.carry_over("e", Position("f", 0), 10**9)
        except StateUnavailable:  # a disk that is too busy confirms nothing
            pass
        number += 3

asyncio.run(main())
"""


async def start(path: Path, first: int, program: str = PROGRAM) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), str(first), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"open\n"
    return process


@pytest.mark.slow
async def test_what_was_confirmed_outlives_a_process_that_is_killed(tmp_path: Path):
    path, chance = tmp_path / "state.db", random.Random(5)
    confirmed: list[str] = []
    for _ in range(6):
        process = await start(path, len(confirmed) + 1_000_000 * (len(confirmed) > 0))
        assert process.stdout is not None
        async with asyncio.timeout(60):
            for _ in range(chance.randint(1, 60)):
                confirmed += (await process.stdout.readline()).decode().split()
        os.kill(process.pid, signal.SIGKILL)
        confirmed += (await process.stdout.read()).decode().rpartition("\n")[0].split()
        await process.wait()
        clock = Clock()
        state = await opened(path, clock)
        assert all(state.revoked(user(name)) for name in confirmed)
        assert [await state.get(f"k{name}") for name in confirmed] == confirmed
        assert not state.revoked(user("somebody"))
        await state.aclose()
    assert len(confirmed) > 100


@pytest.mark.slow
async def test_who_joined_and_who_left_outlives_a_process_that_is_killed(tmp_path: Path):
    path, chance = tmp_path / "state.db", random.Random(7)
    said: dict[str, str] = {}
    for turn in range(6):
        process = await start(path, 1_000_000 * turn, JOINING)
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(60):
            for _ in range(chance.randint(1, 60)):
                lines.append((await process.stdout.readline()).decode())
        os.kill(process.pid, signal.SIGKILL)
        lines += (await process.stdout.read()).decode().rpartition("\n")[0].splitlines()
        await process.wait()
        said |= {each[1:]: each[0] for line in lines for each in line.split()}
        state = await opened(path, Clock())
        there = {each.user: each for each in await state.members("r", limit=10**6)}
        await state.aclose()
        assert all(name in there for name, sign in said.items() if sign == "+")
        assert not any(name in there for name, sign in said.items() if sign == "-")
        assert all(each.since.offset == int(name) for name, each in there.items())
        assert len(there) <= sum(sign != "-" for sign in said.values()) + 3 * (turn + 1), "or was never confirmed"
    assert list(said.values()).count("+") > 50


@pytest.mark.slow
async def test_one_process_has_the_file(clock: Clock, tmp_path: Path):
    path = tmp_path / "state.db"
    process = await start(path, 0)
    try:
        state = SQLiteState(path, clock)
        with pytest.raises(StateUnavailable, match="another hub has had it open"):
            await state.open()
        await state.aclose()
    finally:
        process.kill()
        await process.wait()
    async with aclosing(await opened(path, clock)) as state:
        assert state.up
