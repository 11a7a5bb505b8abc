"""`hub history` as a real process: between running hubs, files and pipes."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.cli.entry import main
from hub.errors import LogUnavailable
from hub.log.archive.format import MAX_NEWEST, first_line, last_line, line
from hub.log.trimmed import TrimmedState
from hub.notification import Draft, Notification, Position
from tests.web.client import until
from tests.web.conftest import Complaints, Serve
from tests.web.process import ROOT, Process, ServeProcess
from tests.web.server import Server, Site

pytestmark = pytest.mark.slow


class Place:
    """A folder in which commands run."""

    def __init__(self, folder: Path, processes: list[Process]) -> None:
        self.folder = folder
        self._processes = processes

    async def start(self, *arguments: str, url: str = "", **options: Any) -> Process:
        """Start `hub history`, which ends with the test."""
        environ = {"HUB_URL": url} if url else {}
        process = await Process.start("history", *arguments, environ=environ, cwd=self.folder, **options)
        self._processes.append(process)
        return process

    async def run(self, *arguments: str, stdin: str | None = None, url: str = "", status: int = 0) -> Process:
        """Run `hub history` to its end, which has to be *status*."""
        process = await self.start(*arguments, stdin=stdin, url=url)
        assert await process.end() == status, process.err
        process.check_tidy()
        return process

    async def serve(self, *arguments: str) -> ServeProcess:
        """Run `hub serve` until the end of the test."""
        process = await ServeProcess.start("serve", "--port", "0", "--drain", "0", *arguments, cwd=self.folder)
        self._processes.append(process)
        return await process.listening()

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    @property
    def files(self) -> set[str]:
        return {each.name for each in self.folder.iterdir()}

    @property
    def content(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in self.folder.iterdir()}


@pytest.fixture
def place(tmp_path: Path, processes: list[Process]) -> Place:
    return Place(tmp_path, processes)


INTO_FILE = ("import", "--log", "sqlite:///hub.db")


def archive_with(*offsets: int, newest: int = 0) -> str:
    """Return an archive with a notification at each of *offsets*, whether that makes sense or not."""
    kept = [Notification.accept(Draft.of("x"), Position("e0", offset), 1.5) for offset in offsets]
    last = last_line(newest or offsets[-1], len(kept), TrimmedState(0, {}, 0))
    return b"".join([first_line("e0"), *map(line, kept), last]).decode()


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.address[1]}"


async def publish(site: Site, *drafts: tuple[str, object]) -> list[str]:
    answers = [await site.publish({"topic": topic, "data": data}) for topic, data in drafts]
    return [answer.json()["id"] for answer in answers]


# ---- moving ----


async def test_a_history_moves_from_memory_to_a_file_and_who_comes_back_misses_nothing(place: Place) -> None:
    memory = await place.serve("--retain-topics", "state/**=1")
    ids = await publish(
        memory.site, ("a", 1), ("state/x", "on"), ("a", 2), ("state/x", "off"), ("b", 3), ("a", "两行\n2")
    )
    exported = await place.run("export", "-o", "all.ndjson", url=memory.url)
    assert (exported.out, exported.err) == ("", "# 5 notifications\n")
    await memory.aclose()

    imported = await place.run("import", "--log", "sqlite:///data/hub.db", "all.ndjson")
    assert imported.out == f"5 notifications, the newest is {ids[-1]}\n"
    assert place.files == {"all.ndjson", "data"}

    file = await place.serve("--log", "sqlite:///data/hub.db")
    client = await file.site.subscribe("a", "b", last_event_id=ids[0])
    assert client.opened.json()["recovered"] is True
    assert [((event := await client.next()).id, event.data) for _ in range(3)] == [
        (ids[2], "2"),
        (ids[4], "3"),
        (ids[5], "两行\n2"),
    ]
    (later,) = await publish(file.site, ("a", "live"))
    assert (await client.next()).id == later == f"{ids[0].split('-')[0]}-7"
    state = await file.site.subscribe("state/x", last_event_id=ids[0])
    assert state.opened.json()["reason"] == "trimmed"
    assert (await file.site.subscribe("state/x", last_event_id=ids[1])).opened.json()["recovered"] is True

    # and with the hub still on it, the file gives everything back
    there = await place.run("export", "--log", "sqlite:///data/hub.db")
    assert [json.loads(each)["id"] for each in there.out.splitlines()[1:-1]] == [ids[0], *ids[2:], later]


async def test_a_history_moves_through_a_pipe(place: Place, serve: Serve) -> None:
    old = await serve()
    ids = old.send(*range(5), topic="a")
    exported = await place.run("export", "--url", url_of(old))
    imported = await place.run(*INTO_FILE, stdin=exported.out)
    assert imported.out == f"5 notifications, the newest is {ids[-1]}\n"
    assert (await place.run("export", "--log", "sqlite:///hub.db")).out == exported.out


async def test_a_hub_on_an_imported_file_answers_as_the_old_one_did(place: Place, serve: Serve) -> None:
    old = await serve(retain_count=8, retain_topics={"state/**": 1})
    for topic in ("a", "b", "state/x", "state/x", "a", "state/y", "b", "state/y", "a", "b", "a", "state/x"):
        await old.publish({"topic": topic, "data": topic, "type": "t", "private": True, "tags": {"k": 1}})
    archive = (await place.run("export", url=url_of(old))).out
    await place.run(*INTO_FILE, stdin=archive)
    new = await serve(log=f"sqlite:///{place.folder}/hub.db")
    newest = old.hub.log.bounds().newest
    assert new.hub.log.bounds() == old.hub.log.bounds()
    for topics in ("a", "b", "state/x", "state/*", "**", "never"):
        for offset in range(13):
            path = f"/notifications/history?topic={topics}&after={newest.epoch}-{offset}"
            assert (await new.ask("GET", path)).json() == (await old.ask("GET", path)).json()
    exported = (await place.run("export", url=url_of(new))).out
    assert [json.loads(each) for each in exported.splitlines()] == [json.loads(each) for each in archive.splitlines()]
    assert await publish(new, ("a", "next")) == [f"{newest.epoch}-13"]


async def test_the_last_id_that_can_be_imported_leaves_room_to_go_on(place: Place) -> None:
    place.write("all", archive_with(MAX_NEWEST))
    await place.run(*INTO_FILE, "all")
    hub = await place.serve("--log", "sqlite:///hub.db")
    client = await hub.site.subscribe(last_event_id=f"e0-{MAX_NEWEST}")
    assert client.opened.json()["recovered"] is True
    assert await publish(hub.site, ("notifications", "next")) == [f"e0-{MAX_NEWEST + 1}"]
    assert (await client.next()).id == f"e0-{MAX_NEWEST + 1}"


async def test_an_empty_history_moves_too(place: Place, serve: Serve) -> None:
    old = await serve()
    await place.run("export", "-o", "none", url=url_of(old))
    imported = await place.run("import", "--log", "sqlite:///hub.db", "none")
    assert imported.out == f"0 notifications, the newest is {old.hub.log.epoch}-0\n"


# ---- what can't be ----


async def test_what_is_not_an_archive_is_refused_and_nothing_is_made(place: Place) -> None:
    whole = archive_with(1, 2)
    for name, text, why in (
        ("cut", whole[:-1], "line 4: has no line end: the archive was cut short\n"),
        ("other", "hello\n", "line 1: is not JSON in UTF-8"),
        ("broken", whole.replace('"private":false', '"private":7', 1), "line 2: private: is neither true nor false\n"),
        ("back", archive_with(2, 1), "line 3: id: is not beyond e0-2\n"),
        ("unreadable", archive_with(10**18), "line 2: id: is not e0- and an offset\n"),
        ("far", archive_with(1, MAX_NEWEST + 1), f"line 3: id: is beyond e0-{MAX_NEWEST}: "),
        ("farther", archive_with(1, newest=10**18 - 1), f"line 3: newest: is not an offset from 1 to {MAX_NEWEST}\n"),
    ):
        place.write(name, text)
        refused = await place.run(*INTO_FILE, name, status=1)
        assert refused.err.startswith(f"hub: {why}")
        assert refused.err.count("\n") == 1
        (place.folder / name).unlink()
    none = await place.run(*INTO_FILE, "none", status=1)
    assert none.err == "hub: none: No such file or directory\n"
    assert not place.files


async def test_an_archive_that_is_broken_leaves_an_empty_log_as_it_was(place: Place) -> None:
    await (await place.serve("--log", "sqlite:///hub.db")).aclose()
    before = (await place.run("export", "--log", "sqlite:///hub.db")).out
    await place.run(*INTO_FILE, stdin=archive_with(1, 2)[:-30], status=1)
    assert (await place.run("export", "--log", "sqlite:///hub.db")).out == before
    await place.run(*INTO_FILE, stdin=archive_with(1, 2))


async def test_a_log_with_a_history_takes_none_and_stays_as_it_is(place: Place) -> None:
    archive = archive_with(1, 2)
    await place.run(*INTO_FILE, stdin=archive)
    before = place.content
    why = "hub: the log is not empty: an import takes a file that is new, or a log that never held anything\n"
    assert (await place.run(*INTO_FILE, stdin=archive, status=1)).err == why
    assert (await place.run(*INTO_FILE, stdin="x" * 5_000_000, status=1)).err == why, "without reading it"
    assert place.content == before
    shutil.copy(place.folder / "hub.db", place.folder / "copy.db")
    copied = place.content["copy.db"]
    assert (await place.run("import", "--log", "sqlite:///copy.db", stdin=archive, status=1)).err == why
    assert place.content == {**before, "copy.db": copied}, "a hub would have given it an epoch of its own"


async def test_what_is_no_log_or_is_damaged_takes_none_and_stays_as_it_is(place: Place) -> None:
    place.write("text.db", "no log")
    await place.run(*INTO_FILE, stdin=archive_with(*range(1, 100)))
    content = place.content["hub.db"]
    (place.folder / "damaged.db").write_bytes(content[:100] + bytes(8_000) + content[8_100:])
    before = place.content
    for name in ("text", "damaged"):
        refused = await place.run("import", "--log", f"sqlite:///{name}.db", stdin=archive_with(1), status=1)
        assert refused.err.startswith(f"hub: the log is not available: {name}.db: ")
        assert refused.err.count("\n") == 1
    assert place.content == before


async def test_a_file_that_a_hub_has_open_takes_none(place: Place, serve: Serve) -> None:
    old = await serve()
    archive = (await place.run("export", url=url_of(old))).out
    await place.serve("--log", "sqlite:///hub.db")
    refused = await place.run("import", "--log", "sqlite:///hub.db", stdin=archive, status=1)
    assert refused.err == "hub: the log is not available: hub.db: another process has had it open for 5 s\n"


async def test_what_can_not_be_exported_leaves_no_file(place: Place, unused_tcp_port: int) -> None:
    place.write("text.db", "no log")
    for source, why in (
        (("--url", f"http://127.0.0.1:{unused_tcp_port}"), "hub: no hub answers at http://127.0.0.1:"),
        (("--log", "sqlite:///none.db"), "hub: the log is not available: none.db: there is no such file\n"),
        (("--log", "sqlite:///text.db"), "hub: the log is not available: text.db: file is not a database\n"),
    ):
        refused = await place.run("export", *source, "-o", "all", status=1)
        assert refused.err.startswith(why)
        assert refused.err.count("\n") == 1
    assert place.files == {"text.db"}
    nowhere = await place.run("export", "--log", "sqlite:///text.db", "-o", "no/folder", status=1)
    assert nowhere.err == "hub: no/folder: No such file or directory\n"


async def test_an_export_that_breaks_off_leaves_the_file_that_was_there(
    place: Place, serve: Serve, monkeypatch: pytest.MonkeyPatch, complaints: Complaints
) -> None:
    hub = await serve()
    hub.send(*["x" * 100_000] * 9)
    place.write("all", "the one of yesterday")
    monkeypatch.setattr(hub.hub.log, "trimmed_state", away)
    broken = await place.run("export", "-o", "all", url=url_of(hub), status=1)
    assert broken.err == "hub: the hub broke the export off; its own log says why\n"
    assert complaints.take() == ["an export was cut: the log is not available: it is away"]
    assert place.read("all") == "the one of yesterday"
    assert place.files == {"all"}


def away() -> None:
    raise LogUnavailable("it is away")


# ---- in the middle ----


STOPPED = """
import asyncio, os, signal, sys
from hub.cli import history
from hub.cli.entry import main
from hub.log.archive.spool import Spool

place = sys.argv.pop(1)


class Stopping(Spool):
    async def history(self):
        number = 0
        async for part in super().history():
            await self.stop(number)
            yield part
            number += 1
        await self.stop("end")
        if place == "commit":
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGKILL)

    async def stop(self, here):
        if place == str(here):
            print("stopped", flush=True)
            await asyncio.Event().wait()


history.Spool = Stopping
sys.exit(main(sys.argv[1:]))
"""
"""An import that stops before a part of the archive, or before the commit; or is killed when that is asked for."""


async def stopped(place: Place, where: str) -> Process:
    """Return an import of the file `all` that goes as far as *where*, and no further."""
    process = await place.start(*INTO_FILE, "all", program=("-c", STOPPED, where))
    if where != "commit":
        await until(lambda: process.out == "stopped\n")
    return process


@pytest.mark.parametrize("where", ["0", "2", "end", "commit"])
async def test_an_import_that_is_killed_leaves_a_new_log_or_a_complete_one(place: Place, where: str) -> None:
    whole = archive_with(*range(1, 1_501))
    place.write("all", whole)
    process = await stopped(place, where)
    if where != "commit":
        process.signal(signal.SIGKILL)
    assert await process.end() == -signal.SIGKILL
    left = (await place.run("export", "--log", "sqlite:///hub.db")).out
    if where != "commit" or left != whole:
        assert left.splitlines()[1:] == ['{"newest":0,"notifications":0,"lost":{"swept":0,"topics":{},"forgotten":0}}']
        await place.run(*INTO_FILE, "all")
    assert (await place.run("export", "--log", "sqlite:///hub.db")).out == whole
    hub = await place.serve("--log", "sqlite:///hub.db")
    assert await publish(hub.site, ("a", "next")) == ["e0-1501"]


async def test_an_import_that_is_interrupted_takes_everything_back(place: Place) -> None:
    place.write("all", archive_with(*range(1, 1_501)))
    process = await stopped(place, "2")
    process.signal(signal.SIGINT)
    assert await process.end() == 130
    assert (await place.run("export", "--log", "sqlite:///hub.db")).err == "# 0 notifications\n"
    await place.run(*INTO_FILE, "all")


async def test_nobody_else_opens_a_file_while_something_is_imported_into_it(place: Place) -> None:
    place.write("all", archive_with(1, 2))
    process = await stopped(place, "0")
    why = "hub: the log is not available: hub.db: another process has had it open for 5 s\n"
    assert (await place.run(*INTO_FILE, "all", status=1)).err == why
    process.signal(signal.SIGKILL)
    await process.end()


# ---- wrong calls ----


def test_a_running_hub_imports_nothing_and_the_refusal_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("--url", "http://127.0.0.1:8080"), (*INTO_FILE[1:], "--url", "http://a")):
        with pytest.raises(SystemExit) as ended:
            main(["history", "import", *arguments])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "a running hub takes no archive: import it into a new file (--log sqlite:///PATH)" in said
        assert "--url URL" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("import",),
        ("import", "--log", "memory://"),
        ("export", "--log", "memory://"),
        ("export", "--log", "sqlite:///"),
        ("export", "--log", "sqlite:///a", "--url", "http://a"),
        ("import", "--log", "sqlite:///a", "a", "b"),
        ("list", "--limit", "0"),
        ("list", "--limit", "x"),
        ("list", "topic"),
    ],
)
def test_a_wrong_call_ends_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["history", *arguments])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


# ---- looking ----


async def test_a_listing_is_a_notification_per_line(place: Place, serve: Serve) -> None:
    hub = await serve()
    ids = hub.send("plain", "two\nlines", {"amount": 99.5}, topic="a")
    ids += hub.send("typed", topics=["b", "a"], type="t")
    listed = await place.run("list", "--topic", "a", url=url_of(hub))
    lines = [line.split("  ") for line in listed.out.splitlines()]
    assert [line[1:] for line in lines] == [
        [ids[0], "a", "plain"],
        [ids[1], "a", '"two\\nlines"'],
        [ids[2], "a", '{"amount": 99.5}'],
        [ids[3], "b,a", "t: typed"],
    ]
    assert all(line[0].endswith("Z") for line in lines)
    as_json = await place.run("list", "-t", "a", "--json", "--after", ids[1], "-n", "1", url=url_of(hub))
    (each,) = map(json.loads, as_json.out.splitlines())
    assert (each["id"], each["data"], each["topics"]) == (ids[2], {"amount": 99.5}, ["a"])


async def test_a_listing_goes_to_the_end_or_to_its_limit(place: Place, serve: Serve) -> None:
    hub = await serve()
    ids = hub.send(*range(2_500))
    everything = await place.run("list", "--json", url=url_of(hub))
    assert [json.loads(line)["id"] for line in everything.out.splitlines()] == ids
    some = await place.run("list", "--json", "--limit", "1500", url=url_of(hub))
    assert [json.loads(line)["id"] for line in some.out.splitlines()] == ids[:1_500]


async def test_a_listing_says_what_is_missing_on_standard_error(place: Place, serve: Serve) -> None:
    hub = await serve(retain_count=2)
    ids = hub.send(*range(4))
    listed = await place.run("list", "--after", ids[0], url=url_of(hub))
    assert len(listed.out.splitlines()) == 2
    assert listed.err == f"# something is missing here (trimmed); the oldest that is kept is {ids[2]}\n"


async def test_a_listing_tells_what_the_hub_refuses(place: Place, serve: Serve, unused_tcp_port: int) -> None:
    hub = await serve()
    refused = await place.run("list", "--topic", "a//b", url=url_of(hub), status=1)
    assert refused.err == "hub: topic: 'a//b' has an empty segment\n"
    nobody = await place.run("list", "--url", f"http://127.0.0.1:{unused_tcp_port}", status=1)
    assert nobody.err.startswith("hub: no hub answers at http://127.0.0.1:")


async def test_who_reads_a_listing_may_have_enough(place: Place, serve: Serve) -> None:
    hub = await serve()
    hub.send(*["x" * 1_000] * 2_500)
    listing = f"{shlex.quote(sys.executable)} -m hub history list --url {url_of(hub)}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"set -o pipefail; {listing} | head -n 1"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out.count(b"\n"), err) == (0, 1, b"")
