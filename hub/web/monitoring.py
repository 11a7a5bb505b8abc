"""`/healthz`, `/readyz`, `/notifications/stats` and `/metrics`: how the hub is doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hub.connections.client_stream import SUBSCRIPTIONS, StreamKind
from hub.errors import LogUnavailable, ShuttingDown
from hub.hub import Hub
from hub.metrics import COUNTERS
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
    uptime, processes = figures.pop("uptime"), figures.pop("processes")
    return web.json_response(
        {
            "connections": _subscriptions(figures),
            **figures,
            "log": _log_bounds(hub),
            "draining": hub.draining,
            "processes": processes,
            "uptime": round(uptime, 3),
        }
    )


def _subscriptions(figures: Mapping[str, Any]) -> int:
    """Return how many subscriptions are open, over whatever wire."""
    return sum(figures["streams"][kind] for kind in SUBSCRIPTIONS)


def _log_bounds(hub: Hub) -> dict[str, object] | None:
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
        streams = GaugeMetricFamily("hub_streams", "Open client streams, by kind.", labels=["kind"])
        for kind in StreamKind:
            streams.add_metric([kind], figures["streams"][kind])
        yield streams
        yield GaugeMetricFamily("hub_connections", "Open subscriptions.", value=_subscriptions(figures))
        yield GaugeMetricFamily("hub_topics", "Exact topics somebody wants.", value=figures["topics"])
        yield GaugeMetricFamily("hub_generations", "Answers being generated.", value=figures["generations"])
        yield GaugeMetricFamily("hub_viewers", "Open streams of answers.", value=figures["viewers"])
        yield GaugeMetricFamily("hub_uptime_seconds", "Seconds since the start.", value=figures["uptime"])
        yield GaugeMetricFamily("hub_processes", "Processes of this hub that answer.", value=figures["processes"])
        bounds = _log_bounds(hub)
        yield GaugeMetricFamily("hub_log_up", "Whether the log answers.", value=bounds is not None)
        if bounds is not None:
            kept = hub.log.bounds()
            yield GaugeMetricFamily("hub_log_notifications", "Notifications kept.", value=kept.kept)
            yield GaugeMetricFamily("hub_log_bytes", "Bytes kept, everything counted.", value=kept.size)
