"""The text that a file keeps of each notification, and the frames that the reader process makes of it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.log.log import Located
from hub.log.sqlite.log import SQLiteLog, _row
from hub.log.sqlite.snapshot import snapshot
from hub.log.sqlite.worker.file import APPLICATION_ID, MIGRATIONS
from hub.log.sqlite.worker.pipe import COLUMNS
from hub.log.sqlite.worker.reader import Reader
from hub.notification import MAX_OFFSET, Draft, Notification, Position
from tests.contracts.test_log import drafts, read_all
from tests.log.test_epochs import copied

Open = Callable[[Path], Awaitable[SQLiteLog]]

WITH_CHUNKS = 2  # the version of a file that kept chunks
TEXTS = ["x", "two\nlines", "a\r\nb\rc\n", "\n", "", "ü", "data: x\nid: e-7", "{}"]


@pytest.fixture
async def open_log() -> AsyncIterator[Open]:
    opened: list[SQLiteLog] = []

    async def one(path: Path) -> SQLiteLog:
        log = SQLiteLog(path, count=10**6, size=10**9, age=None, clock=lambda: 1_700_000_000.0)
        await log.open()
        opened.append(log)
        return log

    yield one
    for log in opened:
        await log.aclose()


def accepted(texts: Sequence[str], epoch: str) -> list[Notification]:
    made = [Draft.of(text, topics=["t", f"n/{len(text)}"], type="ty\u0301pe", retry=7) for text in texts]
    made += [Draft.of({"n": texts}, topic="t"), Draft.of("x", topic="t", type="t"), Draft.of("x", topic="t", retry=0)]
    return [Notification.accept(each, Position(epoch, n), 1_700_000_000.0) for n, each in enumerate(made, 1)]


def left_with_chunks(path: Path, kept: Sequence[Notification], *, epoch: str, copied: int = 0) -> None:
    """Make a file as the hub before this one left it."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;")
        for script in MIGRATIONS[:WITH_CHUNKS]:
            database.executescript(script)
        database.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {WITH_CHUNKS};")
        for each in kept:
            *facts, text, _ = _row(each, each.size)
            row = (*facts, text if "\r" in each.text else None, each.chunk)
            database.execute(f"INSERT INTO notification ({COLUMNS}) VALUES ({','.join('?' * len(row))})", row)
            for topic in each.topics:
                database.execute("INSERT OR IGNORE INTO topic (name) VALUES (?)", (topic,))
                (id,) = database.execute("SELECT id FROM topic WHERE name = ?", (topic,)).fetchone()
                database.execute("INSERT INTO place VALUES (?, ?)", (id, each.position.offset))
        meta = {"epoch": epoch, "newest": len(kept), "kept": len(kept), "size": sum(each.size for each in kept)}
        for name, value in {**meta, "copied": copied}.items():
            database.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))
        database.commit()


async def frames(log: SQLiteLog) -> bytes:
    page = await log.frames(0, ["**"], upto=log.bounds().newest.offset)
    assert page.reached == log.bounds().newest.offset
    return page.payload


@pytest.mark.slow
async def test_a_file_keeps_the_text_and_no_frame(open_log: Open, tmp_path: Path):
    log = await open_log(tmp_path / "hub.db")
    await log.append([Draft.of(text, type="t") for text in TEXTS])[-1]
    assert [each.text for each in await read_all(log, 0, ["**"])] == TEXTS
    with closing(sqlite3.connect(tmp_path / "hub.db")) as database:
        found = database.execute("SELECT text, chunk FROM notification ORDER BY offset").fetchall()
    assert found == [(text, b"") for text in TEXTS]


@pytest.mark.slow
async def test_what_an_older_hub_kept_as_chunks_is_read_as_ever_beside_what_is_new(open_log: Open, tmp_path: Path):
    kept = accepted(TEXTS, "old0epoch0")
    path = tmp_path / "hub.db"
    left_with_chunks(path, kept, epoch="old0epoch0")
    log = await open_log(path)
    assert await frames(log) == b"".join(each.chunk for each in kept)
    assert await read_all(log, 0, ["**"]) == kept
    await log.append(drafts("t", "t"))[-1]
    history = await read_all(log, 0, ["t"])
    assert history[: len(kept)] == kept
    assert [each.position.offset for each in history] == list(range(1, len(kept) + 3))
    assert await frames(log) == b"".join(each.chunk for each in history)
    assert await log.locate(Position("old0epoch0", len(kept))) == Located(len(kept))
    await log.aclose()
    with closing(sqlite3.connect(path)) as database:
        chunks = [chunk for (chunk,) in database.execute("SELECT chunk FROM notification ORDER BY offset")]
    assert chunks == [*(each.chunk for each in kept), b"", b""], "nothing was written anew"
    assert len(list(snapshot(path))) == len(history) + 2


@pytest.mark.slow
async def test_a_copy_of_such_a_file_shows_its_own_epoch_everywhere(open_log: Open, tmp_path: Path):
    kept = accepted(TEXTS, "old0epoch0")
    left_with_chunks(tmp_path / "hub.db", kept, epoch="old0epoch0")
    log = await open_log(tmp_path / "hub.db")
    await log.append(drafts("t"))[-1]
    await log.aclose()
    copy = await open_log(copied(tmp_path / "hub.db", tmp_path / "copy" / "hub.db"))
    await copy.append(drafts("t"))[-1]
    history = await read_all(copy, 0, ["**"])
    assert copy.epoch != "old0epoch0"
    assert {each.position.epoch for each in history} == {copy.epoch}
    expected = [each.chunk for each in accepted(TEXTS, copy.epoch)]
    assert [each.chunk for each in history[: len(kept)]] == expected
    assert await frames(copy) == b"".join(each.chunk for each in history)
    assert await copy.locate(Position("old0epoch0", len(kept) + 1)) == Located(len(kept) + 1)


# ---- the frames that the reader makes ----


class Rows:
    """A reader without a file, for the frames it makes."""

    def __init__(self, epoch: str) -> None:
        self.reader = Reader.__new__(Reader)
        self.reader._epoch, self.reader._copied = epoch.encode(), 0

    def payload(self, notifications: Sequence[Notification]) -> bytes:
        rows = [(each.position.offset, "", 0, each.type, each.retry, each.text, b"") for each in notifications]
        return self.reader._payload(rows)


@settings(deadline=None)
@given(
    epoch=st.text("0123456789abcdefXYZ", min_size=1, max_size=32),
    parts=st.lists(
        st.tuples(
            st.integers(1, MAX_OFFSET) | st.sampled_from([9, 10, 99, 100, 10**17, MAX_OFFSET]),
            st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(TEXTS) | st.text("\r\n a"),
            st.none() | st.sampled_from(["t", "ü", "order.created"]),
            st.none() | st.integers(0, 10**6),
        ),
        max_size=6,
    ),
)
def test_the_reader_makes_the_frames_that_a_publish_makes(
    epoch: str, parts: list[tuple[int, str, str | None, int | None]]
):
    kept = [
        Notification.accept(Draft.of(text, type=type, retry=retry), Position(epoch, offset), 0.0)
        for offset, text, type, retry in sorted(parts, key=lambda part: part[0])
    ]
    assert Rows(epoch).payload(kept) == b"".join(each.chunk for each in kept)
