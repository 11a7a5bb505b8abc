"""What a run is asked to do and must satisfy."""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hub.load.command import NEEDED, add_arguments, run
from hub.load.options import Assertion, CannotRun, Options

METRICS = {
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
    assertion = Assertion.parse(text)
    assert assertion.holds(METRICS[assertion.metric]) is held


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
    with pytest.raises(ValueError, match=word):
        Assertion.parse(text)


def test_a_metric_without_a_value_holds_no_assertion() -> None:
    assertion = Assertion.parse("p99>=0ms")
    assert not assertion.holds(None)
    assert "without a value" in assertion.outcome(None)


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hub load")
    add_arguments(parser)
    return parser.parse_args(arguments)


def options(*arguments: str) -> Options:
    return Options.of(parse(*arguments))


def test_the_defaults_are_a_thousand_subscribers_and_a_hundred_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUB_URL", raising=False)
    assert (str(options().url), options().connections, options().planned) == ("http://127.0.0.1:8080", 1000, 100)
    assert options().topic.startswith("load/")
    assert options().topic != options().topic


def test_the_hub_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_URL", "http://127.0.0.1:9000/a%20b")
    assert str(options().url) == "http://127.0.0.1:9000/a%20b"
    assert str(options("--url", "http://127.0.0.1:1").url) == "http://127.0.0.1:1"
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0


def test_an_address_of_the_environment_that_cannot_be_loaded_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUB_URL", "https://hub.example")
    with pytest.raises(SystemExit) as stopped:
        parse()
    assert stopped.value.code == 2
    assert "https://hub.example is not like http://127.0.0.1:8080" in capsys.readouterr().err


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


def test_only_this_machine_is_loaded_without_consent() -> None:
    with pytest.raises(CannotRun, match="--yes-remote"):
        options("--url", "http://192.0.2.7:8080").check()
    for url in ("http://127.9.9.9", "http://[::1]"):
        options("--url", url).check()
    options("--url", "http://192.0.2.7:8080", "--yes-remote").check()


def test_a_remote_target_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("--url", "http://192.0.2.7:8080")) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_report_that_cannot_be_written_is_known_before_the_run(tmp_path: Path) -> None:
    options("--report", str(tmp_path / "report.json")).check()
    options("--report", "").check()
    for wrong in (tmp_path, tmp_path / "nowhere" / "report.json"):
        with pytest.raises(CannotRun, match=r"is a directory|does not exist"):
            options("--report", str(wrong)).check()


def test_a_missing_package_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NEEDED, "no_such_package", "no-such-package")
    assert run(parse()) == 2
    assert "pip install hdrhistogram psutil rich no-such-package\n" in capsys.readouterr().err


def test_what_a_run_needs_is_what_its_extra_brings() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    assert list(NEEDED.values()) == re.findall(r"^[\w-]+", setup["options.extras_require"]["load"], re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--help"], ["load", "--help"]])
def test_help_imports_nothing_that_only_a_run_needs(arguments: list[str]) -> None:
    program = [
        "import sys",
        "from hub.cli.entry import main",
        "try: main(sys.argv[1:])",
        "finally: print(*sys.modules, sep='\\n')",
    ]
    called = [sys.executable, "-c", "\n".join(program), *arguments]
    said = subprocess.run(called, capture_output=True, check=True, text=True)
    assert not {"rich", "hdrh", "hdrh.histogram", "psutil", "hub.load.run"} & set(said.stdout.split())
