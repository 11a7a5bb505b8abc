"""A log as JSON lines: what goes out comes back as the same log, and what is cut or wrong touches nothing."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import InvalidArchive, LogNotEmpty, LogUnavailable, TooLarge
from hub.log.archive import format as archive_format
from hub.log.archive.format import Contents, last_line, line, lines, read
from hub.log.archive.spool import Spool
from hub.log.log import MovableLog
from hub.log.memory import MemoryLog
from hub.log.sqlite.log import SQLiteLog
from hub.log.sqlite.snapshot import snapshot
from hub.log.trimmed import TrimmedState
from hub.notification import Draft, Notification, Position
from hub.topics import EVERY_TOPIC
from tests.chance import examples
from tests.contracts.test_log import Clock, append, offsets, read_all, trimmed

EPOCH = "8e844e1e90"


async def exported(log: MovableLog) -> bytes:
    """Return the archive of *log*."""
    return b"".join([some async for some in lines(log, log.bounds().newest.offset)])


async def adopt(log: MovableLog, archive: bytes) -> Contents:
    """Let *log* take over *archive* the way `hub history import` does."""
    spool = Spool(io.BytesIO(archive))
    contents = await spool.verify()
    await log.adopt(contents.epoch, contents.newest, contents.trimmed, spool.history())
    return contents


async def everything(log: MovableLog) -> list[Notification]:
    """Return all that *log* has; tags without an entry are as good as none."""
    return [each._replace(tags=each.tags or None) for each in await read_all(log, 0, EVERY_TOPIC)]


def file_log(path: Path, clock: Clock | None = None, **bounds: Any) -> SQLiteLog:
    return SQLiteLog(path, **{"count": 10**6, "size": 10**9, "age": None, "clock": clock or Clock(), **bounds})


async def example(**bounds: Any) -> MemoryLog:
    """Return a log with a bit of everything, some of it lost."""
    log = MemoryLog(epoch=EPOCH, clock=Clock(), **{"count": 5, "topics": {"state/**": 1}, **bounds})
    await append(log, "a", "state/x", "state/x,b", "state/x", "c", "a", "b", "b")
    log.append([Draft.of("两行\r\nx", topic="a", type="t", retry=7, private=True, tags={"k": 1.5})])
    return log


# ---- out ----


async def test_an_archive_is_a_line_for_each_notification_between_a_first_and_a_last_one():
    log = MemoryLog(epoch=EPOCH, count=2, clock=Clock())
    await append(log, "a")
    log.append([Draft.of({"amount": 99.5}, topic="a")])
    log.append([Draft.of("two\nlines", topics=["a", "b"], type="t", retry=5, private=True, tags={"k": None})])
    assert (await exported(log)).decode() == (
        '{"hub":"history","version":1,"epoch":"8e844e1e90"}\n'
        '{"id":"8e844e1e90-2","topics":["a"],"data":{"amount":99.5},"type":null,"retry":null,"private":false,'
        '"tags":null,"at":1700000000.0}\n'
        '{"id":"8e844e1e90-3","topics":["a","b"],"data":"two\\nlines","type":"t","retry":5,"private":true,'
        '"tags":{"k":null},"at":1700000000.0}\n'
        '{"newest":3,"notifications":2,"lost":{"swept":1,"topics":{"a":1},"forgotten":0}}\n'
    )


async def test_what_goes_while_it_is_exported_is_known_to_be_lost():
    log = MemoryLog(count=3_000)
    await append(log, *["a"] * 3_000)
    export = lines(log, 3_000)
    archive = b"".join([await anext(export), await anext(export)])  # the first page has been read
    await append(log, *["b"] * 2_500)
    archive += b"".join([some async for some in export])
    other = MemoryLog()
    contents = await adopt(other, archive)
    assert (contents.newest, contents.number) == (3_000, 1_500)
    assert offsets(await everything(other)) == [*range(1, 1_001), *range(2_501, 3_001)]
    assert [other.trimmed(["a"], after) for after in (999, 2_499, 2_500)] == [2_500, 2_500, 0]
    assert other.trimmed(["**"], 1_000) == 2_500


async def test_what_is_lost_beyond_the_newest_counts_up_to_it():
    line = last_line(5, 0, TrimmedState(9, {"a": 3, "b": 7}, 6))
    assert json.loads(line)["lost"] == {"swept": 5, "topics": {"a": 3, "b": 5}, "forgotten": 5}
    assert json.loads(last_line(0, 0, TrimmedState(9, {"a": 3}, 6)))["lost"] == {
        "swept": 0,
        "topics": {},
        "forgotten": 0,
    }


# ---- there and back ----

names = st.sampled_from(["a", "b", "a/b", "a/c", "b/c", "ü", "user/7", "ai"])
texts = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
drafts = st.builds(
    Draft.of,
    st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)),
    topics=st.lists(names, min_size=1, max_size=3),
    type=st.none() | st.sampled_from(["t", "order.created", "ü ü"]),
    retry=st.none() | st.integers(0, 86_400_000),
    private=st.booleans(),
    tags=st.none()
    | st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), scalars, max_size=3),
)
batches = st.lists(st.tuples(st.lists(drafts, min_size=1, max_size=4), st.floats(0, 10)), max_size=10)
limits = st.dictionaries(names | st.sampled_from(["a/*", "**"]), st.integers(1, 3), max_size=2)
WANTED = ["a", "b", "a/b", "never", "*", "a/*", "**", "user/*"]


async def filled(batches: Sequence[tuple[list[Draft], float]], **bounds: Any) -> MemoryLog:
    clock = Clock()
    log = MemoryLog(clock=clock, **bounds)
    for batch, seconds in batches:
        clock.now += seconds
        log.append(batch)
    return log


async def check_the_same(log: MovableLog, other: MovableLog) -> None:
    assert log.bounds() == other.bounds()
    assert await everything(log) == await everything(other)
    newest = log.bounds().newest.offset
    for wanted in WANTED:
        gone = [log.trimmed([wanted], after) for after in range(newest + 1)]
        assert gone == [other.trimmed([wanted], after) for after in range(newest + 1)]


@pytest.mark.slow
@settings(deadline=None)
@given(batches=batches, count=st.integers(1, 30), limits=limits)
def test_any_log_is_the_same_in_the_memory_of_another(
    batches: list[tuple[list[Draft], float]], count: int, limits: dict[str, int]
):
    async def move() -> None:
        log = await filled(batches, count=count, topics=limits)
        other = MemoryLog()
        await adopt(other, await exported(log))
        await check_the_same(other, log)
        assert await exported(other) == await exported(log)

    asyncio.run(move())


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(5, 50))  # each starts four processes
@given(batches=batches, count=st.integers(1, 30), limits=limits)
def test_any_log_is_the_same_in_a_file_and_back_in_memory(
    batches: list[tuple[list[Draft], float]], count: int, limits: dict[str, int]
):
    async def move(path: Path) -> None:
        log = await filled(batches, count=count, topics=limits)
        other, back = file_log(path), MemoryLog()
        try:
            await other.open()
            await adopt(other, await exported(log))
            await check_the_same(other, log)
            await adopt(back, await exported(other))
            await check_the_same(back, log)
        finally:
            await other.aclose()
        await adopt(again := MemoryLog(), b"".join(snapshot(path)))
        await check_the_same(again, log)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(move(Path(folder) / "hub.db"))


async def test_a_log_that_is_smaller_keeps_the_newest_and_knows_what_it_let_go():
    log = MemoryLog()
    await append(log, *"abababab")
    other = MemoryLog(count=3)
    await adopt(other, await exported(log))
    assert offsets(await everything(other)) == [6, 7, 8]
    assert (other.trimmed(["a"], 3), other.trimmed(["b"], 4), other.trimmed(["**"], 4)) == (5, 0, 5)


async def test_what_was_lost_stays_known_when_older_ones_go_later():
    log = MemoryLog()
    kept = [Notification.accept(Draft.of("x", topic="a"), Position(EPOCH, offset), 0.0) for offset in (1, 2, 9)]
    first = archive_format.first_line(EPOCH)
    await adopt(log, first + b"".join(map(line, kept)) + last_line(9, 3, TrimmedState(8, {"a": 8}, 0)))
    small = MemoryLog(count=2)
    await adopt(small, await exported(log))
    assert offsets(await everything(small)) == [2, 9]
    assert small.trimmed(["**"], 2) == 8


async def test_the_ids_go_on_where_they_were():
    log = await example()
    other = MemoryLog()
    await adopt(other, await exported(log))
    assert other.epoch == EPOCH
    assert await append(other, "a") == [log.bounds().newest.offset + 1]


async def test_a_history_in_which_nothing_is_left_moves_too():
    log = MemoryLog(age=1, clock=(clock := Clock()))
    await append(log, "a", "b")
    clock.now += 2
    await trimmed(log, lambda: log.bounds().kept == 0)
    other = MemoryLog()
    contents = await adopt(other, await exported(log))
    assert (contents.newest, contents.number) == (2, 0)
    assert other.bounds() == log.bounds()
    assert (other.trimmed(["a"]), other.trimmed(["c"]), other.trimmed(["**"])) == (1, 0, 2)


async def test_a_large_notification_takes_a_large_line():
    log = MemoryLog()
    log.append([Draft.of("\x01" * 1024 * 1024), Draft.of("\\" * 1024 * 1024)])
    other = MemoryLog()
    await adopt(other, await exported(log))
    assert await everything(other) == await everything(log)


async def test_a_last_line_with_all_topics_that_are_remembered_is_not_too_long():
    topics = {f"{number:05}" + '"' * 251: 1 for number in range(20_000)}
    contents = list(read([archive_format.first_line(EPOCH), last_line(1, 0, TrimmedState(1, topics, 1))]))
    assert contents == [Contents(EPOCH, 1, 0, TrimmedState(1, topics, 1))]


# ---- cut ----


async def test_what_is_cut_at_any_byte_is_refused():
    whole = await exported(await example())
    assert (await Spool(io.BytesIO(whole)).verify()).number == 5
    for place in range(len(whole)):
        with pytest.raises(InvalidArchive):
            await Spool(io.BytesIO(whole[:place])).verify()


@pytest.mark.parametrize("home", ["memory", "sqlite"])
async def test_what_loses_a_line_while_it_is_taken_over_touches_nothing(home: str, tmp_path: Path):
    whole = await exported(await example())
    log: MovableLog = MemoryLog() if home == "memory" else file_log(tmp_path / "hub.db")
    await log.open()
    try:
        before = (log.epoch, log.bounds(), log.trimmed_state())
        file = io.BytesIO(whole)
        spool = Spool(file)
        contents = await spool.verify()
        file.truncate(len(whole) - 1)
        with pytest.raises(InvalidArchive):
            await log.adopt(contents.epoch, contents.newest, contents.trimmed, spool.history())
        assert (log.epoch, log.bounds(), log.trimmed_state()) == before
        await adopt(log, whole)
        assert log.epoch == EPOCH
        with pytest.raises(LogNotEmpty):
            await adopt(log, whole)
    finally:
        await log.aclose()


async def test_a_trim_that_is_due_comes_before_a_history_that_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    log = file_log(tmp_path / "hub.db")
    await log.open()
    spool = Spool(io.BytesIO(await exported(await example())))
    contents = await spool.verify()
    log.trim()
    await log.adopt(contents.epoch, contents.newest, contents.trimmed, spool.history())
    assert log.epoch == EPOCH
    await log.aclose()
    assert not caplog.records


# ---- wrong ----


def parts() -> list[dict[str, Any]]:
    """Return the lines of a small archive, as JSON objects."""
    both = ({"id": f"{EPOCH}-{offset}", "topics": ["a"], "data": 1, "type": None, "retry": None} for offset in (2, 4))
    rest = {"private": False, "tags": None, "at": 1.5}
    lost = {"swept": 1, "topics": {"a": 1}, "forgotten": 0}
    return [
        {"hub": "history", "version": 1, "epoch": EPOCH},
        *({**each, **rest} for each in both),
        {"newest": 4, "notifications": 2, "lost": lost},
    ]


def as_lines(parts: Sequence[object]) -> list[bytes]:
    return [json.dumps(each).encode() + b"\n" for each in parts]


def refusal(lines: Sequence[bytes]) -> str:
    with pytest.raises(InvalidArchive) as refused:
        list(read(lines))
    return str(refused.value)


def test_the_lines_of_the_tests_are_right():
    *found, contents = read(as_lines(parts()))
    assert [each.id for each in found if isinstance(each, Notification)] == [f"{EPOCH}-2", f"{EPOCH}-4"]
    assert contents == Contents(EPOCH, 4, 2, TrimmedState(1, {"a": 1}, 0))


@pytest.mark.parametrize(
    ("number", "field", "value", "why"),
    [
        (1, "hub", "other", "hub: is not 'history'"),
        (1, "version", 2, "version: is not 1"),
        (1, "epoch", "a-b", "epoch: is not"),
        (1, "epoch", "x" * 33, "epoch: is not"),
        (1, "epoch", None, "epoch: is not"),
        (2, "id", f"{EPOCH}-02", "id: is not 8e844e1e90- and an offset"),
        (2, "id", "0123456789-2", "id: is not 8e844e1e90- and an offset"),
        (2, "id", 2, "id: is not 8e844e1e90- and an offset"),
        (2, "id", f"{EPOCH}-0", "id: is not beyond 8e844e1e90-0"),
        (3, "id", f"{EPOCH}-2", "id: is not beyond 8e844e1e90-2"),
        (2, "topics", [], "topics: is empty"),
        (2, "topics", None, "topics: is not a list"),
        (2, "topics", "a", "topics: is not a list"),
        (2, "topics", ["a/*"], "topics: 'a/*' is a pattern"),
        (3, "data", "\ud800", "data: is not valid UTF-8"),
        (3, "data", "x" * (1024 * 1024 + 1), "data: larger than 1,048,576 bytes"),
        (3, "type", "hub.open", "type: begins with 'hub.'"),
        (3, "type", 1, "type: is not a string"),
        (3, "retry", -1, "retry: is not a whole number"),
        (3, "private", None, "private: is neither true nor false"),
        (3, "tags", [], "tags: is not an object"),
        (3, "tags", {"a": float("inf")}, "tags: a is not a finite number"),
        (3, "at", "now", "at: is not a number of seconds"),
        (3, "at", float("nan"), "at: is not a number of seconds"),
        (3, "at", 1e12, "at: is not a number of seconds"),
        (3, "at", True, "at: is not a number of seconds"),
        (3, "key", "k", "key: unknown field"),
        (4, "newest", 3, "newest: is not an offset from 4 to"),
        (3, "id", f"{EPOCH}-{10**15 + 1}", "id: is beyond 8e844e1e90-1000000000000000: a log has to have room"),
        (4, "newest", 10**15 + 1, "newest: is not an offset from 4 to"),
        (4, "newest", None, "newest: is not an offset from 4 to"),
        (4, "notifications", 3, "notifications: is not 2"),
        (4, "lost", [], "lost: is not a JSON object"),
        (4, "lost", {"swept": 5, "topics": {}, "forgotten": 0}, "lost.swept: is not an offset from 0 to 4"),
        (4, "lost", {"swept": 0, "topics": {}, "forgotten": -1}, "lost.forgotten: is not an offset from 0 to 4"),
        (4, "lost", {"swept": 0, "topics": {"a": 5}, "forgotten": 0}, "lost.topics.a: is not an offset from 1 to 4"),
        (4, "lost", {"swept": 0, "topics": {"*": 1}, "forgotten": 0}, "lost.topics: '*' is a pattern"),
        (4, "lost", {"swept": 0, "topics": [], "forgotten": 0}, "lost.topics: is not a JSON object"),
        (4, "lost", {"swept": 0, "topics": {}}, "lost.forgotten: is missing"),
        (4, "more", 1, "more: unknown field"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(number: int, field: str, value: object, why: str):
    changed = parts()
    changed[number - 1][field] = value
    assert refusal(as_lines(changed)).startswith(f"line {number}: {why}")


@pytest.mark.parametrize("field", ["id", "topics", "data", "type", "retry", "private", "tags", "at"])
def test_a_missing_field_is_named_with_its_line(field: str):
    changed = parts()
    del changed[2][field]
    assert refusal(as_lines(changed)) == f"line 3: {field}: is missing"


def test_a_line_that_is_no_json_object_is_named():
    good = as_lines(parts())
    assert refusal([b"\n", *good[1:]]).startswith("line 1: is not JSON in UTF-8")
    assert refusal([good[0], b"\xff\n", *good[2:]]).startswith("line 2: is not JSON in UTF-8")
    assert refusal([good[0], b"[" * 100_000 + b"\n", *good[2:]]).startswith("line 2: is")
    assert refusal([*good[:3], b"[]\n"]) == "line 4: is not a JSON object"
    assert refusal([]) == "line 1: is missing: the archive was cut short"
    assert refusal(good[:1]) == "line 2: is missing: the archive was cut short"
    assert refusal([*good, b"\n"]) == "line 5: comes after the last one"
    assert refusal([*good, good[1]]) == "line 5: comes after the last one"
    assert refusal([good[0], good[3]]).startswith("line 2: notifications: is not 0")


async def test_a_line_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch):
    file = io.BytesIO(as_lines(parts())[0] + b" " * (archive_format.MAX_LINE_BYTES + 1_000_000))
    with pytest.raises(InvalidArchive, match="line 2: is longer than 16,777,216 bytes"):
        await Spool(file).verify()


# ---- the spool ----


async def test_a_spool_takes_no_more_than_its_bound():
    spool = Spool(bound=10)
    await spool.write(b"x" * 10)
    with pytest.raises(TooLarge):
        await spool.write(b"x")
    spool.close()


def test_a_spool_without_room_says_so():
    with Path("/dev/full").open("r+b", buffering=0) as full, pytest.raises(LogUnavailable, match="No space left"):
        asyncio.run(Spool(cast(BinaryIO, full)).write(b"x"))


# ---- a file, read without a hub ----


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[SQLiteLog]:
    """A log in a file that somebody has open, with a bit of everything."""
    log = file_log(tmp_path / "hub.db", count=5, topics={"state/**": 1})
    await log.open()
    await append(log, "a", "state/x", "state/x,b", "state/x", "c", "a", "b", "b")
    await log.append([Draft.of("两行\r\nx", topic="a", type="t", retry=7, private=True, tags={"k": 1.5})])[0]
    yield log
    await log.aclose()


async def test_a_file_that_a_hub_has_open_can_be_read(home: SQLiteLog, tmp_path: Path):
    assert b"".join(snapshot(tmp_path / "hub.db")) == await exported(home)
    assert await append(home, "a") == [10]


async def test_a_file_is_read_as_of_one_moment(home: SQLiteLog, tmp_path: Path):
    before = await exported(home)
    reading = snapshot(tmp_path / "hub.db")
    some = next(reading)
    await append(home, *["b"] * 20)
    assert some + b"".join(reading) == before


async def test_a_closed_file_can_be_read_and_nothing_is_left_beside_it(home: SQLiteLog, tmp_path: Path):
    before = await exported(home)
    await home.aclose()
    there = content(tmp_path)
    assert b"".join(snapshot(tmp_path / "hub.db")) == before
    assert content(tmp_path) == there


def content(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def test_a_file_that_was_copied_gives_its_history_under_the_epoch_it_has(home: SQLiteLog, tmp_path: Path):
    await home.aclose()
    shutil.copy(tmp_path / "hub.db", tmp_path / "copy.db")
    copy = file_log(tmp_path / "copy.db")
    await copy.open()
    await append(copy, "a")
    whole = await exported(copy)
    await copy.aclose()
    assert copy.epoch != home.epoch
    assert b"".join(snapshot(tmp_path / "copy.db")) == whole
    other = MemoryLog()
    await adopt(other, whole)
    assert [each.epoch for each in {each.position for each in await everything(other)}] == [copy.epoch] * 6
    assert all(each.id.encode() in each.chunk for each in await everything(other))


def test_a_file_that_is_no_log_is_refused(tmp_path: Path):
    (tmp_path / "text.db").write_text("no log " * 1_000)
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE other (x)")
    database.close()
    for name, why in (("text", "not a database"), ("other", "not the log of a hub"), ("none", "no such file")):
        with pytest.raises(LogUnavailable, match=why):
            list(snapshot(tmp_path / f"{name}.db"))
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(("version", "whose"), [(1, "an older hub"), (99, "a newer hub")])
async def test_a_file_of_another_version_is_refused(home: SQLiteLog, tmp_path: Path, version: int, whose: str):
    await home.aclose()
    with sqlite3.connect(tmp_path / "hub.db") as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    with pytest.raises(LogUnavailable, match=whose):
        list(snapshot(tmp_path / "hub.db"))
