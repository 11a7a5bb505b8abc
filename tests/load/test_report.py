"""What a run came to: verdict, lines and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hub.load.figures import Usage
from hub.load.options import DURATIONS, NUMBERS
from hub.load.report import Report
from tests.load.support import figures, recorded


def test_a_run_without_fault_is_well() -> None:
    assert Report(figures("--assert", "p99<250ms")).ok
    assert list(Report(figures()).lines())[-1].startswith("all is well: 5 events x 10 subscribers = 50 deliveries")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"missing": 1}, "missing deliveries: 1"),
        ({"duplicates": 2}, "duplicate deliveries: 2"),
        ({"out_of_order": 3}, "deliveries out of order: 3"),
        ({"published": 0, "delivered": 0, "latencies": recorded()}, "nothing was published"),
        ({"published": 4, "delivered": 40}, "only 4 of 5"),
        ({"missing": 1, "trouble": "connection reset"}, "publishing met trouble: connection reset"),
    ],
)
def test_a_run_with_a_fault_is_not_well_and_says_why(changes: dict[str, object], words: str) -> None:
    report = Report(figures(**changes))
    assert not report.ok
    assert words in "\n".join(report.lines())


def test_a_failed_assertion_is_a_fault() -> None:
    report = Report(figures("--assert", "p99<1ms", "--assert", "missing==0", latencies=recorded(2)))
    assert report.faults == ["p99<1ms: FAILED, it was 2.000 ms"]
    assert next(report.lines()) == "missing==0: held, it was 0"


@pytest.mark.parametrize("metric", DURATIONS + NUMBERS)
def test_every_metric_that_can_be_asserted_has_a_value(metric: str) -> None:
    bound = "0ms" if metric in DURATIONS else "0"
    assert Report(figures("--assert", f"{metric}>={bound}")).ok


def test_an_interrupted_run_is_judged_by_what_it_published() -> None:
    report = Report(figures(published=4, delivered=40, interrupts=1))
    assert report.ok
    assert "interrupted: the figures are of the shorter run" in report.lines()


@pytest.mark.parametrize(
    ("lag", "latency", "guilty"), [(40, 50, True), (10, 50, False), (1, 1.5, False), (6, 7, True), (None, 7, False)]
)
def test_the_driver_is_the_bottleneck_if_its_lag_is_large_against_the_latency(
    lag: float | None, latency: float, guilty: bool
) -> None:
    report = Report(figures(lags=recorded(*[lag] if lag else []), latencies=recorded(latency)))
    assert report.ok
    assert report.driver_was_bottleneck is guilty
    assert ("the driver itself was the bottleneck" in "\n".join(report.lines())) is guilty


def test_what_the_hub_could_not_do_for_some_is_told() -> None:
    lines = "\n".join(
        Report(
            figures(dropped=3, reconnects=2, gaps={"trimmed": 2}, refusals={403: 1}, caught_up=recorded(1500))
        ).lines()
    )
    assert "storm: dropped 3, resumed 2; the oldest they caught up with was 1.5 s old" in lines
    assert "gaps: the hub could not resume some streams (trimmed 2)" in lines
    assert "turned away: the hub ended some subscriptions for good (403 for 1)" in lines


def test_a_report_is_json_with_units_in_its_names(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    Report(figures("--assert", "p99<250ms", latencies=recorded(2))).write(str(path))
    read = json.loads(path.read_text())
    assert read["latency_ms"] == {"p50": 2.0, "p90": 2.0, "p99": 2.0, "max": 2.0}
    assert read["server"] == "unknown"
    assert read["assertions"] == [{"text": "p99<250ms", "value": 0.002, "held": True}]
    assert (read["ok"], read["connections"], read["expected"], read["delivered"]) == (True, 10, 50, 50)


def test_the_costs_of_the_hub_are_those_of_connecting_and_those_of_publishing() -> None:
    usages = {"idle": Usage(1000, 0, 1.0), "open": Usage(2000, 0, 2.0), "now": Usage(2500, 0, 2.5)}
    assert Report(figures(**usages)).as_json()["server"] == {
        "rss_before": 1000,
        "rss_connected": 2000,
        "rss_end": 2500,
        "rss_growth_per_connection": 100,
        "cpu_s": 0.5,
        "cpu_us_per_delivery": 10_000.0,
    }
