"""`/healthz`, `/readyz`, `/notifications/stats` and `/metrics`: how the hub is doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, cast

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from hub.connections.client_stream import SUBSCRIPTIONS, StreamKind
from hub.errors import LogUnavailable, ShuttingDown
from hub.histogram import HistogramFigures, quantile
from hub.hub import Hub
from hub.metrics import COUNTERS, HISTOGRAMS, HTTP_REQUESTS, OF_WORKERS, STREAMS_ENDED
from hub.web.access import Access


async def healthz(hub: Hub, request: web.Request) -> web.Response:
    """Return 200: the process is alive."""
    return web.json_response({"status": "alive"})


async def readyz(hub: Hub, request: web.Request) -> web.Response:
    """Return 200 if the hub takes new work, else 503."""
    if hub.draining:
        raise ShuttingDown
    hub.log.bounds()
    hub.check_state()
    return web.json_response({"status": "ready"})


async def stats(hub: Hub, request: web.Request) -> web.Response:
    """Return the counters, and what the log holds."""
    await Access.of(request).administer(request)
    figures = await hub.elsewhere.figures()
    last = {name: figures.pop(name) for name in ("processes", "workers")}
    return web.json_response(
        {
            "connections": _subscriptions(figures),
            **_shown(figures),
            "log": log_bounds(hub),
            "draining": hub.draining,
            **_shown(last),
        }
    )


def _shown(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return *figures* for people: with p50 and p99 of the histograms, and numbers of no more than microseconds."""
    shown: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            shown[name] = _with_quantiles(cast(HistogramFigures, value)) if "buckets" in value else _shown(value)
        else:
            shown[name] = round(value, 6) if isinstance(value, float) else value
    return shown


def _with_quantiles(figures: HistogramFigures) -> dict[str, Any]:
    quantiles = {f"p{round(100 * q)}": quantile(q, figures) for q in (0.5, 0.99)}
    rounded = {name: None if value is None else round(value, 6) for name, value in quantiles.items()}
    return {"count": figures["count"], "sum": round(figures["sum"], 6), **rounded, "buckets": figures["buckets"]}


def _subscriptions(figures: Mapping[str, Any]) -> int:
    """Return how many subscriptions are open, over whatever wire."""
    return sum(figures["streams"][kind] for kind in SUBSCRIPTIONS)


def log_bounds(hub: Hub) -> dict[str, object] | None:
    """Return what the log of *hub* holds; None: it does not answer."""
    try:
        bounds = hub.log.bounds()
    except LogUnavailable:
        return None
    return {
        "epoch": hub.log.epoch,
        "oldest": str(bounds.oldest),
        "newest": str(bounds.newest),
        "count": bounds.kept,
        "bytes": bounds.size,
    }


async def metrics(hub: Hub, request: web.Request) -> web.Response:
    """Return the counters in Prometheus' text format, to an administrator."""
    await Access.of(request).administer(request)
    return await open_metrics(hub, request)


async def open_metrics(hub: Hub, request: web.Request) -> web.Response:
    """Return the counters in Prometheus' text format, to whoever reaches it."""
    registry = CollectorRegistry()
    registry.register(_Figures(hub, await hub.elsewhere.figures()))
    return web.Response(
        body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


class _Figures(Collector):
    def __init__(self, hub: Hub, figures: Mapping[str, Any]) -> None:
        self._hub, self._figures = hub, figures

    def collect(self) -> Iterator[Metric]:
        hub, figures = self._hub, self._figures
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"hub_{name}", text, value=figures[name])
        ended = CounterMetricFamily("hub_streams_ended", STREAMS_ENDED, labels=["reason"])
        for reason, number in sorted(figures["streams_ended"].items()):
            ended.add_metric([reason], number)
        yield ended
        for name, text in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"hub_{name}", text)
            histogram.add_metric([], *_cumulated(figures[name]))
            yield histogram
        yield self._requests()
        streams = GaugeMetricFamily("hub_streams", "Open client streams, by kind.", labels=["kind"])
        for kind in StreamKind:
            streams.add_metric([kind], figures["streams"][kind])
        yield streams
        subscriptions = _subscriptions(figures)
        yield GaugeMetricFamily("hub_connections", "Open subscriptions.", value=subscriptions)
        limit = figures["streams_limit"]
        yield GaugeMetricFamily("hub_streams_limit", "Client streams that may be open; 0: no limit.", value=limit)
        yield GaugeMetricFamily("hub_topics", "Exact topics somebody wants.", value=figures["topics"])
        yield GaugeMetricFamily("hub_generations", "Answers being generated.", value=figures["generations"])
        yield GaugeMetricFamily("hub_viewers", "Open streams of answers.", value=figures["viewers"])
        yield GaugeMetricFamily("hub_uptime_seconds", "Seconds since the start.", value=figures["uptime"])
        yield GaugeMetricFamily("hub_processes", "Processes of this hub that answer.", value=figures["processes"])
        yield GaugeMetricFamily("hub_memory_bytes", "Memory of all processes.", value=figures["memory_bytes"])
        yield CounterMetricFamily("hub_cpu_seconds", "Time of processors used by all.", value=figures["cpu_seconds"])
        bounds = log_bounds(hub)
        yield GaugeMetricFamily("hub_log_up", "Whether the log answers.", value=bounds is not None)
        ago = figures["log_answered_seconds_ago"]
        yield GaugeMetricFamily("hub_log_answered_seconds_ago", "Seconds since the log last answered.", value=ago)
        if bounds is not None:
            kept = hub.log.bounds()
            yield GaugeMetricFamily("hub_log_notifications", "Notifications kept.", value=kept.kept)
            yield GaugeMetricFamily("hub_log_bytes", "Bytes kept, everything counted.", value=kept.size)
        yield from self._workers()

    def _requests(self) -> Metric:
        requests = HistogramMetricFamily(
            "hub_http_request_seconds", HTTP_REQUESTS, labels=["method", "route", "status"]
        )
        for what, figures in sorted(self._figures["http_request_seconds"].items()):
            requests.add_metric(what.split(" "), *_cumulated(figures))
        return requests

    def _workers(self) -> Iterator[Metric]:
        """Yield what is told of each process; where one ends, none of these sums becomes less."""
        workers = sorted(self._figures["workers"].items())
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(f"hub_worker_{name}", f"By process: {text}", labels=["worker"])
            for worker, figures in workers:
                counter.add_metric([worker], figures[name])
            yield counter
        for name in OF_WORKERS:
            histogram = HistogramMetricFamily(
                f"hub_worker_{name}", f"By process: {HISTOGRAMS[name]}", labels=["worker"]
            )
            for worker, figures in workers:
                histogram.add_metric([worker], *_cumulated(figures[name]))
            yield histogram
        requests = CounterMetricFamily(
            "hub_worker_http_requests",
            "By process: requests that were answered and opened no stream, by method, route and status.",
            labels=["worker", "method", "route", "status"],
        )
        for worker, figures in workers:
            for what, number in sorted(figures["http_requests"].items()):
                requests.add_metric([worker, *what.split(" ")], number)
        yield requests
        for shown, name in _OF_WORKERS.items():
            kind = CounterMetricFamily if name == "cpu_seconds" else GaugeMetricFamily
            metric = kind(f"hub_worker_{shown}", f"By process, as hub_{shown}.", labels=["worker"])
            for worker, figures in workers:
                metric.add_metric([worker], figures[name])
            yield metric


_OF_WORKERS = {
    **{name: name for name in ("streams", "memory_bytes", "cpu_seconds", "log_answered_seconds_ago")},
    "uptime_seconds": "uptime",
}


def _cumulated(figures: HistogramFigures) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets as Prometheus has them, each with all below it, and the sum."""
    buckets = figures["buckets"]
    return list(zip(buckets, accumulate(map(float, buckets.values())), strict=True)), figures["sum"]
