"""The benchmark measures what it says: every delivery is counted, and what it writes can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hub import wires
from hub.eventstream import chunk
from tests.benchmarks import systems as benchmarked
from tests.benchmarks.ai import audience
from tests.benchmarks.errors import CannotMeasure
from tests.benchmarks.load import Load, Outcome
from tests.benchmarks.options import Options
from tests.benchmarks.pollers import Answer
from tests.benchmarks.section import Column, Plot, Section, Table
from tests.benchmarks.systems.system import Paths
from tests.benchmarks.trial import Trial
from tests.benchmarks.wire import WIRES, Opening, Reading
from tests.benchmarks.wires import ratios

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
    assert Reading.of(b":\nid: e-7\n\n") == Reading((), b"", True)
    assert Reading.of(frame(5)[:-1] + b'\ndata: {"recovered":null}\n').numbers == (5,)


def test_a_number_that_comes_again_is_noticed():
    assert not Reading.of(frame(3) + frame(3)).sorted
    assert Reading.of(frame(3) + frame(7)).sorted


def test_a_websocket_cut_at_any_byte_brings_each_number_once_and_its_pings_are_answered():
    said = [b'{"op":"notification","id":"e-%d","data":{"p":"%b","n":%d}}' % (n, b"x" * 120, n) for n in (8, 9, 10)]
    first, second, third = (wires.frame(wires.Opcode.TEXT, each) for each in said)
    stream = first + wires.frame(wires.Opcode.PING, b"why") + second + wires.frame(wires.Opcode.TEXT, b"2") + third
    pong, engine_pong = b"\x8a\x83\0\0\0\0why", b"\x81\x81\0\0\0\x003"
    for cut in range(len(stream)):
        before = Reading.of_frames(stream[:cut])
        after = Reading.of_frames(before.rest + stream[cut:])
        assert before.numbers + after.numbers == (8, 9, 10)
        assert before.answer + after.answer == pong + engine_pong


@pytest.mark.parametrize(
    ("wire", "frames", "said"),
    [
        ("websocket", [], []),
        ("hub.v1.json", [b'{"op":"hub.open"}', b'{"op":"ok","ref":1,"topics":[]}'], [b"subscribe"]),
        ("socket.io", [b'0{"sid":"a"}', b'40{"sid":"b"}'], [b"40"]),
    ],
)
def test_a_websocket_is_open_when_its_last_step_is_answered(wire: str, frames: list[bytes], said: list[bytes]):
    stream = b"HTTP/1.1 101 \r\nUpgrade: websocket\r\n\r\n"
    stream += b"".join(wires.frame(wires.Opcode.TEXT, each) for each in frames)
    opening, asked = Opening(WIRES[wire]), b""
    for number, byte in enumerate(stream, 1):
        asked += opening.take(bytes([byte]))
        assert opening.done == (number == len(stream))
    assert opening.rest == b""
    assert all(each in asked for each in said)
    assert bool(asked) == bool(said)


@pytest.mark.parametrize("wire", ["sse", "websocket"])
def test_a_stream_that_is_refused_is_not_measured(wire: str):
    with pytest.raises(CannotMeasure, match=r"refused.* 403 "):
        Opening(WIRES[wire]).take(b"HTTP/1.1 403 Forbidden\r\n\r\n")


@pytest.mark.parametrize("chunked", [True, False])
def test_the_answer_to_a_poll_is_read_when_it_is_whole(chunked: bool):
    body = b'{"notifications":[{"id":"e-7","data":{"p":"x","n":7}},{"id":"e-8","data":{"p":"x","n":8}}],"cursor":"e-8"}'
    headers = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    whole = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (headers, chunk(body) + b"0\r\n\r\n" if chunked else body)
    assert all(Answer.of(whole[:cut]) is None for cut in range(len(whole)))
    assert Answer.of(whole) == ((7, 8), b"e-8", chunked)


def test_the_answer_that_refuses_a_poll_is_not_measured():
    with pytest.raises(CannotMeasure, match="refused"):
        Answer.of(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}")


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


def outcome(**what: float) -> Outcome:
    names = [each.name for each in fields(Outcome)]
    return Outcome(**{**dict.fromkeys(names, 0), "latency": {}, "answer": {}, "lag": {}, **what})  # type: ignore[arg-type]  # test data


def test_a_wire_is_compared_with_sse_in_the_same_round():
    first, second = Trial(), Trial()
    first.outcomes = [outcome(delivered=100, server_cpu=cpu) for cpu in (1.0, 10.0, 4.0)]
    second.outcomes = [outcome(delivered=100, server_cpu=cpu) for cpu in (2.0, 5.0, 4.0)]
    sse, other = benchmarked.WIRES[:2]
    table = ratios([sse, other], {"single": {sse.name: first, other.name: second}})
    assert [column.name for column in table.columns][1] == "Deliveries for the same CPU, single"
    assert [row[1] for row in table.rows] == [1.0, 1.0]
    second.outcomes.pop()
    assert ratios([other], {"single": {sse.name: first, other.name: second}}).rows[0][1] is None


def check_fanout(group: Section, systems: list[str]) -> None:
    among = {"fanout": benchmarked.SYSTEMS, "wires": benchmarked.WIRES}[group.name]
    assert set(group.rounds["single"]) == {each.name for each in among} & set(systems)
    for rounds in group.rounds["single"].values():
        (outcome,) = (Outcome(**each) for each in rounds)
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


CHECKS = {"fanout": check_fanout, "wires": check_fanout, "publish": check_publish, "ai": check_ai, "log": check_log}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("only", "systems"),
    [
        ("fanout.single,wires.single", "hub,websocket,poll"),
        pytest.param("fanout.single,log.publish,publish,ai", "hub,queues", marks=pytest.mark.torture),
        pytest.param("wires", "sse,websocket,ndjson,poll,websockets", marks=pytest.mark.torture),
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
