"""`hub history` as a real process: between running hubs, files and pipes."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path

import pytest

from hub.cli.entry import main
from hub.errors import LogUnavailable
from tests.web.conftest import Complaints, Serve
from tests.web.process import ROOT, Process, ServeProcess
from tests.web.server import Server, Site

pytestmark = pytest.mark.slow


class Place:
    """A folder in which commands run."""

    def __init__(self, folder: Path, processes: list[Process]) -> None:
        self.folder = folder
        self._processes = processes

    async def run(self, *arguments: str, stdin: str | None = None, url: str = "", status: int = 0) -> Process:
        """Run `hub history` to its end, which has to be *status*."""
        process = await Process.start(
            "history", *arguments, environ={"HUB_URL": url} if url else {}, stdin=stdin, cwd=self.folder
        )
        self._processes.append(process)
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


@pytest.fixture
def place(tmp_path: Path, processes: list[Process]) -> Place:
    return Place(tmp_path, processes)


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
    old, new = await serve(), await serve()
    ids = old.send(*range(5), topic="a")
    exported = await place.run("export", "--url", url_of(old))
    imported = await place.run("import", stdin=exported.out, url=url_of(new))
    assert imported.out == f"5 notifications, the newest is {ids[-1]}\n"
    assert (await place.run("export", url=url_of(new))).out == exported.out
    into_file = await place.run("import", "--log", "sqlite:///hub.db", stdin=exported.out)
    assert into_file.out == imported.out
    assert (await place.run("export", "--log", "sqlite:///hub.db")).out == exported.out


async def test_an_empty_history_moves_too(place: Place, serve: Serve) -> None:
    old = await serve()
    await place.run("export", "-o", "none", url=url_of(old))
    imported = await place.run("import", "--log", "sqlite:///hub.db", "none")
    assert imported.out == f"0 notifications, the newest is {old.hub.log.epoch}-0\n"


# ---- what can't be ----


async def test_what_is_not_an_archive_is_refused_and_nothing_is_made(place: Place, serve: Serve) -> None:
    old, new = await serve(), await serve()
    old.send("x")
    whole = (await place.run("export", url=url_of(old))).out
    place.write("cut", whole[:-1])
    place.write("other", "hello\n")
    for target in (("--log", "sqlite:///hub.db"), ("--url", url_of(new))):
        cut = await place.run("import", *target, "cut", status=1)
        assert cut.err == "hub: line 3: has no line end: the archive was cut short\n"
        other = await place.run("import", *target, "other", status=1)
        assert other.err.startswith("hub: line 1: is not JSON in UTF-8")
        none = await place.run("import", *target, "none", status=1)
        assert none.err == "hub: none: No such file or directory\n"
    assert place.files == {"cut", "other"}
    assert new.hub.log.bounds().newest.offset == 0


async def test_a_log_with_a_history_takes_none(place: Place, serve: Serve) -> None:
    hub = await serve()
    hub.send("x")
    archive = (await place.run("export", url=url_of(hub))).out
    why = "hub: the log is not empty: a history can only be taken over by a log that never held anything\n"
    assert (await place.run("import", url=url_of(hub), stdin=archive, status=1)).err == why
    assert (await place.run("import", url=url_of(hub), stdin="x" * 5_000_000, status=1)).err == why
    await place.run("import", "--log", "sqlite:///hub.db", stdin=archive)
    assert (await place.run("import", "--log", "sqlite:///hub.db", stdin=archive, status=1)).err == why


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
    monkeypatch.setattr(hub.hub.log, "lost", away)
    broken = await place.run("export", "-o", "all", url=url_of(hub), status=1)
    assert broken.err == "hub: the hub broke the export off; its own log says why\n"
    assert complaints.take() == ["an export was cut: the log is not available: it is away"]
    assert place.read("all") == "the one of yesterday"
    assert place.files == {"all"}


def away() -> None:
    raise LogUnavailable("it is away")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("export", "--log", "memory://"),
        ("export", "--log", "sqlite:///"),
        ("export", "--log", "sqlite:///a", "--url", "http://a"),
        ("import", "a", "b"),
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
