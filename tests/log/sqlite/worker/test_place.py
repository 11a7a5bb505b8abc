"""Which file it is: a remount, a move, a copy, a backup, another name, another file in its place."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hub.errors import LogUnavailable
from hub.log.sqlite import log as sqlite_log
from hub.log.sqlite.log import SQLiteLog
from hub.log.sqlite.worker.file import MIGRATIONS
from hub.log.sqlite.worker.place import Inode, Mark, Misplaced, Place, Refused
from tests.contracts.test_log import append, drafts, offsets, read_all
from tests.log.image import Image
from tests.log.sqlite.home import Home, change, left, settled
from tests.log.sqlite.processes import goes_on, kill, mended, pid, processes, workers
from tests.web.client import until

pytestmark = pytest.mark.slow


def lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def remounted(path: Path) -> None:
    """Have everything that is written down say another device, as after a reboot."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = '99' || value WHERE name = 'home'")
    lines = lock_of(path).read_text().split("\n")
    if len(lines) > 2 and lines[2]:
        token, device, *rest = lines[2].split()
        lines[2] = " ".join([token, f"99{device}", *rest])
        lock_of(path).write_text("\n".join(lines))


def left_by_an_older_hub(path: Path) -> None:
    """Take away what only this version writes."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM meta WHERE name IN ('token', 'born')")
    os.truncate(lock_of(path), 54)


def renewed(path: Path) -> None:
    """Put a copy in the place of the file: the same content, another inode."""
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)


# ---- the same log ----


async def test_a_remount_under_another_device_number_is_no_gap(home: Home):
    epoch = await left(home, "a", "b")
    remounted(home.path)
    log = await home.open()
    assert log.epoch == epoch
    assert await append(log, "a") == [3]


async def test_a_file_of_an_older_hub_is_no_gap(home: Home):
    epoch = await left(home, "a")
    left_by_an_older_hub(home.path)
    assert await left(home, "a") == epoch
    left_by_an_older_hub(home.path)
    remounted(home.path)
    assert await left(home, "a") == epoch, "an upgrade often comes with a new container"
    remounted(home.path)
    assert await left(home, "a") == epoch


async def test_an_older_hub_finds_what_it_knows(home: Home):
    epoch = await left(home, "a")
    status = home.path.stat()
    assert home.ask("SELECT value FROM meta WHERE name = 'home'") == [(f"{status.st_dev}:{status.st_ino}",)]
    noted, _, newest = lock_of(home.path).read_bytes()[:64].decode().partition(" ")
    assert (noted, newest.strip()) == (epoch, f"{1:020}")


async def test_a_folder_that_was_moved_holds_the_same_log(home: Home, tmp_path: Path):
    epoch = await left(home, "a")
    home.path = home.path.parent.rename(tmp_path / "moved") / "hub.db"
    assert await left(home, "a") == epoch


async def test_a_file_that_was_moved_stays_the_same_log(home: Home, tmp_path: Path):
    log = await home.open()
    await append(log, "a")
    await log.aclose()
    moved = home.path.rename(tmp_path / "moved.db")
    assert (await home.open(moved)).epoch == log.epoch


async def test_a_complete_copy_in_the_place_of_the_file_is_the_same_log(home: Home):
    epoch = await left(home, "a", "b")
    renewed(home.path)
    assert await left(home, "c") == epoch, "the lock, which never moved, knows that nothing is missing"
    assert home.ask("SELECT max(offset) FROM notification") == [(3,)]


async def test_a_commit_that_was_never_confirmed_is_no_loss(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    lock = home.path.with_name("hub.db.lock")
    assert lock.read_text().split()[:2] == [log.epoch, f"{3:020}"]
    lock.write_text(f"{log.epoch:32} {1:020}\n")  # as if it had been killed right after a commit
    again = await home.restart(log, "closed")
    assert (again.epoch, again.bounds().newest.offset) == (log.epoch, 3)
    lock.write_text("")
    assert (await home.restart(again, "closed")).epoch == log.epoch


async def test_a_start_that_was_refused_forgets_nothing_of_how_far_the_log_went(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    lock = home.path.with_name("hub.db.lock")
    before = lock.read_text()
    change(home.path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    await home.refused()
    assert lock.read_text() == before


# ---- another log ----


async def test_an_older_copy_put_in_the_place_of_the_file_begins_a_new_epoch(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    backup = home.path.read_bytes()
    log = await home.restart(log, "closed")
    await append(log, *"de")
    await log.aclose()
    with home.path.open("r+b") as file:  # the same file still, as `cp` leaves it
        file.truncate()
        file.write(backup)
    again = await home.open()
    assert again.epoch != log.epoch
    assert [each.position for each in await read_all(again, 0, ["**"])] == [(again.epoch, n) for n in (1, 2, 3)]
    assert await append(again, "f") == [4]
    assert (await home.restart(again, "killed")).epoch == again.epoch


async def test_an_older_copy_under_another_inode_begins_a_new_epoch(home: Home, tmp_path: Path):
    epoch = await left(home, "a")
    shutil.copy2(home.path, tmp_path / "backup")
    await left(home, "b")
    (tmp_path / "backup").replace(home.path)
    assert await left(home, "c") != epoch


async def test_an_emptied_file_begins_a_new_epoch(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    os.truncate(home.path, 0)
    again = await home.open()
    assert again.epoch != log.epoch
    assert await append(again, "a") == [1]


async def test_a_removed_file_begins_a_new_epoch(home: Home):
    log = await home.open()
    await append(log, *"abc")
    await log.aclose()
    home.path.unlink()
    again = await home.open()
    assert again.epoch != log.epoch
    assert await append(again, "a") == [1]


async def test_a_copy_keeps_the_history_under_an_epoch_of_its_own(home: Home, tmp_path: Path):
    log = await home.open()
    (receipt,) = log.append(drafts("a", key="k"))
    await receipt
    await append(log, "b")
    await log.aclose()
    copied = tmp_path / "copy.db"
    shutil.copy2(home.path, copied)
    copy = await home.open(copied)
    assert copy.epoch != log.epoch
    assert [each.position for each in await read_all(copy, 0, ["**"])] == [(copy.epoch, 1), (copy.epoch, 2)]
    assert copy.append(drafts("a", key="k"))[0].repeated
    await copy.aclose()
    assert (await home.open(copied)).epoch == copy.epoch, "from now on it is its own"
    assert (await home.open()).epoch == log.epoch, "the original has not changed"


async def test_a_folder_that_was_copied_begins_a_new_epoch(home: Home, tmp_path: Path):
    epoch = await left(home, "a")
    original = home.path
    shutil.copytree(original.parent, tmp_path / "copy")
    home.path = tmp_path / "copy" / "hub.db"
    copy = await left(home, "b")
    assert copy != epoch
    assert await left(home, "c") == copy, "from now on it is its own"
    home.path = original
    assert await left(home, "b") == epoch


async def test_a_backup_of_the_whole_folder_put_back_begins_a_new_epoch(home: Home, tmp_path: Path):
    epoch = await left(home, "a")
    shutil.copytree(home.path.parent, tmp_path / "backup")
    await left(home, "b")  # the backup knows nothing of it
    shutil.rmtree(home.path.parent)
    shutil.copytree(tmp_path / "backup", home.path.parent)
    assert await left(home, "c") != epoch


async def test_a_copy_on_a_device_that_gives_the_same_numbers_begins_a_new_epoch(home: Home):
    epoch = await left(home, "a")
    remounted(home.path)
    lock_of(home.path).unlink()  # which was not copied
    assert await left(home, "b") != epoch


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Inode(1, 12, 500), True),
        (Inode(2, 12, 500), True),
        (Inode(1, 12, 0), True),
        (Inode(1, 12, 501), False),
        (Inode(1, 13, 500), False),
    ],
    ids=["the same", "remounted", "birth unknown", "the number was given again", "another one"],
)
def test_an_inode_is_known_by_its_number_and_its_birth(other: Inode, same: bool):
    assert Inode(1, 12, 500).is_that_of(other) is same


def test_the_birth_of_a_file_outlives_every_change_and_no_copy_has_it(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text("x")
    before = Inode.at(str(path))
    if not before.born:
        pytest.skip("this file system does not know when a file was made")
    path.write_text("y")
    os.utime(path, (0, 0))
    moved = path.rename(tmp_path / "b")
    assert Inode.at(str(moved)) == before
    shutil.copy2(moved, path)
    assert Inode.at(str(path)).born != before.born


# ---- a real remount ----


async def test_a_volume_that_comes_back_as_another_device_holds_the_same_log(home: Home, image: Image):
    home.path = image.path / "hub.db"
    epoch = await left(home, "a")
    image.remount()
    log = await home.open()
    assert log.epoch == epoch
    assert await append(log, "a") == [2]
    await log.aclose()


# ---- one file, one hub ----


@pytest.mark.usefixtures("impatient")
async def test_a_second_hub_on_the_same_file_is_refused_after_it_has_waited(home: Home):
    log = await home.open()
    assert "another process has had it open for 0.3 s" in await home.refused()
    assert await append(log, "a") == [1], "the first one has not noticed"


async def test_a_second_hub_gets_the_file_when_the_first_one_lets_go_of_it(home: Home):
    log = await home.open()
    await append(log, "a")
    opening = asyncio.create_task(home.open())
    writer = await started(home.path)
    assert not opening.done()
    await log.aclose()
    again = await opening
    assert pid(workers(again)[0]) == writer
    assert offsets(await read_all(again, 0, ["a"])) == [1]


async def started(path: Path) -> int:
    """Return the process id of the second writer of *path* as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        found[:] = sorted(processes("writer", path))
        return len(found) == 2

    await until(look)
    return found[1]


@pytest.mark.usefixtures("impatient")
async def test_a_second_hub_does_not_get_in_through_a_symbolic_link(home: Home, tmp_path: Path):
    log = await home.open()
    link = tmp_path / "link.db"
    link.symlink_to(home.path)
    assert "another process has had it open" in await home.refused(link)
    assert await append(log, "a") == [1]


async def test_a_log_behind_a_symbolic_link_is_the_one_that_it_leads_to(home: Home, tmp_path: Path):
    epoch = await left(home, "a")
    link = tmp_path / "link.db"
    link.symlink_to(home.path)
    log = await home.open(link)
    assert (log.epoch, await append(log, "a")) == (epoch, [2])
    assert not lock_of(link).exists()


@pytest.mark.usefixtures("impatient")
async def test_a_second_hub_does_not_get_in_through_a_hard_link(home: Home, tmp_path: Path):
    log = await home.open()
    os.link(home.path, tmp_path / "second.db")
    assert "2 names" in await home.refused(tmp_path / "second.db")
    assert not lock_of(tmp_path / "second.db").exists(), "nothing is left beside it"
    assert await append(log, "a") == [1]
    await kill(workers(log)[0])
    assert await goes_on(log) > 1, "who had it first may have its process replaced"


@pytest.mark.skipif(sys.platform != "linux", reason="locks of open files are Linux's")
def test_the_file_itself_is_locked_whatever_its_lock_file_is_called(tmp_path: Path):
    first = Place(str(tmp_path / "a.db"), 0.0)
    first.enter(create=True)
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    second = Place(str(tmp_path / "b.db"), 0.0)  # as with a bind mount, where the number of names stays one
    with pytest.raises(Refused, match="another process"):
        second.enter(create=False)
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE t (x)")
    with pytest.raises(Refused, match="another process"):
        second.enter(create=False)
    first.close()
    second.enter(create=False)
    second.close()


@pytest.mark.usefixtures("impatient")
async def test_a_lock_file_that_was_removed_lets_nobody_in(home: Home):
    log = await home.open()
    lock_of(home.path).unlink()
    assert "another process has had it open" in await home.refused()
    assert await append(log, "a") == [1]


# ---- a file that is not watched is lost ----


async def gone(log: SQLiteLog) -> None:
    """Return when *log* says that it can't be used."""

    def unavailable() -> bool:
        try:
            log.bounds()
        except LogUnavailable:
            return True
        return False

    await until(unavailable)


async def test_nothing_is_confirmed_that_went_into_a_removed_file(home: Home, caplog: pytest.LogCaptureFixture):
    log = await home.open()
    await append(log, "a")
    home.path.unlink()
    assert [type(each) for each in await settled(log.append(drafts("a")))] == [LogUnavailable]
    await gone(log)
    assert not home.path.exists(), "a new one would begin at an offset that was given before"
    assert "can't be started anew" in caplog.text


async def test_a_removed_file_is_missed_though_nobody_publishes(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite_log, "TICK_SECONDS", 0.05)
    log = await home.open()
    home.path.unlink()
    await gone(log)


async def test_a_file_that_was_moved_away_and_back_goes_on_where_it_was(home: Home, tmp_path: Path):
    log = await home.open()
    announced: list[int] = []
    log.announce_to(lambda notifications: announced.extend(offsets(notifications)))
    await append(log, "a")
    home.path.rename(tmp_path / "away.db")
    (lost,) = await settled(log.append(drafts("a", key="k")))
    assert isinstance(lost, LogUnavailable)
    (tmp_path / "away.db").rename(home.path)
    await mended(log)
    (again,) = log.append(drafts("b", key="k"))
    position = await again
    assert announced == offsets(await read_all(log, 0, ["**"]))
    assert announced.count(position.offset) == 1, "kept once, whether that was known or not"


async def test_a_file_put_in_the_place_of_an_open_one_is_left_alone(home: Home, tmp_path: Path):
    await left(home, "x", "y")
    shutil.copy2(home.path, tmp_path / "backup.db")
    log = await home.open()
    await append(log, "a")
    (tmp_path / "backup.db").replace(home.path)
    content = home.path.read_bytes()
    assert [type(each) for each in await settled(log.append(drafts("a")))] == [LogUnavailable]
    await gone(log)
    await log.aclose()
    assert home.path.read_bytes() == content
    again = await home.open()
    assert again.epoch != log.epoch
    assert [each.position.offset for each in await read_all(again, 0, ["**"])] == [1, 2]


def test_a_place_knows_what_lies_there(tmp_path: Path):
    place = Place(str(tmp_path / "a.db"), 0.0)
    place.enter(create=True)
    place.check()
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    with pytest.raises(Misplaced, match="no longer there"):
        place.check()
    (tmp_path / "a.db").touch()
    with pytest.raises(Misplaced, match="another file"):
        place.check()
    place.close()


def test_a_lock_without_a_mark_belongs_to_nobody(tmp_path: Path):
    place = Place(str(tmp_path / "a.db"), 0.0)
    for content in (b"", b"e" * 54, b" " * 64 + b"token x y z\n", b"\xff" * 200):
        lock_of(tmp_path / "a.db").write_bytes(content)
        assert place.marked == Mark("", Inode(0, 0, 0))
    place.close()


# ---- where no file can be ----


async def test_a_folder_is_refused(home: Home):
    home.path.mkdir()
    assert str(home.path) in await home.refused()
    assert home.path.is_dir()


async def test_a_file_where_its_folder_should_be_is_refused(home: Home):
    home.path.write_text("not a folder")
    assert str(home.path) in await home.refused(home.path / "hub.db")


async def test_a_folder_that_can_not_be_made_is_refused(home: Home):
    folder = Path("/proc/no-such-folder")  # where not even root can make one
    assert str(folder) in await home.refused(folder / "hub.db")


async def test_its_folder_is_made_if_it_is_not_there(home: Home, tmp_path: Path):
    log = await home.open(tmp_path / "var" / "lib" / "hub.db")
    assert await append(log, "a") == [1]
