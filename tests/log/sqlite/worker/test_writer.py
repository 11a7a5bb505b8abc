"""The writer: what it keeps, what it lets go, and what it does when the disk is full."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from hub.errors import LogUnavailable
from hub.log.sqlite.worker.writer import Writer
from hub.notification import Draft, Position
from tests.chance import examples
from tests.conftest import Disk
from tests.contracts.test_log import append, check_counts, drafts, offsets, read_all
from tests.log.sqlite.home import Home, fill, settled
from tests.log.sqlite.processes import crash, goes_on, swept
from tests.log.sqlite.worker.in_process import rows

pytestmark = pytest.mark.slow

LONG = examples(40_000, 400_000)
"""How many are published to a log that keeps about 5,000 of them."""


# ---- the retention ----


@pytest.mark.parametrize(
    ("bounds", "age"),
    [({"count": 5_000}, 0), ({"size": 2_500_000}, 0), ({"age": 5.0}, 1)],
    ids=["count", "bytes", "age"],
)
async def test_the_retention_bounds_the_file(home: Home, bounds: dict[str, Any], age: int):
    log = await home.open(**bounds)

    def draft(number: int) -> Draft:
        home.clock.now += age / 1_000
        return Draft.of(f"{number:0100}", topic=f"user/{number % 100}")

    await fill(log, LONG, draft)
    assert log.bounds().newest.offset == LONG
    assert 1_000 <= log.bounds().kept <= 6_500
    assert home.size < 8_000_000
    first = log.bounds().oldest.offset
    assert offsets(await read_all(log, 0, ["user/*"])) == list(range(first, LONG + 1))


async def test_the_file_is_bounded_with_ever_new_topics_too(home: Home):
    log = await home.open(count=5_000)
    await fill(log, LONG, lambda number: Draft.of("x", topic=f"session/{number:032}"))
    assert home.size < 24_000_000, "5,000 notifications, what is remembered of topics, and the write-ahead log"
    assert home.ask("SELECT count(*) FROM topic")[0][0] == 5_000


async def test_the_file_remembers_no_more_keys_than_count(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.sqlite.log.KEY_COUNT", 10_000)
    log = await home.open(count=5_000)
    await fill(log, 30_000, lambda number: Draft.of("x", key=str(number)))
    assert 10_000 <= home.ask("SELECT count(*) FROM key")[0][0] <= 11_000, "10,000 count, the rest is on its way out"


async def test_the_file_remembers_no_more_keys_than_fit(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hub.log.sqlite.log.KEY_BYTES", 2_000_000)
    log = await home.open(count=1_000)
    topics = [f"{place}".ljust(200, "t") for place in range(4)]
    for start in range(0, 12_000, 1_000):
        home.clock.now += 1
        drafts = [Draft.of("x", key=f"{n:05}".ljust(256, "k"), topics=topics) for n in range(start, start + 1_000)]
        await log.append(drafts)[-1]
    assert 1_000_000 < home.ask("SELECT total(length(key) + length(topics)) FROM key")[0][0] < 2_000_000
    log = await home.restart(log, "closed", count=1_000)
    newest, oldest = (Draft.of("x", key=f"{n:05}".ljust(256, "k")) for n in (11_999, 0))
    assert [receipt.repeated for receipt in log.append([newest, oldest])] == [True, False]


async def test_a_lower_bound_takes_effect_after_a_restart(home: Home):
    log = await home.open()
    await fill(log, 3_000, Draft.of)
    log = await home.restart(log, "closed", count=10)
    async with asyncio.timeout(10):
        while log.bounds().kept > 10:
            log.trim()
            await asyncio.sleep(0)
    assert offsets(await read_all(log, 0, ["**"])) == list(range(2_991, 3_001))
    assert log.trimmed(["notifications"]) == 2_990


async def test_the_file_levels_off(home: Home):
    log = await home.open(count=500)
    sizes: list[int] = []

    def draft(number: int) -> Draft:
        if number % 1_000 == 0:
            sizes.append(home.size)
        return Draft.of(f"{number:0300}", topics=["all", f"user/{number % 100}"])

    for number in range(30_000):
        receipt = log.append([draft(number)])[0]
        if number % 50 == 0:  # commits of many sizes
            await receipt
    await receipt
    assert log.bounds().kept == 500
    assert max(sizes[15:]) < max(sizes[:15]) * 1.1 < 24_000_000, "the write-ahead log is most of it"
    assert home.path.stat().st_size < 3_000_000
    await log.aclose()
    assert home.size < 3_000_000


async def test_a_file_with_new_smaller_bounds_gives_space_back_step_by_step_while_publishes_are_confirmed(home: Home):
    log = await home.open()
    await fill(log, 20_000, lambda number: Draft.of("x" * 500, topics=["all", f"user/{number % 100}"]))
    await log.aclose()
    big = home.path.stat().st_size
    assert big > 10_000_000
    log = await home.open(count=500)
    assert log.bounds().kept == 20_000, "opening waits for nothing of it"
    steps: list[int] = []
    published = 0
    async with asyncio.timeout(60):
        while log.bounds().kept > 500 or free_pages(home) > 300:
            before = log.bounds().kept
            log.trim()
            await asyncio.sleep(0)  # the sweep comes first, and goes no further than a step once there is a publish
            (position,) = await settled(log.append(drafts("all", size=500)))
            assert isinstance(position, Position)
            steps.append(before - log.bounds().kept)
            published += 1
    assert published > 20
    assert max(steps) < 2_000
    await log.aclose()
    assert home.path.stat().st_size < big / 5
    log = await home.open(count=500)
    assert offsets(await read_all(log, 0, ["all"])) == list(range(20_000 + published - 499, 20_000 + published + 1))


def free_pages(home: Home) -> int:
    return int(home.ask("PRAGMA freelist_count")[0][0])


# ---- bounds of topics ----


async def test_bounds_of_topics_apply_to_what_an_old_file_has_of_them(home: Home):
    log = await home.open()
    await fill(log, 9_000, lambda number: Draft.of(number, topics=[f"state/{number % 700}", f"room/{number % 3}"]))
    await fill(log, 900, lambda number: Draft.of(number, topic=f"state/{number % 300}"))
    log = await home.restart(log, "closed", topics={"state/*": 1})
    assert log.bounds().kept == 9_900, "opening waits for nothing of it"
    outcomes: list[Position | LogUnavailable] = []
    while log.bounds().kept > 9_301:
        log.trim()
        outcomes += await settled(log.append(drafts("state/299")))
    assert all(isinstance(each, Position) for each in outcomes)
    await swept(log)
    newest = {f"state/{n}": 8_400 + n + 1 if n < 600 else 7_700 + n + 1 for n in range(700)}
    newest |= {f"state/{n}": 9_600 + n + 1 for n in range(299)} | {"state/299": log.bounds().newest.offset}
    for topic in ("state/0", "state/298", "state/299", "state/300", "state/599", "state/600", "state/699"):
        assert offsets(await read_all(log, 0, [topic])) == [newest[topic]], topic
    assert offsets(await read_all(log, 0, ["state/*"])) == sorted(newest.values())
    assert len(await read_all(log, 0, ["room/0"])) == 3_000
    assert log.trimmed(["state/*"]) == log.bounds().newest.offset - 1
    assert log.trimmed(["state/300"]) == 8_001
    assert log.trimmed(["room/*"]) == 0
    await check_counts(log)


async def test_bounds_of_topics_that_are_gone_leave_no_place_behind(home: Home):
    log = await home.open(topics={"state/*": 1})
    await append(log, "state/a,room", "state/a")
    await append(log, *(f"more/{number}" for number in range(300)))
    log = await home.restart(log, "closed")
    for wanted in (["state/a"], ["state/*"], ["state/a", "more/*"]):
        found = offsets(await read_all(log, 0, wanted))
        assert found[:1] == [2], "by index and when walking"
    assert offsets(await read_all(log, 0, ["room", "more/*"]))[:1] == [1]


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_restart_keeps_what_topics_lost_to_bounds_of_their_own(home: Home, how: str):
    bounds = {"state/**": 1}
    log = await home.open(topics=bounds)
    (first, *_) = log.append(drafts("state/a", key="k") + drafts("state/a", "state/b", "state/b/c"))
    await first
    await append(log, "state/b")
    log = await home.restart(log, how, topics=bounds)
    assert [log.trimmed([each]) for each in ("state/a", "state/*", "state/**", "state/b/*", "**")] == [1, 3, 3, 0, 3]
    (again,) = log.append(drafts("state/a", key="k"))
    assert (again.repeated, (await again).offset) == (True, 1), "the key outlives what it was used for"
    await append(log, "state/a", "state/b/c")
    assert offsets(await read_all(log, 0, ["**"])) == [5, 6, 7]
    assert offsets(await read_all(log, 0, ["state/**"], latest=True)) == [5, 6, 7]
    assert [log.trimmed([each]) for each in ("state/a", "state/b", "state/b/c", "**")] == [2, 3, 4, 4]
    await check_counts(log)


def test_topics_that_were_to_be_held_to_a_new_bound_still_are_after_a_commit_that_failed(
    write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    before = write()
    before.append(rows(1, "a", "a", "a"), [], 0.0)
    before.close()
    writer = write(**{"*": 1})

    def full(now: float) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(writer, "_forget", full)
        with pytest.raises(sqlite3.OperationalError):
            writer.append([], [], 0.0)
    assert writer.state()["kept"] == 3
    answer = writer.append([], [], 0.0)
    assert (answer["kept"], answer["topics"]) == (1, [("a", 2)])


def test_a_topic_keeps_its_bound_when_the_writer_meets_more_topics_than_it_remembers(
    write: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hub.log.sqlite.worker.writer.KNOWN_TOPICS", 3)
    writer = write(**{"*": 2})
    writer.append(rows(1, "a", "a"), [], 0.0)
    answer = writer.append(rows(3, "a", "b", "c", "d", "a", "e", "f", "a"), [], 0.0)
    assert dict(answer["topics"]) == {"a": 3}
    assert answer["kept"] == 7
    assert writer.append(rows(11, "a"), [], 0.0)["kept"] == 7


# ---- a full disk ----


async def test_a_full_disk_fails_what_has_no_room_and_the_log_goes_on_when_there_is_some(disk: Disk, home: Home):
    home.path = disk.path / "hub.db"
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    outcomes: list[Position | LogUnavailable] = []
    while sum(isinstance(each, LogUnavailable) for each in outcomes) < 100:
        outcomes += await settled(log.append(drafts(*["a"] * 5, size=2_000)))
    confirmed = [each.offset for each in outcomes if isinstance(each, Position)]
    assert len(confirmed) > 100
    assert any("full" in each.why for each in outcomes if isinstance(each, LogUnavailable))
    assert offsets(await read_all(log, 0, ["a"])) == announced == confirmed
    disk.grow(20)
    confirmed.append(await goes_on(log))
    confirmed += await append(log, *["a"] * 100, size=2_000)
    assert offsets(await read_all(log, 0, ["**"])) == announced == confirmed == sorted(set(confirmed))
    log = await home.restart(log, "killed")
    assert offsets(await read_all(log, 0, ["**"])) == confirmed
    await log.aclose()


async def test_a_hub_may_be_started_anew_on_a_full_disk_and_goes_on_when_there_is_room(disk: Disk, home: Home):
    home.path = disk.path / "hub.db"
    log = await home.open()
    while not any(isinstance(each, LogUnavailable) for each in await settled(log.append(drafts("a", size=20_000)))):
        pass
    disk.fill()
    kept = offsets(await read_all(log, 0, ["a"]))
    assert kept
    await crash(log)
    try:
        log = await home.open()
    except LogUnavailable as error:
        assert "full" in str(error) or "No space" in str(error)  # noqa: PT017 - both are right, a crash is not
    disk.grow(20)
    log = await home.restart(log, "closed")
    assert offsets(await read_all(log, 0, ["a"])) == kept
    assert (await goes_on(log)) == kept[-1] + 1
    await log.aclose()


# ---- its end ----


async def test_a_closed_log_leaves_one_file_without_a_write_ahead_log(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    assert not home.path.with_name("hub.db-wal").exists()
    assert home.ask("SELECT count(*) FROM notification") == [(3,)]
