"""What the user sees while a run goes on."""

from __future__ import annotations

import io
from contextlib import closing

import pytest
from rich.console import Console

from hub.load.display import LiveTable, cells, display_for
from tests.load.support import figures, recorded


def test_output_that_is_no_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(display_for(10)) as display:
        display.say("hello")
        display.show(figures(latencies=recorded(2)))
    said, shown = capsys.readouterr().out.splitlines()
    assert said == "hello"
    assert "done  connected 10  published 5  expected 50  delivered 50  missing 0  duplicate 0  out of order 0" in shown
    assert "p99 2.0 ms" in shown
    assert "\x1b" not in shown


def test_a_long_run_prints_about_a_line_a_minute() -> None:
    assert display_for(3600).every == 60


def test_a_terminal_gets_a_table_that_stays_in_place() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with closing(LiveTable(console)) as display:
        display.say("hello [not markup]")
        display.show(figures(phase="publishing", latencies=recorded(2)))
        display.show(figures(missing=7, latencies=recorded(2)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    for word in ("hello [not markup]", "connected", "out of order", "50.0 MB", "12 %", "2.0 ms", "\x1b[1;31m7"):
        assert word in shown


def test_what_is_unknown_is_called_so() -> None:
    table = dict(cells(figures(now=None, latencies=recorded(), lags=recorded())))
    assert (table["server memory"], table["server CPU"], table["p99"]) == ("unknown", "unknown", "-")
