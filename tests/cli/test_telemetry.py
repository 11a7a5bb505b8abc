"""`hub serve` with OpenTelemetry, set up by `OTEL_…` as every other program."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from hub.cli.serve import telemetry_of
from hub.cli.telemetry import exporters
from hub.errors import InvalidSettings
from hub.settings import Settings
from tests.cli.commands import Serving
from tests.ports import free_port

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"Content-Type": "application/json", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


class Collector:
    """Takes what a process exports over HTTP, and keeps the bytes by path."""

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        self.received[request.path] = self.received.get(request.path, b"") + await request.read()
        return web.Response(content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector, app = Collector(), web.Application()
    app.router.add_post("/{path:.*}", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()


async def test_a_server_sends_its_traces_and_metrics_to_the_collector_before_it_ends(
    serving: Serving, collector: Collector
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "shop", "HUB_OTEL": "1"}
    hub = await serving("--drain", "0", environ=environ)
    client = await hub.site.subscribe("orders")
    body = json.dumps({"topic": "orders", "data": "a secret of the shop"}).encode()
    await hub.site.ask("POST", "/notifications/publish", headers=HEADERS, body=body)
    await client.event()
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0
    hub.check_tidy()
    traces, metrics = collector.received["/v1/traces"], collector.received["/v1/metrics"]
    for word in (b"shop", b"POST /notifications/publish", b"append", b"flush", bytes.fromhex(TRACE)):
        assert word in traces
    assert b"a secret of the shop" not in traces
    assert b"hub.stream.duration" in metrics


async def test_a_collector_that_is_not_there_holds_up_neither_publishes_nor_the_end(serving: Serving) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    hub = await serving("--otel", "--drain", "0", environ=environ)
    assert (await hub.site.publish({"data": 1})).status == 201
    hub.signal(signal.SIGTERM)
    assert await hub.end() == 0


def test_no_exporter_is_asked_for_where_the_environment_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert list(exporters("metrics")) == []
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none, console")
    (console,) = exporters("metrics")
    assert type(console).__name__ == "ConsoleMetricExporter"


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_TRACES_EXPORTER", "none,zipkin", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "otlp"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "otlp"),
    ],
)
def test_an_exporter_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings, match=f"OTEL_TRACES_EXPORTER: no exporter '{name}' is installed"):
        list(exporters("traces"))


def test_what_the_sdk_refuses_is_an_error_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "0")
    with pytest.raises(InvalidSettings, match=r"otel \(HUB_OTEL\): a variable OTEL_…: max_queue_size"):
        telemetry_of(Settings(otel=True), "web1-1")
