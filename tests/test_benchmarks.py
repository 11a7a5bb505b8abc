"""The benchmark measures what it says: every delivery is counted, and what it writes can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hub.eventstream import chunk
from tests.benchmarks.ai import audience
from tests.benchmarks.crowd import Reading
from tests.benchmarks.load import Load, Outcome
from tests.benchmarks.options import Options
from tests.benchmarks.section import Column, Plot, Section, Table
from tests.benchmarks.systems.system import Paths

ROOT = Path(__file__).parents[1]
PATIENCE = 240.0

HUB = Paths("/subscribe?topic={topic}", "/publish", '{"topic":"{topic}","data":', "}")


def load(**what: object) -> Load:
    return Load.of({"port": 1, "pid": 1, "paths": list(HUB), "connections": 3, **what})


def frame(number: int) -> bytes:
    body = b'id: e-%d\ndata: {"p":"xx","n":%d}\n\n' % (number, number)
    return chunk(body)


# What a driver reads


def test_a_stream_cut_at_any_byte_brings_each_number_once():
    stream = b"".join(map(frame, (8, 9, 10, 11)))
    for cut in range(len(stream)):
        first = Reading.of(stream[:cut])
        second = Reading.of(first.rest + stream[cut:])
        assert first.numbers + second.numbers == (8, 9, 10, 11)


def test_what_is_no_event_has_no_number():
    assert Reading.of(b":\nid: e-7\n\n") == ((), b"", True)
    assert Reading.of(frame(5)[:-1] + b'\ndata: {"recovered":null}\n').numbers == (5,)


def test_a_number_that_comes_again_is_noticed():
    assert not Reading.of(frame(3) + frame(3)).sorted
    assert Reading.of(frame(3) + frame(7)).sorted


def test_the_tokens_of_an_answer_have_the_time_of_the_read_that_brought_their_end():
    whole = b"".join(
        b'5\r\nid: a.%d\ndata: {"content":"%d:7 %d:8 "}\n\n\r\n' % (each, each, each + 1) for each in (0, 2)
    )
    for cut in range(1, len(whole)):
        viewer = object.__new__(audience.Viewer)
        viewer.received, viewer.at = [whole[:cut], whole[cut:]], [1, 2]
        read = list(viewer.tokens())
        assert [tokens for _, tokens in read] == [[b"0:7", b"1:8"], [b"2:7", b"3:8"]]
        first_end = whole.index(b'"}') + 1
        assert [at for at, _ in read] == [1 if cut >= first_end else 2, 1 if cut >= whole.rindex(b'"}') + 1 else 2]


# What a load asks for


def test_everybody_expects_every_event_of_the_one_topic():
    assert load(events=7).expected() == [7, 7, 7]


@pytest.mark.parametrize("topics", [1, 2, 3, 10])
def test_each_topic_has_one_listener_who_expects_what_is_published_to_it(topics: int):
    asked = load(events=50, topics=topics)
    listeners = [asked.request(number).split()[1].decode() for number in range(3)]
    published = [json.loads(asked.post(event).partition(b"\r\n\r\n")[2])["topic"] for event in range(50)]
    heard = [sum(f"topic={topic}" in path.replace("?", "&").split("&") for topic in published) for path in listeners]
    assert heard == asked.expected()
    assert sum(heard) == 50


def test_a_load_survives_json():
    asked = load(events=7, rate=2.0)
    assert Load.of(json.loads(json.dumps(asked.as_task()))) == asked


# What is asked of the benchmark, and what it writes


def test_only_names_groups_or_single_scenarios():
    options = Options.parse(["--only", "log,fanout.single", "--quick", "--to", "somewhere"])
    assert options.wants("log")
    assert options.wants("log", "replay")
    assert options.wants("fanout")
    assert options.wants("fanout", "single")
    assert not options.wants("fanout", "burst")
    assert not options.wants("micro")
    assert options.rounds == 1


@pytest.mark.parametrize("arguments", [["--quick"], ["--only", "nothing"], ["--rounds", "0"]])
def test_what_makes_no_sense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        Options.parse(arguments)
    assert "error:" in capsys.readouterr().err


def test_a_section_survives_json():
    section = Section(
        "a",
        "A",
        [Table("T", "About.", [Column("x"), Column("y", "ms", 1)], [["one", 1.0], ["none", None]])],
        [Plot("p", "P", "x", "y", {"s": [(1.0, 2.0)]})],
        ["a note"],
    )
    written = json.loads(json.dumps(section.as_json()))
    assert Section.of(written).as_json() == json.loads(json.dumps(section.as_json()))
    assert Section.of(written).tables[0].columns[1].shown(1234.56) == "1,234.6"


def check_fanout(group: Section, systems: list[str]) -> None:
    for name in systems:
        (outcome,) = (Outcome(**each) for each in group.rounds["single"][name])
        assert outcome.expected == outcome.connections * outcome.events > 0
        assert outcome.delivered == outcome.expected
        assert outcome.lost == outcome.disordered == outcome.closed == 0
        assert outcome.rss_open > outcome.rss_before > 0


def check_publish(group: Section, systems: list[str]) -> None:
    assert [len(rounds) for rounds in group.rounds["publish"].values()] == [1, 1, 1]
    assert all(row[1] > 0 and row[2] > 0 for row in group.tables[0].rows)  # type: ignore[operator]


def check_ai(group: Section, systems: list[str]) -> None:
    for log in ("memory", "SQLite"):
        (seen,) = (audience.Outcome(**each) for each in group.rounds[log]["20"])
        assert seen.expected == 20 * 3 * 50
        assert seen.lost == seen.unfinished == 0
        assert 20 * 3 <= seen.messages <= seen.expected
        assert 0 < seen.late["p50"] <= seen.late["max"]


def check_log(group: Section, systems: list[str]) -> None:
    published = {(each["home"], each["publishers"]): each["confirmed"] for each in group.rounds["publish"]}
    assert published == {("SQLite", 64): 2_000, ("memory", 64): 2_000, ("SQLite", 1): 200, ("memory", 1): 200}


CHECKS = {"fanout": check_fanout, "publish": check_publish, "ai": check_ai, "log": check_log}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("only", "systems"),
    [
        ("fanout.single", "hub"),
        pytest.param("fanout.single,log.publish,publish,ai", "hub,queues", marks=pytest.mark.torture),
    ],
)
def test_a_small_run_counts_every_delivery_and_writes_it_down(tmp_path: Path, only: str, systems: str):
    pytest.importorskip("matplotlib", reason="the benchmark is not installed: pip install '.[bench]'")
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", only]
    process = subprocess.Popen(
        [*command, "--systems", systems, "--to", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.terminate()  # where it hangs; it ends what it has started
        process.wait()
    assert process.returncode == 0, said
    written = json.loads((tmp_path / "results.json").read_text("utf-8"))
    groups = {name: Section.of(group["section"]) for name, group in written["groups"].items()}
    assert sorted(groups) == sorted(each.partition(".")[0] for each in only.split(","))
    assert not any(group.notes for group in groups.values())
    for name, group in groups.items():
        CHECKS[name](group, systems.split(","))

    page = (tmp_path / "results.md").read_text("utf-8")
    assert "A quick run" in page
    for table in (table for group in groups.values() for table in group.tables):
        assert f"### {table.title}" in page
        assert all(len(row) == len(table.columns) for row in table.rows)
    for picture in (plot.name for group in groups.values() for plot in group.plots):
        assert f"({picture}.png)" in page
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
