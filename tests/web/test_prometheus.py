"""The dashboard for Grafana and the rules for Prometheus: what they ask for is there, and each alarm can be raised."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.proxy import program
from tests.web.conftest import Serve
from tests.web.server import Server

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs" / "deploy" / "prometheus" / "alerts.yml"
CONFIG = RULES.with_name("prometheus.yml")
DASHBOARD = ROOT / "docs" / "deploy" / "grafana" / "hub.json"
ALARMS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate"}}


def promtool(*arguments: str | Path, given: str | None = None) -> str:
    """Return what `promtool` says, given *given*; it must find nothing wrong."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False, input=given
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel of the dashboard, and each expression in it."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for each in dashboard["annotations"]["list"]:
        yield each["name"], each["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.fullmatch(r"label_values\((.*), (.*)\)", variable["definition"])[1]  # type: ignore[index]  # it matches


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return the series that *expression* asks for, with their labels."""
    expression = expression.replace("$__rate_interval", "5m").replace("$job", "hub")
    found: list[promql_parser.VectorSelector] = []

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        for name in ("expr", "lhs", "rhs", "vector_selector", "vs"):
            if (inner := getattr(node, name, None)) is not None:
                look(inner)
        for inner in getattr(node, "args", None) or ():
            look(inner)

    look(promql_parser.parse(expression))
    return found


async def exposed(server: Server) -> dict[str, list[dict[str, str]]]:
    """Return the labels of all series that `/metrics` shows, by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families((await server.ask("GET", "/metrics")).body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


async def test_every_series_of_panels_and_rules_is_shown_by_a_hub(serve: Serve) -> None:
    server = await serve()
    await (await server.subscribe("orders")).aclose()
    await server.deserted()
    for draft in ({"data": 1}, {"data": 1, "topic": "a/*"}):
        await server.publish(draft)
    shown = await exposed(server)
    asked = [*panels(), *((each["alert"], each["expr"]) for each in ALARMS)]
    series = [(where, each) for where, expression in asked for each in selectors(expression)]
    assert len({each.name for _, each in series}) > 40
    for where, each in series:
        labels = {matcher.name for matcher in each.matchers.matchers} - {"job"}
        if each.name in OF_PROMETHEUS:
            assert labels <= OF_PROMETHEUS[each.name], where
            continue
        assert each.name in shown, f"{where} asks for {each.name}, which a hub does not show"
        assert labels <= shown[each.name][0].keys(), f"{where}: {each.name} has no such labels"


@pytest.mark.parametrize(("where", "expression"), [*panels(), *((each["alert"], each["expr"]) for each in ALARMS)])
def test_labels_to_group_by_are_those_of_the_series(where: str, expression: str) -> None:
    grouped = {name for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(", ")}
    known = {"job", "instance", "le", "worker", "kind", "reason", "method", "route", "status"}
    assert grouped <= known
    assert ("le" in grouped) == ("histogram_quantile" in expression)
    assert ("worker" not in grouped) or all(
        each.name is not None and each.name.startswith("hub_worker_") for each in selectors(expression)
    )


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", CONFIG)
    promtool("check", "rules", RULES)


async def test_prometheus_takes_what_a_hub_shows(serve: Serve) -> None:
    server = await serve()
    await server.publish({"data": 1})
    answer = await server.ask("GET", "/metrics")
    await asyncio.to_thread(promtool, "check", "metrics", given=answer.body.decode())


@pytest.mark.parametrize("alarm", ALARMS, ids=[each["alert"] for each in ALARMS])
def test_each_alarm_says_what_it_means_and_what_to_do(alarm: dict[str, Any]) -> None:
    assert alarm["labels"]["severity"] in {"critical", "warning"}
    said = alarm["annotations"]
    assert said["summary"].endswith(".")
    assert len(said["description"]) > 40
    page, _, heading = said["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert alarm["alert"] in headings
    assert heading == alarm["alert"].lower()


# ---- each alarm is raised by what it is for, and by nothing else ----

WELL = {
    'up{job="hub"}': "1x60",
    "hub_log_up": "1x60",
    "hub_log_answered_seconds_ago": "0 5 0 5 0 5 0 5x53",
    'hub_http_request_seconds_count{route="/notifications/publish",status="201"}': "0+6000x60",
    'hub_http_request_seconds_count{route="/notifications/publish",status="503"}': "0+6x60",
    'hub_http_request_seconds_count{route="/notifications/history",status="500"}': "0x60",
    "hub_worker_unobserved_failures_total": "7x60",
    'hub_worker_publish_confirmed_seconds_bucket{le="0.05"}': "0+6000x60",
    'hub_worker_publish_confirmed_seconds_bucket{le="+Inf"}': "0+6000x60",
    'hub_worker_publish_written_seconds_bucket{le="0.05"}': "0+6000x60",
    'hub_worker_publish_written_seconds_bucket{le="+Inf"}': "0+6000x60",
    'hub_worker_loop_lag_seconds_bucket{worker="a-1",le="0.005"}': "0+60x60",
    'hub_worker_loop_lag_seconds_bucket{worker="a-1",le="1"}': "0+60x60",
    'hub_worker_loop_lag_seconds_bucket{worker="a-1",le="+Inf"}': "0+60x60",
    'hub_streams{kind="subscription"}': "5000x60",
    'hub_streams{kind="handler"}': "100x60",
    "hub_streams_limit": "10000x60",
    "hub_connections": "5000x60",
    "hub_processes": "4x60",
    "hub_worker_refused_total": "3x60",
    "hub_worker_slow_disconnects_total": "0+1x60",
    "hub_worker_disconnects_total": "0+100x60",
    'hub_worker_uptime_seconds{worker="a-1"}': "0+60x60",
    "hub_worker_auth_unavailable_total": "1x60",
    "hub_worker_generations_failed_total": "0+1x60",
    "hub_worker_generations_begun_total": "0+100x60",
}
"""The series of a hub that is well, once a minute for an hour."""

RAISED_BY: dict[str, dict[str, str]] = {
    "HubDown": {'up{job="hub"}': "0x60"},
    "HubLogDown": {"hub_log_up": "0x60"},
    "HubLogSilent": {"hub_log_answered_seconds_ago": "0+60x60"},
    "HubPublishesRefused": {
        'hub_http_request_seconds_count{route="/notifications/publish",status="503"}': "0+120x60",
    },
    "HubPublishesLost": {"hub_worker_unobserved_failures_total": "0+1x60"},
    "HubServerErrors": {'hub_http_request_seconds_count{route="/notifications/history",status="500"}': "0+1x60"},
    "HubSlowToConfirm": {
        'hub_worker_publish_confirmed_seconds_bucket{le="0.05"}': "0x60",
        'hub_worker_publish_confirmed_seconds_bucket{le="1"}': "0+6000x60",
    },
    "HubSlowToWrite": {
        'hub_worker_publish_written_seconds_bucket{le="0.05"}': "0x60",
        'hub_worker_publish_written_seconds_bucket{le="2.5"}': "0+6000x60",
    },
    "HubLoopBlocked": {'hub_worker_loop_lag_seconds_bucket{worker="a-1",le="0.005"}': "0+50x60"},
    "HubAlmostFull": {'hub_streams{kind="subscription"}': "9500x60"},
    "HubRefusesStreams": {"hub_worker_refused_total": "0+1x60"},
    "HubReadersTooSlow": {"hub_worker_slow_disconnects_total": "0+60x60"},
    "HubStreamsDoNotLast": {"hub_worker_disconnects_total": "0+6000x60"},
    "HubWorkerMissing": {"hub_processes": "4x40 3x20"},
    "HubRestarts": {'hub_worker_uptime_seconds{worker="a-1"}': "0 60 120 0 60 120 0 60 120 0 60 120 0 60 120 0 60"},
    "HubIdentityUnknown": {"hub_worker_auth_unavailable_total": "0+1x60"},
    "HubAnswersFail": {"hub_worker_generations_failed_total": "0+20x60"},
}


def a_test(series: dict[str, str], *, at: str, alarms: list[str]) -> dict[str, Any]:
    """Return a test for promtool: with *series*, these *alarms* are raised after the time *at*."""
    named = [
        name if 'job="hub"' in name else name.replace("{", '{job="hub",') if "{" in name else name + '{job="hub"}'
        for name in series
    ]
    samples = [{"labels": f'{{alertname="{each}"}}', "value": 1} for each in alarms]
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for name, values in zip(named, series.values(), strict=True)
        ],
        "promql_expr_test": [
            {"expr": 'sum by (alertname) (ALERTS{alertstate="firing"})', "eval_time": at, "exp_samples": samples}
        ],
    }


def test_each_alarm_is_raised_by_what_it_is_for_and_none_while_all_is_well(tmp_path: Path) -> None:
    assert [*RAISED_BY] == [each["alert"] for each in ALARMS]
    tests = [a_test(WELL, at="60m", alarms=[])]
    for alarm, series in RAISED_BY.items():
        at = "16m" if alarm == "HubRestarts" else "60m"
        tests.append(a_test(WELL | series, at=at, alarms=[alarm]))
    file = tmp_path / "alerts.test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)
