"""The load demo without a socket: assertions, counting, reading, timing, options, verdicts."""

from __future__ import annotations

import argparse
import configparser
import io
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hub.demo.load import NEEDED, add_arguments, run
from hub.demo.load.assertion import Assertion, InvalidAssertion
from hub.demo.load.display import LiveTable, PlainLines, cells, display_for
from hub.demo.load.errors import BadTarget, HubRefused, NoSuchProcess, ReportNotWritable, TooFewFiles
from hub.demo.load.figures import Figures, Phase
from hub.demo.load.lag import is_bottleneck
from hub.demo.load.latency import LONGEST, Latencies, Spread
from hub.demo.load.limit import RESERVE, check_file_limit, raise_file_limit
from hub.demo.load.mark import END, Mark, draft, mark_of
from hub.demo.load.options import Options, check_report
from hub.demo.load.reading import MAX_KNOWN, MAX_KNOWN_BYTES, Reader
from hub.demo.load.report import Report
from hub.demo.load.server import Server, Usage
from hub.demo.load.stream import MalformedAnswer, Stream
from hub.demo.load.tally import MAX_HOLES, Tally, Track
from hub.demo.load.target import SOURCE_PORTS, Target, source_address
from hub.notification import Draft
from hub.sse import LAST_CHUNK, Message, block, chunk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
METRICS: dict[str, float | None] = {
    "p50": 0.001,
    "p90": 0.002,
    "p99": 0.25,
    "max": 0.3,
    "lag": 0.0005,
    "missing": 0,
    "duplicates": 2,
    "out_of_order": 0,
    "reconnects": 300,
    "deliveries_per_s": 9999.5,
}

# Assertions


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("p99<250ms", False),
        ("p99<=250ms", True),
        ("p99 <= 0.25s", True),
        ("p50==1000us", True),
        ("max>299ms", True),
        ("max>=0.4s", False),
        ("lag<1ms", True),
        ("missing==0", True),
        ("duplicates<2", False),
        ("out_of_order==0", True),
        ("reconnects>=300", True),
        ("deliveries_per_s>9999", True),
    ],
)
def test_an_assertion_compares_a_metric_with_its_bound(text: str, held: bool) -> None:
    assert Assertion.parse(text).check(METRICS).held is held


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("p99<250", "unit"),
        ("p99<250h", "unit"),
        ("missing==0ms", "plain number"),
        ("p95<1ms", "names no metric"),
        ("p99=1ms", "is not like"),
        ("p99!=1ms", "is not like"),
        ("p99<", "is not like"),
        ("p99<-1ms", "is not like"),
        ("p99<nanms", "is not like"),
        ("", "is not like"),
    ],
)
def test_a_bad_assertion_says_what_would_be_right(text: str, word: str) -> None:
    with pytest.raises(InvalidAssertion, match=word):
        Assertion.parse(text)


def test_a_metric_without_a_value_holds_no_assertion() -> None:
    outcome = Assertion.parse("p99>=0ms").check({**METRICS, "p99": None})
    assert not outcome.held
    assert "without a value" in str(outcome)


def test_every_metric_that_can_be_asserted_is_one_of_the_figures() -> None:
    assert figures().metrics().keys() == METRICS.keys()


# Counting


def taken(*numbers: int) -> tuple[Tally, Track]:
    tally, track = Tally(), Track()
    for number in numbers:
        tally.take(track, number)
    return tally, track


def test_everything_once_and_in_order_is_delivered_and_nothing_else() -> None:
    tally, track = taken(0, 1, 2, 3)
    assert (tally.delivered, tally.duplicates, tally.out_of_order, tally.skipped) == (4, 0, 0, 0)
    assert track.missing(4) == 0


def test_what_comes_again_is_a_duplicate_and_not_a_delivery() -> None:
    tally, _ = taken(0, 1, 1, 0)
    assert (tally.delivered, tally.duplicates, tally.out_of_order) == (2, 2, 0)


def test_what_is_overtaken_is_missing_until_it_comes_out_of_order() -> None:
    tally, track = taken(0, 3)
    assert (tally.skipped, track.missing(4)) == (2, 2)
    tally.take(track, 1)
    assert (tally.skipped, tally.out_of_order, track.missing(4)) == (1, 1, 1)
    tally.take(track, 1)
    assert (tally.duplicates, tally.delivered) == (1, 3)


def test_what_never_came_at_the_end_is_missing() -> None:
    assert taken(0, 1)[1].missing(5) == 3
    assert Track().missing(5) == 5


def test_an_event_that_was_never_confirmed_is_not_missed() -> None:
    assert taken(0, 1, 4)[1].missing(3) == 1


@settings(deadline=None)  # what else the machine does is none of its claims
@given(st.lists(st.integers(0, 12), max_size=40), st.integers(0, 15))
def test_counting_agrees_with_a_set(numbers: list[int], total: int) -> None:
    tally, track = taken(*numbers)
    seen: set[int] = set()
    late = 0
    for number in numbers:
        late += number not in seen and number < max(seen, default=-1)
        seen.add(number)
    assert tally.delivered == len(seen)
    assert tally.duplicates == len(numbers) - len(seen)
    assert tally.out_of_order == late
    assert tally.skipped == max(seen, default=-1) + 1 - len(seen)
    assert track.missing(total) == len(set(range(total)) - seen)


def test_a_track_stays_small_and_never_forgets_that_something_is_missing() -> None:
    tally, track = taken(*range(0, 10_000, 2))
    assert len(track.holes) == MAX_HOLES
    assert track.missing(10_000) == 5000
    tally.take(track, 1)  # its hole is forgotten: it stays missing
    assert track.missing(10_000) == 5000
    assert tally.duplicates == 1


# Reading


def event(number: int, run: str = "me", pad: str = "") -> bytes:
    fields = json.loads(draft(run, "load/x", Mark(number, 1000 + number), pad))
    return block(json.dumps(fields["data"]), id=f"k-{number}")


def test_a_draft_of_the_load_is_one_that_the_hub_accepts() -> None:
    draft_ = Draft.from_json(json.loads(draft("me", "load/x", Mark(7, 1234), "xx")))
    assert (draft_.topics, draft_.key) == (("load/x",), "me-7")
    assert mark_of(Message(draft_.text, "message", "k-1"), "me") == Mark(7, 1234)


@pytest.mark.parametrize(
    "data", ["hello", "[1]", "{}", '{"run":"me","n":"1","t":2}', '{"run":"you","n":1,"t":2}', "1" * 5000]
)
def test_what_others_publish_is_no_mark(data: str) -> None:
    assert mark_of(Message(data, "message", ""), "me") is None


def test_blocks_are_whole_wherever_the_bytes_are_cut() -> None:
    opened, beat = block("{}", type="hub.open", id="k-0", retry=2500), block(id="k-1", comment="")
    body = (opened, event(0), beat, event(2) + event(3))
    wire = HEAD + b"".join(chunk(part) for part in body) + LAST_CHUNK
    for cut in range(len(wire) + 1):
        stream = Stream()
        assert stream.feed(wire[:cut]) + stream.feed(wire[cut:]) == b"".join(body)
        assert stream.status == 200
        assert stream.ended
    stream = Stream()
    assert b"".join(stream.feed(wire[at : at + 1]) for at in range(len(wire))) == b"".join(body)


def test_a_block_may_be_spread_over_chunks() -> None:
    stream, whole = Stream(), event(5)
    assert stream.feed(HEAD + chunk(whole[:10])) == b""
    assert not stream.between
    assert stream.feed(chunk(whole[10:])) == whole
    assert stream.between


def test_a_stream_without_chunks_ends_with_its_length_or_never() -> None:
    sized = Stream()
    assert sized.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nretry: 2000\n\nmore") == b"retry: 2000\n\n"
    assert sized.ended
    endless = Stream()
    assert endless.feed(b"HTTP/1.0 200 OK\r\n\r\nretry: 2000\n\nid") == b"retry: 2000\n\n"
    assert not endless.ended
    assert not endless.between


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        HEAD + b"xyz\r\n",
        HEAD + b"-5\r\nhello\r\n",
        HEAD + b"fffffff\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_not_a_stream_is_malformed(wire: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        Stream().feed(wire)


def test_a_block_without_end_is_malformed() -> None:
    stream = Stream()
    stream.feed(HEAD)
    for _ in range(4):
        stream.feed(chunk(b"x" * 1024 * 1024))
    with pytest.raises(MalformedAnswer, match="4 MiB"):
        stream.feed(chunk(b"x"))


def test_a_reading_tells_marks_cursor_retry_and_notices() -> None:
    reader = Reader("me")
    reading = reader.read(block("{}", type="hub.open", id="k-0", retry=2500) + event(1) + event(9, run="you"))
    assert reading.marks == (Mark(1, 1001),)
    assert (reading.cursor, reading.retry, reading.end, reading.plain) == ("k-9", 2.5, False, False)
    assert [notice.type for notice in reading.notices] == ["hub.open"]
    assert reader.read(event(1)).plain


def test_a_heartbeat_moves_the_cursor_and_nothing_else() -> None:
    reading = Reader("me").read(block(id="k-77", comment=""))
    assert (reading.marks, reading.cursor, reading.plain) == ((), "k-77", True)


def test_the_end_of_the_run_is_not_an_event_of_it() -> None:
    fields = json.loads(draft("me", "load/x", END))
    reading = Reader("me").read(block(json.dumps(fields["data"])))
    assert (reading.marks, reading.end, reading.plain) == ((), True, False)


def test_a_reader_remembers_no_more_than_its_bound() -> None:
    reader = Reader("me")
    for number in range(3 * MAX_KNOWN):
        reader.remember(b"%d" % number, reader.read(b""))
    assert len(reader.known) <= MAX_KNOWN
    reader.remember(b"x" * (MAX_KNOWN_BYTES + 1), reader.read(b""))
    assert max(map(len, reader.known)) <= MAX_KNOWN_BYTES


# Timing


@settings(deadline=None)  # what else the machine does is none of its claims
@given(st.lists(st.integers(0, 10**11), min_size=1, max_size=200))
def test_percentiles_are_within_a_thousandth_of_the_exact_ones(durations: list[int]) -> None:
    latencies = Latencies()
    for duration in durations:
        latencies.record(duration)
    spread = latencies.spread()
    assert spread is not None
    exact = sorted(duration // 1000 / 1e6 for duration in durations)
    for rank, value in ((50, spread.p50), (90, spread.p90), (99, spread.p99), (100, spread.max)):
        place = max(int(rank / 100 * len(exact) + 0.5), 1) - 1
        assert value == pytest.approx(exact[place], rel=0.001, abs=1e-6)


def test_nothing_recorded_has_no_spread() -> None:
    assert Latencies().spread() is None


def test_durations_out_of_range_count_as_the_nearest() -> None:
    latencies = Latencies()
    latencies.record(-5)
    latencies.record(LONGEST * 2000)
    spread = latencies.spread()
    assert spread is not None
    assert latencies.count == 2
    assert spread.max == 7200
    assert spread.p50 == 0


def test_a_stall_counts_for_every_look_that_it_hid() -> None:
    latencies = Latencies()
    latencies.record_stall(45_000_000, every=10_000_000)
    assert latencies.spread() is not None
    assert latencies.count == 5


@pytest.mark.parametrize(
    ("lag", "latency", "guilty"),
    [(0.040, 0.050, True), (0.010, 0.050, False), (0.001, 0.0015, False), (0.006, 0.007, True)],
)
def test_the_driver_is_the_bottleneck_if_its_lag_is_large_against_the_latency(
    lag: float, latency: float, guilty: bool
) -> None:
    assert is_bottleneck(Spread(0, 0, lag, lag), Spread(0, 0, latency, latency)) is guilty
    assert not is_bottleneck(None, Spread(0, 0, latency, latency))


# Options


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hub load")
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_defaults_are_a_thousand_subscribers_and_a_hundred_events() -> None:
    options = Options.of(parse())
    assert (options.target.url, options.connections, options.planned) == ("http://127.0.0.1:8080", 1000, 100)
    assert options.topic.startswith("load/")
    assert options.topic != Options.of(parse()).topic


@pytest.mark.parametrize(
    "arguments",
    [
        ("--assert", "p99<250"),
        ("--connections", "30001"),
        ("--connections", "0"),
        ("--connections", "many"),
        ("--seconds", "3601"),
        ("--seconds", "nan"),
        ("--rate", "0"),
        ("--rate", "inf"),
        ("--topic", "load/*"),
        ("--topic", ""),
        ("--url", "https://127.0.0.1"),
        ("--url", "127.0.0.1:8080"),
        ("--url", "http://127.0.0.1:99999"),
        ("--url", "http://me@127.0.0.1"),
        ("--url", "http://127.0.0.1/?a=b"),
        ("--url", "http://127.0.0.1/a\r\nb"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_target_is_host_port_and_prefix() -> None:
    target = Target.parse("http://[::1]:8081/app/")
    assert (target.host, target.port, target.prefix, target.authority) == ("::1", 8081, "/app", "[::1]:8081")
    assert target.subscribe_path("stock/Ä&B") == "/app/notifications/subscribe?topic=stock/%C3%84%26B"
    assert target.publish_path == "/app/notifications/publish"


def test_only_this_machine_is_loaded_without_consent() -> None:
    elsewhere = Target.parse("http://192.0.2.7:8080")
    with pytest.raises(BadTarget, match="--yes-remote"):
        elsewhere.resolve()
    assert elsewhere.resolve(remote=True) == ("192.0.2.7",)
    assert Target.parse("http://127.9.9.9").resolve() == ("127.9.9.9",)
    assert Target.parse("http://[::1]").resolve() == ("::1",)


def test_a_remote_target_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("--url", "http://192.0.2.7:8080")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_large_runs_come_from_several_addresses_of_this_machine() -> None:
    assert source_address(SOURCE_PORTS - 1, "127.0.0.1") is None
    assert source_address(SOURCE_PORTS, "127.0.0.1") == ("127.0.0.2", 0)
    assert source_address(SOURCE_PORTS, "192.0.2.7") is None
    assert source_address(SOURCE_PORTS, "::1") is None


def test_more_connections_than_files_are_refused() -> None:
    check_file_limit(1000 + RESERVE, 1000)
    check_file_limit(-1, 30_000)
    with pytest.raises(TooFewFiles, match="ulimit"):
        check_file_limit(1000, 1000)


@pytest.mark.skipif(sys.platform == "win32", reason="no file limit there")
def test_the_file_limit_is_raised_from_soft_to_hard() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_file_limit() == (min(soft, 512), hard)
        assert raise_file_limit() == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_report_that_cannot_be_written_is_known_before_the_run(tmp_path: Path) -> None:
    check_report(str(tmp_path / "report.json"))
    for wrong in (tmp_path, tmp_path / "nowhere" / "report.json"):
        with pytest.raises(ReportNotWritable):
            check_report(str(wrong))


def test_the_hub_is_where_the_environment_says_unless_the_command_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_URL", "http://127.0.0.1:9000/live")
    assert Options.of(parse()).target == Target.parse("http://127.0.0.1:9000/live")
    assert Options.of(parse("--url", "http://127.0.0.1:9001")).target.port == 9001
    monkeypatch.delenv("HUB_URL")
    assert Options.of(parse()).target.port == 8080


def test_what_a_run_needs_is_what_its_extra_brings() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    assert list(NEEDED.values()) == re.findall(r"^[\w-]+", setup["options.extras_require"]["load"], re.MULTILINE)


def test_a_missing_package_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NEEDED, "no_such_package", "no-such-package")
    assert run(parse()) == 2
    assert "pip install hdrhistogram psutil rich no-such-package\n" in capsys.readouterr().err


def test_a_process_that_is_not_there_is_named() -> None:
    with pytest.raises(NoSuchProcess, match="2147483647"):
        Server([2**31 - 1])


def test_a_refusal_tells_what_the_problem_document_says() -> None:
    refusal = HubRefused.of("POST /p", 403, b'{"title": "Forbidden", "detail": "no grant"}')
    assert str(refusal) == "POST /p was answered with 403: no grant"
    assert str(HubRefused.of("GET /s", 404, b"<html>")) == "GET /s was answered with 404: is this a hub?"
    assert "not HTTP" in str(HubRefused.of("GET /s", 0, b""))


# Verdicts


def figures(**changes: object) -> Figures:
    values: dict[str, object] = {
        "phase": Phase.DONE,
        "elapsed": 10.0,
        "connections": 10,
        "connected": 10,
        "planned": 5,
        "published": 5,
        "expected": 50,
        "delivered": 50,
        "missing": 0,
        "duplicates": 0,
        "out_of_order": 0,
        "reconnects": 0,
        "deliveries_per_s": 50.0,
        "latency": Spread(0.001, 0.002, 0.003, 0.004),
        "lag": Spread(0.0001, 0.0002, 0.0003, 0.0004),
        "server": Usage(50_000_000, 12.0, 1.5),
    }
    return Figures(**(values | changes))  # type: ignore[arg-type]  # the values above have the right types


def report(changes: dict[str, object] | None = None, *arguments: str, interrupted: bool = False) -> Report:
    return Report(
        options=Options.of(parse(*arguments)),
        figures=figures(**(changes or {})),
        began="2025-01-01T00:00:00+00:00",
        opening=0.1,
        posts=5,
        retries=0,
        dropped=0,
        caught_up=None,
        failures=0,
        server=None,
        driver={},
        interrupted=interrupted,
    )


def test_a_run_without_fault_is_well() -> None:
    assert report({}, "--assert", "p99<250ms").ok
    assert report().lines()[-1].startswith("all is well")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missing": 1}, "missing deliveries: 1"),
        ({"duplicates": 2}, "duplicate deliveries: 2"),
        ({"out_of_order": 3}, "deliveries out of order: 3"),
        ({"published": 0, "expected": 0, "delivered": 0, "latency": None}, "nothing was published"),
        ({"published": 4, "expected": 40, "delivered": 40}, "only 4 of 5"),
    ],
)
def test_a_run_with_a_fault_is_not_well_and_says_why(changes: dict[str, object], words: str) -> None:
    assert not report(changes).ok
    assert words in "\n".join(report(changes).lines())


def test_a_failed_assertion_is_a_fault() -> None:
    assert report({}, "--assert", "p99<1ms", "--assert", "missing==0").faults == ["p99<1ms: FAILED, it was 3.000 ms"]


def test_an_interrupted_run_is_judged_by_what_it_published() -> None:
    assert report({"published": 4, "expected": 40, "delivered": 40}, interrupted=True).ok


def test_a_driver_that_measured_itself_says_so() -> None:
    slow = report({"lag": Spread(0.01, 0.02, 0.05, 0.06), "latency": Spread(0.01, 0.02, 0.06, 0.07)})
    assert slow.ok
    assert "the driver itself was the bottleneck" in "\n".join(slow.lines())


def test_a_report_is_json_with_units_in_its_names(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report({}, "--assert", "p99<250ms").write(str(path))
    read = json.loads(path.read_text())
    assert read["latency_ms"]["p99"] == 3.0
    assert read["server"] == "unknown"
    assert read["assertions"] == [{"text": "p99<250ms", "value": 0.003, "held": True}]
    assert read["ok"] is True


# What the user sees


def test_output_that_is_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with display_for(10) as display:
        assert isinstance(display, PlainLines)
        display.say("hello")
        display.show(figures())
    said, shown = capsys.readouterr().out.splitlines()
    assert said == "hello"
    assert "delivered 50" in shown
    assert "p99 3.0 ms" in shown
    assert "\x1b" not in shown


def test_a_long_run_prints_about_a_line_a_minute() -> None:
    assert display_for(3600).every == 60


def test_a_terminal_gets_a_table_that_stays_in_place() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with LiveTable(console) as display:
        display.say("hello [not markup]")
        display.show(figures(phase=Phase.PUBLISHING))
        display.show(figures(missing=7))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    for word in ("hello [not markup]", "connected", "out of order", "50.0 MB", "12 %", "3.0 ms", "\x1b[1;31m7"):
        assert word in shown


def test_what_is_unknown_is_called_so() -> None:
    table = dict(cells(figures(server=None, latency=None, lag=None)))
    assert (table["server memory"], table["server CPU"], table["p99"]) == ("unknown", "unknown", "-")
