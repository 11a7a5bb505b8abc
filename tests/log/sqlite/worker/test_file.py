"""The file: one that is damaged, foreign, newer or older is refused, put aside or brought up to date."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hub.errors import LogUnavailable
from hub.eventstream import data_of, unchunk
from hub.log.search import topic_size
from hub.log.sqlite.log import SQLiteLog
from hub.log.sqlite.worker import file
from hub.log.sqlite.worker.file import APPLICATION_ID, MIGRATIONS, opened
from hub.log.sqlite.worker.pipe import COLUMNS
from hub.log.sqlite.worker.place import Place, Refused
from hub.log.trimmed import TrimmedState
from hub.notification import MAX_OFFSET, Draft, Notification, Position
from tests.chance import examples, seeds
from tests.contracts.test_log import append, drafts, offsets, read_all
from tests.log.sqlite.home import Home, change, numbered
from tests.log.sqlite.processes import crash, kill, processes, workers
from tests.web.client import until

pytestmark = pytest.mark.slow


# ---- one that is not ours ----


async def test_a_file_of_a_newer_hub_is_refused_and_left_alone(home: Home):
    await (await home.open()).aclose()
    change(home.path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = home.path.read_bytes()
    refusal = await home.refused()
    assert str(home.path) in refusal
    assert f"version {len(MIGRATIONS) + 1}" in refusal
    assert home.path.read_bytes() == before


async def test_a_file_whose_positions_no_id_can_name_is_refused(home: Home):
    log = await home.open()
    await append(log, "a")
    await log.aclose()
    set_newest(home.path, MAX_OFFSET)
    log = await home.open()
    with pytest.raises(LogUnavailable, match="no position left"):
        log.append(drafts("a"))
    await log.aclose()
    set_newest(home.path, MAX_OFFSET + 1)
    with pytest.raises(LogUnavailable, match="newest position is beyond"):
        await home.open()


def set_newest(path: Path, offset: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'newest'", (offset,))


async def test_another_sqlite_file_is_refused_and_left_alone(home: Home):
    change(home.path, "CREATE TABLE customer (name TEXT)", "INSERT INTO customer VALUES ('x')")
    before = home.ask("SELECT * FROM customer")
    refusal = await home.refused()
    assert str(home.path) in refusal
    assert "not the log of a hub" in refusal
    assert home.ask("SELECT * FROM customer") == before
    assert home.ask("SELECT count(*) FROM sqlite_master") == [(1,)]


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 1_000, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(home: Home, content: bytes):
    home.path.write_bytes(content)
    refusal = await home.refused()
    assert str(home.path) in refusal
    assert "not a SQLite file" in refusal
    assert home.path.read_bytes() == content


async def test_a_file_system_without_write_ahead_logs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    connect = sqlite3.connect

    def without_shared_memory(address: str, **options: Any) -> Any:
        return connect(f"{address}&vfs=unix-none", **options)

    monkeypatch.setattr("hub.log.sqlite.worker.file.sqlite3.connect", without_shared_memory)
    place = Place(str(tmp_path / "hub.db"), 0.0)
    with pytest.raises(Refused, match="can't hold a write-ahead log"):
        file.opened(place, "e")
    place.leave_nothing()
    place.close()
    assert not (tmp_path / "hub.db").exists()


# ---- one that is damaged ----


def overwrite_the_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 8)
        file.write(b"\xa5" * (size * 3 // 4))


def overwrite_a_page_with_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(bytes(4096))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_in_mid_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1_000)


def cut_off_a_few_bytes(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


@pytest.mark.parametrize(
    "damage",
    [overwrite_the_middle, overwrite_a_page_with_zeros, cut_in_half, cut_in_mid_page, cut_off_a_few_bytes],
)
async def test_a_damaged_file_is_put_aside_and_a_new_log_begins(
    home: Home, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
):
    log = await home.open()
    for start in range(0, 3_000, 100):
        await log.append(numbered(*range(start, start + 100)))[-1]
    await log.aclose()
    damage(home.path)
    damaged = home.path.read_bytes()
    again = await home.open()
    assert again.epoch != log.epoch
    assert (again.bounds().newest.offset, again.bounds().kept) == (0, 0)
    (aside,) = home.put_aside()
    assert aside.read_bytes() == damaged
    assert str(aside) in capfd.readouterr().err
    # The new one is a log like any other: what it keeps outlives its processes, and the old one takes nothing with it.
    assert await append(again, *"abc") == [1, 2, 3]
    third = await home.restart(again, "killed")
    assert third.epoch == again.epoch
    assert offsets(await read_all(third, 0, ["**"])) == [1, 2, 3]
    assert home.put_aside() == [aside]


@pytest.mark.parametrize("seed", seeds(4, 40))
async def test_a_file_that_was_cut_anywhere_is_put_aside(home: Home, seed: int):
    chance = random.Random(seed)
    log = await home.open()
    for _ in range(chance.choice([1, 20])):
        await log.append(drafts(*["a"] * chance.choice([1, 20]), size=chance.choice([10, 5_000])))[-1]
    await log.aclose()
    os.truncate(home.path, chance.randint(1, home.path.stat().st_size - 1))
    again = await home.open()
    assert again.epoch != log.epoch
    assert len(home.put_aside()) == 1
    assert await append(again, "a") == [1]


# ---- its write-ahead log ----


async def test_the_write_ahead_log_of_a_killed_writer_is_replayed(home: Home):
    log = await home.open()
    await append(log, *["a"] * 100)
    await kill(*workers(log))
    wal = home.path.with_name("hub.db-wal")
    assert wal.stat().st_size > 0, "nothing has been folded into the file yet"
    # A commit that the power cut off at its last byte: it was never confirmed, and everything before it counts.
    with wal.open("ab") as file:
        file.write(os.urandom(4096))
    log = await home.restart(log, "closed")
    assert offsets(await read_all(log, 0, ["a"])) == list(range(1, 101))
    assert await append(log, "a") == [101]


async def test_a_file_damaged_beside_its_write_ahead_log_is_put_aside_with_it(home: Home):
    log = await home.open()
    await append(log, *["a"] * 100)
    await kill(*workers(log))
    assert home.path.with_name("hub.db-wal").stat().st_size > 0
    home.path.write_bytes(home.path.read_bytes()[:100] + os.urandom(8_000))
    home.path.with_name("hub.db-wal").write_bytes(b"")
    await log.aclose()
    again = await home.open()
    assert again.epoch != log.epoch
    assert await append(again, "a") == [1]
    assert len(home.put_aside()) == 1


@pytest.mark.parametrize("seed", seeds(8, 60))
async def test_a_write_ahead_log_that_lost_its_end_is_noticed(home: Home, seed: int, capfd: pytest.CaptureFixture[str]):
    # What was confirmed is gone and its offsets will be given again: nobody may resume as if they were the same.
    chance = random.Random(seed)
    log = await home.open()
    for number in range(chance.choice([2, 10, 30])):
        await log.append(numbered(*range(chance.choice([1, 1, 20])), topic=f"t/{number % 7}"))[-1]
    before, bounds = await read_all(log, 0, ["**"]), log.bounds()
    await crash(log)
    damage_the_end(home.path.with_name("hub.db-wal"), chance)
    again = await home.open()
    after = await read_all(again, 0, ["**"])
    if again.epoch == log.epoch:
        assert (after, again.bounds()) == (before, bounds)
    elif after:
        assert "it goes on under a new epoch" in capfd.readouterr().err
        assert offsets(after) == list(range(1, again.bounds().newest.offset + 1))
        assert [without_id(each) for each in after] == [without_id(each) for each in before[: len(after)]]
        assert all(f"id: {again.epoch}-" in each.frame.decode() for each in after)
    assert await append(again, "a") == [len(after) + 1]
    bounds = again.bounds()
    third = await home.restart(again, "killed")
    assert (third.epoch, third.bounds()) == (again.epoch, bounds)


def damage_the_end(path: Path, chance: random.Random) -> None:
    """Cut, overwrite or remove what stands at the end of the file at *path*."""
    size = path.stat().st_size
    amount = min(size, chance.choice([1, 10, 1_000, 4_096, 8_192, chance.randint(1, size)]))
    match chance.choice(["cut", "noise", "zeros", "remove"]):
        case "cut":
            os.truncate(path, size - amount)
        case "remove":
            path.unlink()
        case how:
            with path.open("r+b") as file:
                file.seek(size - amount)
                file.write(chance.randbytes(amount) if how == "noise" else bytes(amount))


def without_id(notification: Notification) -> tuple[Any, ...]:
    return (notification.position.offset, notification.at, notification.topics, notification.data)


# ---- one of an older hub ----


TEXTS = [
    *["", "plain", "two\nlines", "\r", "\n", "\r\n", "a\rb\nc\r\nd\n\re", "ends\r\n", "\n\n", "data: x", ": x", " x "],
    *["id: e-1\nevent: x", "é 两行 𝄞", "nul\0inside", "\u2028\x85\x0b", "x" * 20_000, "é\r\n" * 3_000],
]


def dressed() -> list[Draft]:
    """Drafts with everything a draft can have."""
    return [
        Draft.of(
            {"ü": ["\0", "\r\n", 1.5, None]}, topics=["a", "b/c"], type="t", retry=0, private=True, tags={"k": "é\n"}
        ),
        Draft.of([], topic="b", type="id: x", retry=86_400_000),
        Draft.of("typed\r\n", topics=["b", "a", "c"], type="é: x", tags={"n": 1, "t": True, "none": None}),
        Draft.of("last", topic="b"),
    ]


def old_file(path: Path, drafts: Sequence[Draft], epoch: str = "old0epoch0") -> list[Notification]:
    """Make the file that a hub of version 1 left, and return what it kept."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(
            f"BEGIN; {MIGRATIONS[0]} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
        )
        kept: list[Notification] = []
        topics: dict[str, int] = {}
        for offset, draft in enumerate(drafts, 11):
            each = Notification.accept(draft, Position(epoch, offset), 1_700_000_000.0 + offset)
            kept.append(each)
            tags = json.dumps(each.tags, ensure_ascii=False) if each.tags else None
            row = (
                offset,
                each.at,
                "\n".join(each.topics),
                each.text,
                each.is_json,
                each.type,
                each.retry,
                each.private,
            )
            database.execute("INSERT INTO notification VALUES (?,?,?,?,?,?,?,?,?,?)", (*row, tags, each.size))
            for topic in each.topics:
                id = topics.setdefault(topic, len(topics) + 1)
                database.execute("INSERT OR IGNORE INTO topic VALUES (?, ?)", (id, topic))
                database.execute("INSERT INTO place VALUES (?, ?)", (id, offset))
        newest = kept[-1].position.offset
        facts = {"epoch": epoch, "newest": newest, "kept": len(kept), "size": sum(each.size for each in kept)}
        status = path.stat()
        facts |= {"trimmed": 10, "forgotten": 2, "home": f"{status.st_dev}:{status.st_ino}"}
        database.executemany("UPDATE meta SET value = ? WHERE name = ?", [(v, n) for n, v in facts.items()])
        database.executemany("INSERT INTO gone VALUES (?, ?)", [("a", 10), ("gone", 4)])
        database.execute("INSERT INTO key VALUES ('k', ?, 'a\nb/c', 1700000250.0)", (newest,))
        database.execute("COMMIT")
    return kept


async def check_migrated(home: Home, log: SQLiteLog, kept: list[Notification]) -> None:
    """Check that *log* has all that the hub of version 1 had *kept*."""
    topics = {topic for each in kept for topic in each.topics}
    size = sum(each.size for each in kept) + sum(map(topic_size, topics))
    assert log.bounds() == (kept[0].position, kept[-1].position, len(kept), size)
    found = await read_all(log, 0, ["**"])
    assert found == kept
    assert [each.chunk for each in found] == [each.chunk for each in kept], "byte for byte"
    assert [each.text for each in found] == [each.text for each in kept], "with the line ends it had"
    for topic in ("a", "b/c", "t/3"):
        assert await read_all(log, 0, [topic]) == [each for each in kept if topic in each.topics]
    assert log.trimmed_state() == TrimmedState(10, {"gone": 4, "a": 10}, 2)
    assert home.ask("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert home.ask("SELECT count(*) FROM sqlite_master WHERE name = 'old'") == [(0,)]


async def test_a_file_of_version_1_keeps_all_it_had(home: Home):
    written = [*(Draft.of(text, topics=["a", f"t/{n}"]) for n, text in enumerate(TEXTS)), *dressed()]
    kept = old_file(home.path, written)
    log = await home.open()
    assert log.epoch == "old0epoch0"
    await check_migrated(home, log, kept)
    (again,) = log.append(drafts("x", key="k"))
    assert (await again, again.repeated, again.topics) == (kept[-1].position, True, ("a", "b/c"))
    log = await home.restart(log, "killed")
    await check_migrated(home, log, kept)
    assert await append(log, "a") == [kept[-1].position.offset + 1]


@settings(max_examples=examples(50, 1_000), deadline=None)
@given(
    text=st.text(st.sampled_from("\r\n\0 ab:é𝄞"), max_size=30) | st.text(st.characters(exclude_categories=["Cs"])),
    type=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=10),
    retry=st.none() | st.integers(0, 86_400_000),
)
def test_a_frame_is_migrated_to_what_it_would_be_now(text: str, type: str | None, retry: int | None):
    assume(type != "error" and not (type or "").startswith("hub."))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hub.db"
        (kept,) = old_file(path, [Draft.of(text, type=type, retry=retry)])
        place = Place(str(path), 1.0)
        with contextlib.closing(opened(place, "new")) as database:
            (row,) = database.execute(f"SELECT {COLUMNS} FROM notification")
        place.close()
        assert row[-1] == kept.chunk
        assert (row[-2] if "\r" in text else data_of(unchunk(row[-1]))) == text


@pytest.mark.parametrize("pages", [1, pytest.param(300, marks=pytest.mark.torture), 2_000])
async def test_a_migration_that_was_killed_is_completed_by_the_next_start(home: Home, pages: int):
    kept = old_file(home.path, [Draft.of("x" * 300, topics=["a", f"t/{n % 10}"]) for n in range(30_000)])
    before = home.path.stat().st_size
    opening = asyncio.create_task(home.open())
    ahead = home.path.with_name("hub.db-wal")
    await until(lambda: opening.done() or (ahead.exists() and ahead.stat().st_size >= pages * 4_096))
    assert not opening.done(), "the migration was over before it could be killed"
    (writer,) = processes("writer", home.path)
    os.kill(writer, signal.SIGKILL)
    with pytest.raises(LogUnavailable):
        await opening
    assert home.path.stat().st_size == before
    log = await home.open()
    await check_migrated(home, log, kept)
    assert await append(log, "a") == [kept[-1].position.offset + 1]


async def test_an_old_file_that_was_copied_gets_an_epoch_of_its_own_as_well(home: Home, tmp_path: Path):
    kept = old_file(home.path, dressed())
    copied = tmp_path / "copy.db"
    shutil.copy2(home.path, copied)
    copy = await home.open(copied)
    assert copy.epoch != "old0epoch0"
    expected = [each.chunk.replace(b"old0epoch0", copy.epoch.encode()) for each in kept]
    assert [each.chunk for each in await read_all(copy, 0, ["**"])] == expected


# ---- a new epoch ----


@pytest.mark.parametrize("epoch", ["e", "e" * 32])
async def test_all_frames_of_a_copy_carry_its_own_epoch(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
):
    log = await home.open()
    written = [*(Draft.of(text, topics=["a", f"t/{n}"]) for n, text in enumerate(TEXTS)), *dressed()]
    await log.append(written)[-1]
    await log.aclose()
    copied = tmp_path / "copy.db"
    shutil.copy2(home.path, copied)
    monkeypatch.setattr("hub.log.sqlite.log.new_epoch", lambda: epoch)
    copy = await home.open(copied)
    assert copy.epoch == epoch
    await copy.append(written)[-1]
    expected = [
        Notification.accept(draft, Position(epoch, offset), home.clock.now)
        for offset, draft in enumerate(written * 2, 1)
    ]
    assert await read_all(copy, 0, ["**"]) == expected
    assert [each.text for each in await read_all(copy, 0, ["**"])] == [each.text for each in expected]
    assert await read_all(copy, 0, ["a"], latest=True) == [each for each in expected if "a" in each.topics][-1:]
    await copy.aclose()
    copy = await home.open(copied.rename(tmp_path / "moved.db"))
    assert [each.chunk for each in await read_all(copy, 0, ["**"])] == [each.chunk for each in expected]
