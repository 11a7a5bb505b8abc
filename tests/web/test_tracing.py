"""The way of a notification as OpenTelemetry sees it: from the request and the event to the flush, also of others."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from hub import Hub, Settings
from hub.errors import InvalidSettings, LogUnavailable
from hub.events.event import Event
from hub.telemetry import MOST_LINKS, OpenTelemetry
from tests.redis_server import RedisServer, servers
from tests.web.client import until
from tests.web.conftest import Serve
from tests.web.server import Server

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Traces:
    """The spans and figures of one hub."""

    def __init__(self, **options: Any) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self._traces = TracerProvider(shutdown_on_exit=False, **options)
        self._traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._metrics = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracing = OpenTelemetry(self._traces, self._metrics)
        self.tracer = self._traces.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def names(self) -> list[str]:
        return sorted(span.name for span in self._exporter.get_finished_spans())

    def figures(self) -> dict[str, list[tuple[Mapping[str, Any], float]]]:
        """Return by name the points of each figure: their attributes, and the value or how many values."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: [
                (dict(point.attributes or {}), point.count if hasattr(point, "count") else point.value)
                for point in metric.data.data_points
            ]
            for scope in data.resource_metrics[0].scope_metrics
            for metric in scope.metrics
        }

    def close(self) -> None:
        self._traces.shutdown()
        self._metrics.shutdown()


def parent_of(span: ReadableSpan) -> str:
    assert span.parent is not None
    return f"{span.parent.span_id:016x}"


def id_of(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def links_of(span: ReadableSpan) -> list[str]:
    return [f"{link.context.span_id:016x}" for link in span.links]


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.close()


@pytest.fixture
async def server(serve: Serve, traces: Traces) -> Server:
    return await serve(setup={"tracing": traces.tracing}, events_api=True)


async def test_a_publish_over_http_is_one_trace_from_the_client_to_the_flush(server: Server, traces: Traces) -> None:
    client = await server.subscribe("orders")
    answer = await server.post("/notifications/publish", {"topic": "orders", "data": 1}, traceparent=TRACEPARENT)
    assert answer.status == 201
    await client.event()
    request, publish = traces.one("POST /notifications/publish"), traces.one("publish")
    append, flush = traces.one("append"), traces.one("flush")
    assert [trace_of(span) for span in (request, publish, append, flush)] == [TRACE] * 4
    assert parent_of(request) == PARENT
    assert parent_of(publish) == id_of(request)
    assert parent_of(append) == id_of(publish)
    assert parent_of(flush) == id_of(publish)
    assert links_of(flush) == [id_of(publish)]
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 201
    assert publish.attributes is not None
    assert publish.attributes["messaging.destination.name"] == "orders"


async def test_a_flush_is_one_span_however_many_read_and_is_linked_to_all_its_publishes(
    server: Server, traces: Traces
) -> None:
    clients = [await server.subscribe("orders") for _ in range(5)]
    sent = [server.hub.notifications.send_notification(number, topic="orders") for number in range(20)]
    for client in clients:
        for _ in range(20):
            await client.event()
    publishes = {id_of(span) for span in traces.named("publish")}
    flushes = traces.named("flush")
    assert len(publishes) == len(sent) == 20
    assert len(flushes) < 20  # the first goes alone, the others gather
    assert sorted(link for flush in flushes for link in links_of(flush)) == sorted(publishes)
    assert sum(flush.attributes["hub.frames"] for flush in flushes if flush.attributes) == 100  # type: ignore[misc]  # numbers
    assert all(parent_of(flush) == links_of(flush)[0] for flush in flushes)


async def test_a_list_is_one_publish_and_what_nobody_reads_has_no_flush(server: Server, traces: Traces) -> None:
    await server.publish([{"data": number} for number in range(3)])
    publish = traces.one("publish")
    assert publish.attributes is not None
    assert publish.attributes["messaging.batch.message_count"] == 3
    assert traces.named("flush") == []


async def test_links_are_bounded(server: Server, traces: Traces) -> None:
    client = await server.subscribe("orders")
    for number in range(2 * MOST_LINKS):
        server.hub.notifications.send_notification(number, topic="orders")
    await client.upto(str(2 * MOST_LINKS - 1))
    assert max(len(flush.links) for flush in traces.named("flush")) <= MOST_LINKS


# ---- events ----


async def test_what_listeners_send_belongs_to_the_event_and_the_event_to_the_request(
    server: Server, traces: Traces
) -> None:
    done = asyncio.Event()

    def plain(event: Event) -> None:
        server.hub.notifications.send_notification("plain", topic="orders")

    async def later(event: Event) -> None:
        await asyncio.sleep(0)
        await server.hub.notifications.send_notification("later", topic="orders")
        done.set()

    server.hub.bus.on("order.created", plain)
    server.hub.bus.on("order.created", later)
    await server.post("/events/order.created", {"amount": 1}, traceparent=TRACEPARENT)
    await done.wait()
    event, request = traces.one("event order.created"), traces.one("POST /events/{name}")
    assert parent_of(event) == id_of(request)
    assert [parent_of(span) for span in traces.named("publish")] == [id_of(event)] * 2
    assert {trace_of(span) for span in traces.named("publish")} == {TRACE}


async def test_an_event_that_nobody_hears_has_no_span(server: Server, traces: Traces) -> None:
    server.hub.bus.emit("order.created")
    assert traces.names() == []


async def test_an_event_of_another_thread_belongs_to_what_that_thread_did(server: Server, traces: Traces) -> None:
    heard = asyncio.Event()
    server.hub.bus.on("order.created", lambda event: heard.set())

    def emit() -> None:
        with traces.tracer.start_as_current_span("job"):
            server.hub.bus.emit("order.created")

    thread = threading.Thread(target=emit)
    thread.start()
    await heard.wait()
    thread.join()
    assert parent_of(traces.one("event order.created")) == id_of(traces.one("job"))


async def test_a_publish_in_process_belongs_to_what_is_current(server: Server, traces: Traces) -> None:
    with traces.tracer.start_as_current_span("job"):
        receipt = server.hub.notifications.send_notification(1)
    await receipt
    assert parent_of(traces.one("publish")) == id_of(traces.one("job"))


async def test_a_tag_names_the_trace_of_a_draft_that_has_no_other(server: Server, traces: Traces) -> None:
    await server.hub.notifications.send_notification(1, tags={"traceparent": TRACEPARENT})
    assert (trace_of(traces.one("publish")), parent_of(traces.one("publish"))) == (TRACE, PARENT)


# ---- what goes wrong ----


async def test_a_refused_publish_is_a_request_with_its_status(server: Server, traces: Traces) -> None:
    assert (await server.publish({"topic": "a/*", "data": 1})).status == 400
    assert traces.names() == ["POST /notifications/publish"]
    span = traces.one("POST /notifications/publish")
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 400
    assert span.status.status_code is StatusCode.UNSET


async def test_a_log_that_refuses_is_an_error_of_all_spans(
    server: Server, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(drafts: object) -> None:
        raise LogUnavailable("its disk is full")

    monkeypatch.setattr(server.hub.log, "append", refuse)
    assert (await server.publish({"data": 1})).status == 503
    assert traces.names() == ["POST /notifications/publish", "append", "publish"]
    for name in traces.names():
        assert traces.one(name).status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", f"ff-{TRACE}-{PARENT}-01", "ü", "x" * 5000])
async def test_a_header_that_is_none_begins_a_trace(server: Server, traces: Traces, header: str) -> None:
    body = json.dumps({"data": 1}).encode()
    headers = {"Content-Type": "application/json", "traceparent": header}
    assert (await server.ask("POST", "/notifications/publish", headers=headers, body=body)).status == 201
    assert traces.one("POST /notifications/publish").parent is None


async def test_a_context_in_the_log_that_is_none_breaks_no_flush(server: Server, traces: Traces) -> None:
    client = await server.subscribe("orders")
    tags = {f"tag{number}": 1 for number in range(31)} | {"hub.traceparent": "nonsense"}
    server.hub.notifications.send_notification(1, topic="orders", tags=tags)
    full = {f"tag{number}": 1 for number in range(32)}  # no room for one more
    server.hub.notifications.send_notification(2, topic="orders", tags=full)
    assert [event.data for event in await client.upto("2")][-1] == "2"
    assert len(traces.named("publish")) == 2


async def test_what_its_trace_does_not_sample_leaves_nothing_anywhere(serve: Serve) -> None:
    traces = Traces(sampler=ParentBased(ALWAYS_OFF))
    server = await serve(setup={"tracing": traces.tracing})
    client = await server.subscribe("orders")
    written = {"hub.traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}  # by somebody who wants to be traced
    await server.publish({"topic": "orders", "data": 1, "tags": written})
    await client.event()
    assert traces.names() == []
    page = await server.hub.log.read(0, ["orders"], upto=1)
    assert page.notifications[0].tags is None
    traces.close()


# ---- what others see ----


async def test_the_context_goes_into_the_log_and_to_no_client(server: Server, traces: Traces) -> None:
    client = await server.subscribe("orders", query={"envelope": "all"})
    await server.publish({"topic": "orders", "data": "x", "tags": {"shop": 7}})
    event = await client.event()
    assert "traceparent" not in event.data
    page = await server.hub.log.read(0, ["orders"], upto=1)
    publish = traces.one("publish")
    tags = page.notifications[0].tags
    assert tags is not None
    assert tags.keys() == {"shop", "hub.traceparent"}
    assert tags["hub.traceparent"].startswith(f"00-{trace_of(publish)}-{id_of(publish)}-")
    history = (await server.ask("GET", "/notifications/history?topic=orders")).json()
    assert history["notifications"][0]["tags"] == {"shop": 7}


async def test_streams_have_figures_and_no_span(server: Server, traces: Traces) -> None:
    clients = [await server.subscribe("orders") for _ in range(3)]
    await clients[0].aclose()
    await until(lambda: len(server.hub.connections) == 2)
    figures = traces.figures()
    kind = {"hub.stream.kind": "subscription"}
    assert figures["hub.streams.open"] == [(kind, 2)]
    assert figures["hub.stream.duration"] == [({**kind, "hub.stream.reason": "client"}, 1)]
    assert traces.names() == []


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with servers() as make:
        one = make("redis")
        one.start_now()
        yield one


@pytest.mark.parametrize("home", ["sqlite", "redis"])
async def test_through_a_log_elsewhere_the_flush_of_each_process_belongs_to_the_trace(
    serve: Serve, redis: RedisServer, home: str, tmp_path: Path
) -> None:
    log = redis.url if home == "redis" else f"sqlite:///{tmp_path / 'log.db'}"
    settings: dict[str, Any] = {"log": log, "redis_prefix": secrets.token_hex(4)}
    number = 2 if home == "redis" else 1
    traces = [Traces() for _ in range(number)]
    hubs = [await serve(setup={"tracing": each.tracing}, **settings) for each in traces]
    clients = [await each.subscribe("orders") for each in hubs]
    await hubs[0].post("/notifications/publish", {"topic": "orders", "data": 1}, traceparent=TRACEPARENT)
    for client in clients:
        await client.event()
    await until(lambda: traces[0].named("publish"))
    publish = traces[0].one("publish")
    for each in traces:
        flush = each.one("flush")
        assert (trace_of(flush), parent_of(flush), links_of(flush)) == (TRACE, id_of(publish), [id_of(publish)])
        each.close()


def test_opentelemetry_is_loaded_only_where_it_is_asked_for() -> None:
    program = (
        "import sys, hub\n"
        "import hub.web.app, hub.cli.serve\n"
        "hub.Hub(hub.Settings())\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))\n"
        "hub.Hub(hub.Settings(otel=True))\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["False", "True"]


def test_without_the_extra_the_settings_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hub.telemetry", None)
    with pytest.raises(InvalidSettings, match=r"otel \(HUB_OTEL\): needs the package .*\[otel\]"):
        Hub(Settings(otel=True))
